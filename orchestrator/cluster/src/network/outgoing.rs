//! openraft's network: one group's calls to one other node.
//!
//! Appends are a stream in both directions, many on their way. An append may take a second and more: the
//! follower's disk is in it, and a repetition would only add to what that has to do.

use std::future::Future;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use espalier_proto::cluster::v1 as proto;
use espalier_shards::{GroupId, NodeId, NodeInfo, SnapshotFile, Vote, encode_meta};
use futures::future::Either;
use futures::{FutureExt, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{AppendEntriesResponse, StreamAppendError};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use openraft_rt_tokio::TokioRuntime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::lines::{Client, Lines, client};
use crate::snapshots::DiskSnapshot;
use crate::wire::{
    Append, Appended, Installed, Transfer, Transferred, Types, VoteAnswered, VoteAsked, decode,
    encode,
};

/// Without any answer for this long twice in a row, a stream of appends is given up.
const STRIKE: Duration = Duration::from_secs(1);
/// The size of a snapshot's pieces on the wire, and how many are read ahead.
const PIECE: usize = 256 << 10;
const PIECES_AHEAD: usize = 8;

type Rpc = RPCError<Types>;

/// Makes a group's lines.
pub(crate) struct Outgoing {
    lines: Lines,
    group: GroupId,
}

impl Outgoing {
    pub(crate) fn new(lines: Lines, group: GroupId) -> Self {
        Outgoing { lines, group }
    }

    fn line(&self, to: NodeId, info: &NodeInfo, heartbeats: bool) -> Line {
        let address = info.cluster_address.clone();
        Line {
            lines: self.lines.clone(),
            to,
            address,
            group: self.group,
            heartbeats,
        }
    }
}

impl RaftNetworkFactory<Types> for Outgoing {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, node: &NodeInfo) -> Line {
        self.line(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &NodeInfo) -> Line {
        self.line(target, node, true)
    }
}

/// One group's line to one node.
pub(crate) struct Line {
    lines: Lines,
    to: NodeId,
    address: String,
    group: GroupId,
    heartbeats: bool,
}

impl Line {
    fn control(&self) -> Result<Client, Rpc> {
        Ok(client(
            self.lines
                .to(self.to, &self.address)
                .map_err(|bad| unreachable(&bad))?
                .control,
        ))
    }

    fn destination(&self) -> Option<proto::Destination> {
        Some(self.lines.destination(self.to, self.group))
    }

    /// A call with one message and one answer, within the time that openraft gives it.
    async fn ask<Q, A, F>(
        &self,
        question: &Q,
        option: &RPCOption,
        call: impl FnOnce(Client, proto::RaftMessage) -> F,
    ) -> Result<A, Rpc>
    where
        Q: Serialize,
        A: DeserializeOwned,
        F: Future<Output = Result<Response<proto::RaftMessage>, Status>>,
    {
        let message = proto::RaftMessage {
            to: self.destination(),
            body: encode(question),
        };
        let answer = tokio::time::timeout(option.hard_ttl(), call(self.control()?, message)).await;
        let answer = answer.map_err(|_elapsed| network("no answer in time"))?;
        let body = answer.map_err(|status| failed(&status))?.into_inner().body;
        decode(&body).map_err(|error| network(&error.to_string()))
    }

    async fn open_appends<S>(
        &self,
        requests: S,
        sent: Arc<AtomicU64>,
    ) -> Result<Streaming<proto::RaftMessage>, Rpc>
    where
        S: Stream<Item = Append> + Send + 'static,
    {
        let lines = self
            .lines
            .to(self.to, &self.address)
            .map_err(|bad| unreachable(&bad))?;
        let first = proto::RaftMessage {
            to: self.destination(),
            body: Bytes::new(),
        };
        let rest = requests.map(move |request| {
            sent.fetch_add(1, Ordering::Relaxed);
            proto::RaftMessage {
                to: None,
                body: encode(&request),
            }
        });
        let messages = futures::stream::iter([first]).chain(rest);
        let mut client = client(lines.entries);
        let opened = tokio::time::timeout(2 * STRIKE, client.append(messages)).await;
        let opened = opened.map_err(|_elapsed| unreachable(&"no answer in time"))?;
        Ok(opened.map_err(|status| failed(&status))?.into_inner())
    }
}

impl RaftNetworkV2<Types> for Line {
    type SnapshotData = DiskSnapshot;

    async fn append_entries(
        &mut self,
        request: Append,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Rpc> {
        let call = |mut client: Client, message| async move { client.heartbeat(message).await };
        let answer: Appended = self.ask(&request, &option, call).await?;
        Ok(match answer {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<Appended, Rpc>>, Rpc>>
    where
        S: Stream<Item = Append> + OptionalSend + Unpin + 'static,
    {
        if self.heartbeats {
            return stream_append_sequential(self, input, option);
        }
        async move {
            let mut input = input;
            // openraft's pause after a failure is in this stream: with the line opened first, a node that is
            // gone would be tried again without any.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let requests = futures::stream::iter([first]).chain(input);
            let sent = Arc::new(AtomicU64::new(0));
            let answers = self.open_appends(requests, Arc::clone(&sent)).await?;
            Ok(watched(answers, sent).boxed())
        }
        .boxed()
    }

    async fn vote(&mut self, request: VoteAsked, option: RPCOption) -> Result<VoteAnswered, Rpc> {
        let call = |mut client: Client, message| async move { client.vote(message).await };
        self.ask(&request, &option, call).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteAsked,
        option: RPCOption,
    ) -> Result<VoteAnswered, Rpc> {
        let call = |mut client: Client, message| async move { client.pre_vote(message).await };
        self.ask(&request, &option, call).await
    }

    async fn transfer_leader(
        &mut self,
        request: Transfer,
        option: RPCOption,
    ) -> Result<Transferred, Rpc> {
        let call = |mut client: Client, message| async move { client.transfer(message).await };
        self.ask(&request, &option, call).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<TokioRuntime>,
        snapshot: SnapshotOf<Types, DiskSnapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<Installed, StreamingError<Types>> {
        let lost = |reason: String| StreamingError::Network(NetworkError::from_string(reason));
        let lines = self
            .lines
            .to(self.to, &self.address)
            .map_err(|bad| lost(bad.to_string()))?;
        let first = proto::SnapshotPart {
            to: self.destination(),
            vote: encode(&vote).into(),
            meta: encode_meta::<TokioRuntime>(&snapshot.meta).map_err(|e| lost(e.to_string()))?,
            content: Bytes::new(),
        };
        let (pieces, content) = mpsc::channel(PIECES_AHEAD);
        let reading = tokio::task::spawn_blocking(move || read(&snapshot.snapshot, &pieces));
        let parts = futures::stream::iter([first]).chain(ReceiverStream::new(content));
        let mut client = client(lines.bulk);
        let sending = tokio::time::timeout(option.hard_ttl(), client.snapshot(parts));
        let answer = match futures::future::select(pin!(sending), pin!(cancel)).await {
            Either::Left((answer, _)) => answer.map_err(|_| lost("no end in time".to_owned()))?,
            Either::Right((closed, _)) => return Err(StreamingError::Closed(closed)),
        };
        // A file that could not be read ended the stream early, which the other side refused: say why.
        if let Ok(Err(error)) = reading.await {
            return Err(lost(format!("the snapshot cannot be read: {error}")));
        }
        let body = answer
            .map_err(|status| lost(status.to_string()))?
            .into_inner()
            .body;
        decode(&body).map_err(|error| lost(error.to_string()))
    }
}

/// Reads a snapshot into pieces; an empty one says that it is whole.
fn read(file: &DiskSnapshot, pieces: &mpsc::Sender<proto::SnapshotPart>) -> io::Result<()> {
    let mut content = file.open()?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        content
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut piece)?;
        let whole = piece.is_empty();
        let part = proto::SnapshotPart {
            content: piece.into(),
            ..Default::default()
        };
        // Whoever took the pieces has gone: the transfer was given up.
        if pieces.blocking_send(part).is_err() || whole {
            return Ok(());
        }
    }
}

/// Answers as they come; gives the stream up when some are owed and none has come for two strikes.
fn watched(
    answers: Streaming<proto::RaftMessage>,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = Result<Appended, Rpc>> + Send {
    futures::stream::unfold(Some((answers, 0_u64)), move |state| {
        let sent = Arc::clone(&sent);
        async move {
            let (mut answers, answered) = state?;
            let mut owed = false;
            let next = loop {
                match tokio::time::timeout(STRIKE, answers.message()).await {
                    Ok(next) => break next,
                    Err(_elapsed) if owed => {
                        return Some((Err(network("no answer in time")), None));
                    }
                    Err(_elapsed) => owed = sent.load(Ordering::Relaxed) > answered,
                }
            };
            match next {
                Ok(Some(message)) => match decode::<Appended>(&message.body) {
                    Ok(answer) => Some((Ok(answer), Some((answers, answered + 1)))),
                    Err(error) => Some((Err(network(&error.to_string())), None)),
                },
                Ok(None) => None,
                Err(status) => Some((Err(failed(&status)), None)),
            }
        }
    })
}

fn network(reason: &str) -> Rpc {
    RPCError::Network(NetworkError::from_string(reason))
}

fn unreachable(reason: &dyn std::fmt::Display) -> Rpc {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

/// Who cannot be reached, or is another than meant, is asked again after a pause.
fn failed(status: &Status) -> Rpc {
    let reason = format!("{:?}: {}", status.code(), status.message());
    let elsewhere = [
        Code::Unavailable,
        Code::FailedPrecondition,
        Code::NotFound,
        Code::Unauthenticated,
    ];
    if elsewhere.contains(&status.code()) {
        unreachable(&reason)
    } else {
        network(&reason)
    }
}
