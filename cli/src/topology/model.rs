//! The trees' nodes, translated from the wire.

use std::collections::HashSet;
use std::fmt;

use espalier_proto::v1::{self, NodeState, PeerRole};

/// All trees of a channel, ordered by track, stripe and peer so that two looks at the same state are equal.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Topology {
    pub(crate) nodes: Vec<PeerNode>,
}

/// One peer's place in one tree: that of a stripe of a track.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeerNode {
    pub(crate) peer: String,
    pub(crate) track: String,
    pub(crate) stripe: u32,
    pub(crate) source: Option<Source>,
    pub(crate) standby: Option<Source>,
    pub(crate) depth: u32,
    pub(crate) children: Vec<String>,
    pub(crate) state: NodeState,
    pub(crate) role: PeerRole,
    pub(crate) upload_bps: u64,
    pub(crate) session: bool,
    pub(crate) health: Option<Health>,
}

/// What a peer last said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) bytes_from_cdn: u64,
    pub(crate) bytes_from_peers: u64,
    pub(crate) buffer_ms: u32,
    pub(crate) latency_ms: u32,
    pub(crate) stalls: u32,
}

/// Where a peer takes a track from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Cdn,
    Peer(String),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cdn => out.write_str("cdn"),
            Self::Peer(peer) => out.write_str(peer),
        }
    }
}

impl Topology {
    /// The peers that have a place in any tree or wait for one, each once.
    pub(crate) fn peer_count(&self) -> usize {
        let mut peers: Vec<&str> = self.nodes.iter().map(|node| node.peer.as_str()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.len()
    }

    /// The peers that the CDN feeds, each once.
    pub(crate) fn root_count(&self) -> usize {
        let mut roots: Vec<&str> = self
            .nodes
            .iter()
            .filter(|node| node.source == Some(Source::Cdn))
            .map(|node| node.peer.as_str())
            .collect();
        roots.sort_unstable();
        roots.dedup();
        roots.len()
    }

    /// The tracks that are cut into stripes.
    pub(crate) fn striped(&self) -> HashSet<&str> {
        let striped = self.nodes.iter().filter(|node| node.stripe > 0);
        striped.map(|node| node.track.as_str()).collect()
    }

    pub(crate) fn max_depth(&self) -> u32 {
        self.nodes.iter().map(|node| node.depth).max().unwrap_or(0)
    }
}

/// What a tree is called: by its track, and by its stripe if the track has more than one.
pub(crate) fn tree_name(track: &str, stripe: u32, striped: &HashSet<&str>) -> String {
    if striped.contains(track) {
        format!("{track} stripe {stripe}")
    } else {
        track.to_owned()
    }
}

impl From<v1::Topology> for Topology {
    fn from(wire: v1::Topology) -> Self {
        let mut nodes: Vec<PeerNode> = wire.nodes.into_iter().map(PeerNode::from).collect();
        nodes.sort_by(|a, b| (&a.track, a.stripe, &a.peer).cmp(&(&b.track, b.stripe, &b.peer)));
        Self { nodes }
    }
}

impl From<v1::Node> for PeerNode {
    fn from(wire: v1::Node) -> Self {
        let (state, role) = (wire.state(), wire.role());
        let mut children = wire.children;
        children.sort_unstable();
        Self {
            peer: wire.peer,
            track: wire.track,
            stripe: wire.stripe,
            source: wire.source.and_then(source),
            standby: wire.standby.and_then(source),
            depth: wire.depth,
            children,
            state,
            role,
            upload_bps: wire.upload_bps,
            session: wire.session,
            health: wire.health.map(Health::from),
        }
    }
}

impl From<v1::PeerHealth> for Health {
    fn from(wire: v1::PeerHealth) -> Self {
        Self {
            bytes_from_cdn: wire.bytes_from_cdn,
            bytes_from_peers: wire.bytes_from_peers,
            buffer_ms: wire.buffer_ms,
            latency_ms: wire.latency_ms,
            stalls: wire.stalls,
        }
    }
}

fn source(wire: v1::Source) -> Option<Source> {
    Some(match wire.kind? {
        v1::source::Kind::Peer(peer) => Source::Peer(peer),
        v1::source::Kind::Cdn(v1::Cdn {}) => Source::Cdn,
    })
}

/// The state's name in the command's contract.
pub(crate) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified | NodeState::Joining => "joining",
        NodeState::Active => "active",
        NodeState::Moving => "moving",
        NodeState::Repairing => "repairing",
        NodeState::Bypass => "bypass",
    }
}

/// The role's name, for people.
pub(crate) fn role_name(role: PeerRole) -> &'static str {
    match role {
        PeerRole::Unspecified | PeerRole::Contributor => "contributor",
        PeerRole::Consumer => "consumer",
        PeerRole::Relay => "relay",
    }
}
