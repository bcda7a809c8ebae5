//! Logging to stderr, as text for people or as JSON for machines.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::Failure;

/// What is logged of others: their warnings, and only the errors of the WebRTC crates, which warn about
/// what is everyday business to them.
const OTHERS: &str = "warn,openraft=error,rtc=error,webrtc=error";

/// What is logged of ours when nobody says otherwise: state changes.
const OURS: &str = "info";

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

    /// What is logged: off, error, warn, info, debug or trace for Espalier's own parts [default:
    /// info], or a whole filter such as `warn,espalier_peer=debug`
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
        let text = self.log_level.as_deref().unwrap_or(OURS).trim();
        EnvFilter::builder()
            .parse(whole_filter(text))
            .map_err(|error| {
                Failure::usage(format!("`{text}` is no log filter"))
                    .caused_by(&error)
                    .next(
                        "use --log-level info, or a whole filter, such as warn,espalier_peer=debug",
                    )
            })
    }
}

/// A level alone is about our own crates: at `debug` an HTTP/2 library would drown them.
fn whole_filter(text: &str) -> String {
    match text.parse::<LevelFilter>() {
        Ok(level) => format!("{OTHERS},espalier={level}"),
        Err(_) => text.to_owned(),
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
    fn a_level_alone_is_about_our_own_crates() {
        let table = [
            (
                "debug",
                "warn,openraft=error,rtc=error,webrtc=error,espalier=debug",
            ),
            (
                "OFF",
                "warn,openraft=error,rtc=error,webrtc=error,espalier=off",
            ),
            ("warn,h2=debug", "warn,h2=debug"),
            ("espalier_peer=trace", "espalier_peer=trace"),
        ];
        for (text, filter) in table {
            assert_eq!(whole_filter(text), filter);
        }
    }

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
