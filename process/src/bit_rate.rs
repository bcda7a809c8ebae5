//! Bit rates as people write them.

use std::fmt;
use std::str::FromStr;

use crate::duration::split_number;

/// Bits per second, written like `20mbit`, `1500kbit`, `2.5gbit` or plain `300000`.
///
/// Units are decimal (1 kbit = 1000 bit), as everywhere in networking, and may be written in any
/// case. Parsing what was displayed gives the same rate.
///
/// ```
/// use espalier_process::BitRate;
/// assert_eq!("1.5mbit".parse::<BitRate>()?.bits_per_second(), 1_500_000);
/// assert_eq!(BitRate::from_bits_per_second(20_000_000).to_string(), "20mbit");
/// # Ok::<(), espalier_process::ParseBitRateError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BitRate(u64);

/// Why a text is no [`BitRate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseBitRateError {
    /// It does not start with a number.
    #[error("`{0}` is no bit rate: write a number and a unit, like 20mbit, 1500kbit or 2gbit")]
    NoNumber(String),
    /// What follows the number is no unit of bits per second.
    #[error("`{0}` is no unit of a bit rate: use bit, kbit, mbit or gbit")]
    UnknownUnit(String),
    /// It is more than 2^64 bit/s, or not a whole number of bits.
    #[error("`{0}` is no whole number of bits per second that fits into 64 bits")]
    NotRepresentable(String),
}

/// Largest first, so that display finds the shortest form.
const UNITS: [(&str, u64); 3] = [
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
];

impl BitRate {
    /// Makes a rate of that many bits per second.
    #[must_use]
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// The rate in bits per second.
    #[must_use]
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for BitRate {
    type Err = ParseBitRateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = split_number(text.trim());
        if number.is_empty() {
            return Err(ParseBitRateError::NoNumber(text.to_owned()));
        }
        let unit = unit.trim().to_ascii_lowercase();
        let scale = match unit.as_str() {
            "" | "bit" => 1,
            other => UNITS
                .iter()
                .find(|(name, _)| *name == other)
                .map(|(_, scale)| *scale)
                .ok_or(ParseBitRateError::UnknownUnit(unit.clone()))?,
        };
        crate::duration::scale_decimal(number, scale)
            .map(Self)
            .ok_or_else(|| ParseBitRateError::NotRepresentable(text.to_owned()))
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, scale) in UNITS {
            if self.0 != 0 && self.0.is_multiple_of(scale) {
                return write!(out, "{}{name}", self.0 / scale);
            }
        }
        write!(out, "{}bit", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let table = [
            ("20mbit", 20_000_000),
            ("1500kbit", 1_500_000),
            ("2gbit", 2_000_000_000),
            ("2GBIT", 2_000_000_000),
            ("0.5gbit", 500_000_000),
            ("1.25mbit", 1_250_000),
            ("64bit", 64),
            ("300000", 300_000),
            (" 1 mbit ", 1_000_000),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bits) in table {
            assert_eq!(
                text.parse::<BitRate>().map(BitRate::bits_per_second),
                Ok(bits),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_the_rest() {
        use ParseBitRateError::{NoNumber, NotRepresentable, UnknownUnit};
        let table = [
            ("", NoNumber(String::new())),
            ("mbit", NoNumber("mbit".into())),
            ("-1mbit", NoNumber("-1mbit".into())),
            ("20mb", UnknownUnit("mb".into())),
            ("20mbit/s", UnknownUnit("mbit/s".into())),
            ("20 m bit", UnknownUnit("m bit".into())),
            ("0.5", NotRepresentable("0.5".into())),
            ("1.0001kbit", NotRepresentable("1.0001kbit".into())),
            ("1..5mbit", NotRepresentable("1..5mbit".into())),
            (".mbit", NotRepresentable(".mbit".into())),
            (
                "18446744073709551616",
                NotRepresentable("18446744073709551616".into()),
            ),
            (
                "18446744074gbit",
                NotRepresentable("18446744074gbit".into()),
            ),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<BitRate>(), Err(error), "{text}");
        }
    }

    #[test]
    fn shows_the_largest_unit_that_is_exact() {
        let table = [
            (0, "0bit"),
            (999, "999bit"),
            (1_000, "1kbit"),
            (1_500_000, "1500kbit"),
            (20_000_000, "20mbit"),
            (2_000_000_000, "2gbit"),
            (2_000_000_001, "2000000001bit"),
        ];
        for (bits, text) in table {
            assert_eq!(BitRate::from_bits_per_second(bits).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn displayed_is_parsed_back(bits: u64) {
            let rate = BitRate::from_bits_per_second(bits);
            prop_assert_eq!(rate.to_string().parse::<BitRate>(), Ok(rate));
        }

        #[test]
        fn never_panics(text: String) {
            let _outcome = text.parse::<BitRate>();
        }
    }
}
