//! What fits: one upload budget per peer, in wire bit/s, over all its trees.
//!
//! A child of a track costs the track's payload rate times the overhead. Children, edges that a move
//! is about to leave, and slots reserved as somebody's successor all count.

use core::cmp::Reverse;

use super::Forest;
use super::node::{Flow, Node, NodeRef, OpenClass, OpenKey, Peer, PeerRef, Place, RootKey};
use crate::events::PeerRole;

impl Forest {
    /// Whether the peer may have children at all.
    pub(crate) fn contributes(&self, peer: &Peer) -> bool {
        peer.role != PeerRole::Consumer && !peer.quarantined
    }

    /// Whether the planner may give the node a new child, its budget aside.
    pub(crate) fn serves(&self, node: NodeRef) -> bool {
        let record = self.node(node);
        let peer = self.peer(record.peer);
        self.contributes(peer)
            && peer.session
            && peer.shunned_until.is_none()
            && record.warm
            && record.flow == Flow::Flowing
    }

    /// The children of this node's track that its peer could have if it had no others.
    pub(crate) fn capacity(&self, node: NodeRef) -> u32 {
        let record = self.node(node);
        let peer = self.peer(record.peer);
        if !self.contributes(peer) {
            return 0;
        }
        let fits = peer.upload_bps / self.tree(record.track).cost;
        let most = self.policy.max_children(peer.role);
        u32::try_from(fits).unwrap_or(u32::MAX).min(most)
    }

    /// The children that the node can take without touching a reservation.
    pub(crate) fn free(&self, node: NodeRef) -> u32 {
        self.room(node, |other| {
            u64::from(other.carried()) + u64::from(other.pledged)
        })
    }

    /// The children that the node can take at the price of reservations.
    pub(crate) fn free_at_a_price(&self, node: NodeRef) -> u32 {
        self.room(node, |other| u64::from(other.carried()))
    }

    fn room(&self, node: NodeRef, edges: impl Fn(&Node) -> u64) -> u32 {
        let record = self.node(node);
        let peer = self.peer(record.peer);
        if !self.contributes(peer) {
            return 0;
        }
        let (bps, children) = self.load(peer, edges);
        let fits = peer.upload_bps.saturating_sub(bps) / self.tree(record.track).cost;
        let most = u64::from(self.policy.max_children(peer.role)).saturating_sub(children);
        u32::try_from(fits.min(most)).unwrap_or(u32::MAX)
    }

    /// Adds up the peer's edges: what they cost and how many they are.
    fn load(&self, peer: &Peer, edges: impl Fn(&Node) -> u64) -> (u64, u64) {
        let mut sum = (0_u64, 0_u64);
        for (track, node) in &peer.nodes {
            let edges = edges(self.node(*node));
            let cost = self.tree(*track).cost.saturating_mul(edges);
            sum = (sum.0.saturating_add(cost), sum.1 + edges);
        }
        sum
    }

    /// Whether the peer carries more than it may; edges on their way out do not count.
    fn overloaded(&self, peer: PeerRef, with_reservations: bool) -> bool {
        let peer = self.peer(peer);
        let (bps, children) = self.load(peer, |node| {
            let evicted = |child: &&NodeRef| self.node(**child).former.is_some_and(|f| f.evicted);
            let staying = node.carried() as usize - node.leaving.iter().filter(evicted).count();
            staying as u64
                + if with_reservations {
                    u64::from(node.pledged)
                } else {
                    0
                }
        });
        bps > peer.upload_bps || children > u64::from(self.policy.max_children(peer.role))
    }

    pub(crate) fn open_key(&self, node: NodeRef) -> Option<OpenKey> {
        let record = self.node(node);
        if record.source == Place::Nowhere || !self.serves(node) || self.free_at_a_price(node) == 0
        {
            return None;
        }
        let class = if self.peer(record.peer).distrusted {
            OpenClass::Distrusted
        } else if self.free(node) == 0 {
            OpenClass::Reserved
        } else if record.children.is_empty() {
            OpenClass::Bench
        } else {
            OpenClass::Interior
        };
        Some(OpenKey {
            depth: record.depth,
            class,
            capacity: Reverse(self.capacity(node)),
            node,
        })
    }

    pub(crate) fn root_key(&self, node: NodeRef) -> Option<RootKey> {
        let record = self.node(node);
        let peer = self.peer(record.peer);
        (record.source == Place::Cdn).then(|| {
            let capacity = if peer.distrusted {
                0
            } else {
                self.capacity(node)
            };
            RootKey {
                relay: peer.role == PeerRole::Relay && capacity > 0,
                band: band(capacity),
                height: record.height,
                since: Reverse(record.root_since),
                node,
            }
        })
    }

    /// Makes sure that the node has a free slot, if need be at the price of reservations.
    pub(super) fn make_room(&mut self, node: NodeRef) {
        while self.free(node) == 0 {
            let Some(protected) = self.reservations(self.node(node).peer).pop() else {
                return;
            };
            self.release_successor(protected);
        }
    }

    /// The nodes that have reserved something of the peer's budget.
    fn reservations(&self, peer: PeerRef) -> Vec<NodeRef> {
        let nodes = self.peer(peer).nodes.values();
        nodes
            .flat_map(|node| self.node(*node).protects.iter().copied())
            .collect()
    }

    /// Brings a peer whose budget shrank (or whose edges grew) back within it: reservations go first,
    /// then the children with the least below them, each keeping its old source until it has another.
    pub(super) fn shed(&mut self, peer: PeerRef, now: core::time::Duration) {
        while self.overloaded(peer, true) {
            let Some(protected) = self.reservations(peer).pop() else {
                break;
            };
            self.release_successor(protected);
        }
        if self.overloaded(peer, false) {
            let nodes: Vec<_> = self.peer(peer).nodes.values().copied().collect();
            let leaving = nodes
                .iter()
                .flat_map(|node| self.node(*node).leaving.iter().copied());
            for child in leaving.collect::<Vec<_>>() {
                if let Some(former) = &mut self.node_mut(child).former {
                    former.evicted = true;
                    self.noted(child);
                }
            }
        }
        while self.overloaded(peer, false) {
            let nodes = self.peer(peer).nodes.values();
            let children = nodes.flat_map(|node| self.node(*node).children.iter().copied());
            let Some(child) = children.min_by_key(|child| (self.node(*child).height, *child))
            else {
                break;
            };
            self.evict(child, now);
        }
        self.reindex_peer(peer);
    }
}

/// 0, 1, 2–3, 4–7, …
pub(super) fn band(capacity: u32) -> u32 {
    u32::BITS - capacity.leading_zeros()
}
