//! Logging to stderr, as text for people or as JSON for machines.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;

use crate::Failure;

/// What is logged when nobody says otherwise: our own state changes, others' warnings.
const DEFAULT_FILTER: &str = "info,webrtc=warn,rtc=warn,h2=warn,hyper=warn,rustls=warn";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The logging arguments that every program has: `#[command(flatten)]` them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LogArgs {
    /// How log lines on stderr look
    #[arg(
        long,
        value_enum,
        default_value_t,
        global = true,
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a filter such as
    /// `info,espalier_peer=debug`
    #[arg(
        long,
        env = "ESPALIER_LOG",
        value_name = "FILTER",
        global = true,
        help_heading = "Logging"
    )]
    pub log_level: Option<String>,
}

impl LogArgs {
    /// Sets logging up for the whole process. Later calls change nothing.
    ///
    /// # Errors
    ///
    /// A usage failure if the filter cannot be understood.
    pub fn init(&self) -> Result<(), Failure> {
        let filter = self.filter()?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| LogOutput)
            .with_ansi(std::io::stderr().is_terminal());
        // An error only means that a test or an embedding program has set logging up before.
        let _already_set = match self.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        Ok(())
    }

    fn filter(&self) -> Result<EnvFilter, Failure> {
        let text = self.log_level.as_deref().unwrap_or(DEFAULT_FILTER);
        EnvFilter::builder().parse(text).map_err(|error| {
            Failure::usage(format!("`{text}` is no log filter"))
                .caused_by(&error)
                .next("use --log-level info, or one with targets, such as info,espalier_peer=debug")
        })
    }
}

/// True while a live view owns the terminal.
static TERMINAL_TAKEN: AtomicBool = AtomicBool::new(false);

/// Holds log lines back while they would be written over a live view on the terminal.
///
/// Logging to a file or a pipe goes on.
pub fn silence_terminal_logs(silent: bool) {
    TERMINAL_TAKEN.store(silent && io::stderr().is_terminal(), Ordering::Relaxed);
}

/// Standard error, unless a live view is in the way.
struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if TERMINAL_TAKEN.load(Ordering::Relaxed) {
            return Ok(text.len());
        }
        io::stderr().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCode;

    #[test]
    fn filters_are_checked() {
        let table = [
            (None, true),
            (Some("debug"), true),
            (Some("warn,espalier_peer=trace"), true),
            (Some("espalier_peer=loud"), false),
            (Some("a=b=c"), false),
        ];
        for (level, fine) in table {
            let args = LogArgs {
                log_level: level.map(str::to_owned),
                ..LogArgs::default()
            };
            let outcome = args.filter();
            assert_eq!(outcome.is_ok(), fine, "{level:?}");
            if let Err(failure) = outcome {
                assert_eq!(failure.code(), ExitCode::Usage);
            }
        }
    }
}
