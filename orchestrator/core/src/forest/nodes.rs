//! The nodes and peers of the forest: finding them, adding and dropping them, and walking from one to others.

use core::time::Duration;

use super::index::UNLISTED;
use super::node::{Flags, Former, Link, Node, NodeRef, Peer, PeerRef, Place, TreeKey};
use super::{Forest, Tree};
use crate::ids::{PeerId, Source, TrackName};

impl Forest {
    pub(crate) fn peer(&self, peer: PeerRef) -> &Peer {
        let peer = self.peers.get(peer.index());
        peer.and_then(Option::as_ref)
            .expect("invariant: the peer is in the forest")
    }

    pub(super) fn peer_mut(&mut self, peer: PeerRef) -> &mut Peer {
        let peer = self.peers.get_mut(peer.index());
        peer.and_then(Option::as_mut)
            .expect("invariant: the peer is in the forest")
    }

    pub(crate) fn node(&self, node: NodeRef) -> &Node {
        &self.nodes[node.index()]
    }

    pub(super) fn node_mut(&mut self, node: NodeRef) -> &mut Node {
        &mut self.nodes[node.index()]
    }

    pub(super) fn tree(&self, tree: u8) -> &Tree {
        self.trees[usize::from(tree)]
            .as_ref()
            .expect("invariant: the tree is there")
    }

    pub(super) fn tree_mut(&mut self, tree: u8) -> &mut Tree {
        self.trees[usize::from(tree)]
            .as_mut()
            .expect("invariant: the tree is there")
    }

    pub(crate) fn tree_of(&self, node: NodeRef) -> &Tree {
        self.tree(self.node(node).tree)
    }

    /// All trees, in the order of their keys.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &Tree> {
        self.by_key.values().map(|slot| self.tree(*slot))
    }

    /// The places of all trees, in the order of those.
    pub(super) fn tree_slots(&self) -> impl Iterator<Item = u8> + use<> {
        let slots = u8::try_from(self.trees.len()).unwrap_or(u8::MAX);
        let mut there = [0_u64; 4];
        for slot in self.by_key.values() {
            there[usize::from(slot / 64)] |= 1 << (slot % 64);
        }
        (0..slots).filter(move |slot| there[usize::from(slot / 64)] & 1 << (slot % 64) != 0)
    }

    pub(crate) fn has_trees(&self) -> bool {
        !self.by_key.is_empty()
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.by_id.len()
    }

    /// All peers, in the order of their ids.
    pub(crate) fn peers(&self) -> Vec<(PeerId, PeerRef)> {
        self.by_id.in_order()
    }

    pub(crate) fn find(&self, peer: PeerId) -> Option<PeerRef> {
        self.by_id.get(peer)
    }

    pub(crate) fn find_tree(&self, key: TreeKey) -> Option<&Tree> {
        self.by_key.get(&key).map(|slot| self.tree(*slot))
    }

    /// Returns the peer of this number, if there is one.
    pub(crate) fn peer_at(&self, number: u32) -> Option<PeerRef> {
        let peer = PeerRef(number);
        self.peers.get(peer.index())?.as_ref().map(|_| peer)
    }

    pub(crate) fn find_node(&self, peer: PeerId, track: &TrackName, stripe: u8) -> Option<NodeRef> {
        let track = self.track_named(track)?;
        self.node_of(self.find(peer)?, TreeKey { track, stripe })
    }

    pub(crate) fn node_of(&self, peer: PeerRef, key: TreeKey) -> Option<NodeRef> {
        let tree = *self.by_key.get(&key)?;
        self.node_in(peer, tree)
    }

    pub(super) fn node_in(&self, peer: PeerRef, tree: u8) -> Option<NodeRef> {
        self.nodes_of(peer)
            .find(|node| self.node(*node).tree == tree)
    }

    /// The peer's nodes, in the order of their trees.
    pub(crate) fn nodes_of(&self, peer: PeerRef) -> impl Iterator<Item = NodeRef> + '_ {
        let next = |node: &NodeRef| self.node(*node).next_of_peer.get();
        core::iter::successors(self.peer(peer).first_node.get(), next)
    }

    pub(crate) fn children(&self, node: NodeRef) -> impl Iterator<Item = NodeRef> + '_ {
        let next = |child: &NodeRef| self.node(*child).next_sibling.get();
        core::iter::successors(self.node(node).first_child.get(), next)
    }

    /// Those who move away from the node and still take from it.
    pub(crate) fn leaving(&self, node: NodeRef) -> impl Iterator<Item = NodeRef> + '_ {
        let any = self.node(node).leaving > 0;
        let range = (node, NodeRef(0))..=(node, NodeRef(u32::MAX));
        let leaving = any.then(|| self.leaving.range(range));
        leaving.into_iter().flatten().map(|(_, leaver)| *leaver)
    }

    /// Those whose successor the node is.
    pub(crate) fn protected_by(&self, node: NodeRef) -> impl Iterator<Item = NodeRef> + '_ {
        let next = |one: &NodeRef| self.node(*one).next_protected.get();
        core::iter::successors(self.node(node).protects.get(), next)
    }

    /// All nodes of a tree, in the order in which they lie.
    pub(crate) fn members(&self, key: TreeKey) -> impl Iterator<Item = NodeRef> + '_ {
        let slot = self.by_key.get(&key).copied();
        let nodes = (0..).map(NodeRef).zip(&self.nodes);
        let members =
            nodes.filter(move |(_, node)| node.flags.has(Flags::ALIVE) && Some(node.tree) == slot);
        members.map(|(at, _)| at)
    }

    pub(crate) fn id_of(&self, node: NodeRef) -> PeerId {
        self.peer(self.node(node).peer).id
    }

    /// Returns a place as others name it.
    pub(crate) fn source_at(&self, place: Place) -> Option<Source> {
        match place {
            Place::Nowhere => None,
            Place::Cdn => Some(Source::Cdn),
            Place::Under(parent) => Some(Source::Peer(self.id_of(parent))),
        }
    }

    pub(crate) fn former(&self, node: NodeRef) -> Option<Former> {
        let moving = self.node(node).is_moving();
        moving.then(|| self.formers.get(&node).copied()).flatten()
    }

    pub(crate) fn deadline(&self, node: NodeRef) -> Option<Duration> {
        let timed = self.node(node).flags.has(Flags::TIMED);
        timed.then(|| self.deadlines.get(&node).copied()).flatten()
    }

    pub(super) fn add_node(&mut self, peer: PeerRef, tree: u8) -> NodeRef {
        let mut record = Node::new(peer, tree);
        let owner = self.peer(peer);
        record.born = tenths(owner.joined_at);
        let id = owner.id;
        record.set_area(self.area_of(peer));
        record.flags.set(Flags::HOUSED, self.is_housed(peer));
        let node = match self.free_nodes.pop() {
            Some(node) => {
                self.nodes[node.index()] = record;
                node
            }
            None => {
                let index = u32::try_from(self.nodes.len());
                self.nodes.push(record);
                NodeRef(index.expect("invariant: fewer than 2^32 nodes"))
            }
        };
        self.link_to_peer(peer, node);
        let key = self.tree(tree).key;
        self.changes.returns(id, key);
        let born = u64::from(self.node(node).born);
        let in_tree = self.tree_mut(tree);
        in_tree.members += 1;
        in_tree.births += born;
        self.refresh_peer(peer);
        node
    }

    fn link_to_peer(&mut self, peer: PeerRef, node: NodeRef) {
        let key = self.tree_of(node).key;
        let before = self
            .nodes_of(peer)
            .take_while(|other| self.tree_of(*other).key < key);
        let before = before.last();
        let place = match before {
            None => &mut self.peer_mut(peer).first_node,
            Some(before) => &mut self.node_mut(before).next_of_peer,
        };
        let after = core::mem::replace(place, Link::to(node));
        self.node_mut(node).next_of_peer = after;
        self.count_nodes(peer);
    }

    fn unlink_from_peer(&mut self, node: NodeRef) {
        let peer = self.node(node).peer;
        let after = core::mem::replace(&mut self.node_mut(node).next_of_peer, Link::NONE);
        let before = self
            .nodes_of(peer)
            .find(|other| self.node(*other).next_of_peer == Link::to(node));
        match before {
            None => self.peer_mut(peer).first_node = after,
            Some(before) => self.node_mut(before).next_of_peer = after,
        }
        self.count_nodes(peer);
    }

    fn count_nodes(&mut self, peer: PeerRef) {
        let mut next = self.peer(peer).first_node.get();
        let first = next.map(|first| self.node(first).next_of_peer);
        let several = first.is_some_and(|second| second != Link::NONE);
        while let Some(node) = next {
            self.node_mut(node).set_one_of_several(several);
            next = self.node(node).next_of_peer.get();
        }
    }

    /// Removes a node that has neither a source nor children nor reservations any more.
    pub(super) fn drop_node(&mut self, node: NodeRef) {
        let peer = self.node(node).peer;
        let id = self.peer(peer).id;
        let tree = self.node(node).tree;
        let key = self.tree(tree).key;
        self.forget_sides(node);
        self.unlist(node);
        self.unlink_from_peer(node);
        let depth = self.node(node).depth;
        let born = u64::from(self.node(node).born);
        let bare = self.node(node).flags.has(Flags::UNPROTECTED);
        let in_tree = self.tree_mut(tree);
        in_tree.count_depth(depth, 0);
        in_tree.members -= 1;
        in_tree.births -= born;
        in_tree.bare -= u32::from(bare);
        let decided = self.decided.get_mut(node.index()).and_then(Option::take);
        self.changes.dropped(id, key, decided.is_some());
        let record = self.node_mut(node);
        record.flags = Flags::default();
        record.listed = UNLISTED;
        self.free_nodes.push(node);
        self.refresh_peer(peer);
    }

    /// Forgets what lies beside the node's record.
    pub(super) fn forget_sides(&mut self, node: NodeRef) {
        self.set_deadline(node, None);
        self.drop_hold(node);
        if self.node(node).flags.has(Flags::SAID_ELSEWHERE) {
            self.said.remove(&node);
        }
    }
}

/// A time in tenths of a second.
pub(super) fn tenths(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX)
}
