//! The command line: a contract that scripts depend on.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use espalier_process::{LogArgs, parse_duration};
use url::Url;

use crate::cluster::ClusterCommand;
use crate::connection::ConnectionArgs;
use crate::supervise::SuperviseArgs;

/// Channels, tokens and a demo for Espalier, the live-video tree CDN.
#[derive(Debug, Parser)]
#[command(name = "espalier", version, after_help = EXAMPLES)]
pub struct Args {
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  espalier demo
  espalier channel create news --origin https://cdn.example/news/master.m3u8
  espalier channel tree news
  espalier token issue --channel news --ttl 1h
  espalier cluster status

Exit codes: 0 done, 1 failed, 64 bad usage, 69 the orchestrator cannot be reached.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list, inspect and delete channels
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Issue tokens for viewers
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make a cluster of nodes, look after it, see who leads what
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Run an orchestrator, a live channel and a dozen peers here, and watch the tree
    Demo(DemoArgs),
    /// Run a program that dies with its parent
    #[command(hide = true)]
    Supervise(SuperviseArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// Create a channel
    Create(CreateArgs),
    /// List the channels
    List(ListArgs),
    /// Show a channel, its origin, its audience and its suspects
    Get(GetArgs),
    /// Delete a channel and end its sessions
    Delete(NameArgs),
    /// Show a channel's trees
    Tree(TreeArgs),
    /// Watch a channel's trees live
    Watch(WatchArgs),
    /// Verify the planner's invariants on the live state; exit 1 with findings
    Check(CheckArgs),
    /// Show what another policy would do, without doing it
    Plan(PlanArgs),
}

/// Creates a channel from an HLS origin.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier channel create news --origin https://cdn.example/news/master.m3u8
  espalier channel create news --origin http://127.0.0.1:8080/index.m3u8 --policy policy.toml
  espalier channel create news --origin http://10.0.0.5/master.m3u8 --signer http://10.0.0.5:7310

A policy file names any of:
  target_roots = 1          # how many peers the CDN feeds, if the audience's upload allows
  max_planned_roots = 20
  max_depth = 12
  overhead_permille = 1200  # wire bytes per 1000 payload bytes
  max_children = 16
  cdn_lease = \"8mbit\"       # what one peer may take from the CDN while its sources fail
  stripes = 1               # trees that each track is cut into, 1 to 8
  privacy = \"any\"           # who may be neighbours: any, same-site, relay-only, same-region
  allow_metered = false     # whether peers on metered connections serve others,
  allow_battery = false     # on battery,
  allow_mobile = false      # on telephones and tablets
  max_planned_moves_per_viewer_hour = 1
  learn_upload = false      # whether uploads are learned from what peers carry, rather than believed
  [cdn_budget_by_region]    # roots at the most, by country or by a number of your own from 1000 on
  DE = 10
  [[sites]]                 # which subnets are one site
  subnet = \"203.0.113.0/24\"
  site = 7
  region = \"DE\"")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// The channel's name: lower-case letters, digits and '-', starting with a letter
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
    /// The HLS master or media playlist
    #[arg(long, value_name = "URL", value_parser = web_url)]
    pub(crate) origin: Url,
    /// What the channel wants of its trees, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Where `espalier-signer` runs for this channel; without it the orchestrator signs
    #[arg(long, value_name = "URL", value_parser = web_url)]
    pub(crate) signer: Option<Url>,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  espalier channel list\n  espalier channel list --format json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier channel get news
  espalier channel get news --format json | jq .suspects")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  espalier channel delete news")]
pub(crate) struct NameArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier channel tree news
  espalier channel tree news --format json | jq 'map(.depth) | max'
  espalier channel tree news --format dot | dot -Tsvg > tree.svg")]
pub(crate) struct TreeArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TreeFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier channel watch news
  espalier channel watch news | tee changes.log   # no terminal: one line a change

Keys: q ends it, arrows scroll.")]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  espalier channel check news && echo sound")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier channel plan news --policy policy.toml
  espalier channel plan news --policy policy.toml --format json | jq .moves

Nothing is changed: the policy is tried on a copy of the channel's trees, with the planner that plans them. What
the file does not name takes its default, as with create; `espalier channel create --help` lists what it may name.")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(value_parser = channel_id)]
    pub(crate) name: String,
    /// The policy to try, as TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: RecordFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Issue a token for a channel's viewers, and print it alone
    Issue(IssueArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier token issue --channel news --ttl 1h
  espalier token issue --channel news --ttl 30d --key issuer.pem   # offline, no orchestrator asked

The key is a PKCS#8 PEM file with an Ed25519 or P-256 private key, whose public key the orchestrator
knows as an issuer's.")]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(long, value_parser = channel_id)]
    pub(crate) channel: String,
    /// How long the token admits viewers, such as 90s, 1h, 7d (at most 30 days)
    #[arg(long, value_parser = token_lifetime)]
    pub(crate) ttl: Duration,
    /// Sign with this private key instead of asking the orchestrator
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  espalier demo
  espalier demo --peers 20 --duration 60s
  espalier demo --nodes 3
  espalier demo --headless --nodes 3 --duration 40s --report report.json

With --nodes 3 or 5, kill a node whose pid is shown (kill -9 PID): the others take over what it led, its peers go to
them, and nobody's picture stops. Give the owner of the channel a try.

Keys: q ends it, arrows scroll, r starts nodes again that were killed. Everything that the demo starts ends with it.

The report has, among others: peers, nodes, stalls, offload; failovers: how often the channel was seen with another
owner than before; longest_gap_ms: from ten seconds after the tree had formed, the longest time for which any
peer's newest whole segment stayed the newest, less a segment's duration.")]
pub(crate) struct DemoArgs {
    /// How many peers watch
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) peers: u16,
    /// How many nodes the orchestrator has: 1, 3 or 5
    #[arg(long, default_value = "1", value_name = "NODES", value_parser = node_count)]
    pub(crate) nodes: u8,
    /// How long to run; without it until q or Ctrl-C (headless: 60s)
    #[arg(long, value_parser = positive_duration)]
    pub(crate) duration: Option<Duration>,
    /// No terminal view: lines on stderr, and exit 1 if the tree never formed
    #[arg(long)]
    pub(crate) headless: bool,
    /// Write what was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Where the live stream comes from
    #[arg(long, value_enum, default_value_t)]
    pub(crate) stream: StreamSource,
}

/// Where the demo's live stream comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum StreamSource {
    /// ffmpeg if it is installed, the sample otherwise
    #[default]
    Auto,
    /// A live encode by ffmpeg
    Ffmpeg,
    /// A few seconds of sample media, looped
    Sample,
}

/// How one record, or a list of them, is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum RecordFormat {
    #[default]
    Text,
    Json,
}

/// How trees are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TreeFormat {
    /// Indented, with peers' figures
    #[default]
    Text,
    /// An array with an object for each (peer, track)
    Json,
    /// For Graphviz
    Dot,
}

fn node_count(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        Ok(_) | Err(_) => Err("a cluster has 1, 3 or 5 nodes".to_owned()),
    }
}

fn channel_id(text: &str) -> Result<String, String> {
    let head = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    let rest = text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if head && rest && text.len() <= 63 {
        Ok(text.to_owned())
    } else {
        Err(
            "a channel's name has 1 to 63 lower-case letters, digits and '-', and starts with a \
             letter"
                .to_owned(),
        )
    }
}

fn web_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err("an http:// or https:// address is needed".to_owned())
    }
}

fn token_lifetime(text: &str) -> Result<Duration, String> {
    const LIMIT: Duration = Duration::from_secs(30 * 86_400);
    let ttl = positive_duration(text)?;
    if ttl < Duration::from_secs(1) || ttl > LIMIT {
        return Err("a token lives for 1s to 30d".to_owned());
    }
    Ok(ttl)
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).map_err(|error| error.to_string())?;
    if span.is_zero() {
        Err("0 is no time at all".to_owned())
    } else {
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_contract_parses() {
        let table: &[&str] = &[
            "channel create news --origin http://127.0.0.1/master.m3u8",
            "channel create news --origin https://cdn/x.m3u8 --policy p.toml --signer http://s:1",
            "channel list",
            "channel get news --format json",
            "channel delete news",
            "channel tree news --format text",
            "channel tree news --format json",
            "channel tree news --format dot",
            "channel watch news",
            "channel check news",
            "token issue --channel news --ttl 1h",
            "token issue --channel news --ttl 1h --key key.pem",
            "demo",
            "demo --peers 12 --duration 60s --headless --report report.json",
            "demo --nodes 1",
            "demo --nodes 3 --headless",
            "demo --nodes 5",
            "--log-format json channel list",
            "channel list --log-format json --endpoint http://127.0.0.1:7300 --token t",
        ];
        for line in table {
            let words = std::iter::once("espalier").chain(line.split(' '));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        let table: &[&str] = &[
            "",
            "chanel list",
            "channel create news",
            "channel create News --origin http://x/",
            "channel create 9news --origin http://x/",
            "channel create news --origin ftp://x/master.m3u8",
            "channel create news --origin master.m3u8",
            "channel tree news --format yaml",
            "channel tree",
            "token issue --channel news",
            "token issue --channel news --ttl 3600",
            "token issue --channel news --ttl 31d",
            "token issue --channel news --ttl 500ms",
            "demo --peers 0",
            "demo --peers 201",
            "demo --nodes 0",
            "demo --nodes 2",
            "demo --nodes many",
            "demo --duration 0s",
            "demo --duration 60",
        ];
        for line in table {
            let words = std::iter::once("espalier").chain(line.split_whitespace());
            assert!(Args::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn a_name_of_63_is_the_longest() {
        assert!(channel_id(&"a".repeat(63)).is_ok());
        assert!(channel_id(&"a".repeat(64)).is_err());
        assert!(channel_id("").is_err());
    }
}
