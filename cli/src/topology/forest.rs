//! Trees walked from their roots, as lines that people can read.

use std::collections::{BTreeMap, HashSet};

use super::model::{PeerNode, Source, Topology, tree_name};

/// One tree as lines, parents before their children.
#[derive(Debug)]
pub(crate) struct Forest<'a> {
    /// Of which track, and which stripe of it.
    pub(crate) name: String,
    /// The peers that the CDN reaches, directly or through others.
    pub(crate) placed: Vec<TreeLine<'a>>,
    /// The peers that it does not: joining, orphaned, or in a circle that should not be.
    pub(crate) unplaced: Vec<&'a PeerNode>,
}

/// A peer, and what is drawn before it.
#[derive(Debug, Clone)]
pub(crate) struct TreeLine<'a> {
    /// Box-drawing characters that lead from the parent here; empty for a root.
    pub(crate) branch: String,
    pub(crate) node: &'a PeerNode,
}

/// Children by their parent, within one tree.
type Children<'a> = BTreeMap<&'a Source, Vec<&'a PeerNode>>;

impl<'a> Forest<'a> {
    /// Makes the forest of each track and stripe, in the order of their names.
    pub(crate) fn of(topology: &'a Topology) -> Vec<Self> {
        let mut trees: BTreeMap<(&str, u32), Vec<&PeerNode>> = BTreeMap::new();
        for node in &topology.nodes {
            let tree = trees.entry((&node.track, node.stripe)).or_default();
            tree.push(node);
        }
        let striped = topology.striped();
        trees
            .into_iter()
            .map(|((track, stripe), nodes)| {
                Self::of_tree(tree_name(track, stripe, &striped), &nodes)
            })
            .collect()
    }

    fn of_tree(name: String, nodes: &[&'a PeerNode]) -> Self {
        let mut children: Children<'a> = BTreeMap::new();
        for &node in nodes {
            if let Some(source) = &node.source {
                children.entry(source).or_default().push(node);
            }
        }
        let placed = walk(&children);
        let reached: HashSet<&str> = placed.iter().map(|line| line.node.peer.as_str()).collect();
        let unplaced = nodes
            .iter()
            .copied()
            .filter(|node| !reached.contains(node.peer.as_str()))
            .collect();
        Self {
            name,
            placed,
            unplaced,
        }
    }
}

/// Depth first, without recursion: a chain may be as long as the audience. Every peer has one source
/// within a tree, so no peer is reached twice and the walk ends, whatever the wire said.
fn walk<'a>(children: &Children<'a>) -> Vec<TreeLine<'a>> {
    struct Todo<'a> {
        node: &'a PeerNode,
        branch: String,
        /// What stands before this peer's children.
        below: String,
    }
    let mut lines = Vec::new();
    let mut seen = HashSet::new();
    let mut todo: Vec<Todo<'a>> = children
        .get(&Source::Cdn)
        .into_iter()
        .flatten()
        .rev()
        .map(|&node| Todo {
            node,
            branch: String::new(),
            below: String::new(),
        })
        .collect();
    while let Some(Todo {
        node,
        branch,
        below,
    }) = todo.pop()
    {
        if !seen.insert(node.peer.as_str()) {
            continue;
        }
        lines.push(TreeLine { branch, node });
        let own = children
            .get(&Source::Peer(node.peer.clone()))
            .map_or(&[][..], Vec::as_slice);
        for (index, &child) in own.iter().enumerate().rev() {
            let last = index + 1 == own.len();
            todo.push(Todo {
                node: child,
                branch: format!("{below}{}", if last { "└─ " } else { "├─ " }),
                below: format!("{below}{}", if last { "   " } else { "│  " }),
            });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{node, topology};
    use super::*;
    use proptest::prelude::*;

    fn drawn(topology: &Topology) -> Vec<String> {
        Forest::of(topology)
            .iter()
            .flat_map(|forest| &forest.placed)
            .map(|line| format!("{}{}", line.branch, line.node.peer))
            .collect()
    }

    #[test]
    fn branches_lead_to_their_parents() {
        let topology = topology(&[
            ("a", "cdn"),
            ("b", "a"),
            ("c", "a"),
            ("d", "b"),
            ("e", "b"),
            ("f", "c"),
            ("g", "cdn"),
        ]);
        assert_eq!(
            drawn(&topology),
            ["a", "├─ b", "│  ├─ d", "│  └─ e", "└─ c", "   └─ f", "g"]
        );
    }

    #[test]
    fn a_circle_and_an_orphan_are_shown_apart() {
        let topology = topology(&[
            ("a", "cdn"),
            ("b", "c"),
            ("c", "b"),
            ("d", "gone"),
            ("e", ""),
        ]);
        let forests = Forest::of(&topology);
        assert_eq!(drawn(&topology), ["a"]);
        let apart: Vec<&str> = forests[0]
            .unplaced
            .iter()
            .map(|n| n.peer.as_str())
            .collect();
        assert_eq!(apart, ["b", "c", "d", "e"]);
    }

    #[test]
    fn a_chain_longer_than_any_stack_is_drawn() {
        let links: Vec<(String, String)> = (0..20_000)
            .map(|n| {
                let source = if n == 0 {
                    "cdn".to_owned()
                } else {
                    format!("{:05}", n - 1)
                };
                (format!("{n:05}"), source)
            })
            .collect();
        let topology = Topology {
            nodes: links
                .iter()
                .map(|(peer, source)| node(peer, source))
                .collect(),
        };
        assert_eq!(Forest::of(&topology)[0].placed.len(), 20_000);
    }

    #[test]
    fn tracks_have_trees_of_their_own() {
        let mut topology = topology(&[("a", "cdn"), ("b", "a")]);
        topology.nodes[1].track = "audio".to_owned();
        let forests = Forest::of(&topology);
        assert_eq!(
            forests.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            ["audio", "video"]
        );
        assert_eq!(forests[0].unplaced.len(), 1);
    }

    #[test]
    fn stripes_have_trees_of_their_own() {
        let mut topology = topology(&[("a", "cdn"), ("b", "a"), ("a", "b"), ("b", "cdn")]);
        topology.nodes[2].stripe = 1;
        topology.nodes[3].stripe = 1;
        let forests = Forest::of(&topology);
        let drawn = |forest: &Forest<'_>| {
            let peers = forest.placed.iter().map(|line| line.node.peer.clone());
            (forest.name.clone(), peers.collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            forests.iter().map(drawn).collect::<Vec<_>>(),
            [
                ("video stripe 0".to_owned(), "a b".to_owned()),
                ("video stripe 1".to_owned(), "b a".to_owned())
            ]
        );
        assert!(forests.iter().all(|forest| forest.unplaced.is_empty()));
    }

    proptest! {
        /// Whatever edges the wire names, each peer is shown exactly once.
        #[test]
        fn nobody_is_lost_or_doubled(sources in prop::collection::vec(0_usize..12, 1..12)) {
            let nodes = sources.iter().enumerate().map(|(peer, source)| {
                let source = if *source == 0 { "cdn".to_owned() } else { format!("p{:02}", source - 1) };
                node(&format!("p{peer:02}"), &source)
            }).collect();
            let topology = Topology { nodes };
            let forest = Forest::of(&topology).remove(0);
            let mut shown: Vec<&str> = forest.placed.iter().map(|line| line.node.peer.as_str())
                .chain(forest.unplaced.iter().map(|node| node.peer.as_str())).collect();
            shown.sort_unstable();
            let all: Vec<&str> = topology.nodes.iter().map(|node| node.peer.as_str()).collect();
            prop_assert_eq!(shown, all);
        }
    }
}
