//! The data path's benchmark: what relaying costs here, next to the bare `webrtc` crate doing the
//! same; what happens on a path that loses; how long a link takes to open.
//!
//! Not a test: it measures the machine too. Each relay run has three processes (source, relay, all
//! children), so that the relay's CPU time is its own. `--help` says how to run it.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark's result goes to standard output"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not expected fails the run"
)]

mod bare;
mod conductor;
mod connect;
mod loss;
mod meter;
mod node;
mod proxy;
mod shell;
mod stream;
mod wire;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde::Serialize;

use self::conductor::{Cell, Run};
use self::connect::Times;
use self::loss::Outcome;
use self::node::{NodeArgs, Stack};

/// Measures the data path.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo bench --profile release -p espalier-peer --bench datapath
  cargo bench --profile release -p espalier-peer --bench datapath -- --json figures.json relay
  cargo bench --profile release -p espalier-peer --bench datapath -- loss --seconds 60
  cargo bench --profile release -p espalier-peer --bench datapath -- connect --links 100")]
struct Args {
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Worker threads of each process; 0: everything on its main thread.
    #[arg(long, default_value_t = 2, global = true)]
    workers: usize,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Receive once, send to each child: CPU, memory, gaps, next to the bare crate.
    Relay(RelayArgs),
    /// A 6 Mbit/s stream over 40 ms round trip with loss: stalls, bytes from standby and CDN.
    Loss(LossArgs),
    /// From the offer to open channels.
    Connect(ConnectArgs),
    /// One process of a run.
    #[command(hide = true)]
    Node(NodeArgs),
}

#[derive(Debug, Clone, Parser)]
struct RelayArgs {
    /// How long each run streams.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The streams' rates, Mbit/s.
    #[arg(long, value_delimiter = ',', default_values_t = [6, 50])]
    mbit: Vec<u64>,
    /// How many children.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8])]
    children: Vec<u64>,
    /// How often each run is done, the stacks in turn; the one of median CPU time counts.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Only this stack.
    #[arg(long)]
    stack: Option<Stack>,
}

#[derive(Debug, Clone, Parser)]
struct LossArgs {
    /// How long each run streams.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The stream's rate, Mbit/s.
    #[arg(long, default_value_t = 6)]
    mbit: u64,
    /// The share of datagrams lost, each way.
    #[arg(long, default_value_t = 0.01)]
    loss: f64,
}

#[derive(Debug, Clone, Parser)]
struct ConnectArgs {
    /// How many links, one after the other.
    #[arg(long, default_value_t = 20)]
    links: usize,
    /// The address that our links bind.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
struct Figures {
    relay: Vec<Cell>,
    bare_link_under_loss_mbit_per_second: Option<f64>,
    loss: Vec<Outcome>,
    connect: Vec<Times>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match args.workers {
        0 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        workers => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()?,
    };
    runtime.block_on(measure(args))
}

async fn measure(args: Args) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    match args.what {
        Some(What::Node(node)) => return node::run(node).await,
        Some(What::Relay(relay)) => measure_relay(&relay, args.workers, &mut figures).await?,
        Some(What::Loss(loss)) => measure_loss(&loss, &mut figures).await?,
        Some(What::Connect(connect)) => measure_connect(&connect, &mut figures).await?,
        None => {
            measure_connect(&ConnectArgs::parse_from([""]), &mut figures).await?;
            measure_relay(&RelayArgs::parse_from([""]), args.workers, &mut figures).await?;
            measure_loss(&LossArgs::parse_from([""]), &mut figures).await?;
        }
    }
    let json = serde_json::to_string_pretty(&figures)?;
    match args.json {
        Some(file) => std::fs::write(file, json)?,
        None => println!("\n{json}"),
    }
    Ok(())
}

async fn measure_relay(
    args: &RelayArgs,
    workers: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    println!(
        "\nrelay, {} s a run, {} runs: the median one, and the range of its first column\n\
         Mbit/s children stack            CPU-s/Gbit (least-most)  CPU %  peak MiB  gaps>100ms  \
         longest ms  delivered  faults",
        args.seconds,
        args.repeat.max(1)
    );
    for &mbit in &args.mbit {
        for &children in &args.children {
            let run = Run {
                stack: Stack::Bare,
                children,
                bits_per_second: mbit * 1_000_000,
                seconds: args.seconds,
                workers,
            };
            for cell in measure_stacks(args, run).await? {
                print_cell(&cell);
                figures.relay.push(cell);
            }
        }
    }
    Ok(())
}

/// Measures the stacks in turn, so that what else the machine does meets them all alike.
async fn measure_stacks(args: &RelayArgs, run: Run) -> anyhow::Result<Vec<Cell>> {
    let mut stacks = vec![Stack::Bare, Stack::BareVerifying, Stack::Ours];
    stacks.retain(|stack| args.stack.is_none_or(|only| only == *stack));
    let mut runs = vec![Vec::new(); stacks.len()];
    for _ in 0..args.repeat.max(1) {
        for (stack, cells) in stacks.iter().zip(&mut runs) {
            cells.push(
                Run {
                    stack: *stack,
                    ..run
                }
                .measure()
                .await?,
            );
        }
    }
    Ok(runs.into_iter().filter_map(Cell::median).collect())
}

fn print_cell(cell: &Cell) {
    println!(
        "{:>6} {:>8} {:<15} {:>10.3} ({:>5.3}-{:>5.3}) {:>6.1} {:>9.1} {:>11} {:>11.0} {:>9.1}% {:>7}",
        cell.mbit_per_second,
        cell.children,
        cell.stack,
        cell.relay_cpu_seconds_per_gbit,
        cell.least_per_gbit,
        cell.most_per_gbit,
        cell.relay_cpu_percent,
        cell.relay_peak_rss_mib,
        cell.gaps_over_100_ms,
        cell.longest_gap_ms,
        cell.delivered * 100.0,
        cell.faults,
    );
}

async fn measure_loss(args: &LossArgs, figures: &mut Figures) -> anyhow::Result<()> {
    println!(
        "\nloss, {} Mbit/s over 40 ms round trip, {} s a run",
        args.mbit, args.seconds
    );
    let bare = loss::bare_link(args.seconds.min(20), args.loss).await?;
    println!(
        "a bare link carries {bare:.1} Mbit/s with {} % lost each way",
        args.loss * 100.0
    );
    figures.bare_link_under_loss_mbit_per_second = Some(bare);
    println!(
        "{:<32} objects missed stalls stalled-ms  parent-MB standby-MB cdn-MB dup-MB  longest-ms",
        "case"
    );
    for standby_loss in [0.0, args.loss] {
        let rate = args.mbit * 1_000_000;
        let seen = Box::pin(loss::engine(rate, args.seconds, args.loss, standby_loss)).await?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "{:<32} {:>7} {:>6} {:>6} {:>10.0} {:>10.1} {:>10.1} {:>6.1} {:>6.1} {:>11.0}",
            seen.case,
            seen.objects,
            seen.objects_missed,
            seen.stalls,
            seen.stalled_ms,
            megabytes(seen.from_parent),
            megabytes(seen.from_standby),
            megabytes(seen.from_cdn),
            megabytes(seen.duplicates),
            seen.longest_gap_ms,
        );
        figures.loss.push(seen);
    }
    Ok(())
}

async fn measure_connect(args: &ConnectArgs, figures: &mut Figures) -> anyhow::Result<()> {
    println!(
        "\noffer to open, both ends, {} links\nstack   p50 ms   p95 ms   max ms",
        args.links
    );
    for times in [
        connect::bare(args.links).await?,
        connect::ours(args.bind, args.links).await?,
    ] {
        println!(
            "{:<5} {:>8.1} {:>8.1} {:>8.1}",
            times.stack, times.p50_ms, times.p95_ms, times.max_ms
        );
        figures.connect.push(times);
    }
    Ok(())
}
