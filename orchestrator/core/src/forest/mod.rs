//! The forest: every tree of a channel over one audience, with one upload budget per peer.
//!
//! Here are the records and the primitive changes that keep them and their indices in step. What to
//! change is decided in the sibling modules: `place` (which slot), `moves` (make-before-break),
//! `repair` (what to do about the lost), `succession` (who takes over), `roots` (whom the CDN feeds),
//! `improve` (who rises, who falls), `adopt` (what peers hold already), `budget` (what fits), `index` (who can
//! take a child).
//!
//! Invariants between events (see [`crate::check`]): every node has a source; the edges, the former ones
//! of moves included, form no cycle; each node is in exactly the lists that its record demands; a
//! node's successor is outside its subtree and has a slot reserved for each of its children.
//!
//! Nothing here knows sessions, generations or messages.

mod adopt;
mod budget;
mod changes;
mod improve;
mod index;
mod moves;
mod near;
pub(crate) mod node;
mod nodes;
mod peers;
mod place;
mod records;
mod repair;
mod restore;
mod roots;
mod succession;
mod tracks;
mod tree;

use core::cell::Cell;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use node::{Flags, Flow, Former, Link, Node, NodeRef, Peer, PeerRef, Place, TreeKey};

pub(crate) use adopt::Returning;
pub(crate) use changes::Changes;
use near::Near;
#[cfg(test)]
pub(crate) use near::passes;
pub(crate) use tree::Tree;

use crate::id_map::IdMap;
use crate::ids::{PeerId, Source};
use crate::pairs::Pairs;
use crate::policy::Policy;
use crate::state::Edge;

/// How much one event made the forest do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Slots and successors that were looked at.
    pub examined: u32,
    /// Edges that were changed.
    pub edges: u32,
    /// Nodes whose depth was written.
    pub relabelled: u32,
}

/// All trees of a channel.
#[derive(Debug)]
pub(crate) struct Forest {
    pub(crate) policy: Policy,
    pub(crate) pairs: Pairs,
    peers: Vec<Option<Peer>>,
    free_peers: Vec<PeerRef>,
    by_id: IdMap<PeerId, PeerRef>,
    nodes: Vec<Node>,
    free_nodes: Vec<NodeRef>,
    trees: Vec<Option<Tree>>,
    by_key: BTreeMap<TreeKey, u8>,
    /// What moves are leaving.
    formers: BTreeMap<NodeRef, Former>,
    /// The same from the other side: who is left, and by whom.
    leaving: BTreeSet<(NodeRef, NodeRef)>,
    /// When joins and moves are given up.
    deadlines: BTreeMap<NodeRef, Duration>,
    due: BTreeSet<(Duration, NodeRef)>,
    /// No planned move before.
    holds: BTreeMap<NodeRef, Duration>,
    hold_ends: BTreeSet<(Duration, NodeRef)>,
    /// Where data flows from by the peer's latest word, if that is not the node's source.
    said: BTreeMap<NodeRef, Source>,
    shunned: BTreeSet<(Duration, PeerRef)>,
    /// The numbers of the roots among all that ever were.
    root_since: BTreeMap<NodeRef, u64>,
    /// How many roots there ever were.
    roots_so_far: u64,
    /// The newest of them, and when it was first seen.
    newest_root: (u64, Duration),
    /// The nodes as the last entry had them; empty as long as nobody asks.
    decided: Vec<Option<Edge>>,
    near: Near,
    /// Counts the changes of edges.
    version: u64,
    /// The node whose height was asked for last, at which version, and its height.
    measured: Cell<(Link, u64, u32)>,
    /// A whole slice of a mass event has been removed: more will follow.
    amid_mass_event: bool,
    /// Now, in tenths of a second.
    today: u32,
    changes: Changes,
    work: Work,
}

impl Forest {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            pairs: Pairs::default(),
            peers: Vec::new(),
            free_peers: Vec::new(),
            by_id: IdMap::default(),
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            trees: Vec::new(),
            by_key: BTreeMap::new(),
            formers: BTreeMap::new(),
            leaving: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            due: BTreeSet::new(),
            holds: BTreeMap::new(),
            hold_ends: BTreeSet::new(),
            said: BTreeMap::new(),
            shunned: BTreeSet::new(),
            root_since: BTreeMap::new(),
            roots_so_far: 0,
            newest_root: (0, Duration::ZERO),
            decided: Vec::new(),
            near: Near::default(),
            version: 0,
            measured: Cell::new((Link::NONE, 0, 0)),
            amid_mass_event: false,
            today: 0,
            changes: Changes::default(),
            work: Work::default(),
        }
    }

    /// Does what is due, whatever the event.
    pub(crate) fn pass_time(&mut self, now: Duration) {
        self.today = nodes::tenths(now);
        self.expire(now);
        self.give_up(now);
    }

    /// Does what an event has left to do, as far as it goes in one event. Amid a mass event only successors are
    /// sought: the roots and the depths of now are of peers that go in the next slices.
    pub(crate) fn settle(&mut self, now: Duration) {
        if core::mem::take(&mut self.amid_mass_event) {
            self.protect();
            return;
        }
        self.believe();
        self.settle_roots(now);
        self.improve(now);
        self.protect();
    }

    /// Whether there is something that an event could not do and a later one may.
    pub(crate) fn has_undone_work(&self) -> bool {
        let target = self.policy.target_roots();
        self.trees()
            .any(|tree| tree.bare > 0 || tree.root_count() != target || tree.is_uneven())
    }

    /// Counts the bytes of the trees with all their indices, and of the ways from ids to peers.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        /// What an entry of a B-tree takes besides its key and value, about.
        const ENTRY: usize = 8;
        let sides = self.formers.len() * 2 * (size_of::<(NodeRef, Former)>() + ENTRY)
            + self.deadlines.len() * 2 * (size_of::<(NodeRef, Duration)>() + ENTRY)
            + self.holds.len() * 2 * (size_of::<(NodeRef, Duration)>() + ENTRY)
            + self.said.len() * (size_of::<(NodeRef, Source)>() + ENTRY)
            + self.root_since.len() * (size_of::<(NodeRef, u64)>() + ENTRY);
        let nodes = self.nodes.capacity() * size_of::<Node>()
            + self.free_nodes.capacity() * size_of::<NodeRef>();
        let trees: usize = self.trees.iter().flatten().map(Tree::bytes).sum();
        (nodes + sides + trees, self.by_id.bytes())
    }

    /// Gives a node without a place its source. The caller has made sure that it fits.
    fn attach(&mut self, node: NodeRef, place: Place) {
        self.work.edges += 1;
        self.leave_word(node);
        self.node_mut(node).source = place.into();
        let depth = match place {
            Place::Nowhere => unreachable!("invariant: a node is attached to something"),
            Place::Cdn => {
                self.roots_so_far += 1;
                self.root_since.insert(node, self.roots_so_far);
                self.enroot(node);
                1
            }
            Place::Under(parent) => {
                self.add_child(parent, node);
                self.fit_reservation(parent);
                self.drop_captured_successors(node, parent);
                self.touched_by_node(parent);
                self.edges_changed(parent);
                self.node(parent).depth() + 1
            }
        };
        self.relabel(node, depth);
        self.reindex(node);
        self.changed(node);
    }

    /// Takes a node's source away; the event must give it another, or remove it.
    fn detach(&mut self, node: NodeRef) {
        self.leave_word(node);
        let place = self.node(node).place();
        match place {
            Place::Nowhere => return,
            Place::Cdn => {
                self.unroot(node);
                self.root_since.remove(&node);
                self.node_mut(node).source = Place::Nowhere.into();
            }
            Place::Under(parent) => {
                self.remove_child(parent, node);
                self.node_mut(node).source = Place::Nowhere.into();
                self.fit_reservation(parent);
                self.touched_by_node(parent);
                self.edges_changed(parent);
            }
        }
        // Nobody is put below a node that is nowhere.
        self.unlist(node);
        self.changed(node);
    }

    fn add_child(&mut self, parent: NodeRef, child: NodeRef) {
        self.version += 1;
        let above = self.node_mut(parent);
        above.children += 1;
        let next = core::mem::replace(&mut above.first_child, Link::to(child));
        if let Some(next) = next.get() {
            self.node_mut(next).previous_sibling = Link::to(child);
        }
        let record = self.node_mut(child);
        record.next_sibling = next;
        record.previous_sibling = Link::NONE;
        if next == Link::NONE {
            self.rank_root(parent);
        }
    }

    fn remove_child(&mut self, parent: NodeRef, child: NodeRef) {
        self.version += 1;
        let record = self.node_mut(child);
        let next = core::mem::replace(&mut record.next_sibling, Link::NONE);
        let previous = core::mem::replace(&mut record.previous_sibling, Link::NONE);
        if let Some(next) = next.get() {
            self.node_mut(next).previous_sibling = previous;
        }
        if let Some(previous) = previous.get() {
            self.node_mut(previous).next_sibling = next;
        }
        let above = self.node_mut(parent);
        above.children -= 1;
        if above.first_child == Link::to(child) {
            above.first_child = next;
        }
        if above.children == 0 {
            self.rank_root(parent);
        }
    }

    /// Writes the depths of a subtree whose top has moved; stops where nothing differs.
    fn relabel(&mut self, top: NodeRef, depth: u32) {
        if self.node(top).depth() == depth {
            return;
        }
        self.relabel_one(top, depth);
        if self.node(top).children == 0 {
            return;
        }
        let mut stack = vec![(top, depth)];
        while let Some((node, depth)) = stack.pop() {
            let mut next = self.node(node).first_child.get();
            while let Some(child) = next {
                next = self.node(child).next_sibling.get();
                if self.node(child).depth() != depth + 1 {
                    self.relabel_one(child, depth + 1);
                    self.reindex(child);
                    stack.push((child, depth + 1));
                }
            }
        }
    }

    fn relabel_one(&mut self, node: NodeRef, depth: u32) {
        self.work.relabelled += 1;
        self.unlist(node);
        let record = self.node_mut(node);
        let new = u8::try_from(depth).expect("invariant: no tree is deeper than 64");
        let old = core::mem::replace(&mut record.depth, new);
        let tree = record.tree;
        self.tree_mut(tree).count_depth(old, new);
    }

    /// Whether the node is `top` or in its subtree.
    pub(crate) fn is_within(&self, node: NodeRef, top: NodeRef) -> bool {
        self.upwards(node).any(|at| at == top)
    }

    /// The node, its parent, and so on.
    pub(crate) fn upwards(&self, node: NodeRef) -> impl Iterator<Item = NodeRef> {
        core::iter::successors(Some(node), |at| self.node(*at).parent())
    }

    /// Takes in how the node's source does; the node must be at that source.
    pub(crate) fn set_flow(&mut self, node: NodeRef, flow: Flow) {
        let flags = &mut self.node_mut(node).flags;
        flags.set(Flags::REPAIRING, flow == Flow::Repairing);
        flags.set(Flags::BYPASS, flow == Flow::Bypass);
        self.reindex(node);
    }

    /// Returns what takes over when the node's source fails: the parent's successor, else the CDN.
    pub(crate) fn standby_of(&self, node: NodeRef) -> Option<Source> {
        let parent = self.node(node).parent()?;
        let standby = self.node(parent).successor.get();
        let standby = standby.filter(|standby| self.may_meet(node, *standby));
        Some(standby.map_or(Source::Cdn, |standby| Source::Peer(self.id_of(standby))))
    }

    /// Counts peers that are a root in at least one tree, and the greatest depth.
    pub(crate) fn extent(&self) -> (u32, u32) {
        let trees = || self.trees.iter().flatten();
        let deepest = trees().map(Tree::deepest).max().unwrap_or(0);
        let mut roots = trees().map(Tree::root_count).sum();
        if self.by_key.len() > 1 {
            let peers: BTreeSet<PeerRef> =
                self.root_since.keys().map(|n| self.node(*n).peer).collect();
            roots = node::count(peers.len());
        }
        (roots, deepest)
    }
}
