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

use core::time::Duration;

use super::Forest;
use super::index::{BENCH, BENCHES, DISTRUSTED, LEAF};
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
/// A level with more nodes than that is not emptied one by one.
const FEW: u32 = 8;

impl Forest {
    /// Moves one of each tree's deepest up, if that is worth it.
    pub(crate) fn improve(&mut self, now: Duration) {
        for tree in self.tree_slots() {
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
