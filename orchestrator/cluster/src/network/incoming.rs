//! What other nodes ask of this one's groups.
//!
//! Invariant: only what names this cluster and this node is taken; anything else could be meant for another
//! node that had this address before.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use espalier_orchestrator_core::NodeId as CoreNodeId;
use espalier_orchestrator_core::state::{MetaEntry, MetaState, NodePhase};
use espalier_proto::cluster::v1 as proto;
use espalier_proto::cluster::v1::raft_service_server::RaftService;
use espalier_shards::{
    Group, GroupId, Inbound, NodeId, ProposeError, ReadError, SnapshotStore, Stopped, Vote,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft_rt_tokio::TokioRuntime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::identity::Identity;
use crate::snapshots::DiskSnapshots;
use crate::standing::Standing;
use crate::wire::{Append, decode, encode};

/// How often a watching node is told what has changed, at the most.
const SAY_INTERVAL: Duration = Duration::from_millis(250);

type Served = Arc<dyn Inbound<TokioRuntime, DiskSnapshots>>;
/// The meta group as this node runs it.
pub(crate) type MetaGroup = Group<TokioRuntime, MetaState, DiskSnapshots>;
/// Takes an invitation; answers when it is kept.
pub(crate) type Guest =
    Arc<dyn Fn(Identity) -> BoxFuture<'static, Result<(), Status>> + Send + Sync>;

/// What the network serves; groups are added when they run.
pub(crate) struct Incoming {
    cluster: String,
    boot: u64,
    node: OnceLock<NodeId>,
    groups: RwLock<BTreeMap<GroupId, Served>>,
    meta: OnceLock<MetaGroup>,
    guest: Guest,
    standing: watch::Receiver<Standing>,
    stopping: CancellationToken,
}

impl Incoming {
    pub(crate) fn new(
        cluster: String,
        boot: u64,
        guest: Guest,
        standing: watch::Receiver<Standing>,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Incoming {
            cluster,
            boot,
            node: OnceLock::new(),
            groups: RwLock::new(BTreeMap::new()),
            meta: OnceLock::new(),
            guest,
            standing,
            stopping,
        })
    }

    /// Says which node this is; calls are refused before.
    pub(crate) fn identify(&self, node: NodeId) {
        self.node.get_or_init(|| node);
    }

    pub(crate) fn add_meta(&self, meta: MetaGroup) {
        self.add(meta.inbound());
        self.meta.get_or_init(|| meta);
    }

    pub(crate) fn add(&self, group: Served) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group.group(), group);
    }

    fn knows_with_data(&self, node: NodeId) -> bool {
        let phase = |state: &MetaState| state.nodes().get(&CoreNodeId(node)).map(|it| it.phase);
        let phase = self
            .meta
            .get()
            .and_then(|meta| meta.read(|_, state| phase(state)));
        match phase {
            Some(NodePhase::Active | NodePhase::Draining | NodePhase::Leaving) => true,
            Some(NodePhase::Joining) | None => false,
        }
    }

    /// What is said to a node that watches this one.
    fn presence_reply(&self, from: NodeId) -> proto::PresenceReply {
        let gone = |state: &MetaState| state.is_gone(CoreNodeId(from));
        let meta = self.meta.get();
        proto::PresenceReply {
            boot: self.boot,
            had_data: self.knows_with_data(from),
            removed: meta.is_some_and(|meta| meta.read(|_, state| gone(state))),
            standing: Some(self.standing.borrow().to_wire()),
        }
    }

    fn admit(&self, to: Option<&proto::Destination>) -> Result<GroupId, Status> {
        let to = to.ok_or_else(|| Status::invalid_argument("the call names no destination"))?;
        if to.cluster != self.cluster {
            return Err(Status::failed_precondition(
                "this node belongs to another cluster",
            ));
        }
        match self.node.get() {
            Some(node) if *node == to.node => Ok(GroupId(to.group)),
            Some(node) => Err(Status::failed_precondition(format!(
                "this is node {node}, not {}",
                to.node
            ))),
            None => Err(Status::failed_precondition("this node waits to be added")),
        }
    }

    fn group(&self, to: Option<&proto::Destination>) -> Result<Served, Status> {
        let group = self.admit(to)?;
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let served = groups.get(&group).cloned();
        served.ok_or_else(|| Status::not_found(format!("group {group} does not run here")))
    }

    async fn answer<Q, A, F>(
        &self,
        message: proto::RaftMessage,
        ask: impl FnOnce(Served, Q) -> F,
    ) -> Result<Response<proto::RaftMessage>, Status>
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = Result<A, Stopped>>,
    {
        let group = self.group(message.to.as_ref())?;
        let question = read(&message.body)?;
        let answer = ask(group, question)
            .await
            .map_err(|error| stopped(&error))?;
        Ok(Response::new(reply(encode(&answer))))
    }
}

/// The service, as tonic wants it.
#[derive(Clone)]
pub(crate) struct RaftApi(pub(crate) Arc<Incoming>);

#[tonic::async_trait]
impl RaftService for RaftApi {
    type AppendStream = BoxStream<'static, Result<proto::RaftMessage, Status>>;
    type PresenceStream = BoxStream<'static, Result<proto::PresenceReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::RaftMessage>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?;
        let to = first.and_then(|first| first.to);
        let group = self.0.group(to.as_ref())?;
        let requests = futures::stream::unfold(messages, |mut messages| async move {
            let message = messages.message().await.ok().flatten()?;
            match decode::<Append>(&message.body) {
                Ok(request) => Some((request, messages)),
                Err(error) => {
                    tracing::error!(%error, "an append cannot be read");
                    None
                }
            }
        });
        let answers = group.append(requests.boxed()).map(|answer| match answer {
            Ok(answer) => Ok(reply(encode(&answer))),
            Err(error) => Err(stopped(&error)),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Result<Response<proto::RaftMessage>, Status> {
        let ask = |group: Served, request: Append| async move {
            let ended = || Stopped {
                reason: "the group gave no answer".to_owned(),
            };
            let mut answers = group.append(futures::stream::iter([request]).boxed());
            answers.next().await.ok_or_else(ended)?
        };
        self.0.answer(request.into_inner(), ask).await
    }

    async fn vote(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Result<Response<proto::RaftMessage>, Status> {
        self.0
            .answer(request.into_inner(), |group, asked| group.vote(asked))
            .await
    }

    async fn pre_vote(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Result<Response<proto::RaftMessage>, Status> {
        self.0
            .answer(request.into_inner(), |group, asked| group.pre_vote(asked))
            .await
    }

    async fn transfer(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Result<Response<proto::RaftMessage>, Status> {
        self.0
            .answer(request.into_inner(), |group, asked| group.transfer(asked))
            .await
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotPart>>,
    ) -> Result<Response<proto::RaftMessage>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.unwrap_or_default();
        let group = self.0.group(first.to.as_ref())?;
        let vote: Vote<TokioRuntime> = read(&first.vote)?;
        let file = receive(&group.snapshots(), first.meta, parts).await?;
        let answer = group
            .install(vote, file)
            .await
            .map_err(|error| stopped(&error))?;
        Ok(Response::new(reply(encode(&answer))))
    }

    async fn presence(
        &self,
        request: Request<proto::PresenceRequest>,
    ) -> Result<Response<Self::PresenceStream>, Status> {
        self.0.admit(request.get_ref().to.as_ref())?;
        let from = request.get_ref().from;
        let end = self.0.stopping.clone().cancelled_owned();
        let replies = presence_replies(Arc::clone(&self.0), from).take_until(end);
        Ok(Response::new(replies.map(Ok).boxed()))
    }

    async fn propose(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Result<Response<proto::RaftMessage>, Status> {
        let message = request.into_inner();
        if self.0.admit(message.to.as_ref())? != GroupId::META {
            return Err(Status::unimplemented(
                "only the meta group takes proposals from afar",
            ));
        }
        let meta = self.0.meta.get();
        let meta = meta.ok_or_else(|| Status::not_found("the meta group does not run here"))?;
        let entry = MetaEntry::decode(&message.body)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let outcomes = propose_here(meta, entry)
            .await
            .map_err(|error| match error {
                ProposeError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
                ProposeError::NotLeader { .. } => Status::unavailable(error.to_string()),
                ProposeError::Unknown { .. } => Status::aborted(error.to_string()),
            })?;
        Ok(Response::new(reply(outcomes)))
    }

    async fn read_index(
        &self,
        request: Request<proto::RaftMessage>,
    ) -> Result<Response<proto::ReadIndexReply>, Status> {
        let group = self.0.group(request.get_ref().to.as_ref())?;
        let read = group.read_index().await.map_err(|error| match error {
            ReadError::NotLeader { .. } | ReadError::NoQuorum | ReadError::Stopped => {
                Status::unavailable(error.to_string())
            }
        })?;
        Ok(Response::new(proto::ReadIndexReply { index: read.index }))
    }

    async fn invite(
        &self,
        request: Request<proto::Invitation>,
    ) -> Result<Response<proto::Invited>, Status> {
        let proto::Invitation {
            cluster,
            node,
            shards,
        } = request.into_inner();
        if cluster != self.0.cluster {
            return Err(Status::failed_precondition(
                "this node has the key of another cluster",
            ));
        }
        match self.0.node.get() {
            Some(known) if *known != node => {
                let message = format!("this is node {known} of this cluster already");
                return Err(Status::already_exists(message));
            }
            None if node == 0 => return Ok(Response::new(proto::Invited {})),
            Some(_) | None => {}
        }
        (self.0.guest)(Identity::new(cluster, node, shards)).await?;
        Ok(Response::new(proto::Invited {}))
    }
}

/// What is said to a node that watches this one: at once, and when it has changed. That the node is about to
/// stop is said without delay.
fn presence_replies(
    incoming: Arc<Incoming>,
    from: NodeId,
) -> impl Stream<Item = proto::PresenceReply> + Send {
    let said = (incoming, None::<proto::PresenceReply>);
    futures::stream::unfold(said, move |(incoming, said)| async move {
        let mut standing = incoming.standing.clone();
        loop {
            let reply = incoming.presence_reply(from);
            if said.as_ref() != Some(&reply) {
                return Some((reply.clone(), (incoming, Some(reply))));
            }
            let ending = standing.borrow().ending;
            let soon = standing.wait_for(|now| now.ending != ending);
            // It does not matter which of the two it was.
            drop(timeout(SAY_INTERVAL, soon).await);
        }
    })
}

/// Proposes a meta entry on this node, if it leads, under its own term.
pub(crate) async fn propose_here(
    meta: &MetaGroup,
    mut entry: MetaEntry,
) -> Result<Bytes, ProposeError> {
    let leadership = meta.current_leadership();
    let leader = leadership.other();
    let term = leadership
        .leading_term()
        .ok_or(ProposeError::NotLeader { leader })?;
    entry.term = term;
    let command = entry.encode().map_err(|_too_long| ProposeError::TooLarge {
        size: usize::MAX,
        limit: espalier_shards::MAX_COMMAND,
    })?;
    let (_, outcomes) = meta.propose(term, command.into()).await?;
    Ok(outcomes)
}

/// Writes a snapshot's content as it comes; the last part is empty.
async fn receive(
    store: &DiskSnapshots,
    meta: Vec<u8>,
    mut parts: Streaming<proto::SnapshotPart>,
) -> Result<<DiskSnapshots as SnapshotStore>::File, Status> {
    let (pieces, mut content) = mpsc::channel::<Bytes>(8);
    let (spooling, working) = (store.clone(), store.clone());
    let writing = tokio::spawn(async move {
        let work = move || {
            let mut spool = spooling.spool(&meta)?;
            while let Some(piece) = content.blocking_recv() {
                if piece.is_empty() {
                    return spooling.seal(spool);
                }
                spool.write_all(&piece)?;
            }
            Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
        };
        working.offload(work).await
    });
    while let Some(part) = parts.message().await? {
        if pieces.send(part.content).await.is_err() {
            break;
        }
    }
    drop(pieces);
    let failed = |error: &dyn std::fmt::Display| {
        Status::internal(format!("the snapshot cannot be taken: {error}"))
    };
    writing
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn reply(body: Bytes) -> proto::RaftMessage {
    proto::RaftMessage { to: None, body }
}

fn stopped(error: &Stopped) -> Status {
    Status::unavailable(error.to_string())
}
