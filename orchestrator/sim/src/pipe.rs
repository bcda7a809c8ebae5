//! A stream of appends with many on their way, as production's network has it: what is sent arrives in order
//! and once, or the stream ends.

use std::sync::Arc;
use std::time::Duration;

use espalier_shards::{NodeId, Types};
use futures::channel::mpsc;
use futures::future::Either;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use openraft::AsyncRuntime as _;
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};

use crate::runtime::{Life, NodeRuntime, now, spawn_in};
use crate::sky::{Arrival, Endpoint, Sky};

type Rt = NodeRuntime;
type Request = AppendEntriesRequest<Types<Rt>>;
type Answer = StreamAppendResult<Types<Rt>>;
type Rpc = RPCError<Types<Rt>>;

/// Without any answer for this long twice in a row, the stream is given up.
const STRIKE: Duration = Duration::from_secs(1);
/// How often a line that is down is looked at again.
const AGAIN: Duration = Duration::from_millis(20);

/// From where to where.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) sky: Sky,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

impl Route {
    /// Carries the requests there and the answers back.
    pub(crate) fn append<S>(self, input: S) -> BoxStream<'static, Result<Answer, Rpc>>
    where
        S: Stream<Item = Request> + Send + Unpin + 'static,
    {
        let (sent, arriving) = mpsc::unbounded();
        let (answer, answers) = mpsc::unbounded();
        spawn_in(None, self.carry(arriving, answer));
        // Ends with the input, and then nothing more is sent.
        let feed = stream::unfold((input, sent), |(mut input, sent)| async {
            let request = input.next().await?;
            sent.unbounded_send(request).ok()?;
            Some(((), (input, sent)))
        });
        let both = stream::select(feed.map(Either::Left), answers.map(Either::Right));
        watched(both.boxed()).boxed()
    }

    async fn carry(
        self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        answer: mpsc::UnboundedSender<Result<Answer, Rpc>>,
    ) {
        let mut there: Option<(Arc<Life>, mpsc::UnboundedSender<Request>)> = None;
        let mut last = Duration::ZERO;
        while let Some(request) = requests.next().await {
            last = last.max(now() + self.sky.delay());
            Rt::sleep(last.saturating_sub(now())).await;
            while self.sky.is_cut(self.from, self.to) {
                Rt::sleep(AGAIN).await;
            }
            if there.is_none() {
                there = self.open(&answer);
            }
            let delivered = there
                .as_ref()
                .is_some_and(|(life, to)| !life.is_over() && to.unbounded_send(request).is_ok());
            if !delivered {
                // Who asked may have given up.
                drop(answer.unbounded_send(Err(network("nobody is there"))));
                return;
            }
        }
    }

    fn open(
        &self,
        answer: &mpsc::UnboundedSender<Result<Answer, Rpc>>,
    ) -> Option<(Arc<Life>, mpsc::UnboundedSender<Request>)> {
        let Arrival::There(life, endpoint) = self.sky.endpoint(self.from, self.to) else {
            return None;
        };
        let (feed, requests) = mpsc::unbounded();
        let (said, heard) = mpsc::unbounded();
        spawn_in(Some(Arc::clone(&life)), take(endpoint, requests, said));
        spawn_in(None, self.clone().carry_back(heard, answer.clone()));
        Some((life, feed))
    }

    async fn carry_back(
        self,
        mut heard: mpsc::UnboundedReceiver<Result<Answer, Rpc>>,
        answer: mpsc::UnboundedSender<Result<Answer, Rpc>>,
    ) {
        let mut last = Duration::ZERO;
        while let Some(said) = heard.next().await {
            last = last.max(now() + self.sky.delay());
            Rt::sleep(last.saturating_sub(now())).await;
            while self.sky.is_cut(self.to, self.from) {
                Rt::sleep(AGAIN).await;
            }
            if answer.unbounded_send(said).is_err() {
                return;
            }
        }
    }
}

/// The other node takes the requests; runs in its life.
async fn take(
    endpoint: Endpoint,
    requests: mpsc::UnboundedReceiver<Request>,
    said: mpsc::UnboundedSender<Result<Answer, Rpc>>,
) {
    let mut answers = endpoint.append(requests.boxed());
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|stopped| network(&stopped.to_string()));
        if said.unbounded_send(answer).is_err() {
            return;
        }
    }
}

/// Answers as they come; gives the stream up when some are owed and none has come for two strikes.
fn watched(
    both: BoxStream<'static, Either<(), Result<Answer, Rpc>>>,
) -> impl Stream<Item = Result<Answer, Rpc>> + Send {
    stream::unfold(Some((both, 0_u64, false)), |state| async move {
        let (mut both, mut owed, mut struck) = state?;
        loop {
            match Rt::timeout(STRIKE, both.next()).await {
                Ok(Some(Either::Left(()))) => owed += 1,
                Ok(Some(Either::Right(Ok(answer)))) => {
                    return Some((Ok(answer), Some((both, owed - 1, false))));
                }
                Ok(Some(Either::Right(Err(error)))) => return Some((Err(error), None)),
                Ok(None) => return None,
                Err(_elapsed) if owed > 0 && struck => {
                    return Some((Err(network("no answer in time")), None));
                }
                Err(_elapsed) => struck = owed > 0,
            }
        }
    })
}

fn network(reason: &str) -> Rpc {
    RPCError::Network(NetworkError::from_string(reason))
}
