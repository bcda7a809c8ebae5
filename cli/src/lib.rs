//! The `espalier` command: channels, tokens, clusters, and the demo.
//!
//! A library so that its parts can be tested; `main.rs` is one call. Everything here is a client: the
//! command decides nothing about trees, it asks and shows. What it prints on stdout is what was
//! asked for and nothing else; words about it go to stderr.

mod args;
mod channel;
mod cluster;
mod connection;
mod demo;
mod origin;
mod output;
mod policy;
mod status;
mod supervise;
mod terminal;
mod token;
mod topology;

pub use args::Args;

use args::Command;
use espalier_process::Failure;

/// Runs the command that the arguments name.
///
/// # Errors
///
/// A failure in words, with the exit code that scripts are promised.
pub async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Channel(command) => channel::run(command).await,
        Command::Cluster(command) => cluster::run(command).await,
        Command::Token(command) => token::run(command).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Supervise(options) => Err(supervise::run(&options)),
    }
}
