//! What fits: one upload budget per peer, in wire bit/s, over all its trees.
//!
//! A child of a stripe costs the stripe's share of the track's payload rate times the overhead. Children,
//! edges that a move is about to leave, and slots reserved as somebody's successor all count. What a peer's
//! other trees leave over is kept in each of its nodes as a number of children, so that a search reads one
//! record a candidate.

use super::Forest;
use super::node::{Flags, Link, Node, NodeRef, Peer, PeerRef};

impl Forest {
    /// Whether the peer may have children at all.
    pub(crate) fn contributes(&self, peer: &Peer) -> bool {
        !peer.quarantined && self.policy.may_serve(peer.role, &peer.profile)
    }

    /// The children of this node's tree that its peer could have if it had no others.
    pub(crate) fn whole_capacity(&self, node: NodeRef) -> u32 {
        let record = self.node(node);
        let peer = self.peer(record.peer);
        self.fitting(record, peer, 0, 0)
    }

    fn fitting(&self, node: &Node, peer: &Peer, bps: u64, children: u64) -> u32 {
        if !self.contributes(peer) {
            return 0;
        }
        let fits = peer.upload_bps.saturating_sub(bps) / self.tree(node.tree).cost;
        let most = u64::from(self.policy.max_children(peer.role)).saturating_sub(children);
        u32::try_from(fits.min(most)).unwrap_or(u32::MAX)
    }

    /// Adds up the edges of the peer's nodes but one: what they cost and how many they are.
    fn load_beside(&self, beside: NodeRef, edges: impl Fn(&Node) -> u32) -> (u64, u64) {
        let record = self.node(beside);
        let mut sum = (0_u64, 0_u64);
        if record.is_one_of_several() {
            for node in self.nodes_of(record.peer).filter(|node| *node != beside) {
                let node = self.node(node);
                let edges = u64::from(edges(node));
                let cost = self.tree(node.tree).cost.saturating_mul(edges);
                sum = (sum.0.saturating_add(cost), sum.1 + edges);
            }
        }
        sum
    }

    /// Writes what the peer could carry in each tree, and into which lists its nodes belong.
    pub(super) fn refresh_peer(&mut self, peer: PeerRef) {
        let record = self.peer(peer);
        let willing = record.session && record.shunned_until.is_none() && self.contributes(record);
        let (consumer, distrusted) = (!self.contributes(record), record.distrusted);
        let mut next = record.first_node;
        while let Some(node) = next.get() {
            self.refresh_capacity(node);
            let record = self.node_mut(node);
            record.flags.set(Flags::WILLING, willing);
            record.flags.set(Flags::CONSUMER, consumer);
            record.flags.set(Flags::DISTRUSTED, distrusted);
            next = record.next_of_peer;
            self.rank_root(node);
            self.reindex(node);
        }
    }

    fn refresh_capacity(&mut self, node: NodeRef) {
        let (bps, children) = self.load_beside(node, |other| other.carried() + other.pledged());
        let record = self.node(node);
        let capacity = self.fitting(record, self.peer(record.peer), bps, children);
        self.node_mut(node).capacity = u16::try_from(capacity).unwrap_or(u16::MAX);
    }

    /// The node carries or keeps another number of edges: so much less is left for its peer's others.
    pub(super) fn edges_changed(&mut self, node: NodeRef) {
        self.reindex(node);
        if !self.node(node).is_one_of_several() {
            return;
        }
        let mut next = self.peer(self.node(node).peer).first_node;
        while let Some(other) = next.get() {
            next = self.node(other).next_of_peer;
            if other != node {
                self.refresh_capacity(other);
                self.reindex(other);
            }
        }
    }

    /// The children that the node can take without touching a reservation.
    pub(crate) fn free(&self, node: NodeRef) -> u32 {
        self.node(node).free()
    }

    /// Whether the node can take a child at the price of reservations.
    pub(super) fn has_room_at_a_price(&self, node: &Node) -> bool {
        let carried = node.carried();
        if u32::from(node.capacity) > carried {
            return true;
        }
        if !node.is_one_of_several() {
            return false;
        }
        let peer = self.peer(node.peer);
        let mut load = (0_u64, 0_u64);
        for other in self.nodes_of(node.peer) {
            let other = self.node(other);
            let cost = self.tree(other.tree).cost;
            load.0 = load
                .0
                .saturating_add(cost.saturating_mul(u64::from(other.carried())));
            load.1 += u64::from(other.carried());
        }
        self.fitting(node, peer, load.0, load.1) > 0
    }

    /// The children that the node can take at the price of reservations, at least if there is one.
    pub(crate) fn free_at_a_price(&self, node: NodeRef) -> u32 {
        let record = self.node(node);
        let beside = self.has_room_at_a_price(record);
        u32::from(record.capacity)
            .saturating_sub(record.carried())
            .max(u32::from(beside))
    }

    /// Whether the peer carries more than it may; edges on their way out do not count.
    fn overloaded(&self, peer: PeerRef, with_reservations: bool) -> bool {
        let (mut bps, mut children) = (0_u64, 0_u64);
        for node in self.nodes_of(peer) {
            let edges = u64::from(self.staying(node));
            let record = self.node(node);
            let pledged = if with_reservations {
                record.pledged()
            } else {
                0
            };
            let edges = edges + u64::from(pledged);
            children += edges;
            let cost = self.tree(record.tree).cost;
            bps = bps.saturating_add(cost.saturating_mul(edges));
        }
        let peer = self.peer(peer);
        bps > peer.upload_bps || children > u64::from(self.policy.max_children(peer.role))
    }

    /// How many edges the node carries, those on their way out aside.
    pub(crate) fn staying(&self, node: NodeRef) -> u32 {
        let evicted = |child: &NodeRef| self.former(*child).is_some_and(|former| former.evicted);
        let evicted = self.leaving(node).filter(evicted).count();
        self.node(node).carried() - super::node::count(evicted)
    }

    /// Makes sure that the node has a free slot, if need be at the price of reservations.
    pub(super) fn make_room(&mut self, node: NodeRef) {
        while self.free(node) == 0 {
            let Some(protected) = self.a_reservation(self.node(node).peer) else {
                return;
            };
            self.release_successor(protected);
        }
    }

    /// A node that has reserved something of the peer's budget.
    fn a_reservation(&self, peer: PeerRef) -> Option<NodeRef> {
        self.nodes_of(peer)
            .filter_map(|node| self.node(node).protects.get())
            .last()
    }

    /// Brings a peer whose budget shrank (or whose edges grew) back within it: reservations go first,
    /// then the children with the fewest below them, each keeping its old source until it has another.
    pub(super) fn shed(&mut self, peer: PeerRef, now: core::time::Duration) {
        while self.overloaded(peer, true) {
            let Some(protected) = self.a_reservation(peer) else {
                break;
            };
            self.release_successor(protected);
        }
        if self.overloaded(peer, false) {
            let nodes: Vec<_> = self.nodes_of(peer).collect();
            let leaving = nodes.iter().flat_map(|node| self.leaving(*node));
            for child in leaving.collect::<Vec<_>>() {
                if let Some(former) = self.formers.get_mut(&child) {
                    former.evicted = true;
                    self.noted(child);
                }
            }
        }
        while self.overloaded(peer, false) {
            let children = self.nodes_of(peer).flat_map(|node| self.children(node));
            let Some(child) = children.min_by_key(|child| (self.node(*child).children, *child))
            else {
                break;
            };
            self.evict(child, now);
        }
        self.refresh_peer(peer);
    }

    /// Takes in that the node has another parent or none: the first of a list of those whom it protects.
    pub(super) fn unlink_protected(&mut self, successor: NodeRef, node: NodeRef) {
        let after = core::mem::replace(&mut self.node_mut(node).next_protected, Link::NONE);
        let before = self
            .protected_by(successor)
            .find(|one| self.node(*one).next_protected == Link::to(node));
        match before {
            None => self.node_mut(successor).protects = after,
            Some(before) => self.node_mut(before).next_protected = after,
        }
    }
}

/// 0, 1, 2–3, 4–7, …
pub(super) fn band(capacity: u32) -> u32 {
    u32::BITS - capacity.leading_zeros()
}
