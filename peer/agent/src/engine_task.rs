//! The one task that owns the relay engine: translates, handles, drains, executes.
//!
//! Everything that happens comes in on bounded channels; everything that the engine wants goes out
//! without waiting, so that nobody's slowness is another's. There is no decision in here.

use std::sync::Arc;
use std::time::Duration;

use espalier_peer_core as core;
use espalier_peer_core::{Command, Event, Publication, RelayEngine, Snapshot};
use espalier_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::cdn::Cdn;
use crate::feed::FeedPlan;
use crate::links::{Links, Outcome};
use crate::milestones::Milestones;
use crate::session::{Held, SessionEvent, SessionRequest};
use crate::store::Store;
use crate::translate;
use crate::transport::TransportEvent;

/// How often the numbers for the next Report are taken.
const REPORT_REFRESH: Duration = Duration::from_millis(500);

/// How long the last frames may take to be sent.
const GOODBYE: Duration = Duration::from_millis(300);

/// Lets other tasks speak to the engine's task. Never waits.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    events: mpsc::Sender<Event>,
    queries: mpsc::Sender<oneshot::Sender<Snapshot>>,
}

impl EngineHandle {
    pub(crate) fn new(
        events: mpsc::Sender<Event>,
        queries: mpsc::Sender<oneshot::Sender<Snapshot>>,
    ) -> Self {
        Self { events, queries }
    }

    /// Tells the engine something that the player will say again if it is lost.
    pub(crate) fn tell(&self, event: Event) {
        if let Err(error) = self.events.try_send(event) {
            tracing::warn!(%error, "the engine's task does not keep up with the player");
        }
    }

    /// The engine's state now; `None` if its task has ended.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, asked) = oneshot::channel();
        self.queries.send(answer).await.ok()?;
        asked.await.ok()
    }
}

/// What flows into the task.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) session: mpsc::Receiver<SessionEvent>,
    pub(crate) transport: mpsc::Receiver<TransportEvent>,
    /// From the CDN, the feed and the player.
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) queries: mpsc::Receiver<oneshot::Sender<Snapshot>>,
}

/// Where the engine's commands go.
pub(crate) struct Outputs {
    pub(crate) session: mpsc::Sender<SessionRequest>,
    pub(crate) links: Links,
    pub(crate) cdn: Cdn,
    pub(crate) feed: watch::Sender<FeedPlan>,
    pub(crate) store: Arc<Store>,
    pub(crate) reports: watch::Sender<v1::Report>,
    pub(crate) milestones: Arc<Milestones>,
}

/// The task's state.
pub(crate) struct EngineTask {
    engine: RelayEngine,
    started: Instant,
    inputs: Inputs,
    outputs: Outputs,
    overflowed: bool,
}

impl EngineTask {
    pub(crate) fn new(
        engine: RelayEngine,
        started: Instant,
        inputs: Inputs,
        outputs: Outputs,
    ) -> Self {
        Self {
            engine,
            started,
            inputs,
            outputs,
            overflowed: false,
        }
    }

    /// Runs until told to end; then says goodbye to the neighbours.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut refresh = tokio::time::interval(REPORT_REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut timeout, mut expiry) = (Alarm::default(), Alarm::default());
        loop {
            timeout.set(self.engine.poll_timeout().map(|at| self.started + at));
            expiry.set(self.outputs.links.next_expiry());
            tokio::select! {
                () = end.cancelled() => break,
                Some(event) = self.inputs.transport.recv() => self.outputs.links.handle(event),
                Some(event) = self.inputs.events.recv() => self.io(event),
                Some(event) = self.inputs.session.recv() => self.session(event),
                Some(answer) = self.inputs.queries.recv() => {
                    // Who asked may have gone.
                    drop(answer.send(self.engine.snapshot(self.now())));
                }
                () = timeout.due() => self.engine.handle(Event::Timeout, self.now()),
                () = expiry.due() => self.outputs.links.expire(Instant::now()),
                _ = refresh.tick() => self.refresh_report(),
            }
            self.settle();
        }
        self.goodbye().await;
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.engine.handle(event, now);
    }

    /// Passes what the links say to the engine and what the engine says to everybody, until both have
    /// said everything.
    fn settle(&mut self) {
        loop {
            if let Some(outcome) = self.outputs.links.poll() {
                match outcome {
                    Outcome::Engine(event) => self.handle(event),
                    Outcome::Signal(signal) => self.request(SessionRequest::Signal(signal)),
                }
            } else if let Some(command) = self.engine.poll_command() {
                self.execute(command);
            } else {
                return;
            }
        }
    }

    fn io(&mut self, event: Event) {
        if let Event::Fetch { id, update } = &event
            && !self.outputs.cdn.expects(*id, update)
        {
            return; // It was cancelled while this was on its way.
        }
        self.handle(event);
    }

    fn session(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Opening(answer) => drop(answer.send(self.held())),
            SessionEvent::Welcomed(welcome) => self.welcomed(&welcome),
            SessionEvent::Assigned(assignment) => match translate::assignment(*assignment) {
                Ok(assignment) => {
                    let names = translate::neighbours(&assignment);
                    let names = names.into_iter().map(|peer| peer.to_string()).collect();
                    self.request(SessionRequest::Neighbours(names));
                    self.handle(Event::Assignment(assignment));
                }
                Err(error) => tracing::warn!(%error, "an assignment is ignored"),
            },
            SessionEvent::Signal(signal) => self.outputs.links.signal(*signal),
            SessionEvent::Detached => self.outputs.milestones.detached(),
        }
    }

    fn welcomed(&mut self, welcome: &v1::Welcome) {
        self.outputs.milestones.attached(self.now());
        match translate::welcome(welcome) {
            Ok(translated) => {
                self.outputs.links.use_stun(&welcome.stun_uris);
                self.outputs.feed.send_if_modified(|plan| {
                    let changed = plan.signers != welcome.signer_uris;
                    plan.signers.clone_from(&welcome.signer_uris);
                    changed
                });
                self.handle(Event::SessionWelcomed(translated));
            }
            Err(error) => tracing::warn!(%error, "the node's welcome is ignored"),
        }
    }

    fn held(&self) -> Held {
        let core::Held { generation, edges } = self.engine.held();
        let edges = edges.into_iter().map(|edge| v1::HeldEdge {
            track: edge.track.0,
            stripe: edge.stripe.into(),
            source: edge.source.map(translate::source_out),
            standby: edge.standby.map(translate::source_out),
            children: edge.children.iter().map(ToString::to_string).collect(),
        });
        Held {
            edges: edges.collect(),
            generation: (generation != core::Generation::default())
                .then(|| translate::generation_out(generation)),
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Connect { peer, side } => self.outputs.links.connect(peer, side),
            Command::Disconnect { peer } => self.outputs.links.disconnect(peer),
            Command::SendFrame { peer, frame } => self.outputs.links.send(peer, frame),
            Command::SendPing { peer, bytes } => self.outputs.links.ping(peer, bytes),
            Command::Fetch(request) => self.outputs.cdn.fetch(request),
            Command::CancelFetch { id } => self.outputs.cdn.cancel(id),
            Command::FetchPlaylist { track, uri } => self.outputs.cdn.fetch_playlist(track, uri),
            Command::OpenFeed => self.want_feed(true),
            Command::CloseFeed => self.want_feed(false),
            Command::Publish(publication) => self.publish(publication),
            Command::Acknowledge { generation } => {
                self.request(SessionRequest::Acknowledge(translate::generation_out(
                    generation,
                )));
            }
            Command::ReportLink {
                peer,
                state,
                detail,
            } => {
                tracing::info!(neighbour = %peer, ?state, detail, "link");
                self.request(translate::link_out(peer, state, detail));
            }
            Command::ReportSource(report) => {
                tracing::info!(track = %report.track, stripe = report.stripe, source = ?report.source, state = ?report.state, "source");
                self.request(translate::source_report_out(report));
            }
            Command::ReportTracksWanted { tracks } => {
                let names = tracks.into_iter().map(|track| track.0).collect();
                self.request(SessionRequest::WantTracks(names));
            }
        }
    }

    fn publish(&mut self, publication: Publication) {
        if let Publication::Complete { object, .. } | Publication::Unverified { object, .. } =
            &publication
            && object.kind == espalier_media::ObjectKind::Segment
        {
            self.outputs.milestones.playable(self.now());
        }
        self.outputs.store.apply(publication);
    }

    fn want_feed(&self, wanted: bool) {
        self.outputs.feed.send_if_modified(|plan| {
            let changed = plan.wanted != wanted;
            plan.wanted = wanted;
            changed
        });
    }

    /// Tells the session. Its task drains this channel whatever happens, so it is never full for long.
    fn request(&mut self, request: SessionRequest) {
        match self.outputs.session.try_send(request) {
            Ok(()) => self.overflowed = false,
            Err(error) if !self.overflowed => {
                self.overflowed = true;
                tracing::warn!(%error, "the session does not take what the engine reports");
            }
            Err(_) => {}
        }
    }

    fn refresh_report(&self) {
        let Snapshot {
            counters, playout, ..
        } = self.engine.snapshot(self.now());
        let (backlogged_ms, backlogged_bytes) = self.outputs.links.backlog();
        let whole_ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.outputs.reports.send_replace(v1::Report {
            bytes_from_cdn: counters.bytes_from_cdn,
            bytes_from_peers: counters.bytes_from_peers,
            bytes_to_peers: counters.bytes_to_peers,
            buffer_ms: whole_ms(playout.buffer),
            latency_ms: u32::try_from(self.outputs.store.latency_ms()).unwrap_or(u32::MAX),
            stalls: playout.stalls,
            stall_ms: whole_ms(playout.stalled),
            cdn_overrun_bytes: counters.cdn_overrun_bytes,
            origin_mismatches: u32::try_from(counters.origin_mismatches).unwrap_or(u32::MAX),
            backlogged_ms,
            backlogged_bytes,
        });
    }

    /// Says Bye on every link, and gives the transport a moment to send it.
    async fn goodbye(mut self) {
        let bye = core::frame::Frame::Bye {
            reason: "the peer leaves".to_owned(),
        }
        .encode();
        let snapshot = self.engine.snapshot(self.now());
        for link in snapshot.links.iter().filter(|link| link.up) {
            self.outputs.links.send(link.peer, bye.clone());
        }
        let sent = async {
            while self.outputs.links.has_unsent() {
                let Some(event) = self.inputs.transport.recv().await else {
                    return;
                };
                self.outputs.links.handle(event);
            }
        };
        drop(tokio::time::timeout(GOODBYE, sent).await);
    }
}
