//! What a group says of itself, for operators and for the reconciler.

use std::collections::{BTreeMap, BTreeSet};

use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use openraft::vote::RaftLeaderId;

use crate::types::position;
use crate::{Group, GroupId, LogPosition, NodeId, NodeInfo, Replica, SnapshotStore};

/// A moment of a group on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// The term that this node knows.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last entry in its log.
    pub last_log_index: u64,
    /// Up to where entries are applied.
    pub applied: Option<LogPosition>,
    /// Where the latest snapshot stands.
    pub snapshot: Option<LogPosition>,
    /// Up to where the log is purged.
    pub purged: Option<LogPosition>,
    /// The nodes that vote (of the newest configuration, old and new while it is joint).
    pub voters: BTreeSet<NodeId>,
    /// Every member with its addresses, learners too.
    pub members: BTreeMap<NodeId, NodeInfo>,
    /// Whether a change of the membership is on its way.
    pub changing: bool,
    /// On the leader: up to which index each other member holds the log.
    pub matched: BTreeMap<NodeId, u64>,
}

impl GroupStatus {
    /// The voters that lack at most `lag` entries; on the leader only.
    #[must_use]
    pub fn caught_up(&self, lag: u64) -> BTreeSet<NodeId> {
        let holds = |node: &NodeId| {
            self.matched
                .get(node)
                .is_some_and(|index| index + lag >= self.last_log_index)
        };
        self.voters.iter().copied().filter(holds).collect()
    }
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Group<Rt, R, S> {
    /// How the group stands on this node now.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let matched = metrics.replication.iter().flatten();
        let committed = &metrics.committed_membership_config;
        GroupStatus {
            group: self.inner.id,
            term: metrics.vote.leader_id().term(),
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            applied: metrics.last_applied.as_ref().map(position::<Rt>),
            snapshot: metrics.snapshot.as_ref().map(position::<Rt>),
            purged: metrics.purged.as_ref().map(position::<Rt>),
            voters: membership.voter_ids().collect(),
            members: membership
                .nodes()
                .map(|(id, info)| (*id, info.clone()))
                .collect(),
            changing: membership.membership().get_joint_config().len() > 1
                || membership.log_id() != committed.log_id(),
            matched: matched
                .filter_map(|(node, id)| Some((*node, id.as_ref()?.index())))
                .collect(),
        }
    }
}
