//! Who hangs where, by number: what the records say in names becomes parents, children, depths.
//!
//! Nodes are numbered in the order of their peers' ids and trees. Everything is in small arrays, because a
//! million nodes lie too far apart to be walked through once for each question. Names are resolved by
//! sorting them and reading them beside the nodes, which are in order already.
//!
//! Invariants: each node is a root or the child of one that is not below it, whatever the records say;
//! equal records give equal layouts.

use crate::ids::{PeerId, Source};
use crate::state::Edge;

/// The deepest that a node can be.
const DEEPEST: u32 = 64;
/// No other node.
const NONE: u32 = u32::MAX;

/// What a node names another peer as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    Source,
    Former,
    Successor,
}

/// A peer in a tree, as what it is named, and by which node.
type Reference = (PeerId, u8, As, u32);

/// The nodes as they are read, in order.
#[derive(Debug, Default)]
pub(super) struct Reading {
    keys: Vec<(PeerId, u8)>,
    is_root: Vec<bool>,
    references: Vec<Reference>,
}

/// Where every node is.
#[derive(Debug)]
pub(super) struct Layout {
    parents: Vec<u32>,
    /// `children[first[n]..first[n + 1]]` name `n` as their source.
    first: Vec<u32>,
    children: Vec<u32>,
    depths: Vec<u32>,
    stranded: Vec<bool>,
    /// Nodes and what they are leaving, ordered by the latter.
    pub(super) formers: Vec<(u32, u32)>,
    /// Nodes and their successors, ordered by the latter.
    pub(super) successors: Vec<(u32, u32)>,
}

impl Reading {
    pub(super) fn with_capacity(nodes: usize) -> Self {
        Self {
            keys: Vec::with_capacity(nodes),
            is_root: Vec::with_capacity(nodes),
            references: Vec::with_capacity(nodes + nodes / 2),
        }
    }

    /// Takes in the next node. Peers come in order, and each with its trees in order.
    pub(super) fn push(&mut self, peer: PeerId, tree: u8, edge: &Edge) {
        let number = number(self.keys.len());
        self.keys.push((peer, tree));
        self.is_root.push(edge.source == Source::Cdn);
        let named = [
            (Some(edge.source), As::Source),
            (moving_from(edge), As::Former),
            (edge.successor.map(Source::Peer), As::Successor),
        ];
        for (source, role) in named {
            if let Some(Source::Peer(other)) = source {
                self.references.push((other, tree, role, number));
            }
        }
    }

    pub(super) fn into_layout(mut self) -> Layout {
        let nodes = self.keys.len();
        let mut layout = Layout {
            parents: vec![NONE; nodes],
            first: Vec::with_capacity(nodes + 1),
            children: Vec::with_capacity(nodes),
            depths: vec![0; nodes],
            stranded: vec![false; nodes],
            formers: Vec::new(),
            successors: Vec::new(),
        };
        self.references.sort_unstable();
        let mut at = 0;
        for (peer, tree, role, from) in self.references {
            while self.keys.get(at).is_some_and(|key| *key < (peer, tree)) {
                at += 1;
            }
            let to = number(at);
            if self.keys.get(at) == Some(&(peer, tree)) && to != from {
                layout.tie(from, role, to);
            }
        }
        layout.close_children(nodes);
        layout.label(&self.is_root);
        layout
    }
}

/// Returns what a move is leaving, if that is not where it goes.
pub(super) fn moving_from(edge: &Edge) -> Option<Source> {
    edge.moving_from.filter(|from| *from != edge.source)
}

impl Layout {
    pub(super) fn parent(&self, node: u32) -> Option<u32> {
        Some(self.parents[node as usize]).filter(|parent| *parent != NONE)
    }

    /// The node's children, in order.
    pub(super) fn children(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let (from, to) = (self.first[node as usize], self.first[node as usize + 1]);
        let named = self.children[from as usize..to as usize].iter().copied();
        named.filter(move |child| self.parents[*child as usize] == node)
    }

    pub(super) fn depth(&self, node: u32) -> u32 {
        self.depths[node as usize]
    }

    /// Whether the node has no place by its record, and so becomes a root.
    pub(super) fn is_stranded(&self, node: u32) -> bool {
        self.stranded[node as usize]
    }

    fn tie(&mut self, from: u32, role: As, to: u32) {
        match role {
            As::Source => {
                // Sources come in the order of those whom they name.
                self.close_children(to as usize);
                self.children.push(from);
                self.parents[from as usize] = to;
            }
            As::Former => self.formers.push((from, to)),
            As::Successor => self.successors.push((from, to)),
        }
    }

    /// The children of all nodes before this one are there, and none of its own yet.
    fn close_children(&mut self, node: usize) {
        let known = number(self.children.len());
        if self.first.len() <= node {
            self.first.resize(node + 1, known);
        }
    }

    /// Writes depths from the roots down. Whoever is not reached becomes a
    /// root.
    fn label(&mut self, is_root: &[bool]) {
        let mut order = Vec::with_capacity(is_root.len());
        for (node, _) in (0..).zip(is_root).filter(|(_, is_root)| **is_root) {
            self.label_below(node, &mut order);
        }
        for node in 0..number(is_root.len()) {
            if self.depth(node) == 0 {
                self.parents[node as usize] = NONE;
                self.stranded[node as usize] = true;
                self.label_below(node, &mut order);
            }
        }
    }

    fn label_below(&mut self, root: u32, order: &mut Vec<u32>) {
        let mut next = order.len();
        self.depths[root as usize] = 1;
        order.push(root);
        while let Some(node) = order.get(next).copied() {
            next += 1;
            let (first, depth) = (order.len(), self.depth(node) + 1);
            // No policy allows more; what hangs there by its record is stranded.
            if depth > DEEPEST {
                continue;
            }
            order.extend(self.children(node));
            for child in &order[first..] {
                self.depths[*child as usize] = depth;
            }
        }
    }
}

/// Converts a length; there are never 2^32 nodes.
fn number(length: usize) -> u32 {
    u32::try_from(length).expect("invariant: fewer than 2^32 nodes")
}
