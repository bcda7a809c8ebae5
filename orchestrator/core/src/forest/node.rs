//! The records of the forest: peers and their nodes in the trees.
//!
//! A node is one cache line. Everything that only a few nodes have (a move, a deadline, a hold) lies
//! beside them, in the [`super::Forest`]'s maps; flags say whether there is something to look for. Nodes hang
//! together by index: children are a list through the children themselves, so are the nodes of a list of the
//! tree's index, those whom a successor protects, and the nodes of one peer.

use core::time::Duration;

use crate::events::PeerRole;
use crate::ids::{PeerId, TrackIndex, TrackName};
use crate::profile::PeerProfile;

/// Names a node while it is in the forest; used again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeRef(pub(super) u32);

/// Names a peer while it is in the forest; used again afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerRef(pub(crate) u32);

impl NodeRef {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl PeerRef {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Perhaps a node, in four bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(u32);

impl Link {
    pub(super) const NONE: Self = Self(u32::MAX);

    pub(super) fn to(node: NodeRef) -> Self {
        Self(node.0)
    }

    pub(super) fn get(self) -> Option<NodeRef> {
        (self != Self::NONE).then_some(NodeRef(self.0))
    }
}

impl From<Option<NodeRef>> for Link {
    fn from(node: Option<NodeRef>) -> Self {
        node.map_or(Self::NONE, Self::to)
    }
}

impl core::fmt::Debug for Link {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}

/// Which tree: one for each stripe of each track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreeKey {
    pub(crate) track: TrackIndex,
    pub(crate) stripe: u8,
}

/// Where a node takes its stripe from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Only within an event: the node and all below it are about to be placed.
    Nowhere,
    Cdn,
    Under(NodeRef),
}

/// [`Place`] in four bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedPlace(u32);

impl PackedPlace {
    const NOWHERE: u32 = u32::MAX;
    const CDN: u32 = u32::MAX - 1;

    pub(super) fn get(self) -> Place {
        match self.0 {
            Self::NOWHERE => Place::Nowhere,
            Self::CDN => Place::Cdn,
            index => Place::Under(NodeRef(index)),
        }
    }
}

impl From<Place> for PackedPlace {
    fn from(place: Place) -> Self {
        match place {
            Place::Nowhere => Self(Self::NOWHERE),
            Place::Cdn => Self(Self::CDN),
            Place::Under(node) => Self(node.0),
        }
    }
}

impl core::fmt::Debug for PackedPlace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
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
    pub(crate) profile: PeerProfile,
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
    /// The first of its nodes; the others follow in the order of their trees.
    pub(super) first_node: Link,
    /// The one before it and the one after it of those with its public address.
    pub(super) housemates: [Option<PeerRef>; 2],
}

/// What is true of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags(u16);

impl Flags {
    /// The record is one of a node that is in the forest.
    pub(super) const ALIVE: u16 = 1;
    /// Data has flowed: it may have children.
    pub(super) const WARM: u16 = 1 << 1;
    /// Its peer has a session and is neither shunned nor quarantined nor a consumer.
    pub(super) const WILLING: u16 = 1 << 2;
    pub(super) const REPAIRING: u16 = 1 << 3;
    pub(super) const BYPASS: u16 = 1 << 4;
    /// There is a [`Former`].
    pub(super) const MOVING: u16 = 1 << 5;
    /// There is a hold.
    pub(super) const HELD: u16 = 1 << 6;
    /// There is a deadline.
    pub(super) const TIMED: u16 = 1 << 7;
    /// Its record may differ from what the last entry had.
    pub(super) const NOTED: u16 = 1 << 8;
    /// Its peer's assignment may differ.
    pub(super) const TOUCHED: u16 = 1 << 9;
    /// The peer's latest word on its source is where it is.
    pub(super) const SAID_HERE: u16 = 1 << 10;
    /// The peer's latest word on its source is elsewhere, and kept.
    pub(super) const SAID_ELSEWHERE: u16 = 1 << 11;
    /// It has children and no successor, and waits for one.
    pub(super) const UNPROTECTED: u16 = 1 << 12;
    /// Its peer has no children for good.
    pub(super) const CONSUMER: u16 = 1 << 13;
    /// Its peer is a serial accuser.
    pub(super) const DISTRUSTED: u16 = 1 << 14;
    /// Its peer shares its public address with others here.
    pub(super) const HOUSED: u16 = 1 << 15;

    pub(super) fn has(self, all: u16) -> bool {
        self.0 & all == all
    }

    pub(super) fn has_any(self, any: u16) -> bool {
        self.0 & any != 0
    }

    pub(super) fn set(&mut self, flags: u16, on: bool) {
        if on {
            self.0 |= flags;
        } else {
            self.0 &= !flags;
        }
    }
}

/// One peer's place in one tree.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(crate) struct Node {
    pub(crate) peer: PeerRef,
    pub(super) source: PackedPlace,
    pub(super) first_child: Link,
    /// The next child of its parent, or the next root of its rank.
    pub(super) next_sibling: Link,
    pub(super) previous_sibling: Link,
    /// In the list of the tree's index that it is in.
    pub(super) next_listed: Link,
    pub(super) previous_listed: Link,
    /// Takes over the children, with `reserved` slots of its budget.
    pub(super) successor: Link,
    /// The first of those whose successor this is.
    pub(super) protects: Link,
    /// The next one with the same successor.
    pub(super) next_protected: Link,
    /// The next node of its peer.
    pub(super) next_of_peer: Link,
    /// When its peer joined, in tenths of a second.
    pub(super) born: u32,
    /// How many it serves.
    pub(super) children: u16,
    /// How many move away from it and still take from it.
    pub(super) leaving: u16,
    /// How many slots its successor keeps for its children; and how many it keeps for others.
    pub(super) reserved: u16,
    pub(super) pledged: u16,
    /// The children that it could have if its peer had none in this tree.
    pub(super) capacity: u16,
    /// 1 for a root.
    pub(super) depth: u8,
    /// Which tree, by its place among the forest's.
    pub(super) tree: u8,
    pub(super) flags: Flags,
    /// The list that it is in: see [`super::index`].
    pub(super) listed: u8,
    /// Its region and the group of its NAT: see [`super::index`]; the highest bit: its peer has other nodes.
    area: u8,
}

const ONE_OF_SEVERAL: u8 = 1 << 7;

const _: () = assert!(size_of::<Node>() == 64, "a node is one cache line");

impl Node {
    pub(super) fn new(peer: PeerRef, tree: u8) -> Self {
        Self {
            peer,
            source: Place::Nowhere.into(),
            first_child: Link::NONE,
            next_sibling: Link::NONE,
            previous_sibling: Link::NONE,
            next_listed: Link::NONE,
            previous_listed: Link::NONE,
            successor: Link::NONE,
            protects: Link::NONE,
            next_protected: Link::NONE,
            next_of_peer: Link::NONE,
            born: 0,
            children: 0,
            leaving: 0,
            reserved: 0,
            pledged: 0,
            capacity: 0,
            depth: 0,
            tree,
            flags: Flags(Flags::ALIVE),
            listed: super::index::UNLISTED,
            area: 0,
        }
    }

    pub(super) fn area(&self) -> u8 {
        self.area & !ONE_OF_SEVERAL
    }

    pub(super) fn set_area(&mut self, area: u8) {
        self.area = self.area & ONE_OF_SEVERAL | area;
    }

    /// Whether its peer's budget carries other nodes too.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.area & ONE_OF_SEVERAL != 0
    }

    pub(super) fn set_one_of_several(&mut self, several: bool) {
        self.area = self.area() | if several { ONE_OF_SEVERAL } else { 0 };
    }

    pub(crate) fn place(&self) -> Place {
        self.source.get()
    }

    pub(crate) fn parent(&self) -> Option<NodeRef> {
        match self.place() {
            Place::Under(parent) => Some(parent),
            Place::Cdn | Place::Nowhere => None,
        }
    }

    pub(crate) fn depth(&self) -> u32 {
        u32::from(self.depth)
    }

    pub(crate) fn child_count(&self) -> u32 {
        u32::from(self.children)
    }

    pub(crate) fn is_warm(&self) -> bool {
        self.flags.has(Flags::WARM)
    }

    pub(crate) fn is_moving(&self) -> bool {
        self.flags.has(Flags::MOVING)
    }

    pub(crate) fn flow(&self) -> Flow {
        if self.flags.has(Flags::BYPASS) {
            Flow::Bypass
        } else if self.flags.has(Flags::REPAIRING) {
            Flow::Repairing
        } else {
            Flow::Flowing
        }
    }

    /// How many edges this node's peer carries for it, reservations aside.
    pub(crate) fn carried(&self) -> u32 {
        u32::from(self.children) + u32::from(self.leaving)
    }

    pub(crate) fn successor(&self) -> Option<NodeRef> {
        self.successor.get()
    }

    pub(crate) fn reserved(&self) -> u32 {
        u32::from(self.reserved)
    }

    pub(crate) fn pledged(&self) -> u32 {
        u32::from(self.pledged)
    }

    /// Whether the planner may give the node a new child, its budget aside.
    pub(crate) fn serves(&self) -> bool {
        self.flags.has(Flags::WARM | Flags::WILLING | Flags::ALIVE)
            && !self.flags.has_any(Flags::REPAIRING | Flags::BYPASS)
    }

    /// The children that the node can take without touching a reservation.
    pub(crate) fn free(&self) -> u32 {
        u32::from(self.capacity).saturating_sub(self.carried() + u32::from(self.pledged))
    }
}

/// Converts a length; there are never 2^32 of anything here.
pub(crate) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
