//! `EXT-X-PROGRAM-DATE-TIME` values.
//!
//! RFC 3339, and also the offset without a colon (`+0000`) that ffmpeg writes, which stricter readers
//! refuse. A value that cannot be read is no error: its line is kept all the same.

const MS_PER_DAY: i64 = 86_400_000;

/// Reads a date to milliseconds since the Unix epoch.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let date = text.get(..10)?;
    let (year, month, day) = (
        number(date, 0..4)?,
        number(date, 5..7)?,
        number(date, 8..10)?,
    );
    let separated = date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-';
    if !separated || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let rest = text.get(10..)?.strip_prefix(['T', 't', ' '])?;
    let (time, offset_min) = split_offset(rest)?;
    let ms = days_from_civil(year, month, day) * MS_PER_DAY + time_of_day_ms(time)?;
    Some(ms - offset_min * 60_000)
}

/// Writes milliseconds since the Unix epoch as UTC.
pub(super) fn format(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        ms % 1000
    )
}

/// Splits `hh:mm:ss.fffZ` into the time and the offset in minutes.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        // Without an offset the standard leaves it open; UTC is what origins mean.
        return Some((text, 0));
    };
    let (time, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits = &offset[1..];
    let minutes = match digits.len() {
        2 => number(digits, 0..2)? * 60,
        4 => number(digits, 0..2)? * 60 + number(digits, 2..4)?,
        5 if digits.as_bytes()[2] == b':' => number(digits, 0..2)? * 60 + number(digits, 3..5)?,
        _ => return None,
    };
    Some((time, sign * minutes))
}

fn time_of_day_ms(time: &str) -> Option<i64> {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = whole.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next().unwrap_or("00"));
    if parts.next().is_some() || [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    let (hour, minute, second) = (
        number(hour, 0..2)?,
        number(minute, 0..2)?,
        number(second, 0..2)?,
    );
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .fold(0, |ms, b| ms * 10 + i64::from(b - b'0'));
    Some(((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

fn number(text: &str, range: std::ops::Range<usize>) -> Option<i64> {
    let digits = text.get(range)?;
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
}

/// Days since 1970-01-01 of a proleptic Gregorian date, after Howard Hinnant's
/// `chrono-Compatible Low-Level Date Algorithms`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_that_origins_write() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2010-02-19T14:54:23.031+08:00", 1_266_562_463_031),
            ("2010-02-19T14:54:23.031+0800", 1_266_562_463_031),
            ("2010-02-19T06:54:23.031-00:00", 1_266_562_463_031),
            ("2010-02-19T06:24:23.031-00:30", 1_266_562_463_031),
            ("2010-02-19 06:54:23.0319z", 1_266_562_463_031),
            ("2010-02-19T06:54:23", 1_266_562_463_000),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "now",
            "2010-02-19",
            "2010-13-19T00:00:00Z",
            "2010/02/19T00:00:00Z",
            "2010-02-19T24:00:00Z",
            "2010-02-19T0:0:0Z",
            "2010-02-19T00:00:00.xZ",
            "2010-02-19T00:00:00+1:00",
            "2010-02-1€T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_dates_are_read_back(ms in -62_135_596_800_000i64..253_402_300_800_000) {
            prop_assert_eq!(parse(&format(ms)), Some(ms));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            parse(&text);
        }
    }
}
