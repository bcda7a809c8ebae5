//! Contributors that stay, and viewers on open sessions that join and leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::peer_service_client::PeerServiceClient;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::nodes::Cluster;
use crate::support::CHANNEL;

/// How many sessions share a connection.
const PER_CONNECTION: usize = 100;
/// Children that a contributor has room for; each viewer takes a place and a standby.
const CHILDREN: usize = 8;
/// Wants nothing: there is no such track.
const NOTHING: &str = "nothing";

pub(crate) struct Audience {
    viewers: Vec<Viewer>,
    tasks: Vec<JoinHandle<()>>,
}

struct Viewer {
    say: mpsc::Sender<v1::PeerMessage>,
    seen: Arc<Seen>,
    track: String,
}

/// What has arrived of a viewer's join.
#[derive(Default)]
struct Seen {
    /// It has a source in its newest assignment.
    assigned: AtomicBool,
    /// Its parent's newest assignment names it.
    announced: AtomicBool,
    news: Notify,
}

impl Seen {
    async fn until(&self, wanted: bool) {
        loop {
            let news = self.news.notified();
            let assigned = self.assigned.load(Ordering::Acquire) == wanted;
            let announced = self.announced.load(Ordering::Acquire) == wanted;
            if assigned && announced {
                return;
            }
            news.await;
        }
    }
}

/// The viewers, as their parents' readers find them.
type Directory = Arc<HashMap<String, Arc<Seen>>>;

impl Audience {
    /// Opens a tree of contributors, and as many viewers outside of it.
    pub(crate) async fn open(cluster: &Cluster, viewers: usize) -> anyhow::Result<Self> {
        let seen: Vec<_> = (0..viewers).map(|_| Arc::new(Seen::default())).collect();
        let directory: Directory = Arc::new(
            seen.iter()
                .enumerate()
                .map(|(number, seen)| (id(1_000_000 + number), Arc::clone(seen)))
                .collect(),
        );
        let contributors = (viewers * 3).div_ceil(CHILDREN).max(8);
        let mut lines = Lines::new(cluster);
        let mut tasks = Vec::new();
        let mut track = String::new();
        for number in 0..contributors {
            let open = open(id(1 + number), v1::PeerRole::Contributor, &[]);
            let (say, mut hear) = lines.session(open).await?;
            track = settle(&say, &mut hear).await?;
            let directory = Arc::clone(&directory);
            tasks.push(tokio::spawn(contribute(say, hear, directory)));
        }
        let mut opened = Vec::new();
        for (number, seen) in seen.into_iter().enumerate() {
            let open = open(id(1_000_000 + number), v1::PeerRole::Consumer, &[NOTHING]);
            let (say, hear) = lines.session(open).await?;
            tasks.push(tokio::spawn(watch(say.clone(), hear, Arc::clone(&seen))));
            let track = track.clone();
            opened.push(Viewer { say, seen, track });
        }
        eprintln!("{contributors} contributors in the tree, {viewers} viewers beside it");
        Ok(Self {
            viewers: opened,
            tasks,
        })
    }

    /// One viewer joins, and leaves again; how long the join took.
    pub(crate) async fn join(&self, viewer: usize) -> anyhow::Result<Duration> {
        let Viewer { say, seen, track } = &self.viewers[viewer];
        let want = |track: &str| {
            let tracks = vec![track.to_owned()];
            let kind = Some(Said::WantTracks(v1::WantTracks { tracks }));
            v1::PeerMessage { kind }
        };
        let begun = Instant::now();
        say.send(want(track)).await?;
        within(seen.until(true)).await.context("a join")?;
        let took = begun.elapsed();
        say.send(want(NOTHING)).await?;
        within(seen.until(false)).await.context("a leave")?;
        Ok(took)
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn within(what: impl Future<Output = ()>) -> anyhow::Result<()> {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, what)
        .await
        .context("took longer than 20 s")
}

/// Connections to all nodes in turn, each for some sessions.
struct Lines<'a> {
    cluster: &'a Cluster,
    lines: Vec<(Option<Channel>, usize)>,
    next: usize,
}

impl<'a> Lines<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let lines = cluster.endpoints.iter().map(|_| (None, 0)).collect();
        Self {
            cluster,
            lines,
            next: 0,
        }
    }

    async fn session(
        &mut self,
        open: v1::Open,
    ) -> anyhow::Result<(mpsc::Sender<v1::PeerMessage>, Streaming<v1::NodeMessage>)> {
        let node = self.next % self.lines.len();
        self.next += 1;
        let (line, sessions) = &mut self.lines[node];
        if *sessions % PER_CONNECTION == 0 {
            *line = Some(self.cluster.endpoints[node].connect().await?);
        }
        *sessions += 1;
        let line = line.clone().context("invariant: it was just opened")?;
        session(line, self.cluster, open).await
    }
}

/// Opens a session and takes the welcome.
async fn session(
    line: Channel,
    cluster: &Cluster,
    open: v1::Open,
) -> anyhow::Result<(mpsc::Sender<v1::PeerMessage>, Streaming<v1::NodeMessage>)> {
    let (say, messages) = mpsc::channel(16);
    let kind = Some(Said::Open(open));
    say.send(v1::PeerMessage { kind }).await?;
    let mut request = Request::new(ReceiverStream::new(messages));
    let viewer = cluster.viewer.clone();
    request.metadata_mut().insert("authorization", viewer);
    let mut client = PeerServiceClient::new(line);
    let mut hear = client.session(request).await?.into_inner();
    hear.message().await?;
    Ok((say, hear))
}

/// A viewer that was not there before: connects, opens a session, takes its assignment, and goes for good; how
/// long it took to get the assignment.
pub(crate) async fn join_cold(cluster: &Cluster, number: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let endpoint = &cluster.endpoints[number % cluster.endpoints.len()];
    let line = endpoint.connect().await?;
    let open = open(id(2_000_000 + number), v1::PeerRole::Consumer, &[]);
    let (say, mut hear) = session(line, cluster, open).await?;
    settle(&say, &mut hear).await?;
    let took = begun.elapsed();
    let kind = Some(Said::Leave(v1::Leave {}));
    say.send(v1::PeerMessage { kind }).await?;
    drop(say);
    // Its end is the word that it has left.
    while let Ok(Some(_)) = hear.message().await {}
    Ok(took)
}

fn id(number: usize) -> String {
    format!("{number:016x}")
}

fn open(peer: String, role: v1::PeerRole, tracks: &[&str]) -> v1::Open {
    v1::Open {
        peer,
        channel: CHANNEL.to_owned(),
        role: role.into(),
        // A place costs the track's 100 kbit/s and its overhead.
        upload_bps: 130_000 * CHILDREN as u64,
        min_version: 1,
        max_version: 1,
        agent: "bench".to_owned(),
        tracks: tracks.iter().map(|&track| track.to_owned()).collect(),
        ..v1::Open::default()
    }
}

/// Waits for a contributor's place, says that it flows, and returns the track.
async fn settle(
    say: &mpsc::Sender<v1::PeerMessage>,
    hear: &mut Streaming<v1::NodeMessage>,
) -> anyhow::Result<String> {
    loop {
        let message = hear.message().await?.context("the session ended")?;
        let Some(Kind::Assignment(assignment)) = message.kind else {
            continue;
        };
        answer(say, &assignment).await;
        if let Some(track) = assignment.tracks.into_iter().next() {
            return Ok(track.track);
        }
    }
}

/// Acknowledges, and says of every track that it flows.
async fn answer(say: &mpsc::Sender<v1::PeerMessage>, assignment: &v1::Assignment) {
    let generation = assignment.generation;
    let mut said = vec![Said::Acknowledge(v1::Acknowledge { generation })];
    said.extend(assignment.tracks.iter().map(|track| {
        Said::SourceEvent(v1::SourceEvent {
            track: track.track.clone(),
            stripe: track.stripe,
            source: track.source.clone(),
            state: v1::SourceState::Flowing.into(),
            generation,
        })
    }));
    for kind in said {
        // The session may be over; its reader notices.
        let _ended = say.send(v1::PeerMessage { kind: Some(kind) }).await;
    }
}

/// A contributor: notes whom it is told to serve.
async fn contribute(
    say: mpsc::Sender<v1::PeerMessage>,
    mut hear: Streaming<v1::NodeMessage>,
    directory: Directory,
) {
    let mut serves: Vec<String> = Vec::new();
    while let Ok(Some(message)) = hear.message().await {
        let Some(Kind::Assignment(assignment)) = message.kind else {
            continue;
        };
        let children = assignment.children.iter().filter(|child| !child.standby);
        let now: Vec<String> = children.map(|child| child.peer.clone()).collect();
        note(
            &directory,
            serves.iter().filter(|it| !now.contains(it)),
            false,
        );
        note(
            &directory,
            now.iter().filter(|it| !serves.contains(it)),
            true,
        );
        serves = now;
        answer(&say, &assignment).await;
    }
}

fn note<'a>(directory: &Directory, children: impl Iterator<Item = &'a String>, announced: bool) {
    for seen in children.filter_map(|child| directory.get(child)) {
        seen.announced.store(announced, Ordering::Release);
        seen.news.notify_one();
    }
}

/// A viewer: notes whether it has a source.
async fn watch(
    say: mpsc::Sender<v1::PeerMessage>,
    mut hear: Streaming<v1::NodeMessage>,
    seen: Arc<Seen>,
) {
    while let Ok(Some(message)) = hear.message().await {
        if let Some(Kind::Assignment(assignment)) = message.kind {
            let generation = assignment.generation;
            let kind = Some(Said::Acknowledge(v1::Acknowledge { generation }));
            let assigned = !assignment.tracks.is_empty();
            seen.assigned.store(assigned, Ordering::Release);
            seen.news.notify_one();
            // The session may be over; the next message says so.
            let _ended = say.send(v1::PeerMessage { kind }).await;
        }
    }
}
