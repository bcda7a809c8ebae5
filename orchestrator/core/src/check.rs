//! Every invariant of the trees, verified on the live state and recomputed from the edges alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::content;
use crate::dispatch::Dispatch;
use crate::events::PeerRole;
use crate::forest::node::{Node, NodeRef, PeerRef, Place};
use crate::forest::{Forest, Tree};
use crate::ids::{PeerId, TrackName};
use crate::sessions::SessionTable;
use crate::view::Finding;

/// Verifies the trees.
pub(crate) fn forest(forest: &Forest) -> Vec<Finding> {
    let mut check = Check {
        forest,
        findings: Vec::new(),
    };
    for tree in forest.trees() {
        let members: BTreeSet<NodeRef> = forest.members(tree.key).collect();
        check.cycles(tree, &members);
        for node in &members {
            check.edges(*node, tree, &members);
            check.labels(*node, tree);
            check.rules(*node, tree);
            check.successor(*node, tree);
        }
        check.counts(tree, &members);
    }
    for detail in forest.wrongly_listed() {
        check.findings.push(Finding {
            invariant: "index",
            peer: None,
            track: None,
            detail,
        });
    }
    for (_, peer) in forest.peers() {
        check.budget(peer);
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
        if forest.peer(peer).session != sessions.is_heard(id) {
            check.found(
                "session",
                id,
                None,
                "the trees and the session table differ",
            );
        }
        let content = content(forest, peer);
        if !dispatch.is_staged(id, &content) {
            check.found(
                "assignment",
                id,
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
    fn cycles(&mut self, tree: &Tree, members: &BTreeSet<NodeRef>) {
        let mut above: BTreeMap<NodeRef, usize> = BTreeMap::new();
        let mut below: BTreeMap<NodeRef, Vec<NodeRef>> = BTreeMap::new();
        for node in members {
            let parents = self.parents(*node);
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

    fn parents(&self, node: NodeRef) -> Vec<NodeRef> {
        let former = self.forest.former(node).map(|former| former.place);
        let places = [Some(self.forest.node(node).place()), former];
        let parents = places
            .into_iter()
            .flatten()
            .filter_map(|place| match place {
                Place::Under(parent) => Some(parent),
                Place::Cdn | Place::Nowhere => None,
            });
        parents.collect()
    }

    /// One source, two only during a move, and both ends of each edge know it.
    fn edges(&mut self, at: NodeRef, tree: &Tree, members: &BTreeSet<NodeRef>) {
        let forest = self.forest;
        let node = forest.node(at);
        if node.place() == Place::Nowhere {
            self.at("source", at, tree, "it has no source");
        }
        let knows = |parent| forest.children(parent).any(|child| child == at);
        if node
            .parent()
            .is_some_and(|parent| !members.contains(&parent) || !knows(parent))
        {
            self.at("source", at, tree, "its parent does not have it as a child");
        }
        if let Some(former) = forest.former(at) {
            if former.place == node.place() || former.place == Place::Nowhere {
                self.at("source", at, tree, "it moves from where it is");
            }
            let knows = |parent| forest.leaving(parent).any(|leaver| leaver == at);
            if matches!(former.place, Place::Under(parent) if !knows(parent)) {
                let what = "the parent that it leaves does not know it";
                self.at("source", at, tree, what);
            }
            if forest.deadline(at).is_none() {
                self.at("source", at, tree, "its move has no end");
            }
        }
        let stranger = |child: NodeRef| forest.node(child).parent() != Some(at);
        let leaves = |leaver: NodeRef| forest.former(leaver).map(|former| former.place);
        if forest.children(at).any(stranger)
            || forest
                .leaving(at)
                .any(|leaver| leaves(leaver) != Some(Place::Under(at)))
        {
            self.at("source", at, tree, "it has a child that is elsewhere");
        }
        let edges = forest.children(at).count() + forest.leaving(at).count();
        if edges != node.carried() as usize {
            let detail = format!("{} edges stored, {edges} real", node.carried());
            self.at("source", at, tree, &detail);
        }
    }

    /// Depth stored is depth real.
    fn labels(&mut self, at: NodeRef, tree: &Tree) {
        let node = self.forest.node(at);
        let depth = match node.place() {
            Place::Under(parent) => self.forest.node(parent).depth() + 1,
            Place::Cdn => 1,
            Place::Nowhere => 0,
        };
        if node.depth() != depth {
            let detail = format!("stored {}, real {depth}", node.depth());
            self.at("depth", at, tree, &detail);
        }
        if node.depth() > self.forest.policy.max_depth() {
            self.at("max_depth", at, tree, &format!("depth {}", node.depth()));
        }
    }

    /// Who may have children, and which.
    fn rules(&mut self, at: NodeRef, tree: &Tree) {
        let node = self.forest.node(at);
        let peer = self.forest.peer(node.peer);
        if node.carried() > 0 || node.pledged() > 0 {
            if peer.role == PeerRole::Consumer {
                self.at("consumer", at, tree, "a consumer has children");
            }
            if !self.forest.policy.may_serve(peer.role, &peer.profile) {
                self.at(
                    "profile",
                    at,
                    tree,
                    "a peer that the policy spares has children",
                );
            }
            if peer.quarantined {
                self.at("quarantine", at, tree, "a quarantined peer has children");
            }
            if !node.is_warm() {
                self.at(
                    "warm",
                    at,
                    tree,
                    "a peer that has received nothing has children",
                );
            }
        }
        for parent in self.parents(at) {
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
        let forest = self.forest;
        let node = forest.node(at);
        let protected = || forest.protected_by(at);
        let reserved: u32 = protected().map(|one| forest.node(one).reserved()).sum();
        if reserved != node.pledged() {
            let detail = format!("{} stored, {reserved} real", node.pledged());
            self.at("reserved", at, tree, &detail);
        }
        if protected().any(|one| forest.node(one).successor() != Some(at)) {
            self.at("reserved", at, tree, "it protects one that does not know");
        }
        let standby = forest.standby_of(at);
        if standby.is_some() && standby == forest.source_at(node.place()) {
            self.at("standby", at, tree, "its standby is its parent");
        }
        let Some(successor) = node.successor() else {
            return;
        };
        if forest.is_within(successor, at) {
            self.at("standby", at, tree, "its successor is in its own subtree");
        }
        if node.reserved() < node.child_count() || node.child_count() == 0 {
            let what = "its successor has not as many slots as it has children";
            self.at("reserved", at, tree, what);
        }
        if !forest.protected_by(successor).any(|one| one == at) {
            self.at("reserved", at, tree, "its successor does not know");
        }
    }

    /// No peer carries more than it offers; an edge that it was made to give up counts no more.
    fn budget(&mut self, at: PeerRef) {
        let peer = self.forest.peer(at);
        let (mut bps, mut children) = (0_u64, 0_u64);
        for node in self.forest.nodes_of(at) {
            let edges = u64::from(self.forest.staying(node) + self.forest.node(node).pledged());
            let cost = self.forest.tree_of(node).cost;
            children += edges;
            bps = bps.saturating_add(cost.saturating_mul(edges));
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

    /// What is counted in passing is what there is.
    fn counts(&mut self, tree: &Tree, members: &BTreeSet<NodeRef>) {
        let nodes = || members.iter().map(|at| self.forest.node(*at));
        let roots = nodes().filter(|node| node.place() == Place::Cdn).count();
        let bare = |node: &&Node| node.successor().is_none() && node.child_count() > 0;
        let bare = nodes().filter(bare).count();
        let mut depths = vec![0; tree.depths().len()];
        for node in nodes().filter(|node| node.depth() > 0) {
            depths[node.depth() as usize] += 1;
        }
        for (name, same) in [
            ("members", members.len() == tree.members as usize),
            ("roots", roots == tree.root_count() as usize),
            ("unprotected", bare == tree.bare as usize),
            ("depths", depths == tree.depths()),
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
