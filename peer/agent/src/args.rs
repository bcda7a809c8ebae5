//! The command line of `espalier-peer`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use espalier_peer::transport::TransportConfig;
use espalier_peer::{AgentConfig, Circumstances, Device};
use espalier_peer_core::Role;
use espalier_process::{BitRate, LogArgs};

const PLAY_EXAMPLES: &str = "\
Examples:
  espalier-peer play --orchestrator http://127.0.0.1:7300 --channel demo --token \"$TOKEN\" --listen 127.0.0.1:8080
  ESPALIER_ENDPOINT=http://127.0.0.1:7300 ESPALIER_TOKEN=… espalier-peer play --channel demo --listen 127.0.0.1:0 --consumer
  ffplay \"$ESPALIER_URL\"        # the URL that the peer prints when it is ready";

const RELAY_EXAMPLES: &str = "\
Examples:
  espalier-peer relay --orchestrator https://edge.example:7300 --channel demo --token \"$TOKEN\" --upload 200mbit
  espalier-peer relay --channel demo --listen 127.0.0.1:9100    # /stats and /metrics; the rest from the environment";

/// A native Espalier peer: plays a channel for any HLS player, or relays it.
#[derive(Debug, Parser)]
#[command(
    name = "espalier-peer",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Plays a channel: serves it to any HLS player, and to other viewers unless --consumer is given
    #[command(after_help = PLAY_EXAMPLES)]
    Play(PlayArgs),
    /// Relays a channel to other viewers without playing it
    #[command(after_help = RELAY_EXAMPLES)]
    Relay(RelayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlayArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where to serve the channel to players, with /stats and /metrics; port 0 chooses one
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// How much to upload to other viewers at most
    #[arg(long, value_name = "RATE", default_value = "20mbit")]
    upload: BitRate,
    /// Only watch: serve no other viewer
    #[arg(long)]
    consumer: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Where to serve /stats and /metrics
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// How much to upload to viewers at most
    #[arg(long, value_name = "RATE", default_value = "200mbit")]
    upload: BitRate,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The orchestrator; several nodes of one may be named, with commas between them or one by one
    #[arg(
        long,
        value_name = "URL",
        env = "ESPALIER_ENDPOINT",
        value_delimiter = ',',
        required = true
    )]
    orchestrator: Vec<String>,
    /// The channel's name
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// The viewer's token, from `espalier token issue`
    #[arg(long, env = "ESPALIER_TOKEN", hide_env_values = true)]
    token: String,
    /// A track to take, by name; may be repeated [default: the channel's first variant]
    #[arg(long, value_name = "NAME")]
    track: Vec<String>,
    /// A local address for links to other viewers; may be repeated [default: all usable ones]
    #[arg(long, value_name = "IP")]
    bind: Vec<IpAddr>,
    /// A STUN server, as stun:host:port; may be repeated
    #[arg(long, value_name = "URI")]
    stun: Vec<String>,
    /// What this runs on; telephones and tablets serve others only where the channel allows it
    #[arg(long, value_enum)]
    device: Option<DeviceArg>,
    /// Each byte costs money here: serve others only where the channel allows it
    #[arg(long)]
    metered: bool,
    /// This is not plugged in: serve others only where the channel allows it
    #[arg(long)]
    battery: bool,
    /// A PEM file with the certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DeviceArg {
    /// A desktop or a laptop
    Desktop,
    /// A television set or a set-top box
    Tv,
    /// A telephone or a tablet
    Mobile,
    /// A machine that nobody sits at (what a relay is unless told otherwise)
    Server,
}

impl From<DeviceArg> for Device {
    fn from(device: DeviceArg) -> Self {
        match device {
            DeviceArg::Desktop => Self::Desktop,
            DeviceArg::Tv => Self::Tv,
            DeviceArg::Mobile => Self::Mobile,
            DeviceArg::Server => Self::Server,
        }
    }
}

impl Command {
    /// What the arguments ask of the agent and of its transport.
    pub(crate) fn into_configs(self) -> (AgentConfig, TransportConfig) {
        let (common, listen, upload, role) = match self {
            Self::Play(PlayArgs {
                common,
                listen,
                upload,
                consumer,
            }) => {
                let role = if consumer {
                    Role::Consumer
                } else {
                    Role::Contributor
                };
                (common, Some(listen), upload, role)
            }
            Self::Relay(RelayArgs {
                common,
                listen,
                upload,
            }) => (common, listen, upload, Role::Relay),
        };
        let CommonArgs {
            orchestrator,
            channel,
            token,
            track,
            bind,
            stun,
            device,
            metered,
            battery,
            ca,
        } = common;
        let unsaid = if role == Role::Relay {
            Device::Server
        } else {
            Device::Unknown
        };
        let circumstances = Circumstances {
            device: device.map_or(unsaid, Device::from),
            metered,
            on_battery: battery,
        };
        let upload_bps = if role == Role::Consumer {
            0
        } else {
            upload.bits_per_second()
        };
        let agent = AgentConfig {
            authorities: ca,
            role,
            upload_bps,
            circumstances,
            tracks: track,
            listen,
            orchestrators: orchestrator,
            ..AgentConfig::new("", channel, token.trim())
        };
        (
            agent,
            TransportConfig {
                bind,
                stun,
                ..TransportConfig::default()
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("espalier-peer").chain(words.split_whitespace()))
    }

    #[test]
    fn play_and_relay_become_roles_and_budgets() {
        let common = "--orchestrator http://h:1 --channel c --token t";
        let table = [
            (
                format!("play {common} --listen 127.0.0.1:0"),
                Role::Contributor,
                20_000_000,
            ),
            (
                format!("play {common} --listen [::1]:0 --upload 3mbit"),
                Role::Contributor,
                3_000_000,
            ),
            (
                format!("play {common} --listen 127.0.0.1:0 --consumer"),
                Role::Consumer,
                0,
            ),
            (
                format!("relay {common} --log-format json"),
                Role::Relay,
                200_000_000,
            ),
        ];
        for (words, role, upload_bps) in table {
            let (agent, _) = parse(&words).unwrap().command.into_configs();
            assert_eq!(
                (agent.role, agent.upload_bps),
                (role, upload_bps),
                "{words}"
            );
        }
    }

    #[test]
    fn several_nodes_may_be_named() {
        for words in [
            "relay --channel c --token t --orchestrator http://a:1,http://b:1",
            "relay --channel c --token t --orchestrator http://a:1 --orchestrator http://b:1",
        ] {
            let (agent, _) = parse(words).unwrap().command.into_configs();
            assert_eq!(agent.orchestrators, ["http://a:1", "http://b:1"], "{words}");
        }
    }

    #[test]
    fn a_peer_says_what_it_is() {
        let common = "--orchestrator http://h:1 --channel c --token t";
        let plain = Circumstances::default();
        for (words, circumstances) in [
            (format!("play {common} --listen 127.0.0.1:0"), plain),
            (
                format!("relay {common}"),
                Circumstances {
                    device: Device::Server,
                    ..plain
                },
            ),
            (
                format!("play {common} --listen 127.0.0.1:0 --device mobile --metered --battery"),
                Circumstances {
                    device: Device::Mobile,
                    metered: true,
                    on_battery: true,
                },
            ),
        ] {
            let (agent, _) = parse(&words).unwrap().command.into_configs();
            assert_eq!(agent.circumstances, circumstances, "{words}");
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        let table = [
            "",
            "dance",
            "play --channel c --token t --orchestrator http://h:1",
            "play --listen nowhere --channel c --token t --orchestrator http://h:1",
            "play --listen 127.0.0.1:0 --upload much --channel c --token t --orchestrator http://h:1",
            "relay --channel c --token t",
            "relay --consumer --channel c --token t --orchestrator http://h:1",
        ];
        for words in table {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
