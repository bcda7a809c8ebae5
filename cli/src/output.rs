//! What the command was asked for, on stdout.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use espalier_process::{Failure, OrFail};

/// Prints a text and a line break to stdout.
///
/// A reader that has seen enough (`| head`) is no failure, so a closed pipe is not one.
///
/// # Errors
///
/// Any other failure to write, such as a full disk.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    ignore_closed(writeln!(io::stdout().lock(), "{text}")).or_fail("cannot write to stdout")
}

/// Prints a value as indented JSON to stdout.
///
/// # Errors
///
/// As [`print`].
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print(serde_json::to_string_pretty(value).or_fail("cannot write JSON")?)
}

/// Says something about the work to whoever watches, on stderr.
pub(crate) fn say(text: impl Display) {
    // Without a reader on stderr there is nobody to say it to.
    let _nobody_reads = writeln!(io::stderr().lock(), "{text}");
}

fn ignore_closed(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
