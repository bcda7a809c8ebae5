//! Sessions with no peer behind them: they measure how soon a join is decided, committed and told, and hold a node to
//! what it has acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::peer_service_client::PeerServiceClient;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

/// How soon a refused or broken attempt is made again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long an attempt may take: a node that was stopped answers nothing and refuses nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A channel and what admits to it.
#[derive(Clone, Debug)]
pub struct Door {
    /// The channel's id.
    pub channel: String,
    token: MetadataValue<Ascii>,
}

impl Door {
    /// A channel that this viewer's token admits to.
    ///
    /// # Errors
    /// The token is none.
    pub fn new(channel: &str, token: &str) -> Result<Self> {
        Ok(Self {
            channel: channel.to_owned(),
            token: format!("Bearer {token}").parse().context("the token")?,
        })
    }
}

/// Opens sessions in any channel at any node.
#[derive(Debug)]
pub struct Joiner {
    runtime: Runtime,
    lines: Mutex<BTreeMap<String, Channel>>,
    next: AtomicU64,
}

/// A session that was opened and has its assignment, which is therefore committed. It leaves when dropped.
#[derive(Debug)]
pub struct Joined {
    /// The peer's id.
    pub peer: String,
    /// When its assignment was here.
    pub at: Instant,
    /// How often the attempt had to be made again.
    pub retries: usize,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    say: mpsc::Sender<v1::PeerMessage>,
    hear: tonic::Streaming<v1::NodeMessage>,
}

/// A join that is under way.
#[derive(Debug)]
pub struct Join(blocking::Receiver<Joined>);

impl Joiner {
    /// Joins nothing yet.
    ///
    /// # Errors
    /// There is no thread.
    pub fn new() -> Result<Self> {
        Ok(Self {
            runtime: Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?,
            lines: Mutex::default(),
            next: AtomicU64::new(1),
        })
    }

    /// Begins to join at a node as a new consumer, again and again until it has an assignment.
    ///
    /// # Errors
    /// The node's endpoint is none.
    pub fn begin(&self, door: &Door, endpoint: &str) -> Result<Join> {
        let open = open(door, self.next.fetch_add(1, Ordering::Relaxed));
        let (line, door) = (self.line(endpoint)?, door.clone());
        let (tell, told) = blocking::channel();
        self.runtime.spawn(async move {
            // Nobody may want to know any more.
            let _unheard: Result<(), _> = tell.send(persist(&[line], &door, open).await);
        });
        Ok(Join(told))
    }

    /// Has one after the other come to a channel, by any of these nodes, and stay for as long as `stay`, until the load
    /// is dropped.
    ///
    /// # Errors
    /// An endpoint is none.
    pub fn load(&self, door: &Door, endpoints: &[String], stay: Duration) -> Result<Load> {
        let mut lines: Vec<Channel> = endpoints
            .iter()
            .map(|endpoint| self.line(endpoint))
            .collect::<Result<_>>()?;
        let (door, first) = (
            door.clone(),
            self.next.fetch_add(1 << 32, Ordering::Relaxed),
        );
        let joins = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&joins);
        let task = self.runtime.spawn(async move {
            for number in first.. {
                let joined = persist(&lines, &door, open(&door, number)).await;
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(stay).await;
                drop(joined);
                lines.rotate_left(1);
            }
        });
        Ok(Load { task, joins })
    }

    /// Joins at a node, and waits for it.
    ///
    /// # Errors
    /// There was no assignment in time.
    pub fn join(&self, door: &Door, endpoint: &str, within: Duration) -> Result<Joined> {
        self.begin(door, endpoint)?.wait(within)
    }

    fn line(&self, endpoint: &str) -> Result<Channel> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(endpoint) {
            return Ok(line.clone());
        }
        let _inside = self.runtime.enter();
        let line = Channel::from_shared(endpoint.to_owned())?
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy();
        lines.insert(endpoint.to_owned(), line.clone());
        Ok(line)
    }
}

/// Joins and leaves that go on until this is dropped.
#[derive(Debug)]
pub struct Load {
    task: tokio::task::JoinHandle<()>,
    joins: Arc<AtomicU64>,
}

impl Load {
    /// How many joins were answered so far.
    #[must_use]
    pub fn joins(&self) -> u64 {
        self.joins.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Join {
    /// Waits for the assignment.
    ///
    /// # Errors
    /// There was none in time.
    pub fn wait(&self, within: Duration) -> Result<Joined> {
        self.0
            .recv_timeout(within)
            .with_context(|| format!("no join within {:.1} s", within.as_secs_f64()))
    }
}

impl Joined {
    /// Leaves the channel on its own word.
    pub fn leave(mut self) {
        self.say_leave();
    }

    fn say_leave(&mut self) {
        if let Some(Session { say, hear }) = self.session.take() {
            let kind = Some(Said::Leave(v1::Leave::default()));
            // The session may have ended with its node.
            let _ended: Result<(), _> = say.try_send(v1::PeerMessage { kind });
            drop(hear);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.say_leave();
    }
}

fn open(door: &Door, number: u64) -> v1::Open {
    v1::Open {
        // Real peers' ids are random: hardly any begins so.
        peer: format!("e2e{number:013x}"),
        channel: door.channel.clone(),
        role: v1::PeerRole::Consumer.into(),
        min_version: 1,
        max_version: 1,
        agent: "joiner".to_owned(),
        ..v1::Open::default()
    }
}

/// Tries the lines in turn until one leads to an assignment.
async fn persist(lines: &[Channel], door: &Door, open: v1::Open) -> Joined {
    for (retries, line) in lines.iter().cycle().enumerate() {
        let attempt = attempt(line, &door.token, open.clone());
        if let Ok(Ok(session)) = tokio::time::timeout(PATIENCE, attempt).await {
            return Joined {
                peer: open.peer,
                at: Instant::now(),
                retries,
                session: Some(session),
            };
        }
        tokio::time::sleep(AGAIN).await;
    }
    unreachable!("invariant: there is a line to try")
}

async fn attempt(line: &Channel, token: &MetadataValue<Ascii>, open: v1::Open) -> Result<Session> {
    let (say, messages) = mpsc::channel(16);
    let kind = Some(Said::Open(open));
    say.send(v1::PeerMessage { kind }).await?;
    let mut request = Request::new(ReceiverStream::new(messages));
    request
        .metadata_mut()
        .insert("authorization", token.clone());
    let mut client = PeerServiceClient::new(line.clone());
    let mut hear = client.session(request).await?.into_inner();
    while let Some(message) = hear.message().await? {
        let Some(Kind::Assignment(assignment)) = message.kind else {
            continue;
        };
        let generation = assignment.generation;
        let kind = Some(Said::Acknowledge(v1::Acknowledge { generation }));
        say.send(v1::PeerMessage { kind }).await?;
        if !assignment.tracks.is_empty() {
            return Ok(Session { say, hear });
        }
    }
    bail!("the session ended")
}
