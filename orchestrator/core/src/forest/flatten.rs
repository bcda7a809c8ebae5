//! Wide before deep, after the fact: who came when nobody above could serve yet rises when they can.
//!
//! In a burst of joins nobody is warm, so subtrees are stacked as they become able to serve. Later the
//! deepest peers, or what hangs on one of their ancestors as a whole, move to a slot further up:
//!
//! - one move at a time and at most two a second, only in a tree that has come to rest;
//! - only from the deepest level, and only if two levels are gained or all of that level can rise, so
//!   that every move is on the way to a shallower tree. Depths only fall by it, so it comes to an end;
//! - as every planned move, make before break; who rose is left alone for a while.
//!
//! Not here: exchanging the strong with the weak, moving the old up and the young down.

use core::time::Duration;

use super::Forest;
use super::node::{NodeRef, OpenClass, OpenKey, Place, Tree, turn};
use crate::events::PeerRole;
use crate::ids::TrackIndex;

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
const FEW: usize = 8;

impl Forest {
    /// Moves one of each tree's deepest up, if that is worth it.
    pub(crate) fn flatten(&mut self, now: Duration) {
        let tracks: Vec<_> = self.trees.keys().copied().collect();
        for track in tracks {
            if !self.is_at_rest(track, now) {
                continue;
            }
            if let Some((node, slot)) = self.find_rise(track, now) {
                self.move_to(node, Place::Under(slot), false, now);
                self.hold(node, now + REST);
                self.tree_mut(track).rose = now;
            }
        }
    }

    fn is_at_rest(&self, track: TrackIndex, now: Duration) -> bool {
        let tree = self.tree(track);
        let gathered = tree.root_count() <= self.policy.target_roots();
        tree.is_uneven()
            && now >= tree.rose + INTERVAL
            && now >= tree.shaken + CALM
            && (gathered || now >= self.newest_root.1 + super::roots::SETTLED)
    }

    /// Finds a node and the slot that it rises to.
    fn find_rise(&mut self, track: TrackIndex, now: Duration) -> Option<(NodeRef, NodeRef)> {
        let tree = self.tree(track);
        let deepest = tree.deepest();
        let shallowest = tree.open.first()?.depth;
        let gain = if self.can_be_emptied(tree, deepest) {
            1
        } else {
            2
        };
        let level = turn(&tree.levels, tree.rise_cursor).filter(|(depth, _)| *depth == deepest);
        let leaves: Vec<_> = level.take(MOST_EXAMINED).collect();
        self.tree_mut(track).rise_cursor = leaves.last().copied();
        for (_, leaf) in leaves {
            let subtree = self.best_cut(leaf, shallowest, now);
            for node in [subtree, Some(leaf)].into_iter().flatten() {
                if let Some(slot) = self.find_higher_slot(node, gain, now) {
                    return Some((node, slot));
                }
            }
        }
        None
    }

    /// Whether there are slots for all nodes of the deepest level further up than their parents.
    fn can_be_emptied(&self, tree: &Tree, deepest: u32) -> bool {
        let level = tree.levels.iter().rev();
        let level = level.take_while(|(depth, _)| *depth == deepest);
        let nodes = level.take(FEW + 1).count();
        let mut slots = 0;
        for key in Self::higher(tree, deepest - 1).take(MOST_SLOTS) {
            slots += self.free_at_a_price(key.node) as usize;
        }
        nodes <= FEW.min(slots)
    }

    /// Slots above this depth, the shallowest first.
    fn higher(tree: &Tree, depth: u32) -> impl DoubleEndedIterator<Item = &OpenKey> {
        let keys = tree.open.range(..OpenKey::first_at(depth));
        keys.filter(|key| key.class != OpenClass::Distrusted)
    }

    /// Where to cut the way from a leaf to the CDN, so that what is below the cut and what is above it
    /// are shallowest once the cut-off part hangs on a slot of this depth.
    fn best_cut(&self, leaf: NodeRef, slot: u32, now: Duration) -> Option<NodeRef> {
        let way = self
            .upwards(leaf)
            .filter(|node| self.node(*node).depth > slot + 1 && self.may_rise(*node, now));
        way.min_by_key(|node| {
            let record = self.node(*node);
            (slot + record.height).max(record.depth - 1)
        })
    }

    fn may_rise(&self, node: NodeRef, now: Duration) -> bool {
        self.node(node).warm && self.is_movable(node, now)
    }

    fn find_higher_slot(&mut self, node: NodeRef, gain: u32, now: Duration) -> Option<NodeRef> {
        let record = self.node(node);
        if !self.may_rise(node, now) || record.depth <= gain + 1 {
            return None;
        }
        let tree = self.tree(record.track);
        let consumer = self.peer(record.peer).role == PeerRole::Consumer;
        let keys = Self::higher(tree, record.depth - gain);
        let mut examined = 0;
        let mut suits = |key: &&OpenKey| {
            examined += 1;
            self.serves(key.node) && self.legal(key.node, node)
        };
        let found = if consumer {
            keys.rev().take(MOST_SLOTS).find(&mut suits)
        } else {
            keys.take(MOST_SLOTS).find(&mut suits)
        };
        let found = found.map(|key| key.node);
        self.work.examined += examined;
        found
    }
}
