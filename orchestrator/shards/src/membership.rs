//! Who belongs to a group, and changing it. One step at a time: the reconciler above decides the order.

use std::collections::{BTreeMap, BTreeSet};

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{AsyncRuntime, ChangeMembers};

use crate::errors::MembershipError;
use crate::{Group, NodeId, NodeInfo, Replica, SnapshotStore, Types};

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Group<Rt, R, S> {
    /// Adds a node that receives the log but has no vote; returns when that is committed, not when the
    /// node has caught up.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn add_learner(&self, node: NodeId, info: NodeInfo) -> Result<(), MembershipError> {
        outcome(self.inner.raft.add_learner(node, info, false).await)
    }

    /// Makes exactly these nodes the voters, through a joint configuration; each must be a member. Who
    /// loses its vote stays as a learner.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        outcome(self.inner.raft.change_membership(change, true).await)
    }

    /// Removes a learner.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`]; a voter must lose its vote first.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), MembershipError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
        outcome(self.inner.raft.change_membership(change, true).await)
    }

    /// Says that a member has other addresses than before.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn set_address(&self, node: NodeId, info: NodeInfo) -> Result<(), MembershipError> {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(node, info)]));
        outcome(self.inner.raft.change_membership(change, true).await)
    }
}

fn outcome<Rt: AsyncRuntime, T>(
    result: Result<T, RaftError<Types<Rt>, ClientWriteError<Types<Rt>>>>,
) -> Result<(), MembershipError> {
    let error = match result {
        Ok(_) => return Ok(()),
        Err(RaftError::Fatal(_)) => return Err(MembershipError::Stopped),
        Err(RaftError::APIError(error)) => error,
    };
    Err(match error {
        ClientWriteError::ForwardToLeader(other) => MembershipError::NotLeader {
            leader: other.leader_id,
        },
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
            MembershipError::InProgress
        }
        error @ (ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_)) => MembershipError::Refused(error.to_string()),
        ClientWriteError::LogEntryDiscarded(_) => MembershipError::Unknown,
    })
}
