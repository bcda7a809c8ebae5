//! What is played: an audience, a network, a channel and what happens to them, as a TOML file says.
//!
//! Every distribution in the file names where it was published. The built-in scenarios are files too, in
//! `orchestrator/sim/scenarios/`.

mod load;

pub use load::ScenarioError;

use serde::Deserialize;

use super::distribution::Published;

/// A scenario, as its file says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, as in reports.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// Viewers at the beginning.
    pub peers: u32,
    /// How long it is measured.
    pub seconds: u32,
    /// How long the audience comes and goes before that.
    #[serde(default = "default_warm_seconds")]
    pub warm_seconds: u32,
    /// How long before that the first viewers came.
    #[serde(default = "default_past_seconds")]
    pub past_seconds: u32,
    /// What is watched.
    pub channel: Channel,
    /// What lies between the peers.
    pub network: Network,
    /// Which of them can connect.
    #[serde(default)]
    pub nat: Nat,
    /// Who watches.
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
    /// How many come over time.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// A part of the audience vanishes.
    pub loss: Option<Loss>,
    /// Peers claim another upload than they have.
    pub wrong_capacity: Option<WrongCapacity>,
}

/// The channel and the policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Payload bit/s of each track, and which share of the viewers begins with it.
    #[serde(rename = "track")]
    pub tracks: Vec<Track>,
    /// Wire bytes per payload byte, per mille.
    pub overhead_permille: u32,
    /// Children at the most.
    pub max_children: u32,
    /// A relay's children at the most; without it as many as a viewer's.
    #[serde(default)]
    pub max_relay_children: Option<u32>,
    /// Depth at the most.
    #[serde(default = "default_max_depth")]
    pub max_depth: u32,
    /// Wanted roots for each million viewers, at least one a track.
    pub target_roots_per_million: u32,
    /// Into how many stripes each track is cut.
    #[serde(default = "one")]
    pub stripes: u8,
    /// How many viewers in a hundred change the track each minute.
    #[serde(default)]
    pub switch_percent_per_minute: f64,
}

/// A track.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Track {
    /// Its name.
    pub name: String,
    /// Payload bit/s.
    pub rate_bps: u64,
    /// Of the viewers, how many begin with it.
    #[serde(default = "whole")]
    pub share: f64,
}

/// Propagation, access and what takes how long.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How many regions; the audience is spread over them by Zipf's law.
    pub regions: u16,
    /// Providers in a region, spread likewise.
    pub providers: u16,
    /// One way within a region, milliseconds.
    pub near_ms: f64,
    /// One way to the farthest region, milliseconds.
    pub far_ms: f64,
    /// What a peer's access adds one way, milliseconds.
    pub access_ms: Published,
    /// From being told a parent to the first byte, without the way there and back.
    pub setup_ms: u32,
    /// From a source's silence to asking elsewhere.
    pub detection_ms: u32,
    /// From asking a standby that is dead to asking the CDN.
    pub standby_patience_ms: u32,
    /// From asking the CDN to its first byte.
    pub cdn_ms: u32,
    /// What is ahead of the playhead when all goes well.
    pub buffer_ms: u32,
    /// Receiving and checking a chunk, before it is passed on.
    pub processing_ms: f64,
    /// Bytes of a chunk.
    #[serde(default = "default_chunk")]
    pub chunk_bytes: u32,
    /// Where these were published, or that they are assumed.
    pub source: String,
}

/// NAT classes of the viewers, and which pairs connect.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nat {
    /// The share behind port-restricted NATs.
    pub port_restricted: f64,
    /// The share behind symmetric ones.
    pub symmetric: f64,
    /// The share without UDP.
    pub no_udp: f64,
    /// How many of the pairs that could connect do not, per mille.
    pub failing_permille: u32,
    /// Where these were published, or that they are assumed.
    pub source: String,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            port_restricted: 0.0,
            symmetric: 0.0,
            no_udp: 0.0,
            failing_permille: 0,
            source: "all can connect".to_owned(),
        }
    }
}

/// A kind of viewer, or the channel's relays.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What part of the audience it is in the steady state; of relays: nothing.
    #[serde(default)]
    pub share: f64,
    /// So many relays, which are there from the beginning to the end, for each million viewers.
    #[serde(default)]
    pub relays_per_million: u32,
    /// Its machine.
    #[serde(default)]
    pub device: Device,
    /// How long one stays, seconds.
    pub session: Published,
    /// Which part of it uploads nothing.
    pub consumers: f64,
    /// Wire bit/s of the others' uplinks.
    pub upload: Published,
    /// Which part of an uplink is offered.
    pub usable: f64,
    /// Which part pays for what it sends.
    #[serde(default)]
    pub metered: f64,
    /// Which part runs on a battery.
    #[serde(default)]
    pub on_battery: f64,
}

/// A viewer's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// It did not say.
    #[default]
    Unknown,
    /// A desktop or laptop computer.
    Desktop,
    /// A television or set-top box.
    Tv,
    /// A phone or tablet.
    Mobile,
    /// A machine that is always on.
    Server,
}

/// How many come over time; without it as many as go.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Arrivals {
    /// A crowd that comes at once.
    pub flash: Option<Flash>,
    /// The audience's size over a day.
    pub day: Option<Day>,
    /// Everybody comes at first.
    pub premiere: Option<Premiere>,
}

/// All come at first, before the audience warms, and each who goes is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Premiere {
    /// Over how long they come.
    pub over_seconds: u32,
}

/// A crowd.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flash {
    /// When it begins, after the beginning of the measurement.
    pub at_seconds: u32,
    /// Over how long.
    pub over_seconds: u32,
    /// How many come.
    pub peers: u32,
}

/// A day of arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Day {
    /// The evening's arrivals, as a multiple of the night's.
    pub ratio: f64,
    /// How long the day is, seconds.
    pub seconds: u32,
}

/// Who vanishes, and when.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// When, after the beginning of the measurement.
    pub at_seconds: u32,
    /// What it is that fails.
    pub of: Lost,
    /// Of the audience, how much about: the region, or the providers, whose share comes nearest.
    pub share: f64,
}

/// What vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// A region.
    Region,
    /// Providers, wherever their peers are.
    Providers,
}

/// Peers claim another upload than they have.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongCapacity {
    /// By at most which part, up or down.
    pub error: f64,
    /// How long an uplink is full before that is learned.
    pub learned_after_seconds: u32,
}

fn default_warm_seconds() -> u32 {
    300
}

fn default_past_seconds() -> u32 {
    86_400
}

fn default_max_depth() -> u32 {
    64
}

fn default_chunk() -> u32 {
    61_440
}

fn one() -> u8 {
    1
}

fn whole() -> f64 {
    1.0
}
