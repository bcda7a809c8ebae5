//! The records of the forest: peers, their nodes in the trees, and the trees.

use core::cmp::Reverse;
use core::ops::Bound;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::arena::Handle;
use crate::events::PeerRole;
use crate::ids::{PeerId, Source, TrackIndex, TrackName};
use crate::state::Edge;

pub(crate) type PeerRef = Handle<Peer>;
pub(crate) type NodeRef = Handle<Node>;

/// Where a node takes its track from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Only within an event: the node and all below it are about to be placed.
    Nowhere,
    Cdn,
    Under(NodeRef),
}

/// The source that a move leaves behind, kept until data flows from the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) place: Place,
    /// The old parent's budget does not cover this edge any more.
    pub(crate) evicted: bool,
}

/// What the peer said last about a node's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Flowing,
    Repairing,
    Bypass,
}

/// One peer: one upload budget over all its nodes.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) role: PeerRole,
    pub(crate) upload_bps: u64,
    pub(crate) session: bool,
    /// Accused by enough others: no children.
    pub(crate) quarantined: bool,
    /// Accuses too many others: gets children last.
    pub(crate) distrusted: bool,
    /// A neighbour lost it: no new children until then.
    pub(crate) shunned_until: Option<Duration>,
    /// As the peer named them; empty: the defaults.
    pub(crate) wanted: Vec<TrackName>,
    pub(crate) joined_at: Duration,
    pub(crate) nodes: BTreeMap<TrackIndex, NodeRef>,
}

/// One peer's place in one tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) peer: PeerRef,
    pub(crate) track: TrackIndex,
    pub(crate) source: Place,
    pub(crate) former: Option<Former>,
    /// When a join or a move is given up.
    pub(crate) deadline: Option<Duration>,
    /// No planned move before.
    pub(crate) hold_until: Duration,
    pub(crate) children: BTreeSet<NodeRef>,
    /// Nodes whose former source this is.
    pub(crate) leaving: BTreeSet<NodeRef>,
    /// 1 for a root.
    pub(crate) depth: u32,
    /// The number of this root among all that ever were, if it is one.
    pub(crate) root_since: u64,
    /// 1 for a leaf.
    pub(crate) height: u32,
    /// Takes over the children, with `reserved` slots of its budget.
    pub(crate) successor: Option<NodeRef>,
    pub(crate) reserved: u32,
    /// The nodes whose successor this is, and all that they have reserved here.
    pub(crate) protects: BTreeSet<NodeRef>,
    pub(crate) pledged: u32,
    /// Data has flowed: it may have children.
    pub(crate) warm: bool,
    pub(crate) flow: Flow,
    /// Where data flows from by the peer's latest word; it is not said again when that becomes the plan.
    pub(crate) said: Option<Source>,
    pub(crate) open_key: Option<OpenKey>,
    pub(crate) root_key: Option<RootKey>,
    /// The node as the last entry had it.
    pub(crate) decided: Option<Edge>,
}

impl Node {
    pub(crate) fn new(peer: PeerRef, track: TrackIndex) -> Self {
        Self {
            peer,
            track,
            source: Place::Nowhere,
            former: None,
            deadline: None,
            hold_until: Duration::ZERO,
            children: BTreeSet::new(),
            leaving: BTreeSet::new(),
            depth: 0,
            root_since: 0,
            height: 1,
            successor: None,
            reserved: 0,
            protects: BTreeSet::new(),
            pledged: 0,
            warm: false,
            flow: Flow::Flowing,
            said: None,
            open_key: None,
            root_key: None,
            decided: None,
        }
    }

    /// How many edges this node's peer carries for it, reservations aside.
    pub(crate) fn carried(&self) -> u32 {
        count(self.children.len() + self.leaving.len())
    }
}

/// Orders the nodes that can take a child: shallow, then by class, then strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpenKey {
    pub(crate) depth: u32,
    pub(crate) class: OpenClass,
    pub(crate) capacity: Reverse<u32>,
    pub(crate) node: NodeRef,
}

impl OpenKey {
    /// Comes before every key of this depth.
    pub(crate) fn first_at(depth: u32) -> Self {
        let capacity = Reverse(u32::MAX);
        Self {
            depth,
            class: OpenClass::Interior,
            capacity,
            node: Handle::LOWEST,
        }
    }
}

/// What taking a slot costs, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OpenClass {
    /// It has children already.
    Interior,
    /// It has none, and its budget is free.
    Bench,
    /// Only at the price of a reservation.
    Reserved,
    /// Its peer is a serial accuser.
    Distrusted,
}

/// Orders the roots: the one to be moved under another first. Capacity counts in bands, so that who
/// comes to the CDN for a while does not take the place of a root that is as good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RootKey {
    pub(crate) relay: bool,
    /// The capacity's bits.
    pub(crate) band: u32,
    /// Of its tree: the taller stays, so that less moves.
    pub(crate) height: u32,
    pub(crate) since: Reverse<u64>,
    pub(crate) node: NodeRef,
}

/// One track's tree (of stripe 0) and its indices.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) name: TrackName,
    pub(crate) default: bool,
    /// The payload rate planned with; see [`super::Forest::set_rate`].
    pub(crate) rate_bps: u64,
    pub(crate) measured: bool,
    /// What a child costs, wire bit/s.
    pub(crate) cost: u64,
    pub(crate) members: BTreeSet<NodeRef>,
    pub(crate) open: BTreeSet<OpenKey>,
    pub(crate) roots: BTreeSet<RootKey>,
    /// Interior nodes without a successor.
    pub(crate) unprotected: BTreeSet<NodeRef>,
    /// Where the search for successors goes on.
    pub(crate) protect_cursor: Option<NodeRef>,
    /// Where the search for roots to be moved goes on.
    pub(crate) demote_cursor: Option<RootKey>,
    /// The members by depth.
    pub(crate) levels: BTreeSet<(u32, NodeRef)>,
    /// When something last rose; see [`super::Forest::flatten`].
    pub(crate) rose: Duration,
    /// Where the search for what may rise goes on.
    pub(crate) rise_cursor: Option<(u32, NodeRef)>,
    /// When it last lost an interior node, or a node its source.
    pub(crate) shaken: Duration,
    /// An alarm about too many roots is out.
    pub(crate) alarmed: bool,
}

impl Tree {
    /// Makes a tree without members, of a track that costs nothing yet.
    pub(crate) fn new(name: TrackName, default: bool) -> Self {
        Self {
            name,
            default,
            rate_bps: 0,
            measured: false,
            cost: 1,
            members: BTreeSet::new(),
            open: BTreeSet::new(),
            roots: BTreeSet::new(),
            unprotected: BTreeSet::new(),
            protect_cursor: None,
            demote_cursor: None,
            levels: BTreeSet::new(),
            rose: Duration::ZERO,
            rise_cursor: None,
            shaken: Duration::ZERO,
            alarmed: false,
        }
    }

    pub(crate) fn deepest(&self) -> u32 {
        self.levels.last().map_or(0, |(depth, _)| *depth)
    }

    /// Whether there is a slot that lies higher than the parents of the deepest.
    pub(crate) fn is_uneven(&self) -> bool {
        let shallowest = self.open.first().map(|key| key.depth);
        shallowest.is_some_and(|depth| depth + 2 <= self.deepest())
    }

    pub(crate) fn root_count(&self) -> u32 {
        count(self.roots.len())
    }
}

/// Converts a length; there are never 2^32 of anything here.
pub(crate) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The members of a set, from behind the cursor on and then round from the start.
pub(crate) fn turn<T: Ord + Copy>(
    set: &BTreeSet<T>,
    cursor: Option<T>,
) -> impl Iterator<Item = T> + '_ {
    let from = cursor.map_or(Bound::Unbounded, Bound::Excluded);
    let again = cursor.map(|cursor| set.range(..=cursor));
    set.range((from, Bound::Unbounded))
        .chain(again.into_iter().flatten())
        .copied()
}
