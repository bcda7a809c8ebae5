//! Joins that three nodes commit, with their disks synced, and beside them what etcd commits on the same
//! disks in the same run.
//!
//! A join is timed from its request on an open session until the peer has its assignment *and* its parent
//! has been told of it, both as received here; every peer leaves the tree again before its next join, which
//! is a commit too and is not counted. etcd is given one put of 100 bytes for each join, as a plain design
//! would. Peers, nodes, etcd's members and both clients share this machine.
//!
//! A cold join is that of a peer that was not there before: a TLS connection, a session, the token checked, a
//! place; it leaves for good afterwards.
//!
//! `cargo xtask bench joins`, or with options: `cargo bench --profile=release --package espalier-orchestrator
//! --bench joins -- --seconds 20 --in-flight 1,64,1024 --without-etcd`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it reports to a terminal"
)]

mod audience;
mod etcd;
mod nodes;
mod rounds;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;

use crate::audience::{Audience, join_cold};
use crate::rounds::{Round, Rounds};

#[derive(Debug, Parser)]
#[command(about = "Joins committed per second by three nodes, beside etcd's puts")]
struct Options {
    /// Seconds of each round
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Joins in flight, a round each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1_024])]
    in_flight: Vec<usize>,
    /// Cold joins in flight, a round each
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    cold_in_flight: Vec<usize>,
    /// Leave etcd out
    #[arg(long)]
    without_etcd: bool,
    /// Also write the figures to this file, as JSON
    #[arg(long)]
    report: Option<std::path::PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let rounds = Rounds {
        length: Duration::from_secs(options.seconds),
        in_flight: options.in_flight.clone(),
    };
    let cold = Rounds {
        in_flight: options.cold_in_flight.clone(),
        ..rounds.clone()
    };
    let mut report = vec![("joins", joins(&dir.path().join("open"), &rounds).await?)];
    report.push(("cold", cold_joins(&dir.path().join("cold"), &cold).await?));
    if !options.without_etcd {
        report.push(("etcd", etcd::puts(dir.path(), &rounds).await?));
    }
    println!("{}", Round::HEADINGS);
    for (whose, rounds) in &report {
        for round in rounds {
            println!("{whose:<10}{round}");
        }
    }
    if let Some(path) = &options.report {
        let report: serde_json::Map<_, _> = report
            .iter()
            .map(|(whose, rounds)| {
                let rounds = rounds.iter().map(Round::json).collect();
                ((*whose).to_owned(), serde_json::Value::Array(rounds))
            })
            .collect();
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

async fn joins(dir: &Path, rounds: &Rounds) -> anyhow::Result<Vec<Round>> {
    std::fs::create_dir(dir)?;
    let most = rounds.in_flight.iter().copied().max().unwrap_or(1);
    let cluster = nodes::Cluster::start(dir, false).await?;
    let audience = Audience::open(&cluster, most).await?;
    rounds.run(|worker| audience.join(worker)).await
}

async fn cold_joins(dir: &Path, rounds: &Rounds) -> anyhow::Result<Vec<Round>> {
    std::fs::create_dir(dir)?;
    let most = rounds.in_flight.iter().copied().max().unwrap_or(1);
    let cluster = nodes::Cluster::start(dir, true).await?;
    let _contributors = Audience::open(&cluster, most).await?;
    let next = AtomicUsize::new(0);
    let join = |_worker| join_cold(&cluster, next.fetch_add(1, Ordering::Relaxed));
    rounds.run(join).await
}
