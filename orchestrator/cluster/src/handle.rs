//! What the rest of the node does with the cluster; clones are handles to the same.
//!
//! Nothing is kept alive by a handle: when the node's part has ended, its groups say that they have stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_orchestrator_core::state::{MetaOp, MetaState};
use espalier_shards::{Group, GroupId, NodeId};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::cluster::ShardGroup;
use crate::desk::Desk;
use crate::error::MetaError;
use crate::identity::Identity;
use crate::snapshots::DiskSnapshots;

/// A node's way to its groups and to the other nodes.
#[derive(Clone)]
pub struct ClusterHandle {
    pub(crate) identity: Identity,
    pub(crate) shards: Arc<[ShardGroup]>,
    pub(crate) desk: Desk,
    pub(crate) nodes: watch::Receiver<BTreeMap<NodeId, String>>,
}

impl ClusterHandle {
    /// Which node of which cluster this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The group that holds the directory, the nodes and the cluster's own settings.
    #[must_use]
    pub fn meta(&self) -> &Group<TokioRuntime, MetaState, DiskSnapshots> {
        &self.desk.meta
    }

    /// The groups that hold channels, in the order of their numbers, from 1.
    #[must_use]
    pub fn shards(&self) -> &[ShardGroup] {
        &self.shards
    }

    /// One of them.
    #[must_use]
    pub fn shard(&self, group: GroupId) -> Option<&ShardGroup> {
        self.shards
            .get(usize::try_from(group.0).ok()?.checked_sub(1)?)
    }

    /// A connection to what another node serves to nodes; shared, opened when first used.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> Option<Channel> {
        let nodes = self.nodes.borrow();
        Some(self.desk.lines.to(node, nodes.get(&node)?).ok()?.gateways)
    }

    /// Has the cluster's own state changed, at whichever node leads; doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// See [`MetaError`].
    pub async fn change(&self, ops: Vec<MetaOp>) -> Result<(), MetaError> {
        self.desk.change(ops).await
    }

    /// The cluster's own state, with everything in it that was committed before the call.
    ///
    /// # Errors
    ///
    /// When no leader answers in time.
    pub async fn current_meta(&self) -> Result<MetaState, MetaError> {
        self.desk.current().await
    }
}
