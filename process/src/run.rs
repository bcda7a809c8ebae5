//! The `main` of every program.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::{ExitCode, Failure, LogArgs, LogFormat};

/// How long tasks on blocking threads may hold the process up when the program has ended.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Parses the arguments, sets logging up, runs the program, reports how it ended.
///
/// Wrong arguments end with 64, `--help` and `--version` with 0, and a [`Failure`] with its own
/// code after its words are on stderr (as one JSON object with `--log-format json`).
///
/// ```no_run
/// #[derive(clap::Parser)]
/// struct Args {
///     #[command(flatten)]
///     log: espalier_process::LogArgs,
/// }
///
/// async fn program(_args: Args) -> Result<(), espalier_process::Failure> {
///     espalier_process::shutdown().await;
///     Ok(())
/// }
///
/// fn main() -> std::process::ExitCode {
///     espalier_process::run(|args: &Args| &args.log, program)
/// }
/// ```
pub fn run<A, F, Fut>(log: impl FnOnce(&A) -> &LogArgs, program: F) -> std::process::ExitCode
where
    A: Parser,
    F: FnOnce(A) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(error) => return answer_instead_of_running(&error).into(),
    };
    let log = log(&args).clone();
    match log.init().and_then(|()| block_on(program(args))) {
        Ok(()) => ExitCode::Ok.into(),
        Err(failure) => {
            report(&failure, log.log_format);
            failure.code().into()
        }
    }
}

/// clap exits with 2 by itself; scripts are promised 64.
fn answer_instead_of_running(error: &clap::Error) -> ExitCode {
    // A closed stdout or stderr leaves only the exit code, which says it all.
    let _nobody_reads = error.print();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        ExitCode::Ok
    } else {
        ExitCode::Usage
    }
}

fn block_on<T>(program: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("the runtime did not start").caused_by(&error))?;
    let outcome = runtime.block_on(program);
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}

fn report(failure: &Failure, format: LogFormat) {
    let text = match format {
        LogFormat::Text => format!("error: {failure}"),
        LogFormat::Json => failure.to_json(),
    };
    // A closed stderr leaves only the exit code, which says it all.
    let _nobody_reads = writeln!(std::io::stderr(), "{text}");
}
