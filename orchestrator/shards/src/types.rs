//! The types that openraft is given, generic over its runtime so that a simulator can run the very
//! same groups on virtual time.
//!
//! Invariant: one leader a term (`leader_id_std`), so that (term, index) names a decision and a
//! channel's engine can be fenced by its term alone.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::impls::{BoxedErrorSource, InlineBatch, ProgressResponder};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

/// Names a node of the cluster; never given to another node, not even after a removal.
pub type NodeId = u64;

/// Names a Raft group: 0 is the meta shard, the others hold channels.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group that holds the directory, the nodes and the cluster's own settings.
    pub const META: GroupId = GroupId(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// Where a node is reached, as every group's membership says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// `host:port` of its listener for other nodes.
    pub cluster_address: String,
    /// `host:port` at which peers and callers reach its gateway; empty when it did not say.
    pub public_address: String,
}

/// One command of the log, opaque here: the replica knows what it means.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} B)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0.len())
    }
}

/// What the replica answered to a command, opaque here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer(pub Bytes);

/// Where in a group's log something stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// The term in which it was proposed.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// openraft's type configuration on the runtime `Rt`.
pub struct Types<Rt>(PhantomData<fn() -> Rt>);

impl<Rt> Clone for Types<Rt> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Rt> Copy for Types<Rt> {}
impl<Rt> Default for Types<Rt> {
    fn default() -> Self {
        Types(PhantomData)
    }
}
impl<Rt> fmt::Debug for Types<Rt> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<Rt> PartialEq for Types<Rt> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<Rt> Eq for Types<Rt> {}
impl<Rt> PartialOrd for Types<Rt> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<Rt> Ord for Types<Rt> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl<Rt: AsyncRuntime> RaftTypeConfig for Types<Rt> {
    type D = Command;
    type R = Answer;
    type NodeId = NodeId;
    type Node = NodeInfo;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, NodeId, NodeInfo>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Rt;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// A vote as openraft keeps it: term, candidate, and whether a quorum granted it.
pub type Vote<Rt> = <Types<Rt> as RaftTypeConfig>::Vote;

/// A log id as openraft keeps it.
pub type LogId<Rt> = openraft::type_config::alias::LogIdOf<Types<Rt>>;

/// The membership as of one place in the log.
pub type StoredMembership<Rt> = openraft::type_config::alias::StoredMembershipOf<Types<Rt>>;

/// What a snapshot says of itself.
pub type SnapshotMeta<Rt> = openraft::type_config::alias::SnapshotMetaOf<Types<Rt>>;

/// The position that a log id names.
pub(crate) fn position<Rt: AsyncRuntime>(id: &LogId<Rt>) -> LogPosition {
    LogPosition {
        term: **id.committed_leader_id(),
        index: id.index(),
    }
}
