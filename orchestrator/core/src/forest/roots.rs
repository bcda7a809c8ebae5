//! Whom the CDN feeds: as few as the policy asks for and the audience's upload allows.
//!
//! The strongest stay: relays before others, then by the band of their capacity, then the tallest tree,
//! then the oldest. What is too much is moved, with all below it, to the shallowest legal slot of
//! another tree, a few per event. With two roots and a free slot there is always one that can go under
//! the other, so the number falls to what the slots allow.

use core::time::Duration;

use super::Forest;
use super::budget::band;
use super::node::{Flow, NodeRef, Place, RootKey, turn};
use crate::events::PeerRole;
use crate::ids::{TrackIndex, TrackName};

/// Roots that one event looks at.
const MOST_EXAMINED: usize = 16;
/// Roots that one event moves.
const MOST_MOVED: usize = 4;
/// How long no new root may have come before a stronger goes under a weaker: in a burst of joins the
/// strong tree has no slot for the weak ones only until its members are warm.
pub(super) const SETTLED: Duration = Duration::from_secs(5);

impl Forest {
    /// Brings the number of each tree's roots nearer to the policy's.
    pub(crate) fn settle_roots(&mut self, now: Duration) {
        if self.newest_root.0 != self.roots_so_far {
            self.newest_root = (self.roots_so_far, now);
        }
        let tracks: Vec<_> = self.trees.keys().copied().collect();
        for track in tracks {
            self.demote(track, now);
            self.promote(track, now);
        }
    }

    fn demote(&mut self, track: TrackIndex, now: Duration) {
        let tree = self.tree(track);
        let target = self.policy.target_roots();
        if tree.root_count() <= target || tree.open.is_empty() {
            return;
        }
        let turn: Vec<RootKey> = turn(&tree.roots, tree.demote_cursor)
            .take(MOST_EXAMINED)
            .collect();
        // The strongest go under a weaker one only if no weaker one is just waiting for its turn.
        let strongest = tree.roots.iter().rev().nth(target as usize - 1).copied();
        let weaker = |key: &RootKey| strongest.is_some_and(|strongest| *key < strongest);
        let waiting = turn
            .iter()
            .any(|key| weaker(key) && !self.is_movable(key.node, now))
            || now < self.newest_root.1 + SETTLED;
        let mut moved = 0;
        for key in turn {
            if moved == MOST_MOVED || self.tree(track).root_count() <= target {
                break;
            }
            self.tree_mut(track).demote_cursor = Some(key);
            if weaker(&key) || !waiting {
                moved += usize::from(self.demote_one(key.node, now));
            }
        }
        if self.tree(track).root_count() <= target {
            self.tree_mut(track).demote_cursor = None;
        }
    }

    fn demote_one(&mut self, node: NodeRef, now: Duration) -> bool {
        if !self.is_movable(node, now) {
            return false;
        }
        let Some(parent) = self.find_slot(node) else {
            return false;
        };
        self.move_to(node, Place::Under(parent), false, now);
        true
    }

    pub(super) fn is_movable(&self, node: NodeRef, now: Duration) -> bool {
        let record = self.node(node);
        record.former.is_none()
            && record.hold_until <= now
            && record.flow == Flow::Flowing
            && self.peer(record.peer).session
    }

    /// Makes the strongest of the shallow open nodes a root while there are fewer than wanted.
    fn promote(&mut self, track: TrackIndex, now: Duration) {
        for _ in 0..MOST_MOVED {
            let tree = self.tree(track);
            if tree.root_count() >= self.policy.target_roots() {
                return;
            }
            let shallow = tree.open.iter().take(MOST_EXAMINED);
            let may = shallow.filter(|key| key.depth > 1 && self.is_movable(key.node, now));
            let Some(key) = may.max_by_key(|key| (core::cmp::Reverse(key.capacity), key.node))
            else {
                return;
            };
            self.move_to(key.node, Place::Cdn, false, now);
        }
    }

    /// Makes a relay that has just become able to serve a root in the place of a viewer.
    pub(crate) fn raise_relay(&mut self, node: NodeRef, now: Duration) {
        let record = self.node(node);
        let tree = self.tree(record.track);
        let is_relay = self.peer(record.peer).role == PeerRole::Relay;
        if !is_relay || record.source == Place::Cdn || !self.is_movable(node, now) {
            return;
        }
        let capacity = self.capacity(node);
        let weakest = tree
            .roots
            .first()
            .is_some_and(|root| !root.relay && root.band <= band(capacity));
        let planned = self.policy.max_planned_roots();
        if weakest && planned.is_none_or(|most| tree.root_count() < most) {
            self.move_to(node, Place::Cdn, false, now);
        }
    }

    /// Makes the strongest of the orphans a root if one is missing, and takes it off the list.
    pub(super) fn crown(&mut self, track: TrackIndex, orphans: &mut Vec<NodeRef>) {
        if self.tree(track).root_count() >= self.policy.target_roots() {
            return;
        }
        let strength = |node: NodeRef| {
            let peer = self.peer(self.node(node).peer);
            let usable = peer.session && self.node(node).warm && !peer.distrusted;
            (
                usable,
                peer.role == PeerRole::Relay,
                self.capacity(node),
                core::cmp::Reverse(node),
            )
        };
        let strongest = orphans.iter().copied().max_by_key(|node| strength(*node));
        if let Some(node) = strongest.filter(|node| strength(*node).2 > 0) {
            orphans.retain(|other| *other != node);
            self.release_former(node);
            self.take_slot(node, None, Duration::ZERO);
        }
    }

    /// Returns the tracks whose number of roots has crossed the policy's limit since the last call,
    /// with the number of roots if it is over.
    pub(crate) fn crossings(&mut self) -> Vec<(TrackName, Option<u32>)> {
        let limit = self.policy.max_planned_roots();
        let mut crossed = Vec::new();
        for tree in self.trees.values_mut() {
            let roots = tree.root_count();
            let over = limit.is_some_and(|limit| roots > limit);
            if over != tree.alarmed {
                tree.alarmed = over;
                crossed.push((tree.name.clone(), over.then_some(roots)));
            }
        }
        crossed
    }
}
