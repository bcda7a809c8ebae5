//! The orchestrator node's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use espalier_orchestrator::{Node, NodeConfig, StartError};
use espalier_process::{Failure, LogArgs, OrFail as _, announce, run, shutdown};

const EXAMPLES: &str = "\
Examples:
  Try it out, on 127.0.0.1:7300, with temporary data:
    espalier-orchestrator --dev

  On any free port, with logs for machines:
    espalier-orchestrator --dev --listen 127.0.0.1:0 --log-format json

  In earnest:
    espalier-orchestrator --config /etc/espalier/node.toml

When it serves, it prints ESPALIER_ENDPOINT=… and ESPALIER_TOKEN=… on stdout, each on a line of its own.

Exit codes: 0 ended when asked to, 1 failed, 64 bad usage or configuration, or the node has to join anew.";

/// Trains the viewers of live streams into trees: one node of the control plane.
#[derive(Debug, Parser)]
#[command(name = "espalier-orchestrator", version, after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("mode").required(true).args(["config", "dev"]))]
struct Args {
    /// Run with this configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Run one node for trying things out: temporary data, no TLS
    #[arg(long)]
    dev: bool,

    /// With --dev: where to serve peers and the API (default 127.0.0.1:7300)
    #[arg(long, value_name = "ADDR", requires = "dev", conflicts_with = "config")]
    listen: Option<SocketAddr>,

    /// With --dev: where to serve /metrics, /ready and /live (default: nowhere)
    #[arg(long, value_name = "ADDR", requires = "dev", conflicts_with = "config")]
    admin_listen: Option<SocketAddr>,

    #[command(flatten)]
    log: LogArgs,
}

fn main() -> std::process::ExitCode {
    run(|args: &Args| &args.log, program)
}

async fn program(args: Args) -> Result<(), Failure> {
    let config = configuration(&args)?;
    let advice = Advice::of(&config);
    // Caught from here on, so that a signal during the start is not lost.
    let mut asked_to_end = std::pin::pin!(shutdown());
    // A node that waits for others, or to be added to a cluster, may wait for long.
    let node = tokio::select! {
        node = Box::pin(Node::start(config)) => node.map_err(|error| advice.on_start(&error))?,
        signal = &mut asked_to_end => {
            tracing::info!(?signal, "the node ends before it has begun");
            return Ok(());
        }
    };
    announce("ESPALIER_ENDPOINT", node.endpoint());
    if let Some(token) = node.admin_token() {
        announce("ESPALIER_TOKEN", token);
    }
    tracing::info!(address = %node.address(), admin = ?node.admin_address(), "the node serves");
    let removed = tokio::select! {
        signal = asked_to_end => {
            tracing::info!(?signal, "the node ends");
            false
        }
        () = node.removed() => true,
    };
    node.shutdown().await;
    if removed {
        return Err(advice.on_removal());
    }
    Ok(())
}

fn configuration(args: &Args) -> Result<NodeConfig, Failure> {
    let Some(path) = &args.config else {
        let mut config = NodeConfig::dev();
        config.listen = args.listen.unwrap_or(config.listen);
        config.admin_listen = args.admin_listen;
        return Ok(config);
    };
    NodeConfig::from_toml_file(path)
        .or_usage(format!("{} cannot be used", path.display()))
        .map_err(|failure| failure.next("see deploy/node.toml for every key that there is"))
}

/// What to do about a node that does not start, or was removed.
struct Advice {
    /// Where the node's part in its cluster is kept.
    data: PathBuf,
    /// Where the other nodes reach it; `None`: it is a cluster of one.
    advertise: Option<String>,
}

impl Advice {
    fn of(config: &NodeConfig) -> Self {
        let data_dir = config.data_dir.clone().unwrap_or_default();
        let place = config.cluster.as_ref();
        Self {
            data: data_dir.join("cluster"),
            advertise: place.map(|place| place.advertise.clone()),
        }
    }

    fn on_start(&self, error: &StartError) -> Failure {
        let failure = match error {
            StartError::Tls(_) => Failure::usage("the node did not start"),
            // Trying again would not help: the service's unit must not.
            StartError::Cluster(cause) if cause.needs_a_new_id() => {
                Failure::usage("the node did not start")
            }
            StartError::Store(_)
            | StartError::Temporary(_)
            | StartError::Cluster(_)
            | StartError::Secrets(_)
            | StartError::Listen { .. }
            | StartError::Threads(_)
            | StartError::Issuer(_)
            | StartError::Reflection(_) => Failure::failed("the node did not start"),
        };
        let failure = failure.caused_by(error);
        match error {
            StartError::Listen { address, .. } => failure.next(format!(
                "stop what listens on {address}, or choose another address (--listen with --dev)"
            )),
            StartError::Cluster(cause) if cause.needs_a_new_id() => failure.next(self.new_id()),
            StartError::Store(_)
            | StartError::Temporary(_)
            | StartError::Cluster(_)
            | StartError::Secrets(_)
            | StartError::Tls(_)
            | StartError::Threads(_)
            | StartError::Issuer(_)
            | StartError::Reflection(_) => failure,
        }
    }

    fn on_removal(&self) -> Failure {
        Failure::usage("the node has ended")
            .because("it was removed from its cluster, which uses no id twice")
            .next(self.new_id())
    }

    /// How a node gets a new id; nothing is deleted on the way.
    fn new_id(&self) -> String {
        let data = self.data.display();
        match &self.advertise {
            Some(advertise) => format!(
                "to have it join under a new id: `espalier cluster status` at another node, and `espalier cluster \
                 remove ID` if the old id is still listed; `mv {data} {data}.old`; take `bootstrap` out of this \
                 node's configuration; start it; `espalier cluster add {advertise}`"
            ),
            None => format!(
                "put a backup in its place: `mv {data} {data}.damaged`, and copy the backup's there. Without one, \
                 the node starts empty once {data} is out of the way: its channels have to be made again"
            ),
        }
    }
}
