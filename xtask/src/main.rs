//! The project's two commands, and what they share: `cargo xtask demo` and `cargo xtask test`.
//!
//! Both set up what is missing, after saying what and why; neither skips anything silently. There is no
//! other list of checks: `.ci/run` calls `cargo xtask test`.

mod bench;
mod cargo;
mod console;
mod demo;
mod pages;
mod picture;
mod purity;
mod runner;
mod soak;
mod steps;
mod tools;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Espalier's demo, checks and benchmarks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo
  cargo xtask demo --peers 20 --duration 2m
  cargo xtask test
  cargo xtask test --only lint
  cargo xtask bench datapath
  cargo xtask soak --minutes 10";

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything and run the demo; arguments go to `espalier demo`
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every check: formatting, lints, docs, tests, licences, purity, end to end
    Test(runner::TestArgs),
    /// Run the benchmarks, or one of them
    Bench {
        /// Its name; without one, all
        name: Option<String>,
        /// Only name them
        #[arg(long)]
        list: bool,
    },
    /// Play clusters from fresh seeds in the simulator; fails if one violates something
    Soak(soak::SoakArgs),
    /// Make the README's picture of the running demo anew; needs tmux
    Picture {
        /// How many seconds after its start
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(10..=600))]
        after: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Demo { arguments } => demo::run(&arguments),
        Command::Test(args) => runner::run(&args),
        Command::Bench { list: true, .. } => bench::list(),
        Command::Bench { name, list: false } => bench::run(name.as_deref()),
        Command::Soak(args) => soak::run(&args),
        Command::Picture { after } => picture::take(Duration::from_secs(after)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::say(format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_demo_takes_every_argument_of_its_own() {
        let words = ["xtask", "demo", "--peers", "3", "--headless", "--help"];
        let Command::Demo { arguments } = Args::try_parse_from(words).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(arguments, words[2..]);
    }
}
