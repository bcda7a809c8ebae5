//! What one event changed, collected without looking anything up twice.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::Forest;
use super::node::{Flags, NodeRef, TreeKey};
use crate::ids::PeerId;
use crate::pairs::Pair;
use crate::state::{DecidedEdge, Edge};

/// What one event changed; in order, and each thing once, when it is taken.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) policy: bool,
    pub(crate) tracks: bool,
    pub(crate) joined: Vec<PeerId>,
    pub(crate) left: Vec<PeerId>,
    /// Peers that offer or want something else, the new ones included.
    pub(crate) offers: Vec<PeerId>,
    pub(crate) parted: BTreeMap<Pair, Duration>,
    /// Nodes whose record may differ.
    pub(crate) nodes: Vec<NodeRef>,
    pub(crate) removed: BTreeSet<(PeerId, TreeKey)>,
    /// Peers whose assignment may differ.
    pub(crate) peers: Vec<PeerId>,
    /// Nodes whose peers' assignment may differ.
    touched: Vec<NodeRef>,
}

impl Changes {
    pub(super) fn returns(&mut self, peer: PeerId, key: TreeKey) {
        if !self.removed.is_empty() {
            self.removed.remove(&(peer, key));
        }
    }

    pub(super) fn dropped(&mut self, peer: PeerId, key: TreeKey, was_decided: bool) {
        self.peers.push(peer);
        if was_decided {
            self.removed.insert((peer, key));
        }
    }

    fn forget_the_rest(&mut self) {
        let Self {
            policy,
            tracks,
            joined,
            left,
            offers,
            parted,
            nodes: _,
            removed,
            peers,
            touched: _,
        } = self;
        (*policy, *tracks) = (false, false);
        for list in [joined, left, offers, peers] {
            list.clear();
        }
        parted.clear();
        removed.clear();
    }

    /// The peer is gone; nothing else needs to be said of it.
    pub(super) fn gone(&mut self, peer: PeerId) {
        let newcomer = self.joined.iter().rposition(|joined| *joined == peer);
        match newcomer {
            Some(at) => drop(self.joined.swap_remove(at)),
            None => self.left.push(peer),
        }
        self.offers.retain(|other| *other != peer);
    }
}

impl Forest {
    /// Hands over what was changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let mut changes = core::mem::take(&mut self.changes);
        changes.nodes.retain(|node| {
            let flags = &mut self.nodes[node.index()].flags;
            let noted = flags.has(Flags::NOTED | Flags::ALIVE);
            flags.set(Flags::NOTED, false);
            noted
        });
        for node in changes.touched.drain(..) {
            let record = &mut self.nodes[node.index()];
            if record.flags.has(Flags::TOUCHED | Flags::ALIVE) {
                record.flags.set(Flags::TOUCHED, false);
                let peer = record.peer;
                changes.peers.push(self.peer(peer).id);
            }
        }
        for peers in [
            &mut changes.joined,
            &mut changes.left,
            &mut changes.offers,
            &mut changes.peers,
        ] {
            peers.sort_unstable();
            peers.dedup();
        }
        let here = |peer: &PeerId| self.by_id.contains(*peer);
        changes.peers.retain(here);
        changes
    }

    /// Hands over the nodes whose record may differ, for one who asks for nothing else.
    pub(crate) fn take_changed_nodes(&mut self) -> Vec<NodeRef> {
        for node in self.changes.touched.drain(..) {
            let flags = &mut self.nodes[node.index()].flags;
            let standby_only = !flags.has(Flags::NOTED) && flags.has(Flags::ALIVE);
            flags.set(Flags::TOUCHED, false);
            if standby_only {
                flags.set(Flags::NOTED, true);
                self.changes.nodes.push(node);
            }
        }
        let mut nodes = core::mem::take(&mut self.changes.nodes);
        nodes.retain(|node| {
            let flags = &mut self.nodes[node.index()].flags;
            let noted = flags.has(Flags::NOTED | Flags::ALIVE);
            flags.set(Flags::NOTED, false);
            noted
        });
        self.changes.forget_the_rest();
        nodes
    }

    /// Takes the emptied list back, so that the next event needs no memory.
    pub(crate) fn give_back(&mut self, mut nodes: Vec<NodeRef>) {
        nodes.clear();
        if self.changes.nodes.is_empty() {
            self.changes.nodes = nodes;
        }
    }

    /// Hands over how much was done since the last call.
    pub(crate) fn take_work(&mut self) -> super::Work {
        core::mem::take(&mut self.work)
    }

    /// Returns the peers whose assignment may differ from what the last entry had.
    pub(crate) fn touched_peers(&self) -> BTreeSet<PeerId> {
        let nodes = self.changes.touched.iter().map(|node| self.id_of(*node));
        nodes.chain(self.changes.peers.iter().copied()).collect()
    }

    /// Returns the node's edge if the last entry had it otherwise, with the edge that it had there, and
    /// takes it for entered.
    pub(crate) fn decide(&mut self, node: NodeRef) -> Option<(DecidedEdge, Option<Edge>)> {
        let edge = self.edge_of(node)?;
        let before = self.decided(node);
        let TreeKey { track, stripe } = self.tree_of(node).key;
        let peer = self.id_of(node);
        if self.decided.len() <= node.index() {
            self.decided.resize(self.nodes.len(), None);
        }
        self.decided[node.index()] = Some(edge);
        let edge = Some(edge);
        let decided = DecidedEdge {
            peer,
            track,
            stripe,
            edge,
        };
        (before != edge).then_some((decided, before))
    }

    /// Returns the node's edge as the last entry had it.
    pub(crate) fn decided(&self, node: NodeRef) -> Option<Edge> {
        self.decided.get(node.index()).copied().flatten()
    }

    /// Notes that the node's record may differ in what its peer need not know.
    pub(super) fn noted(&mut self, node: NodeRef) {
        let flags = &mut self.node_mut(node).flags;
        if !flags.has(Flags::NOTED) {
            flags.set(Flags::NOTED, true);
            self.changes.nodes.push(node);
        }
    }

    /// The nodes whose record may differ from what the last entry had.
    pub(super) fn noted_nodes(&self) -> impl Iterator<Item = NodeRef> + '_ {
        let alive = |node: &NodeRef| self.node(*node).flags.has(Flags::ALIVE);
        self.changes.nodes.iter().copied().filter(alive)
    }

    /// Notes that data has flowed to the node: it may have children.
    pub(super) fn warm_up(&mut self, node: NodeRef) {
        self.node_mut(node).flags.set(Flags::WARM, true);
        self.noted(node);
    }

    /// Notes that the node's edge, and so its peer's assignment, may differ.
    pub(super) fn changed(&mut self, node: NodeRef) {
        self.noted(node);
        self.touched_by_node(node);
    }

    /// Notes that the peer's assignment may differ.
    pub(crate) fn touched(&mut self, peer: PeerId) {
        self.changes.peers.push(peer);
    }

    pub(super) fn touched_by_node(&mut self, node: NodeRef) {
        let flags = &mut self.node_mut(node).flags;
        if !flags.has(Flags::TOUCHED) {
            flags.set(Flags::TOUCHED, true);
            self.changes.touched.push(node);
        }
    }
}
