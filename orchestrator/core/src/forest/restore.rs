//! The forest again, from its records: every edge as it was, indices and labels made anew.
//!
//! Records say who hangs where; children, depths, heights, reservations and indices follow from that.
//! Invariants: equal records make equal forests; nothing is planned, but that a node whose way to the CDN
//! does not end there (which no planner decides) becomes a root; any records are borne with.
//!
//! It is made in one pass over the records, and nodes lie in the order of their peers' ids.

mod layout;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::Forest;
use super::arena::{Arena, Handle};
use super::node::{Former, Node, NodeRef, Peer, PeerRef, Place, RootKey, Tree, count};
use crate::ids::{PeerId, Source, TrackIndex};
use crate::state::{ChannelState, EdgeRecord, PeerRecord, TrackRecord};
use layout::{Layout, Reading, moving_from};

/// What a tree's indices are made of, in the order of its nodes.
#[derive(Default)]
struct Indices {
    members: Vec<NodeRef>,
    /// By depth.
    levels: Vec<Vec<NodeRef>>,
    roots: BTreeSet<RootKey>,
    unprotected: Vec<NodeRef>,
}

impl Forest {
    /// Makes the forest that these records describe. Nobody has a session.
    pub(crate) fn restore(state: &ChannelState, now: Duration) -> Self {
        let mut forest = Self::new(state.policy().clone());
        forest.pairs = state.pairs().clone();
        for track in state.tracks() {
            forest.restore_tree(track, now);
        }
        let mut reading = Reading::with_capacity(state.peer_count());
        for (peer, record) in state.peers() {
            for known in planned(&forest.trees, record) {
                reading.push(peer, known.track, &known.edge);
            }
        }
        let layout = reading.into_layout();
        forest.restore_nodes(state, &layout);
        forest.restore_formers(&layout);
        forest.restore_successors(&layout);
        forest.restore_indices();
        forest.newest_root = (forest.roots_so_far, now);
        // Alarms about these roots are out already.
        forest.crossings().clear();
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

    /// Makes every peer and every node, in the order in which they were read.
    fn restore_nodes(&mut self, state: &ChannelState, layout: &Layout) {
        let mut by_id = Vec::with_capacity(state.peer_count());
        self.peers = Arena::with_capacity(state.peer_count());
        self.nodes = Arena::with_capacity(state.peer_count());
        let mut stranded = Vec::new();
        let mut number = 0;
        for (id, record) in state.peers() {
            let mut peer = restored_peer(id, record);
            let at: PeerRef = self.peers.upcoming();
            for known in planned(&self.trees, record) {
                let node = restored_node(at, known, number, layout);
                self.roots_so_far = self.roots_so_far.max(node.root_since);
                let node = self.nodes.insert(node);
                peer.nodes.insert(known.track, node);
                if layout.is_stranded(number) {
                    stranded.push(node);
                }
                number += 1;
            }
            by_id.push((id, self.peers.insert(peer)));
        }
        self.by_id = by_id.into_iter().collect();
        for node in stranded {
            self.roots_so_far += 1;
            self.node_mut(node).root_since = self.roots_so_far;
            self.changed(node);
        }
    }

    fn restore_formers(&mut self, layout: &Layout) {
        for (node, from) in &layout.formers {
            if layout.is_stranded(*node) {
                continue;
            }
            let (node, from) = (Handle::first_of(*node), Handle::first_of(*from));
            let record = self.node_mut(node);
            let evicted = record.decided.is_some_and(|edge| edge.evicted);
            let place = Place::Under(from);
            record.former = Some(Former { place, evicted });
            self.node_mut(from).leaving.insert(node);
        }
    }

    /// Reserves a slot for each child at the parent's successor. Who has no children needs none.
    fn restore_successors(&mut self, layout: &Layout) {
        for (node, successor) in &layout.successors {
            let (node, successor) = (Handle::first_of(*node), Handle::first_of(*successor));
            let record = self.node_mut(node);
            let need = count(record.children.len());
            if need == 0 {
                self.changed(node);
                continue;
            }
            (record.successor, record.reserved) = (Some(successor), need);
            let after = self.node_mut(successor);
            after.protects.insert(node);
            after.pledged += need;
        }
    }

    fn restore_indices(&mut self) {
        let mut trees: BTreeMap<TrackIndex, Indices> = BTreeMap::new();
        let mut deadlines = Vec::new();
        let mut roots = Vec::new();
        for (at, node) in self.nodes.iter() {
            let tree = trees.entry(node.track).or_default();
            tree.members.push(at);
            let depth = node.depth as usize;
            if tree.levels.len() <= depth {
                tree.levels.resize_with(depth + 1, Vec::new);
            }
            tree.levels[depth].push(at);
            if node.successor.is_none() && !node.children.is_empty() {
                tree.unprotected.push(at);
            }
            if let Some(key) = self.root_key(at) {
                tree.roots.insert(key);
                roots.push((at, key));
            }
            deadlines.extend(node.deadline.map(|deadline| (deadline, at)));
        }
        for (at, key) in roots {
            self.node_mut(at).root_key = Some(key);
        }
        self.deadlines = deadlines.into_iter().collect();
        for (track, indices) in trees {
            indices.put_into(self.tree_mut(track));
        }
    }
}

impl Indices {
    /// Nobody has a session, so nobody is open to new children.
    fn put_into(self, tree: &mut Tree) {
        let levels = (0..).zip(self.levels);
        let levels = levels.flat_map(|(depth, level)| level.into_iter().map(move |at| (depth, at)));
        tree.levels = levels.collect();
        tree.members = self.members.into_iter().collect();
        tree.unprotected = self.unprotected.into_iter().collect();
        tree.roots = self.roots;
    }
}

/// The peer's places in trees that there are.
fn planned<'a>(
    trees: &'a BTreeMap<TrackIndex, Tree>,
    record: &'a PeerRecord,
) -> impl Iterator<Item = &'a EdgeRecord> + 'a {
    let edges = record.edges.iter().filter(|known| known.stripe == 0);
    edges.filter(|known| trees.contains_key(&known.track))
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

/// Makes a node as its record has it, but for other nodes that it names beside its parent.
fn restored_node(peer: PeerRef, known: &EdgeRecord, number: u32, layout: &Layout) -> Node {
    let edge = known.edge;
    let parent = layout.parent(number).map(Handle::first_of);
    let mut node = Node::new(peer, known.track);
    node.source = parent.map_or(Place::Cdn, Place::Under);
    node.children = layout.children(number).map(Handle::first_of).collect();
    (node.depth, node.height) = (layout.depth(number), layout.height(number));
    node.warm = edge.warm;
    node.hold_until = edge.hold_until;
    node.decided = Some(edge);
    if !layout.is_stranded(number) {
        let leaves_cdn = moving_from(&edge) == Some(Source::Cdn);
        node.former = leaves_cdn.then_some(Former {
            place: Place::Cdn,
            evicted: edge.evicted,
        });
        (node.deadline, node.root_since) = (edge.deadline, edge.root_since);
    }
    node
}
