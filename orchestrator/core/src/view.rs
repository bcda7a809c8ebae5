//! What others may see of a channel's trees.

use core::time::Duration;

use crate::audience::Counters;
use crate::events::{PeerReport, PeerRole};
use crate::forest::node::{Flow, Node, NodeRef};
use crate::forest::{Forest, Returning};
use crate::ids::{PeerId, Source, TrackName};
use crate::profile::PeerProfile;
use crate::sessions::SessionTable;

/// One peer's place in one tree: that of a stripe of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Who.
    pub peer: PeerId,
    /// Of which track.
    pub track: TrackName,
    /// Of which stripe of it.
    pub stripe: u8,
    /// Where it takes the track from; `None` while it has no place.
    pub source: Option<Source>,
    /// What takes over when the source fails; `None` for a root.
    pub standby: Option<Source>,
    /// 1 for a root, 0 while it has no place.
    pub depth: u32,
    /// Whom it serves, in order of their ids.
    pub children: Vec<PeerId>,
    /// How it does.
    pub state: NodeState,
    /// What it is willing to do.
    pub role: PeerRole,
    /// Wire bit/s that it offers.
    pub upload_bps: u64,
    /// What it is besides.
    pub profile: PeerProfile,
    /// Whether its session is open.
    pub session: bool,
    /// Its last report.
    pub health: Option<PeerReport>,
}

/// How a peer does in one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// No verified byte has come yet.
    Joining,
    /// It plays from its source.
    Active,
    /// It goes from one source to another and has both.
    Moving,
    /// Its source fails.
    Repairing,
    /// No statements arrive: it plays CDN bytes unverified.
    Bypass,
}

/// A peer that others accuse of corrupt bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Who.
    pub peer: PeerId,
    /// How many different peers accuse it.
    pub accusers: u32,
    /// How often.
    pub reports: u64,
    /// When last, in the engine's time.
    pub last_report: Duration,
    /// Whether it may have no children any more.
    pub quarantined: bool,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The invariant's short name, e.g. `budget`.
    pub invariant: &'static str,
    /// Where, if it is one peer's.
    pub peer: Option<PeerId>,
    /// Where, if it is one track's.
    pub track: Option<TrackName>,
    /// What was found.
    pub detail: String,
}

/// Returns a row for each node of the forest.
pub(crate) fn rows(forest: &Forest, sessions: &SessionTable, counters: &Counters) -> Vec<NodeView> {
    let peers = forest.peers().into_iter();
    let nodes = peers.flat_map(|(_, peer)| forest.nodes_of(peer));
    nodes
        .map(|node| row(forest, node, sessions, counters))
        .collect()
}

fn row(forest: &Forest, at: NodeRef, sessions: &SessionTable, counters: &Counters) -> NodeView {
    let node = forest.node(at);
    let peer = forest.peer(node.peer);
    let children = forest.children(at).map(|child| forest.id_of(child));
    let mut children: Vec<_> = children.collect();
    children.sort();
    NodeView {
        peer: peer.id,
        track: forest.tree_of(at).name.clone(),
        stripe: forest.tree_of(at).key.stripe,
        source: forest.source_at(node.place()),
        standby: forest.standby_of(at),
        depth: node.depth(),
        children,
        state: state(node),
        role: peer.role,
        upload_bps: peer.upload_bps,
        profile: peer.profile,
        session: sessions.is_heard(peer.id),
        health: counters.last(peer.id),
    }
}

fn state(node: &Node) -> NodeState {
    match node.flow() {
        Flow::Bypass => NodeState::Bypass,
        Flow::Repairing => NodeState::Repairing,
        Flow::Flowing if !node.is_warm() => NodeState::Joining,
        Flow::Flowing if node.is_moving() => NodeState::Moving,
        Flow::Flowing => NodeState::Active,
    }
}

/// Returns a row for each track of a peer that is awaited with others.
pub(crate) fn waiting_rows(peer: &Returning) -> impl Iterator<Item = NodeView> {
    peer.held.iter().map(|held| NodeView {
        peer: peer.peer,
        track: held.track.clone(),
        stripe: held.stripe,
        source: None,
        standby: None,
        depth: 0,
        children: Vec::new(),
        state: NodeState::Joining,
        role: peer.role,
        upload_bps: peer.upload_bps,
        profile: peer.profile,
        session: peer.session,
        health: None,
    })
}
