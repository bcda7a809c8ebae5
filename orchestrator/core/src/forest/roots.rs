//! Whom the CDN feeds: as few as the policy asks for and the audience's upload allows.
//!
//! The strongest stay: relays before others, then by the band of their capacity, then the
//! oldest. What is too much is moved, with all below it, to the shallowest legal slot of
//! another tree, a few per event. With two roots and a free slot there is always one that can go under
//! the other, so the number falls to what the slots allow.

use core::time::Duration;

use super::Forest;
use super::node::{Link, NodeRef, Place};
use crate::events::PeerRole;
use crate::ids::TrackName;

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
        for tree in self.tree_slots() {
            self.demote(tree, now);
            self.promote(tree, now);
        }
    }

    fn demote(&mut self, tree: u8, now: Duration) {
        let target = self.policy.target_roots();
        let record = self.tree(tree);
        if record.root_count() <= target || record.shallowest_open().is_none() {
            return;
        }
        let from = record.demote_cursor.get();
        let from = from.or_else(|| self.roots(tree).next());
        let Some(from) = from else { return };
        let turn: Vec<_> = self.roots_from(from).take(MOST_EXAMINED).collect();
        let next = self.roots_from(from).nth(MOST_EXAMINED);
        self.tree_mut(tree).demote_cursor = next.into();
        // The strongest go under a weaker one only if no weaker one is just waiting for its turn.
        let strongest: Vec<_> = self.strongest_roots(tree).take(target as usize).collect();
        let least = strongest.last().map_or(0, |root| self.rank_of(*root));
        let stays = |node: NodeRef| {
            self.rank_of(node) > least || (self.rank_of(node) == least && strongest.contains(&node))
        };
        let turn: Vec<_> = turn.into_iter().map(|node| (node, stays(node))).collect();
        let waiting = turn
            .iter()
            .any(|(node, stays)| !stays && !self.is_movable(*node, now))
            || now < self.newest_root.1 + SETTLED;
        let mut moved = 0;
        for (node, stays) in turn {
            if moved == MOST_MOVED || self.tree(tree).root_count() <= target {
                break;
            }
            if self.node(node).place() == Place::Cdn && (!stays || !waiting) {
                moved += usize::from(self.demote_one(node, now));
            }
        }
        if self.tree(tree).root_count() <= target {
            self.tree_mut(tree).demote_cursor = Link::NONE;
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
        !record.is_moving()
            && !self.is_held(node, now)
            && record.flow() == super::node::Flow::Flowing
            && self.peer(record.peer).session
    }

    /// Makes the strongest of the shallow open nodes a root while there are fewer than wanted.
    fn promote(&mut self, tree: u8, now: Duration) {
        for _ in 0..MOST_MOVED {
            if self.tree(tree).root_count() >= self.policy.target_roots() {
                return;
            }
            let shallow = self.shallow_open(tree, 2, MOST_EXAMINED);
            let may = shallow
                .into_iter()
                .filter(|node| self.is_movable(*node, now));
            // Of equals the first, which is the shallowest.
            let strongest = may.rev().max_by_key(|node| self.node(*node).capacity);
            let Some(node) = strongest else {
                return;
            };
            self.move_to(node, Place::Cdn, false, now);
        }
    }

    /// The first nodes that can take a child, from a depth on.
    pub(super) fn shallow_open(&self, tree: u8, from: u32, most: usize) -> Vec<NodeRef> {
        let index = &self.tree(tree).index;
        let mut found = Vec::new();
        for depth in from..=self.tree(tree).deepest() {
            for area in 0..index.area_count() {
                let mut present = index.classes(area, depth) & super::index::OPEN;
                while present != 0 {
                    let class = u8::try_from(present.trailing_zeros()).unwrap_or(0);
                    present &= present - 1;
                    let first = index.first(area, depth, class);
                    let next = |node: &NodeRef| self.node(*node).next_listed.get();
                    found.extend(core::iter::successors(first, next).take(most - found.len()));
                    if found.len() == most {
                        return found;
                    }
                }
            }
        }
        found
    }

    /// Makes a relay that has just become able to serve a root in the place of a viewer.
    pub(crate) fn raise_relay(&mut self, node: NodeRef, now: Duration) {
        let record = self.node(node);
        let tree = record.tree;
        let is_relay = self.peer(record.peer).role == PeerRole::Relay;
        if !is_relay || record.place() == Place::Cdn || !self.is_movable(node, now) {
            return;
        }
        let band = super::budget::band(self.whole_capacity(node));
        let weakest = self.roots(tree).next();
        let weaker = weakest.is_some_and(|root| {
            let relay = self.peer(self.node(root).peer).role == PeerRole::Relay;
            !relay && super::budget::band(self.whole_capacity(root)) <= band
        });
        let planned = self.policy.max_planned_roots();
        let roots = self.tree(tree).root_count();
        if weaker && planned.is_none_or(|most| roots < most) {
            self.move_to(node, Place::Cdn, false, now);
        }
    }

    /// Makes the strongest of the orphans a root if one is missing, and takes it off the list.
    pub(super) fn crown(&mut self, tree: u8, orphans: &mut Vec<NodeRef>) {
        if self.tree(tree).root_count() >= self.policy.target_roots() {
            return;
        }
        let strength = |node: NodeRef| {
            let record = self.node(node);
            let peer = self.peer(record.peer);
            let usable = peer.session && record.is_warm() && !peer.distrusted;
            (
                usable,
                peer.role == PeerRole::Relay,
                self.whole_capacity(node),
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
        for tree in self.trees.iter_mut().flatten() {
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
