//! One byte range of a `Range` header (RFC 9110, section 14).

use std::ops::Range;

/// What a `Range` header asks of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: there is no header, or one that may be ignored (several ranges, another unit).
    Whole,
    /// One part.
    Part(Range<u64>),
    /// A part that does not exist.
    Unsatisfiable,
}

/// Reads a `Range` header for a body of `length` bytes.
pub(super) fn asked(header: Option<&str>, length: u64) -> Asked {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = spec.split_once('-').map(|(a, b)| (a.trim(), b.trim())) else {
        return Asked::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let range = match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(count) => length.saturating_sub(count)..length,
            None => return Asked::Whole,
        },
        (first, "") => match number(first) {
            Some(first) => first..length,
            None => return Asked::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
            (Some(_), Some(_)) | (Some(_), None) | (None, _) => return Asked::Whole,
        },
    };
    if range.start < range.end {
        Asked::Part(range)
    } else {
        Asked::Unsatisfiable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let table = [
            (None, Asked::Whole),
            (Some(""), Asked::Whole),
            (Some("items=0-1"), Asked::Whole),
            (Some("bytes=0-1,3-4"), Asked::Whole),
            (Some("bytes=5-2"), Asked::Whole),
            (Some("bytes=+1-2"), Asked::Whole),
            (Some("bytes=-"), Asked::Whole),
            (Some("bytes=0-0"), Asked::Part(0..1)),
            (Some("bytes=2-"), Asked::Part(2..10)),
            (Some("bytes=2-99"), Asked::Part(2..10)),
            (Some("bytes=-3"), Asked::Part(7..10)),
            (Some("bytes=-99"), Asked::Part(0..10)),
            (Some("bytes=10-"), Asked::Unsatisfiable),
            (Some("bytes=10-11"), Asked::Unsatisfiable),
            (Some("bytes=-0"), Asked::Unsatisfiable),
            (Some("bytes=0-18446744073709551615"), Asked::Part(0..10)),
        ];
        for (header, expected) in table {
            assert_eq!(asked(header, 10), expected, "{header:?}");
        }
    }
}
