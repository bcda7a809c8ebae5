//! What an agent is told once, at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use espalier_peer_core::{PeerId, Role};

/// What this peer is, apart from what it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Circumstances {
    /// What it runs on.
    pub device: Device,
    /// Each byte costs its owner money.
    pub metered: bool,
    /// It is not plugged in.
    pub on_battery: bool,
}

/// What a peer runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// It does not say.
    #[default]
    Unknown,
    /// A desktop or a laptop.
    Desktop,
    /// A television set or a set-top box.
    Tv,
    /// A telephone or a tablet.
    Mobile,
    /// A machine that nobody sits at.
    Server,
}

/// Who this peer is, where it attaches, and what it serves.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// This peer's id; made anew for each process.
    pub peer: PeerId,
    /// The nodes that it may attach to, the first one first: `http://host:port` or `https://host:port`. It
    /// learns of others from those.
    pub orchestrators: Vec<String>,
    /// A PEM file with the certificate authorities to trust instead of the system's.
    pub authorities: Option<PathBuf>,
    /// The channel's id.
    pub channel: String,
    /// The viewer's token.
    pub token: String,
    /// What the peer does with what it receives.
    pub role: Role,
    /// The wire bit/s that it offers to upload.
    pub upload_bps: u64,
    /// What it is besides: decides whether others may depend on it.
    pub circumstances: Circumstances,
    /// The tracks that it watches, by name; empty: the node chooses.
    pub tracks: Vec<String>,
    /// Where the local HTTP server listens; absent: there is none.
    pub listen: Option<SocketAddr>,
    /// How long to try to attach before giving up; once attached, the peer never does.
    pub first_contact: Duration,
}

impl AgentConfig {
    /// A contributor with a new id and no local server.
    #[must_use]
    pub fn new(
        orchestrator: impl Into<String>,
        channel: impl Into<String>,
        token: impl Into<String>,
    ) -> Self {
        Self {
            peer: PeerId(rand::random()),
            orchestrators: vec![orchestrator.into()],
            authorities: None,
            channel: channel.into(),
            token: token.into(),
            role: Role::Contributor,
            upload_bps: 20_000_000,
            circumstances: Circumstances::default(),
            tracks: Vec::new(),
            listen: None,
            first_contact: Duration::from_secs(10),
        }
    }
}
