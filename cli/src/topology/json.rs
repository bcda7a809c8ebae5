//! Trees as the JSON that scripts depend on.

use serde::Serialize;

use super::model::{Source, Topology, state_name};

/// One object for each (peer, track, stripe).
#[derive(Debug, Serialize)]
pub(crate) struct JsonNode<'a> {
    peer: &'a str,
    track: &'a str,
    stripe: u32,
    /// A peer's id, `cdn`, or null while there is none.
    source: Option<String>,
    standby: Option<String>,
    depth: u32,
    children: &'a [String],
    state: &'static str,
}

/// Makes the array of `espalier channel tree --format json`.
pub(crate) fn json(topology: &Topology) -> Vec<JsonNode<'_>> {
    topology
        .nodes
        .iter()
        .map(|node| JsonNode {
            peer: &node.peer,
            track: &node.track,
            stripe: node.stripe,
            source: node.source.as_ref().map(Source::to_string),
            standby: node.standby.as_ref().map(Source::to_string),
            depth: node.depth,
            children: &node.children,
            state: state_name(node.state),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::topology;
    use super::*;
    use espalier_proto::v1::NodeState;

    #[test]
    fn has_the_contract_s_form() {
        let mut topology = topology(&[("aa", "cdn"), ("bb", "aa"), ("cc", "")]);
        topology.nodes[0].depth = 1;
        topology.nodes[1].depth = 2;
        topology.nodes[1].standby = Some(Source::Peer("cc".into()));
        topology.nodes[2].standby = None;
        topology.nodes[2].state = NodeState::Joining;
        let value = serde_json::to_value(json(&topology)).unwrap();
        assert_eq!(
            value,
            serde_json::json!([
                {"peer": "aa", "track": "video", "stripe": 0, "source": "cdn", "standby": "cdn", "depth": 1,
                 "children": ["bb"], "state": "active"},
                {"peer": "bb", "track": "video", "stripe": 0, "source": "aa", "standby": "cc", "depth": 2,
                 "children": [], "state": "active"},
                {"peer": "cc", "track": "video", "stripe": 0, "source": null, "standby": null, "depth": 0,
                 "children": [], "state": "joining"},
            ])
        );
    }

    #[test]
    fn every_state_has_its_name() {
        let table = [
            (NodeState::Unspecified, "joining"),
            (NodeState::Joining, "joining"),
            (NodeState::Active, "active"),
            (NodeState::Moving, "moving"),
            (NodeState::Repairing, "repairing"),
            (NodeState::Bypass, "bypass"),
        ];
        for (state, name) in table {
            assert_eq!(state_name(state), name);
        }
    }
}
