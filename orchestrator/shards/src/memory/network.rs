//! A network in memory: calls go straight to the other node's group, unless the fabric says that the
//! line is down. Every message takes the fabric's delay, on the runtime's clock.
//!
//! Not here: reordering, duplication and drawn delays; those belong to the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AsyncRuntime, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::errors::Stopped;
use crate::shelf::lock;
use crate::types::Vote;
use crate::{GroupId, Inbound, NodeId, NodeInfo, SnapshotFile, SnapshotStore, Types};

type Endpoint<Rt, S> = Arc<dyn Inbound<Rt, S>>;

/// What all nodes share: who is where, and which lines are down.
pub struct Fabric<Rt: AsyncRuntime, S: SnapshotStore> {
    state: Arc<Mutex<State<Rt, S>>>,
}

struct State<Rt: AsyncRuntime, S: SnapshotStore> {
    endpoints: BTreeMap<(NodeId, GroupId), Endpoint<Rt, S>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    delay: Duration,
}

impl<Rt: AsyncRuntime, S: SnapshotStore> Clone for Fabric<Rt, S> {
    fn clone(&self) -> Self {
        Fabric {
            state: Arc::clone(&self.state),
        }
    }
}

impl<Rt: AsyncRuntime, S: SnapshotStore> Fabric<Rt, S> {
    /// A fabric without nodes whose messages take `delay` each way.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        let state = State {
            endpoints: BTreeMap::new(),
            cut: BTreeSet::new(),
            delay,
        };
        Fabric {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Connects a group of a node; in place of an earlier one.
    pub fn attach(&self, node: NodeId, inbound: Endpoint<Rt, S>) {
        lock(&self.state)
            .endpoints
            .insert((node, inbound.group()), inbound);
    }

    /// Disconnects all groups of a node, as its death does.
    pub fn detach(&self, node: NodeId) {
        lock(&self.state).endpoints.retain(|(at, _), _| *at != node);
    }

    /// Takes the line in this one direction down.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        lock(&self.state).cut.insert((from, to));
    }

    /// Brings all lines up.
    pub fn heal(&self) {
        lock(&self.state).cut.clear();
    }

    /// The network as one group of one node uses it.
    #[must_use]
    pub fn network(&self, node: NodeId, group: GroupId) -> MemoryNetwork<Rt, S> {
        MemoryNetwork {
            fabric: self.clone(),
            from: node,
            to: node,
            group,
        }
    }

    fn line(&self, from: NodeId, to: NodeId, group: GroupId) -> Option<Endpoint<Rt, S>> {
        let state = lock(&self.state);
        if state.cut.contains(&(from, to)) {
            return None;
        }
        state.endpoints.get(&(to, group)).cloned()
    }

    fn delay(&self) -> Duration {
        lock(&self.state).delay
    }
}

/// One group's line to one other node; also the factory of such lines.
pub struct MemoryNetwork<Rt: AsyncRuntime, S: SnapshotStore> {
    fabric: Fabric<Rt, S>,
    from: NodeId,
    to: NodeId,
    group: GroupId,
}

impl<Rt: AsyncRuntime, S: SnapshotStore> MemoryNetwork<Rt, S> {
    /// A message there, what the other node makes of it, and the answer back.
    async fn call<T, F>(&self, ask: impl FnOnce(Endpoint<Rt, S>) -> F) -> Result<T, Lost>
    where
        F: Future<Output = Result<T, Stopped>>,
    {
        let there = self
            .fabric
            .line(self.from, self.to, self.group)
            .ok_or(Lost::Unreachable)?;
        Rt::sleep(self.fabric.delay()).await;
        let answer = ask(there)
            .await
            .map_err(|stopped| Lost::Failed(stopped.to_string()))?;
        Rt::sleep(self.fabric.delay()).await;
        self.fabric
            .line(self.to, self.from, self.group)
            .ok_or(Lost::Unreachable)?;
        Ok(answer)
    }
}

enum Lost {
    Unreachable,
    Failed(String),
}

impl<Rt: AsyncRuntime> From<Lost> for RPCError<Types<Rt>> {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unreachable => {
                RPCError::Unreachable(Unreachable::from_string("the line is down"))
            }
            Lost::Failed(reason) => RPCError::Network(NetworkError::from_string(reason)),
        }
    }
}

impl<Rt: AsyncRuntime> From<Lost> for StreamingError<Types<Rt>> {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unreachable => {
                StreamingError::Unreachable(Unreachable::from_string("the line is down"))
            }
            Lost::Failed(reason) => StreamingError::Network(NetworkError::from_string(reason)),
        }
    }
}

impl<Rt: AsyncRuntime, S: SnapshotStore> RaftNetworkFactory<Types<Rt>> for MemoryNetwork<Rt, S> {
    type Network = MemoryNetwork<Rt, S>;

    async fn new_client(&mut self, target: NodeId, _node: &NodeInfo) -> Self {
        MemoryNetwork {
            fabric: self.fabric.clone(),
            from: self.from,
            to: target,
            group: self.group,
        }
    }
}

impl<Rt: AsyncRuntime, S: SnapshotStore> RaftNetworkV2<Types<Rt>> for MemoryNetwork<Rt, S> {
    type SnapshotData = S::File;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<Rt>>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        let ask = |there: Endpoint<Rt, S>| async move {
            let mut answers = there.append(futures::stream::iter([request]).boxed());
            let ended = || Stopped {
                reason: "the stream ended without an answer".into(),
            };
            answers.next().await.ok_or_else(ended)?
        };
        Ok(match self.call(ask).await? {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<Rt>>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        Ok(self.call(|there| there.vote(request)).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<Rt>>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        Ok(self.call(|there| there.pre_vote(request)).await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<Rt>>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        Ok(self.call(|there| there.transfer(request)).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<Rt>,
        snapshot: SnapshotOf<Types<Rt>, S::File>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<Rt>>, StreamingError<Types<Rt>>> {
        let ask = |there: Endpoint<Rt, S>| async move {
            let received =
                receive(&there.snapshots(), &snapshot.snapshot).map_err(|error| Stopped {
                    reason: error.to_string(),
                })?;
            there.install(vote, received).await
        };
        Ok(self.call(ask).await?)
    }
}

fn receive<S: SnapshotStore>(store: &S, sent: &S::File) -> io::Result<S::File> {
    let mut content = Vec::new();
    sent.open()?.read_to_end(&mut content)?;
    let mut spool = store.spool(sent.meta())?;
    spool.write_all(&content)?;
    store.seal(spool)
}
