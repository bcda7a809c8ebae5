//! Better trees, a few planned moves at a time: who came when nobody above could serve yet rises when they
//! can.
//!
//! In a burst of joins nobody is warm, so subtrees are stacked as they become able to serve. Later the
//! deepest peers, or what hangs on one of their ancestors as a whole, move to a slot further up:
//!
//! - one move at a time and at most two a second, only in a tree that has come to rest;
//! - only from the deepest level, and only if two levels are gained or all of that level can rise, so
//!   that every move is on the way to a shallower tree. Depths only fall by it, so it comes to an end;
//! - as every planned move, make before break; who rose is left alone for a while.
//!
//! A large audience never comes to rest, and one move at a time would be too slow for it. There each viewer-hour
//! earns planned moves, as many as the policy allows; successors that take over spend them too. What is left
//! goes to three things in turn: the deepest leaves rise where that gains two levels, a strong bench node changes
//! places with a leaf further up that can serve nobody, and the best of the bench takes over a high position
//! from one that is weak, or young, for it.

use core::time::Duration;

use super::Forest;
use super::index::{BENCH, BENCHES, DISTRUSTED, LEAF, STRONG_HEIR};
use super::node::{Flags, NodeRef, Place};

/// Between two moves in a tree.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long nobody may have lost its source: repairs go first.
const CALM: Duration = Duration::from_secs(5);
/// How long a node that rose is left where it is.
const REST: Duration = Duration::from_secs(5);
/// Nodes of the deepest level that one event looks at, and slots for each.
const MOST_EXAMINED: usize = 4;
const MOST_SLOTS: usize = 32;
/// One planned move, in what is earned.
const MOVE: i64 = 1_000_000;
/// Nodes that one event looks at in passing.
const MOST_SAMPLED: u32 = 3;
/// Events that the next attempt waits for at the most after others were in vain.
const LONGEST_PAUSE: u32 = 8;
/// How long moves are saved up.
const MOST_SAVED_MS: i64 = 5_000;
/// By how much better one has to be that takes over a position, in quarters.
const BETTER: u64 = 6;
/// A level with more nodes than that is not emptied one by one.
const FEW: u32 = 8;

impl Forest {
    /// Moves one of each tree's deepest up, if that is worth it.
    pub(crate) fn improve(&mut self, now: Duration) {
        for tree in self.tree_slots() {
            if self.tree(tree).is_large() {
                self.improve_large(tree, now);
                continue;
            }
            if !self.is_at_rest(tree, now) {
                continue;
            }
            if let Some((node, slot)) = self.find_rise(tree, now) {
                self.move_to(node, Place::Under(slot), false, now);
                self.hold(node, now + REST);
                self.tree_mut(tree).improved = now;
            }
        }
    }

    /// Takes planned moves from what the audience has earned.
    pub(super) fn spend(&mut self, tree: u8, moves: i64) {
        self.tree_mut(tree).credit -= moves * MOVE;
    }

    fn improve_large(&mut self, tree: u8, now: Duration) {
        let per_hour = i64::from(self.policy.max_planned_moves_per_viewer_hour());
        let record = self.tree_mut(tree);
        let passed = now.saturating_sub(record.credited).as_millis();
        if passed > 0 {
            record.credited = now;
            let each = i64::from(record.members) * per_hour * MOVE / 3_600_000;
            let passed = i64::try_from(passed).unwrap_or(i64::MAX).min(60_000);
            record.credit = (record.credit + passed * each).clamp(
                -60_000 * each,
                MOST_SAVED_MS * each + i64::from(record.peak) * MOVE,
            );
        }
        if record.credit < 2 * MOVE {
            return;
        }
        if record.improve_in > 0 {
            record.improve_in -= 1;
            return;
        }
        record.turn = record.turn.wrapping_add(1);
        let before = record.credit;
        match record.turn % 4 {
            0 => self.raise_a_leaf(tree, now),
            1 => self.exchange_a_leaf(tree, now),
            _ => self.replace_a_weak_one(tree, now),
        }
        let record = self.tree_mut(tree);
        record.improve_pause = match record.credit < before {
            true => 0,
            false => (record.improve_pause + 1).min(LONGEST_PAUSE),
        };
        record.improve_in = record.improve_pause;
    }

    /// Looks at a few nodes, as often at one of each depth, and has the first interior one that is weak and
    /// young for its place replaced by the best of the bench, which takes over its position and its children.
    fn replace_a_weak_one(&mut self, tree: u8, now: Duration) {
        let above = self.tree(tree).high().unwrap_or(1).max(1);
        for _ in 0..MOST_SAMPLED.min(above) {
            let turn = self.tree(tree).turn;
            self.tree_mut(tree).turn = turn.wrapping_add(4);
            let Some(weak) = self.sample(tree, 1 + turn / 4 % above, turn) else {
                return;
            };
            let record = self.node(weak);
            let idle = record.children == 0 && record.depth > 1;
            if idle || !self.is_movable(weak, now) {
                continue;
            }
            if let Some(strong) = self.best_for_place(weak, now) {
                let moves = i64::from(self.node(weak).children) + 2;
                if self.replace(weak, strong, now) {
                    self.spend(tree, moves);
                    return;
                }
            }
        }
    }

    /// A node of this depth, or as deep as it goes, below the next of the roots.
    fn sample(&mut self, tree: u8, depth: u32, lot: u32) -> Option<NodeRef> {
        let root = self.tree(tree).sample_cursor.get();
        let root = root.or_else(|| self.roots(tree).next())?;
        let next = self.roots_from(root).nth(1);
        self.tree_mut(tree).sample_cursor = next.into();
        let mut lot = lot.wrapping_mul(0x9e37_79b9);
        let mut at = root;
        for _ in 1..depth {
            let children = self.node(at).children;
            if children == 0 {
                break;
            }
            let pick = lot >> 16;
            lot = lot.wrapping_mul(0x85eb_ca6b).wrapping_add(1);
            let pick = pick as usize % usize::from(children);
            at = self.children(at).nth(pick).unwrap_or(at);
        }
        Some(at)
    }

    /// The best of the node's region to have its place: deeper, and of a much better rank.
    fn best_for_place(&self, weak: NodeRef, now: Duration) -> Option<NodeRef> {
        let record = self.node(weak);
        let tree = self.tree(record.tree);
        let region = record.area() & !1;
        let least = self.rank_for_high(weak) * BETTER / 4;
        let next = |node: &NodeRef| self.node(*node).next_listed.get();
        let fits = |node: &NodeRef| {
            let strong = self.node(*node);
            strong.children == 0
                && strong.capacity >= record.children
                && self.rank_for_high(*node) > least
                && self.may_rise(*node, now)
        };
        let mut best: Option<(u64, NodeRef)> = None;
        for depth in record.depth() + 1..=tree.deepest() {
            for area in [region, region + 1] {
                let present = tree.index.classes(area, depth);
                let classes =
                    (super::index::bench_of(record.children)..=BENCHES).chain([STRONG_HEIR]);
                for class in classes.filter(|class| present & 1 << class != 0) {
                    let first = tree.index.first(area, depth, class);
                    let found = core::iter::successors(first, next).take(2).find(fits);
                    if let Some(found) = found {
                        let rank = self.rank_for_high(found);
                        if best.is_none_or(|(other, _)| rank > other) {
                            best = Some((rank, found));
                        }
                    }
                }
            }
        }
        best.map(|(_, node)| node)
    }

    /// Has a bench node take over another's position and children, which goes to where that was. Nobody's depth
    /// changes but theirs. Returns whether it could.
    fn replace(&mut self, weak: NodeRef, strong: NodeRef, now: Duration) -> bool {
        let Some(below) = self.node(strong).parent() else {
            return false;
        };
        let place = self.node(weak).place();
        let children: Vec<_> = self.children(weak).collect();
        let fit = self.node(strong).carried() == 0
            && self.node(weak).leaving == 0
            && self.node(below).serves()
            && self.node(below).peer != self.node(weak).peer
            && self.may_meet(below, weak)
            && self.is_clear_of(below, weak)
            && match place {
                Place::Nowhere => false,
                Place::Cdn => true,
                Place::Under(above) => {
                    self.node(above).serves()
                        && self.node(above).peer != self.node(strong).peer
                        && self.may_meet(above, strong)
                }
            }
            && children.iter().all(|child| {
                self.node(*child).peer != self.node(strong).peer
                    && self.may_meet(*child, strong)
                    && self.is_movable(*child, now)
            });
        if !fit {
            return false;
        }
        while let Some(protected) = self.node(strong).protects.get() {
            self.release_successor(protected);
        }
        self.leave_for_another(strong, true);
        self.leave_for_another(weak, true);
        self.attach(strong, place);
        for child in &children {
            self.leave_for_another(*child, false);
            self.attach(*child, Place::Under(strong));
        }
        self.attach(weak, Place::Under(below));
        for node in [strong, weak].iter().chain(&children) {
            self.set_deadline(*node, Some(now + super::moves::PATIENCE));
        }
        self.hold(strong, now + REST);
        self.hold(weak, now + REST);
        true
    }

    /// Moves one of the deepest leaves to a slot two levels further up.
    fn raise_a_leaf(&mut self, tree: u8, now: Duration) {
        let deepest = self.tree(tree).deepest();
        for leaf in self.some_leaves(tree, deepest) {
            if !self.may_rise(leaf, now) {
                continue;
            }
            let slot = self.find_slot(leaf);
            if let Some(slot) = slot.filter(|slot| self.node(*slot).depth() + 3 <= deepest) {
                self.move_to(leaf, Place::Under(slot), false, now);
                self.hold(leaf, now + REST);
                self.spend(tree, 1);
                return;
            }
        }
    }

    /// Has a strong bench node change places with a leaf that hangs higher and can serve nobody.
    fn exchange_a_leaf(&mut self, tree: u8, now: Duration) {
        let regions = self.tree(tree).index.area_count().div_ceil(2);
        let turn = u8::try_from(self.tree(tree).turn / 4 % 256).unwrap_or(0);
        let region = turn % regions.max(1) * 2;
        let Some((weak, depth)) = self.shallowest_leaf(tree, region, now) else {
            return;
        };
        // Below it there must be a level to be gained by those who will hang on the strong one.
        if depth + 2 > self.tree(tree).bulk() + 1 {
            return;
        }
        if let Some(strong) = self.strongest_below(tree, region, depth, now) {
            self.exchange(strong, weak, now);
            self.spend(tree, 2);
        }
    }

    fn shallowest_leaf(&self, tree: u8, region: u8, now: Duration) -> Option<(NodeRef, u32)> {
        let index = &self.tree(tree).index;
        let next = |node: &NodeRef| self.node(*node).next_listed.get();
        for depth in 2..=self.tree(tree).bulk() {
            for area in [region, region + 1] {
                let weak = [LEAF, BENCH].into_iter().flat_map(|class| {
                    core::iter::successors(index.first(area, depth, class), next)
                        .take(MOST_EXAMINED)
                });
                let mut weak = weak.filter(|node| self.node(*node).capacity <= 1);
                if let Some(node) = weak.find(|node| self.may_rise(*node, now)) {
                    return Some((node, depth));
                }
            }
        }
        None
    }

    fn strongest_below(&self, tree: u8, region: u8, depth: u32, now: Duration) -> Option<NodeRef> {
        let index = &self.tree(tree).index;
        let next = |node: &NodeRef| self.node(*node).next_listed.get();
        for class in (BENCH + 3..=BENCHES).rev() {
            for below in (depth + 1..=self.tree(tree).deepest()).rev() {
                for area in [region, region + 1] {
                    let first = index.first(area, below, class);
                    let mut some = core::iter::successors(first, next).take(2);
                    let found = some.find(|node| self.may_rise(*node, now));
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// Two nodes without children change places. Each parent carries the one that leaves until it has gone.
    fn exchange(&mut self, strong: NodeRef, weak: NodeRef, now: Duration) {
        let (Some(above), Some(below)) = (self.node(weak).parent(), self.node(strong).parent())
        else {
            return;
        };
        let fit = above != below
            && self.node(above).serves()
            && self.node(below).serves()
            && self.may_meet(above, strong)
            && self.may_meet(below, weak)
            && self.node(above).peer != self.node(strong).peer
            && self.node(below).peer != self.node(weak).peer
            && above != strong
            && below != weak;
        if !fit {
            return;
        }
        for (node, parent) in [(strong, above), (weak, below)] {
            self.leave_for_another(node, true);
            self.attach(node, Place::Under(parent));
            self.set_deadline(node, Some(now + super::moves::PATIENCE));
            self.hold(node, now + REST);
        }
    }

    fn is_at_rest(&self, tree: u8, now: Duration) -> bool {
        let tree = self.tree(tree);
        let gathered = tree.root_count() <= self.policy.target_roots();
        now >= tree.improved + INTERVAL
            && now >= tree.shaken + CALM
            && (gathered || now >= self.newest_root.1 + super::roots::SETTLED)
            && tree.is_uneven()
    }

    /// Finds a node and the slot that it rises to.
    fn find_rise(&mut self, tree: u8, now: Duration) -> Option<(NodeRef, NodeRef)> {
        let deepest = self.tree(tree).deepest();
        let shallowest = self.tree(tree).shallowest_open()?;
        let gain = if self.can_be_emptied(tree, deepest) {
            1
        } else {
            2
        };
        for leaf in self.some_leaves(tree, deepest) {
            let subtree = self.best_cut(leaf, shallowest, now);
            for node in [subtree, Some(leaf)].into_iter().flatten() {
                if let Some(slot) = self.find_higher_slot(node, gain, now) {
                    return Some((node, slot));
                }
            }
        }
        None
    }

    /// A few leaves of this depth.
    fn some_leaves(&self, tree: u8, depth: u32) -> Vec<NodeRef> {
        let index = &self.tree(tree).index;
        let mut leaves = Vec::new();
        for area in 0..index.area_count() {
            for class in [LEAF, DISTRUSTED].into_iter().chain(BENCH..=BENCHES + 1) {
                let first = index.first(area, depth, class);
                let next = |node: &NodeRef| self.node(*node).next_listed.get();
                let room = MOST_EXAMINED - leaves.len();
                leaves.extend(core::iter::successors(first, next).take(room));
            }
        }
        leaves
    }

    /// Whether there are slots for all nodes of the deepest level further up than their parents.
    fn can_be_emptied(&self, tree: u8, deepest: u32) -> bool {
        let nodes = self.tree(tree).depths()[deepest as usize];
        let slots = self.higher(tree, deepest - 1);
        let slots: u32 = slots.iter().map(|slot| self.free_at_a_price(*slot)).sum();
        nodes <= FEW.min(slots)
    }

    /// Nodes above this depth that can take a child, the shallowest first.
    fn higher(&self, tree: u8, depth: u32) -> Vec<NodeRef> {
        let open = self.shallow_open(tree, 1, MOST_SLOTS);
        let fit = |node: &NodeRef| {
            let record = self.node(*node);
            record.depth() < depth && !record.flags.has(Flags::DISTRUSTED)
        };
        open.into_iter().filter(fit).collect()
    }

    /// Where to cut the way from a leaf to the CDN, so that what is below the cut and what is above it
    /// are shallowest once the cut-off part hangs on a slot of this depth.
    fn best_cut(&self, leaf: NodeRef, slot: u32, now: Duration) -> Option<NodeRef> {
        let way = self
            .upwards(leaf)
            .filter(|node| self.node(*node).depth() > slot + 1 && self.may_rise(*node, now));
        way.min_by_key(|node| {
            let depth = self.node(*node).depth();
            slot.saturating_add(self.height(*node)).max(depth - 1)
        })
    }

    fn may_rise(&self, node: NodeRef, now: Duration) -> bool {
        self.node(node).is_warm() && self.is_movable(node, now)
    }

    fn find_higher_slot(&mut self, node: NodeRef, gain: u32, now: Duration) -> Option<NodeRef> {
        let record = self.node(node);
        if !self.may_rise(node, now) || record.depth() <= gain + 1 {
            return None;
        }
        let consumer = record.flags.has(Flags::CONSUMER);
        let mut slots = self.higher(record.tree, record.depth() - gain);
        if consumer {
            slots.reverse();
        }
        let mut examined = 0;
        let found = slots.into_iter().find(|slot| {
            examined += 1;
            self.legal(*slot, node)
        });
        self.work.examined += examined;
        found
    }
}
