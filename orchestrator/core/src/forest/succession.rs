//! Who takes over: each interior node's successor, outside its subtree, with its budget reserved.
//!
//! A successor is the oldest bench leaf of the right capacity if there is one (its whole budget is free), else
//! an interior node with room. A reservation never keeps a child out: a slot is taken from it when the tree
//! would grow deeper or need another root otherwise. Interior nodes without a successor are asked for again, a
//! few per event; until then their children's standby is the CDN.

use core::ops::RangeInclusive;

use super::Forest;
use super::index::{BENCHES, INTERIOR, RESERVED, STRONG, STRONG_HEIR, bench_of};
use super::node::{Flags, Link, NodeRef};

/// Candidates that one search looks at.
const MOST_EXAMINED: u32 = 96;
/// Slots are kept for those on the last of the high levels up to one for so many members, and for the others.
const KEPT_FOR_THE_HIGH: u32 = 16;
const KEPT_FOR_THE_LOW: u32 = 32;
/// Of each list of those who are not on the bench.
const OF_EACH_LIST: usize = 4;
/// Heirs of others that one search looks at.
const MOST_TAKEN: usize = 8;
/// Interior nodes that one event tries to protect.
const MOST_PROTECTED: usize = 4;
/// Events that a search waits for at the most after others have found nobody.
const LONGEST_PAUSE: u32 = 256;
/// The same where all who wait have to go on waiting; one in a high position ends it.
const WAITING_PAUSE: u32 = 16;

impl Forest {
    /// Frees what the node's successor has reserved for it.
    pub(super) fn release_successor(&mut self, node: NodeRef) {
        let record = self.node_mut(node);
        let reserved = core::mem::take(&mut record.reserved);
        let successor = core::mem::replace(&mut record.successor, Link::NONE);
        let Some(successor) = successor.get() else {
            return;
        };
        self.unlink_protected(successor, node);
        self.node_mut(successor).pledged -= reserved;
        let tree = self.node(node).tree;
        self.tree_mut(tree).pledged -= u32::from(reserved);
        self.standbys_changed(node);
        self.touched_by_node(successor);
        self.changed(node);
        self.edges_changed(successor);
        self.note_unprotected(node);
    }

    /// A child that has left takes the slot that the successor keeps for it; the others' slots remain.
    pub(super) fn use_reservation(&mut self, left: NodeRef, successor: NodeRef) {
        let record = self.node_mut(left);
        if record.successor.get() == Some(successor) && record.reserved > 0 {
            record.reserved -= 1;
            self.node_mut(successor).pledged -= 1;
            let tree = self.node(successor).tree;
            self.tree_mut(tree).pledged -= 1;
            self.edges_changed(successor);
        }
    }

    pub(super) fn note_unprotected(&mut self, node: NodeRef) {
        let record = self.node_mut(node);
        let bare = record.successor == Link::NONE && record.children > 0;
        let was_bare = record.flags.has(Flags::UNPROTECTED);
        if bare == was_bare {
            return;
        }
        record.flags.set(Flags::UNPROTECTED, bare);
        let tree = record.tree;
        let high = bare && self.is_high(node);
        let tree = self.tree_mut(tree);
        if bare {
            tree.bare += 1;
            match high {
                true => {
                    tree.unprotected.push_front(node);
                    tree.waiting_in = 0;
                }
                false => tree.unprotected.push_back(node),
            }
        } else {
            tree.bare -= 1;
        }
    }

    fn standbys_changed(&mut self, node: NodeRef) {
        let mut next = self.node(node).first_child.get();
        while let Some(child) = next {
            next = self.node(child).next_sibling.get();
            self.touched_by_node(child);
        }
    }

    /// Keeps a slot reserved for each of the node's children, or gives the successor up.
    pub(super) fn fit_reservation(&mut self, node: NodeRef) {
        let record = self.node(node);
        let (need, reserved) = (record.children, record.reserved);
        if let Some(successor) = record.successor.get() {
            let more = need.saturating_sub(reserved);
            if need == 0 || self.free(successor) < u32::from(more) {
                self.release_successor(node);
            } else {
                // A child more or less is told to the successor, which accepts its link.
                self.touched_by_node(successor);
                if more > 0 {
                    self.node_mut(node).reserved = need;
                    self.node_mut(successor).pledged += more;
                    let tree = self.node(node).tree;
                    self.tree_mut(tree).pledged += u32::from(more);
                    self.edges_changed(successor);
                }
            }
        }
        self.note_unprotected(node);
    }

    /// Releases the successors that a subtree's move has brought below those whom they protect.
    pub(super) fn drop_captured_successors(&mut self, moved: NodeRef, parent: NodeRef) {
        let record = self.node(moved);
        if record.children == 0 && record.protects == Link::NONE {
            return;
        }
        let mut at = Some(parent);
        while let Some(node) = at {
            let record = self.node(node);
            at = record.parent();
            let successor = record.successor.get();
            if successor.is_some_and(|successor| self.is_within(successor, moved)) {
                self.release_successor(node);
            }
        }
    }

    /// Finds successors for a few of the interior nodes that lack one.
    pub(crate) fn protect(&mut self) {
        for tree in self.tree_slots() {
            self.protect_in(tree);
        }
    }

    fn protect_in(&mut self, tree: u8) {
        let record = self.tree_mut(tree);
        if record.bare == 0 || record.protect_in > 0 {
            record.protect_in = record.protect_in.saturating_sub(1);
            return;
        }
        if record.waiting_in > 0 {
            record.waiting_in -= 1;
            return;
        }
        record.waiting_in = WAITING_PAUSE.min(record.members / 64);
        let waiting = record.unprotected.len();
        for _ in 0..waiting.min(MOST_PROTECTED) {
            let Some(node) = self.tree_mut(tree).unprotected.pop_front() else {
                return;
            };
            let record = self.node(node);
            if record.tree != tree || !record.flags.has(Flags::UNPROTECTED) {
                continue;
            }
            if self.must_wait(node) {
                self.tree_mut(tree).unprotected.push_back(node);
                continue;
            }
            let found = self.find_successor(node, false);
            let found = found.or_else(|| self.take_from_below(node));
            let record = self.tree_mut(tree);
            record.waiting_in = 0;
            // Where nobody has been found for one there is hardly anybody for the next.
            record.protect_pause = match found {
                Some(_) => 0,
                None => (2 * record.protect_pause + 1)
                    .min(LONGEST_PAUSE)
                    .min(record.members / 64),
            };
            record.protect_in = record.protect_pause;
            match found {
                Some(successor) => self.appoint(node, successor),
                None => self.tree_mut(tree).unprotected.push_back(node),
            }
        }
    }

    /// Makes `successor` the one who takes over the node's children. It must have the room.
    pub(super) fn appoint(&mut self, node: NodeRef, successor: NodeRef) {
        let record = self.node(node);
        // Room for those who may yet come to the node, if there is any, so that they change nothing here.
        let spare = u32::from(record.capacity).min(self.free(successor));
        let need = u32::from(record.children).max(spare);
        let need = u16::try_from(need).unwrap_or(u16::MAX);
        let after = self.node_mut(successor);
        after.pledged += need;
        let tree = after.tree;
        let others = core::mem::replace(&mut after.protects, Link::to(node));
        let record = self.node_mut(node);
        record.successor = Link::to(successor);
        record.reserved = need;
        record.next_protected = others;
        self.tree_mut(tree).pledged += u32::from(need);
        self.standbys_changed(node);
        self.touched_by_node(successor);
        self.changed(node);
        self.edges_changed(successor);
        self.note_unprotected(node);
    }

    /// Whether `successor` may take over all of the node's children.
    pub(super) fn succeeds(&self, successor: NodeRef, node: NodeRef) -> bool {
        let need = u32::from(self.node(node).children);
        self.node(successor).free() >= need && self.could_succeed(successor, node)
    }

    /// The same, at the price of what is reserved at it.
    fn could_succeed(&self, successor: NodeRef, node: NodeRef) -> bool {
        let after = self.node(successor);
        let room = u32::from(after.capacity).saturating_sub(after.carried());
        room >= u32::from(self.node(node).children) && self.might_succeed(successor, node)
    }

    /// The same, of some of the children.
    fn might_succeed(&self, successor: NodeRef, node: NodeRef) -> bool {
        let record = self.node(node);
        let after = self.node(successor);
        after.serves()
            && record.children > 0
            && !self.is_within(successor, node)
            && self
                .children(node)
                .all(|child| self.node(child).peer != after.peer && self.may_meet(child, successor))
    }

    /// Looks at the bench, then at interior nodes with room, the deepest first: the shallow ones are the next
    /// newcomers' parents. It prefers one that does not depend on the node's own parent, so that it survives both.
    /// At the price of others' reservations it finds one where all of the bench is reserved.
    pub(super) fn find_successor(&mut self, node: NodeRef, at_a_price: bool) -> Option<NodeRef> {
        let record = self.node(node);
        let own = record.area() & !1;
        let mut search = Heirs {
            node,
            parent: record.parent(),
            examined: 0,
            at_a_price,
        };
        let price = at_a_price.then_some([STRONG_HEIR, RESERVED]);
        let mut found = None;
        for near in [true, false] {
            let areas = 0..self.tree_of(node).index.area_count();
            let areas: Areas = areas.filter(|area| (area & !1 == own) == near).collect();
            found = self.best_of_bench(&mut search, &areas);
            for class in [INTERIOR].into_iter().chain(price.into_iter().flatten()) {
                found = found.or_else(|| self.deepest_of(&mut search, &areas, class));
            }
            if found.is_some() {
                break;
            }
        }
        self.work.examined += search.examined;
        found
    }

    /// In a small tree: takes an heir, the shallowest, away from one below the node for whom another will do. None that
    /// hangs much deeper than the node: those below would get everything later.
    fn take_from_below(&mut self, node: NodeRef) -> Option<NodeRef> {
        let tree = self.tree_of(node);
        if tree.is_large() {
            return None;
        }
        let next = |node: &NodeRef| self.node(*node).next_listed.get();
        let lists = (0..tree.index.area_count()).flat_map(|area| {
            let depths = 1..=tree.deepest().min(self.node(node).depth() + 1);
            depths.map(move |depth| tree.index.first(area, depth, RESERVED))
        });
        let reserved = lists.flat_map(|first| core::iter::successors(first, next));
        let able: Vec<_> = reserved
            .take(MOST_TAKEN)
            .filter(|heir| self.could_succeed(*heir, node))
            .collect();
        for heir in able {
            let below = |ward: &NodeRef| *ward != node && self.is_within(*ward, node);
            let Some(ward) = self.protected_by(heir).find(below) else {
                continue;
            };
            let room = self.node(heir).free() + self.node(ward).reserved();
            if room >= self.node(node).child_count()
                && let Some(other) = self.find_successor(ward, false)
            {
                self.release_successor(ward);
                self.appoint(ward, other);
                return Some(heir);
            }
        }
        None
    }

    /// Whether the node has a high position: see [`super::Tree::high`].
    fn is_high(&self, node: NodeRef) -> bool {
        let record = self.node(node);
        let high = self.tree(record.tree).high();
        high.is_some_and(|high| record.depth() <= high)
    }

    /// Whether the bench is needed for other things than the node's successor. What is kept for somebody ages on
    /// the bench instead of serving, and in a large tree there is not enough for all: who has most below it
    /// comes first.
    fn must_wait(&self, node: NodeRef) -> bool {
        let record = self.node(node);
        let tree = self.tree(record.tree);
        let share = match tree.high() {
            None => return false,
            Some(high) if record.depth() < high => return false,
            Some(high) if record.depth() == high => KEPT_FOR_THE_HIGH,
            Some(_) => KEPT_FOR_THE_LOW,
        };
        tree.pledged > tree.members / share
    }

    /// The one with the best rank of the first few of each list of the bench. In a low position of a large tree
    /// that is one of the weak if there are any: the strong are for the high ones.
    fn best_of_bench(&self, search: &mut Heirs, areas: &[u8]) -> Option<NodeRef> {
        let least = match self.may_take_a_part(search) {
            false => self.node(search.node).children,
            true if self.is_high(search.node) => self.node(search.node).children / 4 * 3,
            // Subtrees stay at their depth; leaves find a slot anywhere.
            true => u16::try_from(
                self.children(search.node)
                    .filter(|child| self.node(*child).children > 0)
                    .count(),
            )
            .unwrap_or(u16::MAX),
        };
        let (least, low) = (bench_of(least), self.is_low(search.node));
        let all = [least..=STRONG - 1, least.max(STRONG)..=BENCHES];
        match low {
            true => all
                .into_iter()
                .find_map(|classes| self.best_of_classes(search, areas, classes)),
            false => self.best_of_classes(search, areas, least..=BENCHES),
        }
    }

    fn best_of_classes(
        &self,
        search: &mut Heirs,
        areas: &[u8],
        classes: RangeInclusive<u8>,
    ) -> Option<NodeRef> {
        let tree = self.tree_of(search.node);
        let look = if tree.is_large() { 2 } else { usize::MAX };
        let next = |node: &NodeRef| self.node(*node).next_listed.get();
        let mut best: Option<(bool, u64, NodeRef)> = None;
        for class in classes.rev() {
            for depth in 1..=tree.deepest() {
                for area in areas {
                    let first = tree.index.first(*area, depth, class);
                    for candidate in core::iter::successors(first, next).take(look) {
                        if search.examined >= MOST_EXAMINED {
                            return best.map(|(_, _, node)| node);
                        }
                        search.examined += 1;
                        let rank = self.rank_as_heir(candidate, search.node);
                        let better = |free| {
                            best.is_none_or(|(other, found, _)| (free, rank) > (other, found))
                        };
                        if !better(true) || !self.takes_over(candidate, search) {
                            continue;
                        }
                        let hangs_on = |parent| self.is_within(candidate, parent);
                        let free = !search.parent.is_some_and(hangs_on);
                        if better(free) {
                            best = Some((free, rank, candidate));
                        }
                        break;
                    }
                }
            }
        }
        best.map(|(_, _, node)| node)
    }

    fn takes_over(&self, candidate: NodeRef, search: &Heirs) -> bool {
        match self.may_take_a_part(search) {
            true => self.might_succeed(candidate, search.node),
            false => self.succeeds(candidate, search.node),
        }
    }

    /// In a large tree there are slots for those of a dead node's children for whom its heir has no room.
    fn may_take_a_part(&self, search: &Heirs) -> bool {
        search.at_a_price && self.tree_of(search.node).is_large()
    }

    fn is_low(&self, node: NodeRef) -> bool {
        self.tree_of(node).is_large() && !self.is_high(node)
    }

    /// Who has been there for long stays. Who is strong has much below it; in a low position only the children
    /// count.
    fn rank_as_heir(&self, candidate: NodeRef, node: NodeRef) -> u64 {
        match self.is_low(node) {
            false => self.rank_for_high(candidate),
            true => {
                let taken = self.node(candidate).capacity.min(self.node(node).children);
                self.maturity(candidate) * u64::from(taken)
            }
        }
    }

    /// How good a node is for a high position.
    pub(super) fn rank_for_high(&self, node: NodeRef) -> u64 {
        let capacity = u64::from(self.node(node).capacity.min(16));
        self.maturity(node) * capacity * capacity
    }

    /// How sure it is that a node stays, in 2^20 parts: how it stands to a part of the mean age. The chance to leave
    /// falls with age, the more slowly the older one is.
    fn maturity(&self, node: NodeRef) -> u64 {
        let record = self.node(node);
        let age = u64::from(self.today.saturating_sub(record.born)) + 1;
        let usual = self.tree(record.tree).mean_age(self.today);
        let share = (age << 10) / (age + usual / 4);
        share * share
    }

    /// The first that fits of the deepest of a class.
    fn deepest_of(&self, search: &mut Heirs, areas: &[u8], class: u8) -> Option<NodeRef> {
        let tree = self.tree_of(search.node);
        let mut entangled = None;
        for depth in (1..=tree.deepest()).rev() {
            for area in areas {
                let first = tree.index.first(*area, depth, class);
                let next = |node: &NodeRef| self.node(*node).next_listed.get();
                for candidate in core::iter::successors(first, next).take(OF_EACH_LIST) {
                    if search.examined >= 2 * MOST_EXAMINED {
                        return entangled;
                    }
                    search.examined += 1;
                    let fits = match search.at_a_price {
                        true => self.could_succeed(candidate, search.node),
                        false => self.succeeds(candidate, search.node),
                    };
                    if !fits {
                        continue;
                    }
                    let hangs_on = |parent| self.is_within(candidate, parent);
                    if !search.parent.is_some_and(hangs_on) {
                        return Some(candidate);
                    }
                    entangled = entangled.or(Some(candidate));
                }
            }
        }
        entangled
    }
}

/// Areas of one tree; most have one or two, and none many.
type Areas = Vec<u8>;

/// A search for who takes over.
struct Heirs {
    node: NodeRef,
    parent: Option<NodeRef>,
    examined: u32,
    at_a_price: bool,
}
