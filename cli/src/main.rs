//! The `espalier` command.

fn main() -> std::process::ExitCode {
    espalier_process::run(|args: &espalier_cli::Args| &args.log, espalier_cli::run)
}
