//! What changed between two looks at a channel's trees, for `watch` without a terminal.

use std::collections::BTreeMap;

use crate::topology::{PeerNode, Source, Topology};

/// Names each change in a line, in the order of tracks and peers. Figures such as latency change all
/// the time and are no change of a tree.
pub(crate) fn changes(before: &Topology, after: &Topology) -> Vec<String> {
    let before = by_place(before);
    let after = by_place(after);
    let mut lines = Vec::new();
    for (place, node) in &after {
        match before.get(place) {
            None => lines.push(format!("{} joined: {}", name(node), place_text(node))),
            Some(was) if place_text(was) != place_text(node) => {
                lines.push(format!(
                    "{}: {} -> {}",
                    name(node),
                    place_text(was),
                    place_text(node)
                ));
            }
            Some(_) => {}
        }
    }
    for (place, node) in &before {
        if !after.contains_key(place) {
            lines.push(format!("{} left", name(node)));
        }
    }
    lines
}

fn by_place(topology: &Topology) -> BTreeMap<(&str, &str), &PeerNode> {
    topology
        .nodes
        .iter()
        .map(|node| ((node.track.as_str(), node.peer.as_str()), node))
        .collect()
}

fn name(node: &PeerNode) -> String {
    format!("{}/{}", node.track, node.peer)
}

fn place_text(node: &PeerNode) -> String {
    let or_none = |source: &Option<Source>| {
        source
            .as_ref()
            .map_or_else(|| "nothing".to_owned(), Source::to_string)
    };
    format!(
        "{} at depth {} from {} (standby {})",
        crate::topology::state_name(node.state),
        node.depth,
        or_none(&node.source),
        or_none(&node.standby)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::fixtures::topology;

    #[test]
    fn arrivals_moves_and_departures_are_told() {
        let before = topology(&[("a", "cdn"), ("b", "a"), ("c", "b")]);
        let after = topology(&[("a", "cdn"), ("b", "a"), ("d", "b")]);
        let mut moved = after.clone();
        moved.nodes[1].source = Some(Source::Cdn);
        assert_eq!(
            changes(&before, &moved),
            [
                "video/b: active at depth 0 from a (standby cdn) -> active at depth 0 from cdn \
                 (standby cdn)",
                "video/d joined: active at depth 0 from b (standby cdn)",
                "video/c left",
            ]
        );
    }

    #[test]
    fn figures_are_no_change() {
        let before = topology(&[("a", "cdn")]);
        let mut after = before.clone();
        after.nodes[0].upload_bps = 1;
        after.nodes[0].session = false;
        assert!(changes(&before, &after).is_empty());
    }
}
