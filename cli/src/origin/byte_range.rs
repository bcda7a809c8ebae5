//! The `Range` header, as far as a media origin needs it (RFC 9110, section 14).

use std::ops::Range;

/// What of a representation a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All of it: no range was asked, or one that may be ignored.
    Whole,
    /// These bytes.
    Part(Range<usize>),
    /// Bytes that are not there.
    Unsatisfiable,
}

/// Reads a `Range` header for a representation of `length` bytes. Several ranges at once may be
/// ignored by a server, and are.
pub(crate) fn asked(header: Option<&str>, length: usize) -> Asked {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Asked::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Asked::Whole;
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<usize>() {
            Ok(0) => Asked::Unsatisfiable,
            Ok(_) if length == 0 => Asked::Unsatisfiable,
            Ok(suffix) => Asked::Part(length.saturating_sub(suffix)..length),
            Err(_) => Asked::Whole,
        },
        (first, last) => match (first.parse::<usize>(), last) {
            (Ok(first), _) if first >= length => Asked::Unsatisfiable,
            (Ok(first), "") => Asked::Part(first..length),
            (Ok(first), last) => match last.parse::<usize>() {
                Ok(last) if last >= first => Asked::Part(first..length.min(last.saturating_add(1))),
                Ok(_) | Err(_) => Asked::Whole,
            },
            (Err(_), _) => Asked::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read() {
        let table = [
            (None, Asked::Whole),
            (Some("bytes=0-0"), Asked::Part(0..1)),
            (Some("bytes=10-19"), Asked::Part(10..20)),
            (Some("bytes=90-"), Asked::Part(90..100)),
            (Some("bytes=90-1000"), Asked::Part(90..100)),
            (Some("bytes=-10"), Asked::Part(90..100)),
            (Some("bytes=-1000"), Asked::Part(0..100)),
            (Some("bytes=100-"), Asked::Unsatisfiable),
            (Some("bytes=-0"), Asked::Unsatisfiable),
            (Some("bytes=5-4"), Asked::Whole),
            (Some("bytes=0-1,5-6"), Asked::Whole),
            (Some("bytes=x-"), Asked::Whole),
            (Some("bytes="), Asked::Whole),
            (Some("chunks=0-1"), Asked::Whole),
        ];
        for (header, expected) in table {
            assert_eq!(asked(header, 100), expected, "{header:?}");
        }
        assert_eq!(asked(Some("bytes=-1"), 0), Asked::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_is_inside(header: String, first in 0_usize..200, last in 0_usize..200, length in 0_usize..200) {
            for header in [header, format!("bytes={first}-{last}"), format!("bytes=-{last}")] {
                if let Asked::Part(part) = asked(Some(&header), length) {
                    prop_assert!(part.start < part.end && part.end <= length);
                }
            }
        }
    }
}
