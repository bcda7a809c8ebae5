//! Words for the person who waits.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

/// Says a line on stderr.
pub(crate) fn say(text: impl Display) {
    // Without a reader on stderr there is nobody to say it to.
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{text}");
}

/// Shows a time as people read it: `0.4s`, `12.3s`, `3m04s`.
pub(crate) fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 60 {
        format!("{}.{}s", seconds, span.subsec_millis() / 100)
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let table = [
            (0, "0.0s"),
            (480, "0.4s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (184_000, "3m04s"),
        ];
        for (milliseconds, text) in table {
            assert_eq!(time(Duration::from_millis(milliseconds)), text);
        }
    }
}
