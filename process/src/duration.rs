//! Spans of time as people write them.

use std::time::Duration;

/// Why a text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// A number with a unit was expected here.
    #[error("`{0}` is no span of time: write a number and a unit, like 500ms, 60s, 1h or 1h30m")]
    NoNumber(String),
    /// The number has no unit: 60 what?
    #[error("`{0}` has no unit: write {0}s for seconds, or use ms, m, h, d")]
    NoUnit(String),
    /// What follows the number is no unit of time.
    #[error("`{0}` is no unit of time: use ms, s, m, h or d")]
    UnknownUnit(String),
    /// It does not fit, or is finer than a nanosecond.
    #[error("`{0}` is too long, or finer than a nanosecond")]
    NotRepresentable(String),
}

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Units in nanoseconds, largest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400 * SECOND),
    ("h", 3_600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", MILLISECOND),
];

/// Reads a span of time: `500ms`, `60s`, `1.5s`, `1h`, `1h30m`.
///
/// Made to be given to clap as a `value_parser`.
///
/// # Errors
///
/// A [`ParseDurationError`] that says which part is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let mut rest = text.trim();
    let mut nanoseconds: u64 = 0;
    if rest.is_empty() {
        return Err(ParseDurationError::NoNumber(text.to_owned()));
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        if number.is_empty() {
            return Err(ParseDurationError::NoNumber(text.to_owned()));
        }
        let unit_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let term = scale_decimal(number, unit_scale(number, unit)?)
            .ok_or_else(|| ParseDurationError::NotRepresentable(text.to_owned()))?;
        nanoseconds = nanoseconds
            .checked_add(term)
            .ok_or_else(|| ParseDurationError::NotRepresentable(text.to_owned()))?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn unit_scale(number: &str, unit: &str) -> Result<u64, ParseDurationError> {
    if unit.is_empty() {
        return Err(ParseDurationError::NoUnit(number.to_owned()));
    }
    UNITS
        .iter()
        .find(|(name, _)| *name == unit.to_ascii_lowercase())
        .map(|(_, scale)| *scale)
        .ok_or_else(|| ParseDurationError::UnknownUnit(unit.to_owned()))
}

/// Shows a span of time the way [`parse_duration`] reads it, with at most the two largest units.
///
/// Anything below a millisecond is cut off.
#[must_use]
pub fn format_duration(span: Duration) -> String {
    let mut rest = span.as_nanos();
    let mut shown = Vec::new();
    for (name, scale) in UNITS {
        let scale = u128::from(scale);
        if rest >= scale && shown.len() < 2 {
            shown.push(format!("{}{name}", rest / scale));
            rest %= scale;
        } else if !shown.is_empty() {
            break;
        }
    }
    if shown.is_empty() {
        "0s".to_owned()
    } else {
        shown.concat()
    }
}

/// Splits a text behind its leading decimal number.
pub(crate) fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Multiplies a decimal number with a scale, exactly: `None` if the result is not a whole number
/// that fits. Floating point would turn 0.1 gbit into something else.
pub(crate) fn scale_decimal(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut sum = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.chars() {
        let digit = u64::from(digit.to_digit(10)?);
        if digit != 0 && !place.is_multiple_of(10) {
            return None;
        }
        place /= 10;
        sum = sum.checked_add(digit.checked_mul(place)?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let table = [
            ("500ms", 500),
            ("60s", 60_000),
            ("1.5s", 1_500),
            ("0.25ms", 0),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1H", 3_600_000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
        ];
        for (text, milliseconds) in table {
            assert_eq!(
                parse_duration(text).unwrap().as_millis(),
                milliseconds,
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_the_rest() {
        use ParseDurationError::{NoNumber, NoUnit, NotRepresentable, UnknownUnit};
        let table = [
            ("", NoNumber(String::new())),
            ("soon", NoNumber("soon".into())),
            ("-1s", NoNumber("-1s".into())),
            ("60", NoUnit("60".into())),
            ("1h30", NoUnit("30".into())),
            ("1year", UnknownUnit("year".into())),
            ("1s,", NoNumber("1s,".into())),
            ("99999999999d", NotRepresentable("99999999999d".into())),
            ("200000d100000d", NotRepresentable("200000d100000d".into())),
            ("0.0000000001s", NotRepresentable("0.0000000001s".into())),
        ];
        for (text, error) in table {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn shows_the_two_largest_units() {
        let table = [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1s500ms"),
            (60_000, "1m"),
            (3_600_000, "1h"),
            (5_400_000, "1h30m"),
            (86_400_000 + 3_600_000 + 60_000, "1d1h"),
            (3_601_000, "1h"),
        ];
        for (milliseconds, text) in table {
            assert_eq!(format_duration(Duration::from_millis(milliseconds)), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _outcome = parse_duration(&text);
        }

        #[test]
        fn seconds_come_back(seconds in 0_u64..3_600) {
            let span = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(span)), Ok(span));
        }
    }
}
