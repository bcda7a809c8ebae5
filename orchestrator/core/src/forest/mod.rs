//! The forest: every track's tree over one audience, with one upload budget per peer.
//!
//! Here are the records, their indices and the primitive changes that keep the two in step. What to
//! change is decided in the sibling modules: `place` (which slot), `moves` (make-before-break),
//! `repair` (what to do about the lost), `succession` (who takes over), `roots` (whom the CDN feeds),
//! `flatten` (who rises where trees have grown too deep), `adopt` (what peers hold already), `budget` (what
//! fits).
//!
//! Invariants between events (see [`crate::check`]): every node has a source; the edges, the former ones
//! of moves included, form no cycle; each node is in exactly the indices that its state demands; a
//! node's successor is outside its subtree and has a slot reserved for each of its children.
//!
//! Nothing here knows sessions, generations or messages.

mod adopt;
pub(crate) mod arena;
mod budget;
mod flatten;
mod moves;
pub(crate) mod node;
mod peers;
mod place;
mod repair;
mod restore;
mod roots;
mod succession;
mod tracks;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use arena::Arena;
use node::{Flow, Node, NodeRef, Peer, PeerRef, Place, Tree, count};

pub(crate) use adopt::Returning;

use crate::ids::{PeerId, Source, TrackIndex, TrackName};
use crate::pairs::{Pair, Pairs};
use crate::policy::Policy;
use crate::state::{DecidedEdge, Edge};

/// How much one event made the forest do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Work {
    /// Slots and successors that were looked at.
    pub(crate) examined: u32,
    /// Edges that were changed.
    pub(crate) edges: u32,
    /// Nodes whose depth was written.
    pub(crate) relabelled: u32,
}

/// What one event changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) policy: bool,
    pub(crate) tracks: bool,
    pub(crate) joined: BTreeSet<PeerId>,
    pub(crate) left: BTreeSet<PeerId>,
    /// Peers that offer or want something else, the new ones included.
    pub(crate) offers: BTreeSet<PeerId>,
    pub(crate) parted: BTreeMap<Pair, Duration>,
    /// Nodes whose record may differ.
    pub(crate) nodes: BTreeSet<NodeRef>,
    pub(crate) removed: BTreeSet<(PeerId, TrackIndex)>,
    /// Peers whose assignment may differ.
    pub(crate) peers: BTreeSet<PeerId>,
}

/// All trees of a channel.
#[derive(Debug)]
pub(crate) struct Forest {
    pub(crate) policy: Policy,
    pub(crate) pairs: Pairs,
    peers: Arena<Peer>,
    by_id: BTreeMap<PeerId, PeerRef>,
    nodes: Arena<Node>,
    trees: BTreeMap<TrackIndex, Tree>,
    deadlines: BTreeSet<(Duration, NodeRef)>,
    shunned: BTreeSet<(Duration, PeerRef)>,
    /// How many roots there ever were.
    roots_so_far: u64,
    /// The newest of them, and when it was first seen.
    newest_root: (u64, Duration),
    changes: Changes,
    work: Work,
}

impl Forest {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            pairs: Pairs::default(),
            peers: Arena::new(),
            by_id: BTreeMap::new(),
            nodes: Arena::new(),
            trees: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            shunned: BTreeSet::new(),
            roots_so_far: 0,
            newest_root: (0, Duration::ZERO),
            changes: Changes::default(),
            work: Work::default(),
        }
    }

    pub(crate) fn peer(&self, peer: PeerRef) -> &Peer {
        self.peers
            .get(peer)
            .expect("invariant: the peer is in the forest")
    }

    fn peer_mut(&mut self, peer: PeerRef) -> &mut Peer {
        self.peers
            .get_mut(peer)
            .expect("invariant: the peer is in the forest")
    }

    pub(crate) fn node(&self, node: NodeRef) -> &Node {
        self.nodes
            .get(node)
            .expect("invariant: the node is in the forest")
    }

    fn node_mut(&mut self, node: NodeRef) -> &mut Node {
        self.nodes
            .get_mut(node)
            .expect("invariant: the node is in the forest")
    }

    pub(crate) fn tree(&self, track: TrackIndex) -> &Tree {
        self.trees
            .get(&track)
            .expect("invariant: the track has a tree")
    }

    fn tree_mut(&mut self, track: TrackIndex) -> &mut Tree {
        self.trees
            .get_mut(&track)
            .expect("invariant: the track has a tree")
    }

    pub(crate) fn trees(&self) -> &BTreeMap<TrackIndex, Tree> {
        &self.trees
    }

    pub(crate) fn peers(&self) -> &BTreeMap<PeerId, PeerRef> {
        &self.by_id
    }

    pub(crate) fn find(&self, peer: PeerId) -> Option<PeerRef> {
        self.by_id.get(&peer).copied()
    }

    pub(crate) fn find_node(&self, peer: PeerId, track: &TrackName) -> Option<NodeRef> {
        let track = self.track_named(track)?;
        self.peer(self.find(peer)?).nodes.get(&track).copied()
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

    /// Returns what takes over when the node's source fails: the parent's successor, else the CDN.
    pub(crate) fn standby_of(&self, node: NodeRef) -> Option<Source> {
        let Place::Under(parent) = self.node(node).source else {
            return None;
        };
        let standby = self
            .node(parent)
            .successor
            .map(|successor| self.id_of(successor));
        let standby = standby.filter(|standby| self.pairs.allowed(self.id_of(node), *standby));
        Some(standby.map_or(Source::Cdn, Source::Peer))
    }

    /// Whether the peer's assignment may differ from what the last entry had.
    pub(crate) fn is_touched(&self, peer: PeerId) -> bool {
        self.changes.peers.contains(&peer)
    }

    /// Hands over what was changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        core::mem::take(&mut self.changes)
    }

    /// Hands over how much was done since the last call.
    pub(crate) fn take_work(&mut self) -> Work {
        core::mem::take(&mut self.work)
    }

    /// Returns the node's edge if the last entry had it otherwise, with the edge that it had there, and
    /// takes it for entered.
    pub(crate) fn decide(&mut self, node: NodeRef) -> Option<(DecidedEdge, Option<Edge>)> {
        let record = self.nodes.get(node)?;
        let is_root = record.source == Place::Cdn;
        let edge = Edge {
            source: self.source_at(record.source)?,
            moving_from: record
                .former
                .and_then(|former| self.source_at(former.place)),
            evicted: record.former.is_some_and(|former| former.evicted),
            successor: record.successor.map(|successor| self.id_of(successor)),
            warm: record.warm,
            deadline: record.deadline,
            hold_until: record.hold_until,
            root_since: if is_root { record.root_since } else { 0 },
        };
        let (peer, track, stripe) = (self.id_of(node), record.track, 0);
        let before = self.node_mut(node).decided.replace(edge);
        let edge = Some(edge);
        let decided = DecidedEdge {
            peer,
            track,
            stripe,
            edge,
        };
        (before != edge).then_some((decided, before))
    }

    /// Notes that the node's record may differ in what its peer need not know.
    fn noted(&mut self, node: NodeRef) {
        self.changes.nodes.insert(node);
    }

    /// Notes that data has flowed to the node: it may have children.
    fn warm_up(&mut self, node: NodeRef) {
        self.node_mut(node).warm = true;
        self.noted(node);
    }

    /// Notes that the node's edge, and so its peer's assignment, may differ.
    fn changed(&mut self, node: NodeRef) {
        let id = self.id_of(node);
        self.changes.nodes.insert(node);
        self.changes.peers.insert(id);
    }

    /// Notes that the peer's assignment may differ.
    pub(crate) fn touched(&mut self, peer: PeerId) {
        self.changes.peers.insert(peer);
    }

    fn touched_by_node(&mut self, node: NodeRef) {
        let id = self.id_of(node);
        self.changes.peers.insert(id);
    }

    /// Gives a node without a place its source. The caller has made sure that it fits.
    fn attach(&mut self, node: NodeRef, place: Place) {
        self.work.edges += 1;
        self.node_mut(node).source = place;
        let depth = match place {
            Place::Nowhere => unreachable!("invariant: a node is attached to something"),
            Place::Cdn => {
                self.roots_so_far += 1;
                self.node_mut(node).root_since = self.roots_so_far;
                1
            }
            Place::Under(parent) => {
                self.node_mut(parent).children.insert(node);
                self.settle_heights(parent);
                self.fit_reservation(parent);
                self.drop_captured_successors(node, parent);
                self.touched_by_node(parent);
                self.node(parent).depth + 1
            }
        };
        self.relabel(node, depth);
        self.reindex_peer(self.node(node).peer);
        if let Place::Under(parent) = place {
            self.reindex_peer(self.node(parent).peer);
        }
        self.changed(node);
    }

    /// Takes a node's source away; the event must give it another, or remove it.
    fn detach(&mut self, node: NodeRef) {
        let place = core::mem::replace(&mut self.node_mut(node).source, Place::Nowhere);
        if let Place::Under(parent) = place {
            self.node_mut(parent).children.remove(&node);
            self.settle_heights(parent);
            self.fit_reservation(parent);
            self.touched_by_node(parent);
            self.reindex_peer(self.node(parent).peer);
        }
        self.reindex(node);
        self.changed(node);
    }

    /// Writes the depths of a subtree whose top has moved; stops where nothing differs.
    fn relabel(&mut self, top: NodeRef, depth: u32) {
        let track = self.node(top).track;
        let mut stack = vec![(top, depth)];
        while let Some((node, depth)) = stack.pop() {
            let old = core::mem::replace(&mut self.node_mut(node).depth, depth);
            if old == depth {
                continue;
            }
            self.work.relabelled += 1;
            let levels = &mut self.tree_mut(track).levels;
            levels.remove(&(old, node));
            levels.insert((depth, node));
            self.reindex(node);
            stack.extend(
                self.node(node)
                    .children
                    .iter()
                    .map(|child| (*child, depth + 1)),
            );
        }
    }

    /// Writes the heights from a node upwards as long as they differ.
    fn settle_heights(&mut self, from: NodeRef) {
        let mut at = Some(from);
        while let Some(node) = at {
            let record = self.node(node);
            let below = record
                .children
                .iter()
                .map(|child| self.node(*child).height)
                .max();
            let height = below.unwrap_or(0) + 1;
            at = match record.source {
                Place::Under(parent) if record.height != height => Some(parent),
                Place::Under(_) | Place::Cdn | Place::Nowhere => None,
            };
            self.node_mut(node).height = height;
            if self.node(node).source == Place::Cdn {
                self.reindex(node);
            }
        }
    }

    fn reindex_peer(&mut self, peer: PeerRef) {
        let nodes: Vec<_> = self.peer(peer).nodes.values().copied().collect();
        for node in nodes {
            self.reindex(node);
        }
    }

    /// Puts the node into exactly the indices that its state demands.
    fn reindex(&mut self, node: NodeRef) {
        let (open, root) = (self.open_key(node), self.root_key(node));
        let record = self.node_mut(node);
        let track = record.track;
        let old_open = core::mem::replace(&mut record.open_key, open);
        let old_root = core::mem::replace(&mut record.root_key, root);
        let tree = self.tree_mut(track);
        if old_open != open {
            old_open.map(|key| tree.open.remove(&key));
            open.map(|key| tree.open.insert(key));
        }
        if old_root != root {
            old_root.map(|key| tree.roots.remove(&key));
            root.map(|key| tree.roots.insert(key));
        }
    }

    fn add_node(&mut self, peer: PeerRef, track: TrackIndex) -> NodeRef {
        let node = self.nodes.insert(Node::new(peer, track));
        self.peer_mut(peer).nodes.insert(track, node);
        let id = self.peer(peer).id;
        self.changes.removed.remove(&(id, track));
        let tree = self.tree_mut(track);
        tree.members.insert(node);
        tree.levels.insert((0, node));
        node
    }

    /// Removes a node that has neither a source nor children nor reservations any more.
    fn drop_node(&mut self, node: NodeRef) {
        let id = self.id_of(node);
        self.set_deadline(node, None);
        let record = self
            .nodes
            .remove(node)
            .expect("invariant: the node is in the forest");
        self.peer_mut(record.peer).nodes.remove(&record.track);
        self.changes.nodes.remove(&node);
        self.changes.peers.insert(id);
        if record.decided.is_some() {
            self.changes.removed.insert((id, record.track));
        }
        let tree = self.tree_mut(record.track);
        tree.members.remove(&node);
        tree.unprotected.remove(&node);
        tree.levels.remove(&(record.depth, node));
        record.open_key.map(|key| tree.open.remove(&key));
        record.root_key.map(|key| tree.roots.remove(&key));
        self.reindex_peer(record.peer);
    }

    /// Takes in how the node's source does; the node must be at that source.
    pub(crate) fn set_flow(&mut self, node: NodeRef, flow: Flow) {
        self.node_mut(node).flow = flow;
        self.reindex(node);
    }

    /// Counts peers that are a root in at least one tree, and the greatest depth.
    pub(crate) fn extent(&self) -> (u32, u32) {
        let roots: BTreeSet<PeerRef> = self
            .trees
            .values()
            .flat_map(|tree| tree.roots.iter().map(|key| self.node(key.node).peer))
            .collect();
        let deepest = self.trees.values().map(Tree::deepest).max().unwrap_or(0);
        (count(roots.len()), deepest)
    }
}
