//! What to do about the lost: whoever loses its source goes to its standby first, then to a free slot
//! (over the CDN, where its own reflex has taken it), then to the CDN. A subtree moves whole, with its
//! head; everyone below goes on playing from its own parent.

use core::cmp::Reverse;
use core::time::Duration;

use super::Forest;
use super::node::{Flags, Flow, Former, NodeRef, PeerRef, Place};
use crate::ids::PeerId;

/// How long a node that fell to the CDN by itself is left there.
const BREATH: Duration = Duration::from_secs(2);
/// How long a node that was moved away from a slow parent is left where it is.
const BREATH_AFTER_RELIEF: Duration = Duration::from_secs(30);

impl Forest {
    /// Removes peers and repairs what hung on them. The lost are out of every index before the first
    /// repair, so that none of them is taken for a rescuer.
    pub(crate) fn remove_peers(&mut self, peers: &[PeerRef], now: Duration) {
        self.amid_mass_event = peers.len() >= crate::sessions::AT_ONCE;
        for peer in peers {
            self.set_session(*peer, false);
        }
        for peer in peers {
            while let Some(node) = self.peer(*peer).first_node.get() {
                self.remove_node(node, now);
            }
            self.move_out(*peer);
            let record = self.peers[peer.index()].take();
            let record = record.expect("invariant: the peer is in the forest");
            if let Some(until) = record.shunned_until {
                self.shunned.remove(&(until, *peer));
            }
            self.by_id.remove(record.id);
            self.free_peers.push(*peer);
            self.changes.gone(record.id);
        }
    }

    /// Takes a node out of its tree; its successor, or else another that is fit for it, takes over its
    /// children and its position.
    pub(super) fn remove_node(&mut self, node: NodeRef, now: Duration) {
        let record = self.node_mut(node);
        record.flags.set(Flags::WARM, false);
        let (tree, place, depth) = (record.tree, record.place(), record.depth());
        let is_interior = record.children > 0;
        self.reindex(node);
        if is_interior {
            self.shake(tree, now);
        }
        self.release_former(node);
        let (mut orphans, successor) = self.orphan_children(node);
        self.detach(node);
        let heir = successor.filter(|heir| self.lift(*heir, place, depth, now));
        if heir.is_none() && place == Place::Cdn {
            self.crown(tree, &mut orphans);
        }
        for orphan in orphans {
            self.rehome(orphan, successor, now);
        }
        self.drop_node(node);
    }

    /// Moves all children away from a peer that may have none any more.
    pub(crate) fn bereave(&mut self, peer: PeerRef, now: Duration) {
        self.refresh_peer(peer);
        let nodes: Vec<_> = self.nodes_of(peer).collect();
        for node in nodes {
            let (orphans, successor) = self.orphan_children(node);
            for orphan in orphans {
                self.rehome(orphan, successor, now);
            }
        }
        self.refresh_peer(peer);
    }

    /// Notes that the tree is being repaired; what may wait waits.
    pub(super) fn shake(&mut self, tree: u8, now: Duration) {
        self.tree_mut(tree).shaken = now;
    }

    /// Cuts everything below a node and all reservations at it. Returns the children, those with most below
    /// them first, and who is to take them over.
    fn orphan_children(&mut self, node: NodeRef) -> (Vec<NodeRef>, Option<NodeRef>) {
        let record = self.node(node);
        let successor = match record.successor.get() {
            None if record.children > 0 => self.find_successor(node, true),
            appointed => appointed,
        };
        let mut orphans: Vec<_> = self.children(node).collect();
        orphans.sort_by_key(|orphan| (Reverse(self.node(*orphan).children), *orphan));
        let leaving: Vec<_> = self.leaving(node).collect();
        for leaver in leaving {
            self.release_former(leaver);
        }
        while let Some(protected) = self.node(node).protects.get() {
            self.release_successor(protected);
        }
        self.release_successor(node);
        for orphan in &orphans {
            self.detach(*orphan);
        }
        let serves = |successor: &NodeRef| self.node(*successor).serves();
        (orphans, successor.filter(serves))
    }

    /// Moves a successor up into the position that has become free, so that those whom it takes over
    /// keep their depth. Returns whether it is there.
    fn lift(&mut self, successor: NodeRef, place: Place, depth: u32, now: Duration) -> bool {
        let record = self.node(successor);
        if record.depth() <= depth {
            return true;
        }
        let tree = record.tree;
        let roots = self.tree(tree).root_count();
        self.spend(tree, 1);
        match place {
            Place::Cdn if roots < self.policy.target_roots() => {
                self.move_to(successor, Place::Cdn, false, now);
                true
            }
            Place::Under(parent) if self.node(parent).serves() && self.legal(parent, successor) => {
                self.move_to(successor, place, false, now);
                true
            }
            Place::Cdn | Place::Under(_) | Place::Nowhere => false,
        }
    }

    /// Gives a node that has lost its place another.
    pub(super) fn rehome(&mut self, node: NodeRef, standby: Option<NodeRef>, now: Duration) {
        let record = self.node(node);
        let (warm, session) = (record.is_warm(), self.peer(record.peer).session);
        if record.is_moving() {
            match self.find_slot(node) {
                Some(slot) if session => self.take_slot(node, Some(slot), now),
                Some(_) | None => self.go_back(node, now),
            }
            return;
        }
        let able = |standby: &NodeRef| self.node(*standby).serves();
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
                let leaves = self.former(node).map(|former| former.place);
                if leaves == Some(Place::Under(above)) {
                    self.release_former(node);
                }
                if self.node(node).parent() == Some(above) {
                    let standby = self.node(above).successor.get();
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
            let settled = !record.is_moving() && !self.is_held(node, now);
            if record.parent() == Some(above)
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

    /// Pairs the two peers' nodes by tree.
    fn node_pairs(&self, child: PeerId, parent: PeerId) -> Vec<(NodeRef, NodeRef)> {
        let (Some(child), Some(parent)) = (self.find(child), self.find(parent)) else {
            return Vec::new();
        };
        let pair = |node| Some((node, self.node_in(parent, self.node(node).tree)?));
        self.nodes_of(child).filter_map(pair).collect()
    }

    /// Whether the plan has (or is leaving, or holds in reserve) a link between the two.
    pub(crate) fn are_linked(&self, one: PeerId, other: PeerId) -> bool {
        let ways = [(one, other), (other, one)].into_iter();
        let mut pairs = ways.flat_map(|(child, parent)| self.node_pairs(child, parent));
        pairs.any(|(node, above)| {
            let leaves = self.former(node).map(|former| former.place);
            let parent = self.node(node).parent();
            let standby = parent.and_then(|parent| self.node(parent).successor.get());
            parent == Some(above) || leaves == Some(Place::Under(above)) || standby == Some(above)
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
        self.shake(self.node(node).tree, now);
        self.warm_up(node);
        self.release_former(node);
        let from = self.node(node).parent();
        self.detach(node);
        if let (Some(from), Some(Place::Under(to))) = (from, to) {
            self.use_reservation(from, to);
        }
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
    }
}
