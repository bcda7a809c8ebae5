//! Ten thousand peers' sessions on one node, each on a TCP and HTTP/2 connection of its own, and as many on
//! a bare tonic server beside it: memory of a session, CPU while nobody says anything, how long a drain
//! notice takes to reach everybody.
//!
//! The sessions are opened by several processes (this program, started again). The bare server is this
//! program too: it answers the same call, greets, and passes one notice to everybody.
//!
//! `cargo xtask bench sessions`, or with options: `cargo bench --profile=release --package
//! espalier-orchestrator --bench sessions -- --sessions 10000 --processes 4`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it reports to a terminal"
)]

mod bare;
mod clients;
mod figures;
mod node;
mod served;
#[path = "../support/mod.rs"]
mod support;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::figures::Figures;

#[derive(Debug, Parser)]
#[command(about = "Sessions on one node, beside a bare tonic server")]
struct Options {
    /// How many
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Client processes
    #[arg(long, default_value_t = 4)]
    processes: usize,
    /// Sessions that share a connection; with more than one, only the bare server is measured
    #[arg(long, default_value_t = 1)]
    per_connection: usize,
    /// Seconds without a word
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// Also write the figures to this file, as JSON
    #[arg(long)]
    report: Option<std::path::PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program is when it is started again.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Bare,
    #[command(hide = true)]
    Clients(clients::Clients),
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &options.part {
            Some(Part::Bare) => bare::serve().await,
            Some(Part::Clients(clients)) => clients.run().await,
            None => measure(&options).await,
        }
    })
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let bare = served::measure(bare::start()?, options)
        .await
        .context("the bare server")?;
    if options.per_connection > 1 {
        println!("{}\nbare tonic{bare}", Figures::HEADINGS);
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let node = node::start(dir.path(), options.sessions).await?;
    let node = served::measure(node, options).await.context("the node")?;
    println!("{}", Figures::HEADINGS);
    println!(
        "bare tonic{bare}\nnode      {node}\ndifference{}",
        node.less(&bare)
    );
    if let Some(path) = &options.report {
        let report = serde_json::json!({ "bare": bare.json(), "node": node.json() });
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}
