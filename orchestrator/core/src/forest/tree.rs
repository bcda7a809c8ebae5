//! One tree: what is the same for all of its nodes, its roots and its index.

use core::time::Duration;
use std::collections::VecDeque;

use super::Forest;
use super::budget::band;
use super::index::{DEPTHS, Index};
use super::node::{Link, NodeRef, TreeKey};
use crate::events::PeerRole;
use crate::ids::TrackName;

/// Ranks of roots: by the band of their capacity, relays above all, and of equals those that have children
/// above those that have none, so that less is moved.
const RANKS: usize = 16;
const RELAY: u32 = 7;
/// The positions of one in so many members are high.
const FEW_OF: u32 = 8;

/// The tree of one stripe of one track.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) key: TreeKey,
    pub(crate) name: TrackName,
    pub(crate) default: bool,
    /// The payload rate planned with, of the whole track; see [`Forest::set_rate`].
    pub(crate) rate_bps: u64,
    pub(crate) measured: bool,
    /// What a child costs, wire bit/s.
    pub(crate) cost: u64,
    pub(crate) members: u32,
    /// When their peers joined, in tenths of a second, all together.
    pub(super) births: u64,
    /// Slots that successors keep.
    pub(super) pledged: u32,
    pub(super) index: Index,
    /// By rank, from the newest to the oldest.
    roots: [(Link, Link); RANKS],
    root_count: u32,
    /// Where the search for a root too many goes on.
    pub(super) demote_cursor: Link,
    /// Nodes at each depth.
    depths: [u32; DEPTHS],
    /// Interior nodes without successor wait here for their turn; some may have ceased to be.
    pub(super) unprotected: VecDeque<NodeRef>,
    /// How many of them there really are.
    pub(crate) bare: u32,
    /// When somebody was last moved for the tree's sake, and when somebody last lost its source.
    pub(super) improved: Duration,
    pub(super) shaken: Duration,
    /// Planned moves that may be made, in millionths, and up to when they are counted.
    pub(super) credit: i64,
    pub(super) credited: Duration,
    /// How many events the next search for a successor waits for, and waited for last time.
    pub(super) protect_in: u32,
    pub(super) protect_pause: u32,
    /// How many events it waits for since all who lack one have to wait.
    pub(super) waiting_in: u32,
    /// How many events the next improvement waits for, and waited for last time.
    pub(super) improve_in: u32,
    pub(super) improve_pause: u32,
    /// What is tried next for the tree's sake, and below which root.
    pub(super) turn: u32,
    pub(super) sample_cursor: Link,
    /// The most members that there have been of late: growth earns moves too.
    pub(super) peak: u32,
    pub(super) alarmed: bool,
}

impl Tree {
    pub(super) fn new(key: TreeKey, name: TrackName, default: bool) -> Self {
        Self {
            key,
            name,
            default,
            rate_bps: 0,
            measured: false,
            cost: 1,
            members: 0,
            births: 0,
            pledged: 0,
            index: Index::default(),
            roots: [(Link::NONE, Link::NONE); RANKS],
            root_count: 0,
            demote_cursor: Link::NONE,
            depths: [0; DEPTHS],
            unprotected: VecDeque::new(),
            bare: 0,
            improved: Duration::ZERO,
            shaken: Duration::ZERO,
            credit: 0,
            credited: Duration::ZERO,
            protect_in: 0,
            protect_pause: 0,
            waiting_in: 0,
            improve_in: 0,
            improve_pause: 0,
            turn: 0,
            sample_cursor: Link::NONE,
            peak: 0,
            alarmed: false,
        }
    }

    /// Whether it has so many members that it is never at rest.
    pub(super) fn is_large(&self) -> bool {
        const LARGE: u32 = 256;
        self.members >= LARGE
    }

    /// The tree of another stripe of the same track, before anybody is in it.
    pub(super) fn without_members(&self) -> Self {
        Self {
            rate_bps: self.rate_bps,
            measured: self.measured,
            improved: self.improved,
            shaken: self.shaken,
            credited: self.credited,
            ..Self::new(self.key, self.name.clone(), self.default)
        }
    }

    pub(crate) fn root_count(&self) -> u32 {
        self.root_count
    }

    /// How many nodes there are at each depth, from 0, where none is.
    pub(crate) fn depths(&self) -> &[u32] {
        &self.depths
    }

    pub(crate) fn deepest(&self) -> u32 {
        let deepest = self.depths.iter().rposition(|nodes| *nodes > 0);
        u32::try_from(deepest.unwrap_or(0)).unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.index.bytes() + self.unprotected.capacity() * size_of::<NodeRef>()
    }

    /// The depth down to which positions are few, so that everybody's depth depends on who has them; none in a
    /// tree that is not large.
    pub(super) fn high(&self) -> Option<u32> {
        if !self.is_large() {
            return None;
        }
        let few = self.members / FEW_OF;
        let mut above = 0;
        let high = self.depths.iter().take_while(|nodes| {
            above += **nodes;
            above <= few
        });
        // Depth 0 is nobody's.
        Some(super::node::count(high.count()).saturating_sub(1))
    }

    /// How long its members have been there on average at this time, in tenths of a second.
    pub(super) fn mean_age(&self, today: u32) -> u64 {
        u64::from(today).saturating_sub(self.births / u64::from(self.members.max(1)))
    }

    /// The depth at which most nodes are; the deepest of equals.
    pub(super) fn bulk(&self) -> u32 {
        let most = self.depths.iter().enumerate();
        let most = most.max_by_key(|(depth, nodes)| (**nodes, *depth));
        most.map_or(0, |(depth, _)| u32::try_from(depth).unwrap_or(0))
    }

    pub(super) fn count_depth(&mut self, old: u8, new: u8) {
        // Nodes without a place are not counted.
        if old > 0 {
            self.depths[usize::from(old)] -= 1;
        }
        if new > 0 {
            self.depths[usize::from(new)] += 1;
        }
    }

    /// The shallowest depth at which somebody can take a child.
    pub(super) fn shallowest_open(&self) -> Option<u32> {
        let areas = 0..self.index.area_count();
        areas
            .filter_map(|area| self.index.shallowest_open(area, 1))
            .min()
    }

    /// Whether there is a slot that lies higher than the parents of the deepest.
    pub(crate) fn is_uneven(&self) -> bool {
        let deepest = self.deepest();
        self.shallowest_open()
            .is_some_and(|depth| depth + 2 <= deepest)
    }
}

impl Forest {
    fn root_rank(&self, node: NodeRef) -> u8 {
        let record = self.node(node);
        let peer = self.peer(record.peer);
        let capacity = if peer.distrusted {
            0
        } else {
            self.whole_capacity(node)
        };
        let band = match peer.role {
            PeerRole::Relay if capacity > 0 => RELAY,
            PeerRole::Relay | PeerRole::Contributor | PeerRole::Consumer => {
                band(capacity).min(RELAY - 1)
            }
        };
        let rank = 2 * band + u32::from(record.children > 0);
        u8::try_from(rank).expect("invariant: bands are at most 7")
    }

    /// Puts a node whose source is the CDN among the roots.
    pub(super) fn enroot(&mut self, node: NodeRef) {
        let rank = self.root_rank(node);
        let tree = self.node(node).tree;
        let tree = self.tree_mut(tree);
        tree.root_count += 1;
        let (newest, oldest) = &mut tree.roots[usize::from(rank)];
        let next = core::mem::replace(newest, Link::to(node));
        match next.get() {
            Some(next) => self.node_mut(next).previous_sibling = Link::to(node),
            None => *oldest = Link::to(node),
        }
        let record = self.node_mut(node);
        record.next_sibling = next;
        record.previous_sibling = Link::NONE;
        record.listed = record.listed & 15 | rank << 4;
    }

    pub(super) fn unroot(&mut self, node: NodeRef) {
        let record = self.node_mut(node);
        let next = core::mem::replace(&mut record.next_sibling, Link::NONE);
        let previous = core::mem::replace(&mut record.previous_sibling, Link::NONE);
        let (rank, tree) = (record.listed >> 4, record.tree);
        if let Some(next) = next.get() {
            self.node_mut(next).previous_sibling = previous;
        }
        if let Some(previous) = previous.get() {
            self.node_mut(previous).next_sibling = next;
        }
        let tree = self.tree_mut(tree);
        tree.root_count -= 1;
        let (newest, oldest) = &mut tree.roots[usize::from(rank)];
        if *newest == Link::to(node) {
            *newest = next;
        }
        if *oldest == Link::to(node) {
            *oldest = previous;
        }
        for cursor in [&mut tree.demote_cursor, &mut tree.sample_cursor] {
            if *cursor == Link::to(node) {
                *cursor = next;
            }
        }
    }

    /// Puts a root where its peer's capacity ranks it.
    pub(super) fn rank_root(&mut self, node: NodeRef) {
        let record = self.node(node);
        let is_root = record.place() == super::node::Place::Cdn;
        if is_root && record.listed >> 4 != self.root_rank(node) {
            self.unroot(node);
            self.enroot(node);
        }
    }

    /// The roots of a tree, the one to be moved under another first: weak before strong, new before old.
    pub(super) fn roots(&self, tree: u8) -> impl Iterator<Item = NodeRef> + '_ {
        let ranks = self.tree(tree).roots.iter();
        let next = |node: &NodeRef| self.node(*node).next_sibling.get();
        ranks.flat_map(move |(newest, _)| core::iter::successors(newest.get(), next))
    }

    /// The roots from this one on, in the order of [`Forest::roots`].
    pub(super) fn roots_from(&self, node: NodeRef) -> impl Iterator<Item = NodeRef> + '_ {
        let next = |node: &NodeRef| self.node(*node).next_sibling.get();
        let record = self.node(node);
        let rank = usize::from(record.listed >> 4);
        let others = self.tree(record.tree).roots[rank + 1..].iter();
        let others = others.flat_map(move |(newest, _)| core::iter::successors(newest.get(), next));
        core::iter::successors(Some(node), next).chain(others)
    }

    /// How a root ranks among the others; the higher, the rather it stays.
    pub(super) fn rank_of(&self, node: NodeRef) -> u8 {
        self.node(node).listed >> 4
    }

    /// The roots of a tree, the strongest and of equals the oldest first.
    pub(super) fn strongest_roots(&self, tree: u8) -> impl Iterator<Item = NodeRef> + '_ {
        let ranks = self.tree(tree).roots.iter().rev();
        let previous = |node: &NodeRef| self.node(*node).previous_sibling.get();
        ranks.flat_map(move |(_, oldest)| core::iter::successors(oldest.get(), previous))
    }
}
