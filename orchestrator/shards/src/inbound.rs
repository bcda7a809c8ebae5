//! What other nodes may ask of a group, with the replica's type out of sight, so that one network can
//! serve groups of different states.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use openraft::AsyncRuntime;
use openraft::errors::RaftError;
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::type_config::alias::SnapshotOf;

use crate::errors::{ReadError, Stopped};
use crate::group::stopped;
use crate::shelf::decode_meta;
use crate::types::Vote;
use crate::{Group, GroupId, LogPosition, Replica, SnapshotFile, SnapshotStore, Types};

/// The answers to a stream of appends, in order; the stream ends at the first that fails.
pub type Appends<Rt> = BoxStream<'static, Result<StreamAppendResult<Types<Rt>>, Stopped>>;

/// A group as other nodes reach it; `S` is where its snapshots lie.
pub trait Inbound<Rt: AsyncRuntime, S: SnapshotStore>: Send + Sync {
    /// Which group this is.
    fn group(&self) -> GroupId;

    /// Takes a stream of appends or heartbeats; many may be under way.
    fn append(&self, requests: BoxStream<'static, AppendEntriesRequest<Types<Rt>>>) -> Appends<Rt>;

    /// Answers a candidate.
    fn vote(
        &self,
        request: VoteRequest<Types<Rt>>,
    ) -> BoxFuture<'static, Result<VoteResponse<Types<Rt>>, Stopped>>;

    /// Answers who would like to be a candidate; nothing is written.
    fn pre_vote(
        &self,
        request: VoteRequest<Types<Rt>>,
    ) -> BoxFuture<'static, Result<VoteResponse<Types<Rt>>, Stopped>>;

    /// Takes a leader's word that another node shall lead.
    fn transfer(
        &self,
        request: TransferLeaderRequest<Types<Rt>>,
    ) -> BoxFuture<'static, Result<TransferLeaderResponse<Types<Rt>>, Stopped>>;

    /// Takes a snapshot that was received and sealed.
    fn install(
        &self,
        vote: Vote<Rt>,
        file: S::File,
    ) -> BoxFuture<'static, Result<SnapshotResponse<Types<Rt>>, Stopped>>;

    /// Where received snapshots are to be written.
    fn snapshots(&self) -> S;

    /// See [`Group::read_index`], for nodes that do not lead.
    fn read_index(&self) -> BoxFuture<'static, Result<LogPosition, ReadError>>;
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Group<Rt, R, S> {
    /// The group as other nodes reach it.
    #[must_use]
    pub fn inbound(&self) -> Arc<dyn Inbound<Rt, S>> {
        Arc::new(self.clone())
    }
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Inbound<Rt, S> for Group<Rt, R, S> {
    fn group(&self) -> GroupId {
        self.inner.id
    }

    fn append(&self, requests: BoxStream<'static, AppendEntriesRequest<Types<Rt>>>) -> Appends<Rt> {
        let answers = self.inner.raft.stream_append(requests);
        answers
            .map(|answer| answer.map_err(|fatal| stopped(&fatal)))
            .boxed()
    }

    fn vote(
        &self,
        request: VoteRequest<Types<Rt>>,
    ) -> BoxFuture<'static, Result<VoteResponse<Types<Rt>>, Stopped>> {
        let raft = self.inner.raft.clone();
        async move { raft.vote(request).await.map_err(plain::<Rt>) }.boxed()
    }

    fn pre_vote(
        &self,
        request: VoteRequest<Types<Rt>>,
    ) -> BoxFuture<'static, Result<VoteResponse<Types<Rt>>, Stopped>> {
        let raft = self.inner.raft.clone();
        async move { raft.pre_vote(request).await.map_err(plain::<Rt>) }.boxed()
    }

    fn transfer(
        &self,
        request: TransferLeaderRequest<Types<Rt>>,
    ) -> BoxFuture<'static, Result<TransferLeaderResponse<Types<Rt>>, Stopped>> {
        let raft = self.inner.raft.clone();
        async move {
            raft.handle_transfer_leader(request)
                .await
                .map_err(|fatal| stopped(&fatal))
        }
        .boxed()
    }

    fn install(
        &self,
        vote: Vote<Rt>,
        file: S::File,
    ) -> BoxFuture<'static, Result<SnapshotResponse<Types<Rt>>, Stopped>> {
        let raft = self.inner.raft.clone();
        async move {
            let meta = decode_meta::<Rt>(file.meta()).map_err(|error| Stopped {
                reason: error.to_string(),
            })?;
            let snapshot: SnapshotOf<Types<Rt>, S::File> = Snapshot {
                meta,
                snapshot: file,
            };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            installed.map_err(|fatal| stopped(&fatal))
        }
        .boxed()
    }

    fn snapshots(&self) -> S {
        self.inner.shared.shelf.store().clone()
    }

    fn read_index(&self) -> BoxFuture<'static, Result<LogPosition, ReadError>> {
        let group = self.clone();
        async move { Group::read_index(&group).await }.boxed()
    }
}

fn plain<Rt: AsyncRuntime>(error: RaftError<Types<Rt>>) -> Stopped {
    Stopped {
        reason: error.to_string(),
    }
}
