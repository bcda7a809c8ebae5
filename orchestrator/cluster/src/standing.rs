//! What nodes say of themselves to each other while they are connected: soft state, kept nowhere.

use std::collections::{BTreeMap, BTreeSet};

use espalier_orchestrator_core::state::{MetaState, NodePhase};
use espalier_proto::cluster::v1 as proto;
use espalier_shards::NodeId;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The release that it runs.
    pub release: String,
    /// Peers that are attached to it.
    pub sessions: u32,
    /// It is about to stop: it takes no leadership, and peers are not sent to it.
    pub ending: bool,
}

/// Another node, as this one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// Whether it is there now, as far as an idle connection tells.
    pub reachable: bool,
    /// What it last said of itself.
    pub standing: Standing,
}

/// All other nodes that this one has tried to reach.
pub type Neighbours = BTreeMap<NodeId, Neighbour>;

impl Standing {
    /// What a node of this release says at its start.
    pub(crate) fn starting() -> Self {
        Standing {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }
    }

    pub(crate) fn to_wire(&self) -> proto::Standing {
        let Standing {
            release,
            sessions,
            ending,
        } = self.clone();
        proto::Standing {
            release,
            sessions,
            ending,
        }
    }

    pub(crate) fn from_wire(wire: proto::Standing) -> Self {
        Standing {
            release: wire.release,
            sessions: wire.sessions,
            ending: wire.ending,
        }
    }
}

/// The nodes that may lead: wanted to, there, and not about to stop. `me` is there in any case.
pub(crate) fn may_lead(
    state: &MetaState,
    (me, own): (NodeId, &Standing),
    neighbours: &Neighbours,
) -> BTreeSet<NodeId> {
    let there = |node: NodeId| match neighbours.get(&node) {
        _ if node == me => !own.ending,
        Some(neighbour) => neighbour.reachable && !neighbour.standing.ending,
        None => false,
    };
    let nodes = state.nodes().iter();
    let wanted = nodes.filter(|(_, record)| match record.phase {
        NodePhase::Joining | NodePhase::Active => true,
        NodePhase::Draining | NodePhase::Leaving => false,
    });
    wanted
        .map(|(node, _)| node.0)
        .filter(|node| there(*node))
        .collect()
}
