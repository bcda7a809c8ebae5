//! The lines on stdout by which a program tells a script that it is ready.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints `KEY=value` on a line of its own on stdout, and flushes.
///
/// A reader that went away is not this program's problem: it logs and goes on.
pub fn announce(key: &str, value: impl Display) {
    if let Err(error) = print(&mut io::stdout().lock(), key, &value) {
        tracing::warn!(key, %error, "nobody reads stdout");
    }
}

fn print(out: &mut impl Write, key: &str, value: &impl Display) -> io::Result<()> {
    writeln!(out, "{key}={value}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_value() {
        let mut out = Vec::new();
        print(&mut out, "ESPALIER_ENDPOINT", &"http://127.0.0.1:7300").unwrap();
        assert_eq!(out, b"ESPALIER_ENDPOINT=http://127.0.0.1:7300\n");
    }
}
