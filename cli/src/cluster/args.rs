//! The arguments of `espalier cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::certificates::NodeNames;
use crate::args::RecordFormat;
use crate::connection::ConnectionArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a new cluster's key and its first admin token; asks no node
    Init(InitArgs),
    /// Make a certificate authority and the nodes' certificates for mutual TLS; asks no node
    Certs(CertsArgs),
    /// Show nodes, shards and leaders
    Status(StatusArgs),
    /// Add a node that waits to be added
    Add(AddArgs),
    /// Take a node out for good; its id is never used again
    Remove(RemoveArgs),
    /// Have another node lead a shard
    Transfer(TransferArgs),
    /// Move leaders and peers away from a node, before a planned stop
    Drain(DrainArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier cluster init --dir secrets
  export ESPALIER_TOKEN=$(cat secrets/admin.token)

Writes cluster.key and admin.token, both readable by their owner alone; never over files that are there.")]
pub(crate) struct InitArgs {
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier cluster certs --dir secrets --node 1=10.0.0.1 --node 2=10.0.0.2 --node 3=node3.example,10.0.0.3
  espalier cluster certs --dir secrets --node 4=10.0.0.4   # later: with the authority that is there

Writes ca.pem, ca.key, node-N.pem and node-N.key. Only who adds nodes needs ca.key.")]
pub(crate) struct CertsArgs {
    /// Where cluster.key is, and where to write
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// A node's id, and the names and addresses at which the others reach it; repeat it for each node
    #[arg(long = "node", value_name = "ID=HOST[,HOST]", required = true)]
    pub(crate) nodes: Vec<NodeNames>,
    /// How many days the certificates are good for
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier cluster status
  espalier cluster status --format json | jq -r '.shards[] | select(.leader == null) | .shard'
  espalier cluster status --local    # without a majority: what this one node knows")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Show what the node that is asked knows by itself, which may be out of date
    #[arg(long)]
    pub(crate) local: bool,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

/// Whether to wait.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done, and show how far it is on stderr
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait; what is wanted stays wanted
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "wait",
        value_parser = espalier_process::parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier cluster add 10.0.0.4:7301
  espalier cluster add 10.0.0.4:7301 --wait    # until it votes in every shard

The node waits to be added: it has the cluster's key, no `bootstrap` in its [cluster] section, and no data.")]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Where the other nodes reach it
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier cluster drain 2 --wait && espalier cluster remove 2 --wait
  espalier cluster remove 2    # a dead one: as it is

Its process ends by itself if it runs.")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// The node's id
    pub(crate) node: u64,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  espalier cluster transfer 3 --to 2\n  espalier cluster transfer meta --to 1\n\nOnce: leaders that stand unevenly are moved for balance later."
)]
pub(crate) struct TransferArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// The shard's number, or `meta`
    #[arg(value_parser = shard)]
    pub(crate) shard: String,
    /// The id of the node that is to lead it
    #[arg(long, value_name = "NODE")]
    pub(crate) to: u64,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier cluster drain 2 --wait    # until it leads nothing and nobody is attached to it
  espalier cluster drain 2 --undo

It stays drained, also over restarts, until that is taken back. A node that is stopped hands over and sends its peers
away by itself; drain first what has more peers than that takes.")]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// The node's id
    pub(crate) node: u64,
    /// Take it back: the node may lead and be attached to again
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

fn shard(text: &str) -> Result<String, String> {
    if text == "meta" || text.parse::<u16>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err("is neither a shard's number nor `meta`".to_owned())
    }
}
