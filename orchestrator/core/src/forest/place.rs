//! Which slot: the shallowest that is legal, so that trees grow wide before deep; one in the own region if
//! that costs no more than [`NEARNESS`] levels.
//!
//! Among equals a parent that has children already is preferred to waking a bench node, and both to
//! breaking a reservation. Who will serve nobody or few leaves the slots at high positions to those who pass the
//! stream on. Where nobody's depth depends on it, the oldest of the weak are woken first.
//!
//! Work per search is bounded by [`MOST_EXAMINED`] candidates, whatever the audience's size.

use core::time::Duration;

use super::Forest;
use super::index::{BENCH, BY_PREFERENCE, INTERIOR, OPEN, STRONG};
use super::node::{Flags, Link, Node, NodeRef, Place};
use crate::events::PeerRole;

/// Candidates that one search looks at.
const MOST_EXAMINED: u32 = 64;
/// Nodes that one walk towards the CDN visits; more than a legal tree with its moves needs.
const MOST_VISITED: u32 = 512;
/// Nodes that are looked at for how tall a subtree is; a taller one counts as as tall as can be.
const MOST_MEASURED: u32 = 4096;
/// Peers with the same public address that one search looks at.
const MOST_MATES: usize = 8;
/// How many levels deeper a node goes to stay in its region.
const NEARNESS: u32 = 1;

/// A search for a parent: what was looked at so far.
struct Search {
    node: NodeRef,
    region: u8,
    /// Which groups of NATs to look at, in this order: see [`super::near`].
    groups: &'static [u8],
    left: u32,
}

impl Forest {
    /// Finds the best legal parent for a node, with all that is below it.
    pub(super) fn find_slot(&mut self, node: NodeRef) -> Option<NodeRef> {
        let record = self.node(node);
        let mut search = Search {
            node,
            region: record.area() & !1,
            groups: self.groups_for(node),
            left: MOST_EXAMINED,
        };
        if let Some(found) = self.search_house(&mut search) {
            self.work.examined += MOST_EXAMINED - search.left;
            return Some(found);
        }
        let found = match (self.goes_deep(record), self.tree(record.tree).high()) {
            (false, _) => None,
            (true, None) => self.deep_first(&mut search),
            (true, Some(high)) => self.shallow_first(&mut search, high),
        };
        let found = found.or_else(|| self.shallow_first(&mut search, 0));
        self.work.examined += MOST_EXAMINED - search.left;
        found
    }

    /// A slot at a peer with the same public address, if there is one that makes the tree no deeper.
    fn search_house(&self, search: &mut Search) -> Option<NodeRef> {
        if !self.node(search.node).flags.has(Flags::HOUSED) {
            return None;
        }
        let record = self.node(search.node);
        let bulk = self.tree(record.tree).bulk();
        let mates = self.housemates(record.peer).take(MOST_MATES);
        let nodes = mates.filter_map(|mate| self.node_in(mate, record.tree));
        let open = nodes.filter(|node| {
            let mate = self.node(*node);
            mate.serves() && mate.depth() <= bulk.max(1) && !mate.flags.has(Flags::DISTRUSTED)
        });
        let legal = open.filter(|node| {
            search.left = search.left.saturating_sub(1);
            self.legal(*node, search.node)
        });
        legal.min_by_key(|node| (self.node(*node).depth, *node))
    }

    /// Whether the slots above are for others: it will have no children, or few in an audience that has many
    /// stronger ones.
    fn goes_deep(&self, node: &Node) -> bool {
        if node.children > 0 {
            return false;
        }
        let weak = u32::from(node.capacity) * 4 <= self.policy.max_children(PeerRole::Contributor);
        node.flags.has(Flags::CONSUMER) || (weak && self.tree(node.tree).is_large())
    }

    /// Open nodes that would not make the tree deeper, the deepest level first.
    fn deep_first(&self, search: &mut Search) -> Option<NodeRef> {
        let tree = self.tree_of(search.node);
        let above = tree.bulk().saturating_sub(1);
        for near in [true, false] {
            let (own, other) = tree.index.open_depths(search.region);
            let mut depths = if near { own } else { other } & ((2 << above) - 1);
            while depths != 0 && search.left > 0 {
                let depth = 127 - depths.leading_zeros();
                depths &= !(1 << depth);
                let found = self.search_depth(search, depth, near);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// The shallowest slot at nodes from this depth on.
    fn shallow_first(&self, search: &mut Search, from: u32) -> Option<NodeRef> {
        let index = &self.tree_of(search.node).index;
        let (near, far) = index.open_depths(search.region);
        let above = (1_u128 << from) - 1;
        let (near, far) = (near & !above, far & !above);
        let mut turns = near | far << NEARNESS;
        while turns != 0 && search.left > 0 {
            let turn = turns.trailing_zeros();
            turns &= turns - 1;
            let found = self.search_depth(search, turn, true);
            let found = found.or_else(|| {
                let depth = turn.checked_sub(NEARNESS).filter(|depth| *depth >= from)?;
                self.search_depth(search, depth, false)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Looks at one depth of the own region, or of all others.
    fn search_depth(&self, search: &mut Search, depth: u32, near: bool) -> Option<NodeRef> {
        let index = &self.tree_of(search.node).index;
        if depth as usize >= super::index::DEPTHS {
            return None;
        }
        let (own, groups) = (search.region, search.groups);
        let regions = || {
            (0..index.area_count())
                .step_by(2)
                .filter(|region| (*region == own) == near)
        };
        let areas = || {
            groups
                .iter()
                .flat_map(|group| regions().map(move |region| region + group))
        };
        let present = areas().fold(0, |all, area| all | index.classes(area, depth)) & OPEN;
        let high = self.tree_of(search.node).high();
        let low = high.is_some_and(|high| depth > high);
        if low && present & 1 << INTERIOR == 0 {
            let weak = BENCH..STRONG;
            let first = areas().flat_map(|area| {
                weak.clone()
                    .filter_map(move |class| index.first(area, depth, class))
            });
            // Nobody's depth depends on it: who has been there longest stays longest.
            let oldest = first.min_by_key(|node| (self.node(*node).born, *node));
            if let Some(oldest) = oldest {
                search.left = search.left.saturating_sub(1);
                if self.legal(oldest, search.node) {
                    return Some(oldest);
                }
            }
        }
        for class in BY_PREFERENCE {
            if present & 1 << class == 0 {
                continue;
            }
            for area in areas() {
                let mut at = index.first(area, depth, class);
                while let Some(candidate) = at {
                    if search.left == 0 {
                        return None;
                    }
                    search.left -= 1;
                    if self.legal(candidate, search.node) {
                        return Some(candidate);
                    }
                    at = self.node(candidate).next_listed.get();
                }
            }
        }
        None
    }

    /// Whether the edge keeps every rule that does not depend on the moment.
    pub(super) fn legal(&self, parent: NodeRef, child: NodeRef) -> bool {
        let (above, below) = (self.node(parent), self.node(child));
        above.peer != below.peer
            && below.place() != Place::Under(parent)
            && self
                .former(child)
                .is_none_or(|former| former.place != Place::Under(parent))
            && self.fits(parent, child)
    }

    /// As [`Forest::legal`], for a child that may have been there before.
    pub(super) fn fits(&self, parent: NodeRef, child: NodeRef) -> bool {
        let above = self.node(parent);
        above.tree == self.node(child).tree
            && (above.free() > 0 || self.has_room_at_a_price(above))
            && self.may_meet(child, parent)
            && self.keeps_depth(above.depth(), child)
            && self.is_clear_of(parent, child)
    }

    /// Whether nothing speaks against a link between the peers of the two: no quarrel, no pair of NATs that
    /// lets nothing through, no privacy.
    pub(crate) fn may_meet(&self, one: NodeRef, other: NodeRef) -> bool {
        let parted =
            || !self.pairs.is_empty() && !self.pairs.allowed(self.id_of(one), self.id_of(other));
        self.can_connect(one, other) && self.keeps_privacy(one, other) && !parted()
    }

    /// Whether a node and all below it stay within the policy's depth below a parent of this depth.
    fn keeps_depth(&self, parent: u32, child: NodeRef) -> bool {
        let room = self.policy.max_depth().saturating_sub(parent);
        let record = self.node(child);
        if record.children == 0 {
            return room >= 1;
        }
        // No subtree reaches deeper than the tree.
        let deepest = self.tree(record.tree).deepest();
        let tallest = deepest.saturating_sub(record.depth()) + 1;
        (record.depth > 0 && tallest <= room) || self.height(child) <= room
    }

    /// How many levels a node's subtree has; 1 for a leaf.
    pub(crate) fn height(&self, top: NodeRef) -> u32 {
        // A search asks again for each candidate.
        let (measured, at, height) = self.measured.get();
        if (measured, at) == (Link::to(top), self.version) {
            return height;
        }
        let height = self.measure(top);
        self.measured.set((Link::to(top), self.version, height));
        height
    }

    fn measure(&self, top: NodeRef) -> u32 {
        let mut level = vec![top];
        let (mut height, mut visited) = (0, 0);
        while !level.is_empty() {
            height += 1;
            visited += super::node::count(level.len());
            if visited > MOST_MEASURED {
                return u32::MAX;
            }
            level = level.iter().flat_map(|node| self.children(*node)).collect();
        }
        height
    }

    /// Whether the node's way to the CDN is whole and does not lead through `child`, over the edges
    /// that moves are leaving too.
    pub(super) fn is_clear_of(&self, node: NodeRef, child: NodeRef) -> bool {
        let below = self.node(child);
        if below.carried() == 0 {
            return node != child;
        }
        if self.formers.is_empty() {
            let mut at = node;
            for _ in 0..MOST_VISITED {
                if at == child {
                    return false;
                }
                match self.node(at).place() {
                    Place::Nowhere => return false,
                    Place::Cdn => return true,
                    Place::Under(parent) => at = parent,
                }
            }
            return false;
        }
        let mut stack = vec![node];
        for _ in 0..MOST_VISITED {
            let Some(at) = stack.pop() else { return true };
            if at == child {
                return false;
            }
            match self.node(at).place() {
                Place::Nowhere => return false,
                Place::Cdn => {}
                Place::Under(parent) => stack.push(parent),
            }
            if let Some(Place::Under(parent)) = self.former(at).map(|former| former.place) {
                stack.push(parent);
            }
        }
        false
    }

    /// Gives a new node its first place.
    pub(super) fn place_newcomer(&mut self, node: NodeRef, now: Duration) {
        let record = self.node(node);
        let wants_roots = self.tree(record.tree).root_count() < self.policy.target_roots();
        let slot = if wants_roots && record.capacity > 0 {
            None
        } else {
            self.find_slot(node)
        };
        self.take_slot(node, slot, now);
    }

    /// Attaches a node without a place to the slot, or to the CDN.
    pub(super) fn take_slot(&mut self, node: NodeRef, slot: Option<NodeRef>, now: Duration) {
        match slot {
            Some(parent) => {
                self.make_room(parent);
                self.attach(node, Place::Under(parent));
                self.set_deadline(node, Some(now + super::moves::PATIENCE));
            }
            None => {
                self.attach(node, Place::Cdn);
                self.set_deadline(node, None);
            }
        }
    }
}
