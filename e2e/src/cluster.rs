//! A cluster, as `espalier cluster status --format json` prints it.

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Nodes and groups.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// By id.
    pub nodes: Vec<NodeRecord>,
    /// The meta group first.
    pub shards: Vec<ShardRecord>,
}

/// A node.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeRecord {
    /// Its id.
    pub node: u64,
    /// joining, active, draining, leaving.
    pub state: String,
    /// Whether the node that answered hears it.
    pub reachable: bool,
    /// How many groups it leads.
    pub leads: u32,
    /// Peers that are attached to it.
    pub sessions: u32,
}

/// A Raft group.
#[derive(Clone, Debug, Deserialize)]
pub struct ShardRecord {
    /// Its number, or `meta`.
    pub shard: String,
    /// A node's id; absent while nobody leads.
    pub leader: Option<u64>,
    /// The leader's term.
    pub term: u64,
    /// How many channels it holds.
    pub channels: u32,
}

impl Status {
    /// Reads the command's JSON.
    ///
    /// # Errors
    /// It does not keep the command's contract.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("cluster status: {text}"))
    }

    /// A group.
    #[must_use]
    pub fn shard(&self, name: &str) -> Option<&ShardRecord> {
        self.shards.iter().find(|shard| shard.shard == name)
    }

    /// The group that holds a channel, when only one does.
    #[must_use]
    pub fn only_shard(&self) -> Option<&ShardRecord> {
        let mut shards = self.shards.iter().filter(|shard| shard.channels > 0);
        shards.next().filter(|_| shards.next().is_none())
    }

    /// Whether all nodes are there and in service, and every group has a leader.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let serves = |node: &NodeRecord| node.reachable && node.state == "active";
        self.nodes.iter().all(serves) && self.shards.iter().all(|shard| shard.leader.is_some())
    }

    /// The terms of all groups: an election raises one.
    #[must_use]
    pub fn terms(&self) -> Vec<(&str, u64)> {
        self.shards
            .iter()
            .map(|shard| (shard.shard.as_str(), shard.term))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn the_command_s_json_is_read() {
        let text = r#"{"id": "c", "version": 1, "answered_by": 1, "nodes": [
              {"node": 1, "cluster_address": "a:1", "public_uri": "http://a:2", "state": "active",
               "reachable": true, "leads": 1, "sessions": 4, "release": "0.1.0"}],
            "shards": [
              {"shard": "meta", "leader": 1, "term": 3, "applied_index": 9, "voters": [1], "learners": [], "channels": 0},
              {"shard": "7", "leader": null, "term": 2, "applied_index": 9, "voters": [1], "learners": [], "channels": 1}]}"#;
        let status = Status::parse(text).unwrap();
        assert_eq!(status.only_shard().unwrap().shard, "7");
        assert_eq!(status.terms(), [("meta", 3), ("7", 2)]);
        assert!(!status.is_whole());
        assert!(status.shard("8").is_none());
        assert!(Status::parse("[]").is_err());
    }
}
