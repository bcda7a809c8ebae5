//! What to do about the lost: whoever loses its source goes to its standby first, then to a free slot
//! (over the CDN, where its own reflex has taken it), then to the CDN. A subtree moves whole, with its
//! head; everyone below goes on playing from its own parent.

use core::cmp::Reverse;
use core::time::Duration;

use super::Forest;
use super::node::{Flow, Former, NodeRef, PeerRef, Place};
use crate::ids::{PeerId, TrackIndex};

/// How long a node that fell to the CDN by itself is left there.
const BREATH: Duration = Duration::from_secs(2);
/// How long a node that was moved away from a slow parent is left where it is.
const BREATH_AFTER_RELIEF: Duration = Duration::from_secs(30);

impl Forest {
    /// Removes peers and repairs what hung on them. The lost are out of every index before the first
    /// repair, so that none of them is taken for a rescuer.
    pub(crate) fn remove_peers(&mut self, peers: &[PeerRef], now: Duration) {
        for peer in peers {
            self.set_session(*peer, false);
        }
        for peer in peers {
            let nodes: Vec<_> = self.peer(*peer).nodes.values().copied().collect();
            for node in nodes {
                self.remove_node(node, now);
            }
            let record = self
                .peers
                .remove(*peer)
                .expect("invariant: the peer is in the forest");
            if let Some(until) = record.shunned_until {
                self.shunned.remove(&(until, *peer));
            }
            self.by_id.remove(&record.id);
            self.changes.peers.remove(&record.id);
            self.changes.offers.remove(&record.id);
            if !self.changes.joined.remove(&record.id) {
                self.changes.left.insert(record.id);
            }
        }
    }

    /// Takes a node out of its tree; the successor takes over its children and its position.
    pub(super) fn remove_node(&mut self, node: NodeRef, now: Duration) {
        let record = self.node_mut(node);
        record.warm = false;
        let (track, place, depth) = (record.track, record.source, record.depth);
        if !record.children.is_empty() {
            self.shake(track, now);
        }
        self.release_former(node);
        let (mut orphans, successor) = self.orphan_children(node);
        self.detach(node);
        if let Some(successor) = successor {
            self.lift(successor, place, depth, now);
        }
        if place == Place::Cdn {
            self.crown(track, &mut orphans);
        }
        for orphan in orphans {
            self.rehome(orphan, successor, now);
        }
        self.drop_node(node);
    }

    /// Moves all children away from a peer that may have none any more.
    pub(crate) fn bereave(&mut self, peer: PeerRef, now: Duration) {
        self.reindex_peer(peer);
        let nodes: Vec<_> = self.peer(peer).nodes.values().copied().collect();
        for node in nodes {
            let (orphans, successor) = self.orphan_children(node);
            for orphan in orphans {
                self.rehome(orphan, successor, now);
            }
        }
        self.reindex_peer(peer);
    }

    /// Notes that the tree is being repaired; what may wait waits.
    pub(super) fn shake(&mut self, track: TrackIndex, now: Duration) {
        self.tree_mut(track).shaken = now;
    }

    /// Cuts everything below a node and all reservations at it. Returns the children, the tallest
    /// first, and who was to take them over.
    fn orphan_children(&mut self, node: NodeRef) -> (Vec<NodeRef>, Option<NodeRef>) {
        let record = self.node(node);
        let successor = record.successor;
        let mut orphans: Vec<_> = record.children.iter().copied().collect();
        orphans.sort_by_key(|orphan| (Reverse(self.node(*orphan).height), *orphan));
        for leaver in self.node(node).leaving.clone() {
            self.release_former(leaver);
        }
        for protected in self.node(node).protects.clone() {
            self.release_successor(protected);
        }
        self.release_successor(node);
        for orphan in &orphans {
            self.detach(*orphan);
        }
        (
            orphans,
            successor.filter(|successor| self.serves(*successor)),
        )
    }

    /// Moves a successor up into the position that has become free, so that those whom it takes over
    /// keep their depth.
    fn lift(&mut self, successor: NodeRef, place: Place, depth: u32, now: Duration) {
        let record = self.node(successor);
        if record.depth <= depth {
            return;
        }
        let roots = self.tree(record.track).root_count();
        match place {
            Place::Cdn if roots < self.policy.target_roots() => {
                self.move_to(successor, Place::Cdn, false, now);
            }
            Place::Under(parent) if self.serves(parent) && self.legal(parent, successor) => {
                self.move_to(successor, place, false, now);
            }
            Place::Cdn | Place::Under(_) | Place::Nowhere => {}
        }
    }

    /// Gives a node that has lost its place another.
    pub(super) fn rehome(&mut self, node: NodeRef, standby: Option<NodeRef>, now: Duration) {
        let record = self.node(node);
        let (warm, session) = (record.warm, self.peer(record.peer).session);
        if record.former.is_some() {
            match self.find_slot(node) {
                Some(slot) if session => self.take_slot(node, Some(slot), now),
                Some(_) | None => self.go_back(node, now),
            }
            return;
        }
        let able = |s: &NodeRef| self.nodes.get(*s).is_some() && self.serves(*s);
        if let Some(standby) = standby.filter(able).filter(|s| self.legal(*s, node)) {
            self.take_slot(node, Some(standby), now);
            if warm {
                self.set_deadline(node, None);
            }
            return;
        }
        let slot = if session { self.find_slot(node) } else { None };
        if slot.is_some() && warm {
            self.set_former(
                node,
                Former {
                    place: Place::Cdn,
                    evicted: false,
                },
            );
        }
        self.take_slot(node, slot, now);
    }

    /// The link between two peers is of no use: every edge between them is planned anew.
    pub(crate) fn break_pair(&mut self, one: PeerId, other: PeerId, now: Duration) {
        self.touched(one);
        self.touched(other);
        for (child, parent) in [(one, other), (other, one)] {
            for (node, above) in self.node_pairs(child, parent) {
                if self
                    .node(node)
                    .former
                    .is_some_and(|f| f.place == Place::Under(above))
                {
                    self.release_former(node);
                }
                if self.node(node).source == Place::Under(above) {
                    let standby = self.node(above).successor;
                    self.detach(node);
                    self.rehome(node, standby, now);
                }
            }
        }
    }

    /// A link lives but cannot carry its share: the child moves to another parent if there is one, and
    /// keeps what it has meanwhile. Returns whether it moves. Without another parent it stays: what is
    /// missing comes from its standby or the CDN as it is.
    pub(crate) fn relieve(&mut self, child: PeerId, parent: PeerId, now: Duration) -> bool {
        let mut moves = false;
        for (node, above) in self.node_pairs(child, parent) {
            let record = self.node(node);
            let settled = record.former.is_none() && record.hold_until <= now;
            if record.source == Place::Under(above)
                && settled
                && let Some(slot) = self.find_slot(node)
            {
                self.move_to(node, Place::Under(slot), false, now);
                self.hold(node, now + BREATH_AFTER_RELIEF);
                moves = true;
            }
        }
        moves
    }

    pub(super) fn evict(&mut self, child: NodeRef, now: Duration) {
        let to = self.find_slot(child).map_or(Place::Cdn, Place::Under);
        self.move_to(child, to, true, now);
    }

    /// Pairs the two peers' nodes by track.
    fn node_pairs(&self, child: PeerId, parent: PeerId) -> Vec<(NodeRef, NodeRef)> {
        let (Some(child), Some(parent)) = (self.find(child), self.find(parent)) else {
            return Vec::new();
        };
        let nodes = self.peer(child).nodes.iter();
        let above = &self.peer(parent).nodes;
        nodes
            .filter_map(|(track, node)| Some((*node, *above.get(track)?)))
            .collect()
    }

    /// Whether the plan has (or is leaving, or holds in reserve) a link between the two.
    pub(crate) fn are_linked(&self, one: PeerId, other: PeerId) -> bool {
        [(one, other), (other, one)].into_iter().any(|(child, parent)| {
            self.node_pairs(child, parent).into_iter().any(|(node, above)| {
                let record = self.node(node);
                record.source == Place::Under(above)
                    || record.former.is_some_and(|f| f.place == Place::Under(above))
                    || matches!(record.source, Place::Under(p) if self.node(p).successor == Some(above))
            })
        })
    }

    /// Attaches a node to the parent that it takes its data from already, which is proof that the
    /// parent has some.
    pub(super) fn attach_as_found(&mut self, node: NodeRef, parent: NodeRef) {
        self.warm_up(parent);
        self.make_room(parent);
        self.attach(node, Place::Under(parent));
    }

    /// A child has switched by itself. Adopts that if it is legal; otherwise plans another place.
    pub(crate) fn adopt_switch(&mut self, node: NodeRef, to: Option<Place>, now: Duration) {
        self.shake(self.node(node).track, now);
        self.warm_up(node);
        self.release_former(node);
        self.detach(node);
        match to {
            Some(Place::Under(parent)) if self.fits(parent, node) => {
                self.attach_as_found(node, parent);
                self.set_deadline(node, None);
            }
            Some(Place::Cdn) => {
                self.take_slot(node, None, now);
                self.hold(node, now + BREATH);
            }
            Some(Place::Under(_) | Place::Nowhere) | None => self.rehome(node, None, now),
        }
        self.set_flow(node, Flow::Flowing);
        self.reindex_peer(self.node(node).peer);
    }
}
