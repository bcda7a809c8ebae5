//! Every invariant of the trees, verified on the live state and recomputed from the edges alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::content;
use crate::dispatch::Dispatch;
use crate::events::PeerRole;
use crate::forest::Forest;
use crate::forest::node::{Node, NodeRef, OpenKey, PeerRef, Place, RootKey, Tree};
use crate::ids::{PeerId, TrackName};
use crate::sessions::SessionTable;
use crate::view::Finding;

/// Verifies the trees.
pub(crate) fn forest(forest: &Forest) -> Vec<Finding> {
    let mut check = Check {
        forest,
        findings: Vec::new(),
    };
    for tree in forest.trees().values() {
        check.cycles(tree);
        for node in &tree.members {
            check.edges(*node, tree);
            check.labels(*node, tree);
            check.rules(*node, tree);
            check.successor(*node, tree);
        }
        check.indices(tree);
    }
    for peer in forest.peers().values() {
        check.budget(*peer);
    }
    check.findings
}

/// Verifies that every peer has been, or is about to be, told what the trees are.
pub(crate) fn told(forest: &Forest, dispatch: &Dispatch, sessions: &SessionTable) -> Vec<Finding> {
    let mut check = Check {
        forest,
        findings: Vec::new(),
    };
    for (id, peer) in forest.peers() {
        if forest.peer(*peer).session != sessions.is_heard(*id) {
            check.found(
                "session",
                *id,
                None,
                "the trees and the session table differ",
            );
        }
        let content = content(forest, *peer);
        if !dispatch.is_staged(*id, &content) {
            check.found(
                "assignment",
                *id,
                None,
                "what it is told is not what is planned",
            );
        }
    }
    check.findings
}

struct Check<'a> {
    forest: &'a Forest,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn found(
        &mut self,
        invariant: &'static str,
        peer: PeerId,
        track: Option<&TrackName>,
        detail: &str,
    ) {
        let (peer, track, detail) = (Some(peer), track.cloned(), detail.to_owned());
        self.findings.push(Finding {
            invariant,
            peer,
            track,
            detail,
        });
    }

    fn at(&mut self, invariant: &'static str, node: NodeRef, tree: &Tree, detail: &str) {
        self.found(invariant, self.forest.id_of(node), Some(&tree.name), detail);
    }

    /// No cycle, the edges included that moves are leaving: nodes without parents are taken away
    /// until none is left.
    fn cycles(&mut self, tree: &Tree) {
        let mut above: BTreeMap<NodeRef, usize> = BTreeMap::new();
        let mut below: BTreeMap<NodeRef, Vec<NodeRef>> = BTreeMap::new();
        for node in &tree.members {
            let parents = parents(self.forest.node(*node));
            above.insert(*node, parents.len());
            for parent in parents {
                below.entry(parent).or_default().push(*node);
            }
        }
        let free = above.iter().filter(|(_, parents)| **parents == 0);
        let mut free: Vec<NodeRef> = free.map(|(node, _)| *node).collect();
        while let Some(node) = free.pop() {
            above.remove(&node);
            for child in below.remove(&node).unwrap_or_default() {
                if let Some(parents) = above.get_mut(&child) {
                    *parents -= 1;
                    if *parents == 0 {
                        free.push(child);
                    }
                }
            }
        }
        for node in above.keys() {
            self.at("acyclic", *node, tree, "it is on or below a cycle");
        }
    }

    /// One source, two only during a move, and both ends of each edge know it.
    fn edges(&mut self, at: NodeRef, tree: &Tree) {
        let node = self.forest.node(at);
        if node.source == Place::Nowhere {
            self.at("source", at, tree, "it has no source");
        }
        if let Place::Under(parent) = node.source
            && !(tree.members.contains(&parent) && self.forest.node(parent).children.contains(&at))
        {
            self.at("source", at, tree, "its parent does not have it as a child");
        }
        if let Some(former) = node.former {
            if former.place == node.source || former.place == Place::Nowhere {
                self.at("source", at, tree, "it moves from where it is");
            }
            let known = |parent| self.forest.node(parent).leaving.contains(&at);
            if matches!(former.place, Place::Under(parent) if !known(parent)) {
                self.at(
                    "source",
                    at,
                    tree,
                    "the parent that it leaves does not know it",
                );
            }
            if node.deadline.is_none() {
                self.at("source", at, tree, "its move has no end");
            }
        }
        let child = |child: &NodeRef| self.forest.node(*child).source != Place::Under(at);
        let leaver = |leaver: &NodeRef| {
            self.forest.node(*leaver).former.map(|former| former.place) != Some(Place::Under(at))
        };
        if node.children.iter().any(child) || node.leaving.iter().any(leaver) {
            self.at("source", at, tree, "it has a child that is elsewhere");
        }
    }

    /// Depth and height stored are depth and height real.
    fn labels(&mut self, at: NodeRef, tree: &Tree) {
        let node = self.forest.node(at);
        let depth = match node.source {
            Place::Under(parent) => self.forest.node(parent).depth + 1,
            Place::Cdn => 1,
            Place::Nowhere => 0,
        };
        if node.depth != depth {
            self.at(
                "depth",
                at,
                tree,
                &format!("stored {}, real {depth}", node.depth),
            );
        }
        if node.depth > self.forest.policy.max_depth() {
            self.at("max_depth", at, tree, &format!("depth {}", node.depth));
        }
        let below = node
            .children
            .iter()
            .map(|child| self.forest.node(*child).height)
            .max();
        let height = below.unwrap_or(0) + 1;
        if node.height != height {
            self.at(
                "height",
                at,
                tree,
                &format!("stored {}, real {height}", node.height),
            );
        }
    }

    /// Who may have children, and which.
    fn rules(&mut self, at: NodeRef, tree: &Tree) {
        let node = self.forest.node(at);
        let peer = self.forest.peer(node.peer);
        if node.carried() > 0 || node.pledged > 0 {
            if peer.role == PeerRole::Consumer {
                self.at("consumer", at, tree, "a consumer has children");
            }
            if peer.quarantined {
                self.at("quarantine", at, tree, "a quarantined peer has children");
            }
            if !node.warm {
                self.at(
                    "warm",
                    at,
                    tree,
                    "a peer that has received nothing has children",
                );
            }
        }
        for parent in parents(node) {
            if self
                .forest
                .pairs
                .separated(peer.id, self.forest.id_of(parent))
            {
                self.at(
                    "separated",
                    at,
                    tree,
                    "its parent is one that it must never meet",
                );
            }
            if self.forest.node(parent).peer == node.peer {
                self.at("source", at, tree, "it is its own parent");
            }
        }
    }

    /// A successor is outside the subtree and has reserved a slot for each child.
    fn successor(&mut self, at: NodeRef, tree: &Tree) {
        let node = self.forest.node(at);
        let reserved = node
            .protects
            .iter()
            .map(|one| self.forest.node(*one).reserved)
            .sum::<u32>();
        if reserved != node.pledged {
            self.at(
                "reserved",
                at,
                tree,
                &format!("{} stored, {reserved} real", node.pledged),
            );
        }
        if node
            .protects
            .iter()
            .any(|one| self.forest.node(*one).successor != Some(at))
        {
            self.at("reserved", at, tree, "it protects one that does not know");
        }
        let standby = self.forest.standby_of(at);
        if standby.is_some() && standby == self.forest.source_at(node.source) {
            self.at("standby", at, tree, "its standby is its parent");
        }
        let Some(successor) = node.successor else {
            return;
        };
        if self.forest.is_within(successor, at) {
            self.at("standby", at, tree, "its successor is in its own subtree");
        }
        if node.reserved as usize != node.children.len() || node.children.is_empty() {
            self.at(
                "reserved",
                at,
                tree,
                "its successor has not as many slots as it has children",
            );
        }
        if !self.forest.node(successor).protects.contains(&at) {
            self.at("reserved", at, tree, "its successor does not know");
        }
    }

    /// No peer carries more than it offers; an edge that it was made to give up counts no more.
    fn budget(&mut self, at: PeerRef) {
        let peer = self.forest.peer(at);
        let (mut bps, mut children) = (0_u64, 0_u64);
        for (track, node) in &peer.nodes {
            let node = self.forest.node(*node);
            let evicted = |leaver: &&NodeRef| {
                self.forest
                    .node(**leaver)
                    .former
                    .is_some_and(|former| former.evicted)
            };
            let evicted = node.leaving.iter().filter(evicted).count();
            let edges = node.children.len() + node.leaving.len() - evicted;
            let edges = edges as u64 + u64::from(node.pledged);
            children += edges;
            bps = bps.saturating_add(self.forest.tree(*track).cost.saturating_mul(edges));
        }
        let most = u64::from(self.forest.policy.max_children(peer.role));
        if bps > peer.upload_bps || children > most {
            let detail = format!(
                "{bps} of {} bit/s, {children} of {most} children",
                peer.upload_bps
            );
            self.found("budget", peer.id, None, &detail);
        }
    }

    /// Each node is in exactly the indices that its state demands.
    fn indices(&mut self, tree: &Tree) {
        let nodes = || {
            tree.members
                .iter()
                .map(|node| (*node, self.forest.node(*node)))
        };
        let open: BTreeSet<OpenKey> = tree
            .members
            .iter()
            .filter_map(|node| self.forest.open_key(*node))
            .collect();
        let roots: BTreeSet<RootKey> = tree
            .members
            .iter()
            .filter_map(|node| self.forest.root_key(*node))
            .collect();
        let bare = |node: &Node| node.successor.is_none() && !node.children.is_empty();
        let unprotected: BTreeSet<NodeRef> = nodes()
            .filter(|(_, node)| bare(node))
            .map(|(at, _)| at)
            .collect();
        let levels: BTreeSet<_> = nodes().map(|(at, node)| (node.depth, at)).collect();
        for (name, same) in [
            ("open", open == tree.open),
            ("roots", roots == tree.roots),
            ("unprotected", unprotected == tree.unprotected),
            ("levels", levels == tree.levels),
        ] {
            if !same {
                let (track, detail) = (Some(tree.name.clone()), format!("{name} is wrong"));
                self.findings.push(Finding {
                    invariant: "index",
                    peer: None,
                    track,
                    detail,
                });
            }
        }
    }
}

fn parents(node: &Node) -> Vec<NodeRef> {
    let former = node.former.map(|former| former.place);
    let places = [Some(node.source), former].into_iter().flatten();
    let parents = places.filter_map(|place| match place {
        Place::Under(parent) => Some(parent),
        Place::Cdn | Place::Nowhere => None,
    });
    parents.collect()
}
