//! What every Espalier program shares: exit codes, logging, shutdown signals, command-line values.
//!
//! A program's `main` is one call of [`run`]: it parses the arguments, sets logging up (always to
//! stderr: stdout belongs to what the program was asked for), runs the program on a tokio runtime
//! and turns its [`Failure`] into words and an [`ExitCode`]. Scripts depend on the exit codes and on
//! the lines that [`announce`] prints, so both live in one place.
//!
//! There is nothing of Espalier's domain here.

mod announce;
mod bit_rate;
mod duration;
mod exit;
mod failure;
mod logging;
mod run;
mod shutdown;

pub use announce::announce;
pub use bit_rate::{BitRate, ParseBitRateError};
pub use duration::{ParseDurationError, format_duration, parse_duration};
pub use exit::ExitCode;
pub use failure::{Failure, OrFail};
pub use logging::{LogArgs, LogFormat, silence_terminal_logs};
pub use run::run;
pub use shutdown::{ShutdownSignal, shutdown};
