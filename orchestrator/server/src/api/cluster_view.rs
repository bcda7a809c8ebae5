//! A cluster as the API shows it, from what one node knows.

use std::collections::BTreeMap;

use espalier_cluster::{Neighbours, Standing};
use espalier_orchestrator_core::NodeId as CoreNodeId;
use espalier_orchestrator_core::state::{MetaState, NodePhase, NodeRecord};
use espalier_proto::v1::{self, ClusterNodeState};
use espalier_shards::{GroupId, GroupStatus, NodeId};

use crate::status::shard_name;

/// What one node knows of its cluster.
pub(super) struct ClusterView {
    pub(super) state: MetaState,
    pub(super) this: NodeId,
    /// What this node says of itself.
    pub(super) own: Standing,
    pub(super) neighbours: Neighbours,
    /// All groups as they stand here, the meta group first.
    pub(super) statuses: Vec<GroupStatus>,
    /// How many channels each group holds.
    pub(super) channels: BTreeMap<GroupId, usize>,
}

impl ClusterView {
    pub(super) fn cluster(&self) -> v1::Cluster {
        let cluster = self.state.cluster();
        let nodes = self.state.nodes().iter();
        v1::Cluster {
            id: cluster.map(|it| it.id.clone()).unwrap_or_default(),
            version: cluster.map(|it| it.version).unwrap_or_default(),
            nodes: nodes
                .map(|(node, record)| self.of(node.0, record))
                .collect(),
            shards: self.statuses.iter().map(|it| self.shard(it)).collect(),
            answered_by: node_name(self.this),
        }
    }

    /// A node of the cluster.
    pub(super) fn node(&self, node: NodeId) -> Option<v1::ClusterNode> {
        let record = self.state.nodes().get(&CoreNodeId(node))?;
        Some(self.of(node, record))
    }

    fn of(&self, node: NodeId, record: &NodeRecord) -> v1::ClusterNode {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        let (reachable, standing) = if node == self.this {
            (true, self.own.clone())
        } else {
            let neighbour = self.neighbours.get(&node).cloned().unwrap_or_default();
            (neighbour.reachable, neighbour.standing)
        };
        let led = self.statuses.iter().filter(|it| it.leader == Some(node));
        v1::ClusterNode {
            name: node_name(node),
            cluster_address: first(&record.addresses.cluster),
            public_uri: first(&record.addresses.public),
            state: phase(record.phase).into(),
            reachable,
            leads: count(led.count()),
            sessions: standing.sessions,
            release: standing.release,
        }
    }

    pub(super) fn shard(&self, status: &GroupStatus) -> v1::Shard {
        let names =
            |nodes: &mut dyn Iterator<Item = &NodeId>| nodes.map(|it| node_name(*it)).collect();
        let learners = status
            .members
            .keys()
            .filter(|it| !status.voters.contains(it));
        let channels = self.channels.get(&status.group).copied();
        v1::Shard {
            name: shard_name(status.group.0),
            leader: status.leader.map(node_name).unwrap_or_default(),
            term: status.term,
            applied_index: status.applied.map(|at| at.index).unwrap_or_default(),
            voters: names(&mut status.voters.iter()),
            learners: names(&mut { learners }),
            channels: count(channels.unwrap_or_default()),
        }
    }
}

/// A node's resource name.
pub(super) fn node_name(node: NodeId) -> String {
    format!("nodes/{node}")
}

fn phase(phase: NodePhase) -> ClusterNodeState {
    match phase {
        NodePhase::Joining => ClusterNodeState::Joining,
        NodePhase::Active => ClusterNodeState::Active,
        NodePhase::Draining => ClusterNodeState::Draining,
        NodePhase::Leaving => ClusterNodeState::Leaving,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
