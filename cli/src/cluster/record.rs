//! A cluster as text and as the JSON that scripts depend on.

use std::fmt::Write as _;

use espalier_proto::v1::{self, ClusterNodeState};
use serde::Serialize;

/// A cluster in JSON.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClusterRecord {
    id: String,
    version: u32,
    answered_by: Option<u64>,
    nodes: Vec<NodeRecord>,
    shards: Vec<ShardRecord>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeRecord {
    pub(super) node: u64,
    cluster_address: String,
    public_uri: String,
    pub(super) state: &'static str,
    reachable: bool,
    pub(super) leads: u32,
    pub(super) sessions: u32,
    release: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShardRecord {
    /// Its number, or `meta`.
    shard: String,
    /// Null: nobody leads it.
    leader: Option<u64>,
    term: u64,
    applied_index: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    channels: u32,
}

impl From<v1::Cluster> for ClusterRecord {
    fn from(wire: v1::Cluster) -> Self {
        Self {
            id: wire.id,
            version: wire.version,
            answered_by: node_id(&wire.answered_by),
            nodes: wire.nodes.into_iter().map(NodeRecord::from).collect(),
            shards: wire.shards.into_iter().map(ShardRecord::from).collect(),
        }
    }
}

impl From<v1::ClusterNode> for NodeRecord {
    fn from(wire: v1::ClusterNode) -> Self {
        Self {
            node: node_id(&wire.name).unwrap_or_default(),
            state: state(wire.state()),
            cluster_address: wire.cluster_address,
            public_uri: wire.public_uri,
            reachable: wire.reachable,
            leads: wire.leads,
            sessions: wire.sessions,
            release: wire.release,
        }
    }
}

impl From<v1::Shard> for ShardRecord {
    fn from(wire: v1::Shard) -> Self {
        let ids = |names: &[String]| names.iter().filter_map(|name| node_id(name)).collect();
        Self {
            leader: node_id(&wire.leader),
            term: wire.term,
            applied_index: wire.applied_index,
            voters: ids(&wire.voters),
            learners: ids(&wire.learners),
            channels: wire.channels,
            shard: wire
                .name
                .strip_prefix("shards/")
                .unwrap_or(&wire.name)
                .to_owned(),
        }
    }
}

/// The id in a node's resource name.
fn node_id(name: &str) -> Option<u64> {
    name.strip_prefix("nodes/")?.parse().ok()
}

fn state(state: ClusterNodeState) -> &'static str {
    match state {
        ClusterNodeState::Unspecified => "unknown",
        ClusterNodeState::Joining => "joining",
        ClusterNodeState::Active => "active",
        ClusterNodeState::Draining => "draining",
        ClusterNodeState::Leaving => "leaving",
    }
}

/// The whole cluster.
pub(crate) fn text(cluster: &ClusterRecord) -> String {
    let mut text = format!("cluster {}  version {}\n\n", cluster.id, cluster.version);
    text.push_str(NODE_HEADING);
    for node in &cluster.nodes {
        write!(text, "\n{}", node_row(node)).expect("invariant: a String takes every text");
    }
    write!(text, "\n\n{SHARD_HEADING}").expect("invariant: a String takes every text");
    for shard in &cluster.shards {
        write!(text, "\n{}", shard_row(shard)).expect("invariant: a String takes every text");
    }
    text
}

/// One node.
pub(crate) fn node_text(node: &NodeRecord) -> String {
    format!("{NODE_HEADING}\n{}", node_row(node))
}

/// One shard.
pub(crate) fn shard_text(shard: &ShardRecord) -> String {
    format!("{SHARD_HEADING}\n{}", shard_row(shard))
}

const NODE_HEADING: &str =
    "NODE  STATE     REACHED  LEADS  SESSIONS  ADDRESS                PUBLIC";
const SHARD_HEADING: &str = "SHARD  LEADER  TERM  APPLIED     CHANNELS  VOTERS   LEARNERS";

fn node_row(node: &NodeRecord) -> String {
    let reached = if node.reachable { "yes" } else { "no" };
    format!(
        "{:<4}  {:<8}  {reached:<7}  {:>5}  {:>8}  {:<21}  {}",
        node.node, node.state, node.leads, node.sessions, node.cluster_address, node.public_uri
    )
}

fn shard_row(shard: &ShardRecord) -> String {
    let leader = shard
        .leader
        .map_or_else(|| "none".to_owned(), |id| id.to_string());
    let row = format!(
        "{:<5}  {leader:<6}  {:>4}  {:>10}  {:>8}  {:<7}  {}",
        shard.shard,
        shard.term,
        shard.applied_index,
        shard.channels,
        list(&shard.voters),
        list(&shard.learners)
    );
    row.trim_end().to_owned()
}

fn list(ids: &[u64]) -> String {
    let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
    ids.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterRecord {
        let node = |id: u64, state: ClusterNodeState| v1::ClusterNode {
            name: format!("nodes/{id}"),
            cluster_address: format!("10.0.0.{id}:7301"),
            public_uri: format!("http://10.0.0.{id}:7300"),
            state: state.into(),
            reachable: id != 2,
            leads: 1,
            sessions: 7,
            release: "0.1.0".to_owned(),
        };
        let shard = |name: &str, leader: &str| v1::Shard {
            name: format!("shards/{name}"),
            leader: leader.to_owned(),
            term: 3,
            applied_index: 99,
            voters: vec!["nodes/1".to_owned(), "nodes/2".to_owned()],
            learners: Vec::new(),
            channels: 2,
        };
        ClusterRecord::from(v1::Cluster {
            id: "c0ffee".to_owned(),
            version: 1,
            nodes: vec![
                node(1, ClusterNodeState::Active),
                node(2, ClusterNodeState::Draining),
            ],
            shards: vec![shard("meta", "nodes/1"), shard("1", "")],
            answered_by: "nodes/1".to_owned(),
        })
    }

    #[test]
    fn a_person_reads_nodes_and_leaders() {
        let expect = "\
cluster c0ffee  version 1

NODE  STATE     REACHED  LEADS  SESSIONS  ADDRESS                PUBLIC
1     active    yes          1         7  10.0.0.1:7301          http://10.0.0.1:7300
2     draining  no           1         7  10.0.0.2:7301          http://10.0.0.2:7300

SHARD  LEADER  TERM  APPLIED     CHANNELS  VOTERS   LEARNERS
meta   1          3          99         2  1,2
1      none       3          99         2  1,2";
        assert_eq!(text(&cluster()), expect);
    }

    #[test]
    fn a_script_reads_ids_and_null_for_no_leader() {
        let json = serde_json::to_value(cluster()).unwrap();
        assert_eq!(json["answered_by"], 1);
        assert_eq!(json["nodes"][1]["state"], "draining");
        assert_eq!(json["shards"][0]["shard"], "meta");
        assert_eq!(json["shards"][1]["leader"], serde_json::Value::Null);
        assert_eq!(json["shards"][1]["voters"], serde_json::json!([1, 2]));
    }
}
