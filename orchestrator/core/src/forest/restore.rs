//! The forest again, from its records: every edge as it was, indices and labels made anew.
//!
//! Records say who hangs where; children, depths, heights, reservations and indices follow from that.
//! Invariants: equal records make equal forests; nothing is planned, but that a node whose way to the CDN
//! does not end there (which no planner decides) becomes a root; any records are borne with.
//!
//! Parents are found by sorting the references and walking through them beside the peers, which are in
//! order: a million lookups in a map would take most of a second.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::Forest;
use super::node::{Former, Node, NodeRef, Peer, PeerRef, Place, Tree, count};
use crate::ids::{PeerId, Source, TrackIndex};
use crate::state::{ChannelState, Edge, PeerRecord, TrackRecord};

/// What a node names another peer as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    Source,
    Former,
    Successor,
}

/// A peer that is named, as what, by which node.
type Reference = (PeerId, As, NodeRef);

impl Forest {
    /// Makes the forest that these records describe. Nobody has a session.
    pub(crate) fn restore(state: &ChannelState, now: Duration) -> Self {
        let mut forest = Self::new(state.policy().clone());
        forest.pairs = state.pairs().clone();
        for track in state.tracks() {
            forest.restore_tree(track, now);
        }
        let references = forest.restore_records(state);
        forest.resolve(references);
        forest.label();
        forest.restore_reservations();
        forest.restore_indices();
        forest.newest_root = (forest.roots_so_far, now);
        // Alarms about these roots are out already.
        let _ = forest.crossings();
        forest
    }

    fn restore_tree(&mut self, record: &TrackRecord, now: Duration) {
        let tree = Tree {
            rate_bps: record.rate_bps,
            measured: record.measured,
            cost: self.policy.edge_cost(record.rate_bps),
            // Whoever has just come to it lets it come to rest first.
            rose: now,
            shaken: now,
            ..Tree::new(record.name.clone(), record.default)
        };
        self.trees.insert(record.index, tree);
    }

    /// Makes every peer and every node, and returns whom the nodes name.
    fn restore_records(&mut self, state: &ChannelState) -> Vec<Reference> {
        let mut references = Vec::with_capacity(state.peer_count());
        let mut by_id = Vec::with_capacity(state.peer_count());
        for (id, record) in state.peers() {
            let peer = self.peers.insert(restored_peer(id, record));
            by_id.push((id, peer));
            for known in record.edges.iter().filter(|known| known.stripe == 0) {
                if self.trees.contains_key(&known.track) {
                    self.restore_node(peer, known.track, known.edge, &mut references);
                }
            }
        }
        self.by_id = by_id.into_iter().collect();
        references
    }

    fn restore_node(
        &mut self,
        peer: PeerRef,
        track: TrackIndex,
        edge: Edge,
        references: &mut Vec<Reference>,
    ) {
        let moving_from = edge.moving_from.filter(|from| *from != edge.source);
        let from_cdn = moving_from == Some(Source::Cdn);
        let mut node = Node::new(peer, track);
        node.source = if edge.source == Source::Cdn {
            Place::Cdn
        } else {
            Place::Nowhere
        };
        node.former = from_cdn.then_some(Former {
            place: Place::Cdn,
            evicted: edge.evicted,
        });
        (node.warm, node.deadline) = (edge.warm, edge.deadline);
        (node.hold_until, node.root_since) = (edge.hold_until, edge.root_since);
        node.decided = Some(edge);
        self.roots_so_far = self.roots_so_far.max(edge.root_since);
        let at = self.nodes.insert(node);
        self.peer_mut(peer).nodes.insert(track, at);
        let named = [
            (Some(edge.source), As::Source),
            (moving_from, As::Former),
            (edge.successor.map(Source::Peer), As::Successor),
        ];
        for (source, role) in named {
            if let Some(Source::Peer(other)) = source {
                references.push((other, role, at));
            }
        }
    }

    /// Ties the nodes together, as far as those whom they name are there.
    fn resolve(&mut self, mut references: Vec<Reference>) {
        references.sort_unstable();
        let peers: Vec<(PeerId, PeerRef)> = self.by_id.iter().map(|(id, at)| (*id, *at)).collect();
        let mut peers = peers.into_iter().peekable();
        for (id, role, from) in references {
            while peers.next_if(|(known, _)| *known < id).is_some() {}
            let Some((_, peer)) = peers.peek().filter(|(known, _)| *known == id) else {
                continue;
            };
            let track = self.node(from).track;
            if let Some(node) = self.peer(*peer).nodes.get(&track).copied()
                && node != from
            {
                self.tie(from, role, node);
            }
        }
    }

    fn tie(&mut self, from: NodeRef, role: As, to: NodeRef) {
        match role {
            As::Source => {
                self.node_mut(from).source = Place::Under(to);
                self.node_mut(to).children.insert(from);
            }
            As::Former => {
                let record = self.node_mut(from);
                let evicted = record.decided.is_some_and(|edge| edge.evicted);
                let place = Place::Under(to);
                record.former = Some(Former { place, evicted });
                self.node_mut(to).leaving.insert(from);
            }
            As::Successor => self.node_mut(from).successor = Some(to),
        }
    }

    /// Writes depths from the CDN down and heights from the leaves up. Whoever is not reached from the
    /// CDN is taken there.
    fn label(&mut self) {
        let all: Vec<NodeRef> = self.nodes.iter().map(|(at, _)| at).collect();
        let mut order = Vec::with_capacity(all.len());
        for node in &all {
            if self.node(*node).source == Place::Cdn {
                self.label_below(*node, &mut order);
            }
        }
        for node in all {
            if self.node(node).depth == 0 {
                self.take_to_cdn(node);
                self.label_below(node, &mut order);
            }
        }
        for node in order.into_iter().rev() {
            let height = self.node(node).height;
            if let Place::Under(parent) = self.node(node).source {
                let parent = self.node_mut(parent);
                parent.height = parent.height.max(height + 1);
            }
        }
    }

    fn label_below(&mut self, root: NodeRef, order: &mut Vec<NodeRef>) {
        let mut next = order.len();
        self.node_mut(root).depth = 1;
        order.push(root);
        while let Some(node) = order.get(next).copied() {
            next += 1;
            let record = self.node(node);
            let depth = record.depth + 1;
            let first = order.len();
            order.extend(record.children.iter().copied());
            for child in &order[first..] {
                self.node_mut(*child).depth = depth;
            }
        }
    }

    fn take_to_cdn(&mut self, node: NodeRef) {
        self.roots_so_far += 1;
        let since = self.roots_so_far;
        let record = self.node_mut(node);
        let source = core::mem::replace(&mut record.source, Place::Cdn);
        record.root_since = since;
        if let Place::Under(parent) = source {
            self.node_mut(parent).children.remove(&node);
        }
        self.release_former(node);
        self.set_deadline(node, None);
        self.changed(node);
    }

    /// Reserves a slot for each child at the parent's successor. Who has no children needs none.
    fn restore_reservations(&mut self) {
        let all: Vec<NodeRef> = self.nodes.iter().map(|(at, _)| at).collect();
        for node in all {
            let record = self.node_mut(node);
            let Some(successor) = record.successor else {
                continue;
            };
            let need = count(record.children.len());
            if need == 0 {
                record.successor = None;
                self.changed(node);
                continue;
            }
            record.reserved = need;
            let after = self.node_mut(successor);
            after.protects.insert(node);
            after.pledged += need;
        }
    }

    fn restore_indices(&mut self) {
        let mut members: BTreeMap<TrackIndex, Vec<NodeRef>> = BTreeMap::new();
        let mut deadlines = Vec::new();
        for (at, node) in self.nodes.iter() {
            members.entry(node.track).or_default().push(at);
            deadlines.extend(node.deadline.map(|deadline| (deadline, at)));
        }
        self.deadlines = deadlines.into_iter().collect();
        for (track, members) in members {
            let mut roots = BTreeSet::new();
            let mut levels = Vec::with_capacity(members.len());
            let mut unprotected = BTreeSet::new();
            for at in &members {
                let (root, node) = (self.root_key(*at), self.node(*at));
                levels.push((node.depth, *at));
                roots.extend(root);
                if node.successor.is_none() && !node.children.is_empty() {
                    unprotected.insert(*at);
                }
                self.node_mut(*at).root_key = root;
            }
            levels.sort_unstable();
            let tree = self.tree_mut(track);
            // Nobody has a session, so nobody is open to new children.
            (tree.roots, tree.unprotected) = (roots, unprotected);
            tree.members = members.into_iter().collect();
            tree.levels = levels.into_iter().collect();
        }
    }
}

fn restored_peer(id: PeerId, record: &PeerRecord) -> Peer {
    let offer = &record.offer;
    Peer {
        id,
        role: offer.role,
        upload_bps: offer.upload_bps,
        session: false,
        quarantined: false,
        distrusted: false,
        shunned_until: None,
        wanted: offer.wanted.clone(),
        joined_at: offer.joined_at,
        nodes: BTreeMap::new(),
    }
}
