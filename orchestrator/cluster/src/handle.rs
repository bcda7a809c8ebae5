//! What the rest of the node does with the cluster; clones are handles to the same.
//!
//! Nothing is kept alive by a handle: when the node's part has ended, its groups say that they have stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_orchestrator_core::state::{MetaOp, MetaState};
use espalier_shards::{Group, GroupId, GroupStatus, NodeId};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::cluster::ShardGroup;
use crate::desk::Desk;
use crate::error::MetaError;
use crate::identity::Identity;
use crate::snapshots::DiskSnapshots;
use crate::standing::{Neighbours, Standing};
use crate::steward::Tended;

/// A node's way to its groups and to the other nodes.
#[derive(Clone)]
pub struct ClusterHandle {
    pub(crate) identity: Identity,
    pub(crate) shards: Arc<[ShardGroup]>,
    pub(crate) desk: Desk,
    pub(crate) nodes: watch::Receiver<BTreeMap<NodeId, String>>,
    /// All groups, the meta group first.
    pub(crate) groups: Arc<[Arc<dyn Tended>]>,
    pub(crate) neighbours: watch::Receiver<Neighbours>,
    /// What this node says of itself.
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) removed: watch::Receiver<bool>,
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

    /// How all groups stand on this node, the meta group first.
    #[must_use]
    pub fn statuses(&self) -> Vec<GroupStatus> {
        self.groups.iter().map(|group| group.status()).collect()
    }

    /// The other nodes, and what they said of themselves.
    #[must_use]
    pub fn neighbours(&self) -> watch::Receiver<Neighbours> {
        self.neighbours.clone()
    }

    /// What this node says of itself.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Says to the others how many peers are attached to this node.
    pub fn tell_sessions(&self, sessions: u32) {
        self.standing.send_if_modified(|own| {
            let changed = own.sessions != sessions;
            own.sessions = sessions;
            changed
        });
    }

    /// Whether peers are to go elsewhere than to a node because that is about to stop, as far as is known here.
    #[must_use]
    pub fn is_ending(&self, node: NodeId) -> bool {
        if node == self.identity.node {
            return self.standing.borrow().ending;
        }
        let neighbours = self.neighbours.borrow();
        neighbours.get(&node).is_some_and(|it| it.standing.ending)
    }

    /// Waits until another node says that this one is out of the cluster for good; for ever if the node's
    /// part ends first.
    pub async fn removed(&self) {
        let mut removed = self.removed.clone();
        if removed.wait_for(|removed| *removed).await.is_err() {
            std::future::pending::<()>().await;
        }
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
