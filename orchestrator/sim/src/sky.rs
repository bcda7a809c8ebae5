//! The network between nodes: which lines are down, how long things take, and what Raft says over it.
//!
//! A call is two packets. Each is lost, late or doubled by itself, so calls overtake each other; the caller
//! waits until its patience ends. A packet on its way belongs to no node: it arrives though its sender died.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use espalier_shards::memory::MemorySnapshot;
use espalier_shards::{
    GroupId, Inbound, NodeId, NodeInfo, SnapshotFile as _, SnapshotStore as _, Stopped, Types, Vote,
};
use futures::channel::{mpsc, oneshot};
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AsyncRuntime, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::dice::Dice;
use crate::disk::SimSnapshots;
use crate::pipe::Route;
use crate::runtime::{Life, NodeRuntime, spawn_in};

type Rt = NodeRuntime;
/// The answers to a stream of appends.
type Appends<'s> =
    openraft::base::BoxStream<'s, Result<StreamAppendResult<Types<Rt>>, RPCError<Types<Rt>>>>;
pub(crate) type Endpoint = Arc<dyn Inbound<Rt, SimSnapshots>>;

/// The longest that a call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) fastest: Duration,
    pub(crate) slowest: Duration,
    /// Packets of a thousand that take much longer, that are lost, that come twice.
    pub(crate) late: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Votes of a thousand after whose answer the voter dies.
    pub(crate) fatal_votes: u64,
}

impl Weather {
    /// Nothing is lost, nothing late.
    pub(crate) fn fair(self) -> Self {
        Self {
            fastest: Duration::from_micros(100),
            slowest: Duration::from_millis(1),
            late: 0,
            lost: 0,
            doubled: 0,
            fatal_votes: 0,
        }
    }
}

/// The network; clones are the same one.
#[derive(Clone)]
pub(crate) struct Sky {
    state: Arc<Mutex<State>>,
    /// Voters that are to die now.
    fatal: mpsc::UnboundedSender<NodeId>,
}

struct State {
    endpoints: BTreeMap<NodeId, (Arc<Life>, Endpoint)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
    dice: Dice,
}

/// What becomes of one call.
struct Trip {
    there: Duration,
    back: Duration,
    lost_there: bool,
    lost_back: bool,
    again: Option<Duration>,
}

impl Sky {
    pub(crate) fn new(weather: Weather, dice: Dice, fatal: mpsc::UnboundedSender<NodeId>) -> Self {
        let state = State {
            endpoints: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather,
            dice,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            fatal,
        }
    }

    pub(crate) fn attach(&self, life: Arc<Life>, endpoint: Endpoint) {
        self.lock().endpoints.insert(life.node, (life, endpoint));
    }

    pub(crate) fn detach(&self, node: NodeId) {
        self.lock().endpoints.remove(&node);
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    pub(crate) fn heal(&self) {
        self.lock().cut.clear();
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().cut.contains(&(from, to))
    }

    /// How long something of a connection between nodes is on its way.
    pub(crate) fn delay(&self) -> Duration {
        let mut state = self.lock();
        let Weather {
            fastest, slowest, ..
        } = state.weather;
        state.dice.time(fastest, slowest)
    }

    /// The network as one node's group uses it; `pipelined`: with many appends on their way.
    pub(crate) fn network(&self, from: NodeId, pipelined: bool) -> Line {
        Line {
            sky: self.clone(),
            from,
            to: from,
            pipelined,
        }
    }

    fn trip(&self) -> Trip {
        let mut state = self.lock();
        let weather = state.weather;
        let dice = &mut state.dice;
        let mut leg = || {
            let late = dice.chance(weather.late);
            let most = weather.slowest * if late { 60 } else { 1 };
            dice.time(weather.fastest, most)
        };
        let (there, back, later) = (leg(), leg(), leg());
        Trip {
            there,
            back,
            lost_there: dice.chance(weather.lost),
            lost_back: dice.chance(weather.lost),
            again: dice.chance(weather.doubled).then_some(there + later),
        }
    }

    pub(crate) fn endpoint(&self, from: NodeId, to: NodeId) -> Arrival {
        let state = self.lock();
        if state.cut.contains(&(from, to)) {
            return Arrival::Lost;
        }
        match state.endpoints.get(&to) {
            Some((life, endpoint)) => Arrival::There(Arc::clone(life), Arc::clone(endpoint)),
            None => Arrival::Refused,
        }
    }

    fn tempt(&self, voter: NodeId) {
        let fatal = {
            let mut state = self.lock();
            let permille = state.weather.fatal_votes;
            state.dice.chance(permille)
        };
        if fatal {
            // The world is gone only when the run is over.
            drop(self.fatal.unbounded_send(voter));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a packet finds.
pub(crate) enum Arrival {
    Lost,
    Refused,
    There(Arc<Life>, Endpoint),
}

/// One node's line to another; also the factory of such lines.
pub(crate) struct Line {
    sky: Sky,
    from: NodeId,
    to: NodeId,
    pipelined: bool,
}

/// Why a call has no answer.
enum Lost {
    Refused,
    Silence,
    Failed(String),
}

impl Line {
    async fn call<T, A>(&self, patience: Duration, ask: A) -> Result<T, Lost>
    where
        T: Granted + Send + 'static,
        A: Fn(Endpoint) -> BoxFuture<'static, Result<T, Stopped>> + Send + Sync + 'static,
    {
        let (sky, from, to) = (self.sky.clone(), self.from, self.to);
        let trip = sky.trip();
        let ask = Arc::new(ask);
        let (answer, answered) = oneshot::channel();
        if let Some(again) = trip.again {
            let (sky, ask) = (sky.clone(), Arc::clone(&ask));
            spawn_in(None, async move {
                Rt::sleep(again).await;
                if let Arrival::There(life, endpoint) = sky.endpoint(from, to) {
                    spawn_in(Some(life), async move { drop(ask(endpoint).await) });
                }
            });
        }
        spawn_in(None, async move {
            let outcome = round(&sky, (from, to), &trip, ask.as_ref()).await;
            match outcome {
                // The caller may have given up.
                Some(outcome) => drop(answer.send(outcome)),
                // Nobody says that nothing will come.
                None => std::future::pending().await,
            }
        });
        match Rt::timeout(patience.min(PATIENCE), answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Lost::Silence),
        }
    }
}

/// There and back; `None`: no answer comes.
async fn round<T, A>(
    sky: &Sky,
    (from, to): (NodeId, NodeId),
    trip: &Trip,
    ask: &A,
) -> Option<Result<T, Lost>>
where
    T: Granted + Send + 'static,
    A: Fn(Endpoint) -> BoxFuture<'static, Result<T, Stopped>>,
{
    Rt::sleep(trip.there).await;
    if trip.lost_there {
        return None;
    }
    let outcome = match sky.endpoint(from, to) {
        Arrival::Lost => return None,
        Arrival::Refused => Err(Lost::Refused),
        Arrival::There(life, endpoint) => {
            let (said, heard) = oneshot::channel();
            let asking = ask(endpoint);
            spawn_in(Some(life), async move { drop(said.send(asking.await)) });
            let answer = heard.await.ok()?;
            if answer.as_ref().is_ok_and(Granted::is_granted_vote) {
                sky.tempt(to);
            }
            answer.map_err(|stopped| Lost::Failed(stopped.to_string()))
        }
    };
    Rt::sleep(trip.back).await;
    (!trip.lost_back && !sky.is_cut(to, from)).then_some(outcome)
}

/// Whether an answer grants a vote that must be on the disk by now.
trait Granted {
    fn is_granted_vote(&self) -> bool {
        false
    }
}

struct Voted(VoteResponse<Types<Rt>>);

impl Granted for Voted {
    fn is_granted_vote(&self) -> bool {
        self.0.vote_granted
    }
}
impl Granted for VoteResponse<Types<Rt>> {}
impl Granted for TransferLeaderResponse<Types<Rt>> {}
impl Granted for SnapshotResponse<Types<Rt>> {}
impl Granted for StreamAppendResult<Types<Rt>> {}

impl From<Lost> for RPCError<Types<Rt>> {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Refused => RPCError::Unreachable(Unreachable::from_string("refused")),
            Lost::Silence => RPCError::Network(NetworkError::from_string("no answer")),
            Lost::Failed(reason) => RPCError::Network(NetworkError::from_string(reason)),
        }
    }
}

impl From<Lost> for StreamingError<Types<Rt>> {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Refused => StreamingError::Unreachable(Unreachable::from_string("refused")),
            Lost::Silence => StreamingError::Network(NetworkError::from_string("no answer")),
            Lost::Failed(reason) => StreamingError::Network(NetworkError::from_string(reason)),
        }
    }
}

impl RaftNetworkFactory<Types<Rt>> for Line {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _node: &NodeInfo) -> Line {
        Line {
            sky: self.sky.clone(),
            from: self.from,
            to: target,
            pipelined: self.pipelined,
        }
    }
}

impl RaftNetworkV2<Types<Rt>> for Line {
    type SnapshotData = MemorySnapshot;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<Rt>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        let ask = move |there: Endpoint| {
            let request = request.clone();
            async move {
                let mut answers = there.append(futures::stream::iter([request]).boxed());
                let ended = || Stopped {
                    reason: "the stream ended without an answer".into(),
                };
                answers.next().await.ok_or_else(ended)?
            }
            .boxed()
        };
        Ok(match self.call(option.hard_ttl(), ask).await? {
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> openraft::base::BoxFuture<'s, Result<Appends<'s>, RPCError<Types<Rt>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types<Rt>>> + OptionalSend + Unpin + 'static,
    {
        if !self.pipelined {
            return stream_append_sequential(self, input, option);
        }
        let route = Route {
            sky: self.sky.clone(),
            from: self.from,
            to: self.to,
        };
        async move { Ok(route.append(input) as Appends<'s>) }.boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<Rt>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        let ask = move |there: Endpoint| {
            let voting = there.vote(request.clone());
            async move { voting.await.map(Voted) }.boxed()
        };
        let Voted(response) = self.call(option.hard_ttl(), ask).await?;
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<Rt>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        let ask = move |there: Endpoint| there.pre_vote(request.clone());
        Ok(self.call(option.hard_ttl(), ask).await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<Rt>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<Rt>>, RPCError<Types<Rt>>> {
        let ask = move |there: Endpoint| there.transfer(request.clone());
        Ok(self.call(option.hard_ttl(), ask).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<Rt>,
        snapshot: SnapshotOf<Types<Rt>, MemorySnapshot>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<Rt>>, StreamingError<Types<Rt>>> {
        let sent = snapshot.snapshot;
        let ask = move |there: Endpoint| {
            let sent = sent.clone();
            async move {
                let received = receive(&there.snapshots(), &sent).map_err(|error| Stopped {
                    reason: error.to_string(),
                })?;
                there.install(vote, received).await
            }
            .boxed()
        };
        Ok(self.call(option.hard_ttl(), ask).await?)
    }
}

fn receive(store: &SimSnapshots, sent: &MemorySnapshot) -> io::Result<MemorySnapshot> {
    let mut content = Vec::new();
    sent.open()?.read_to_end(&mut content)?;
    let mut spool = store.spool(sent.meta())?;
    spool.write_all(&content)?;
    store.seal(spool)
}

/// The group that the simulation runs.
pub(crate) const GROUP: GroupId = GroupId(1);
