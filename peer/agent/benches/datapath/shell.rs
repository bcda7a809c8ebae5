//! A small shell round the relay engine: links, statements and CDN answers in; nothing else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use espalier_peer::Alarm;
use espalier_peer::transport::{
    EventSender, Link, LinkId, SendError, Signal, Transport, TransportEvent,
};
use espalier_peer_core::{
    Assignment, ChildAssignment, Command, EngineConfig, Event, FeedEvent, FetchId, FetchUpdate,
    Generation, LinkDown, LinkSide, OutgoingFrame, PeerId, Publication, RelayEngine, Role,
    Snapshot, Source, TrackAssignment, TrackName, Welcome,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::meter::Gaps;
use super::stream::{Cdn, Stream, TRACK};
use super::wire::Envelope;

/// What goes into a shell from outside its links.
#[derive(Debug)]
pub(crate) enum Input {
    Signal(u64, Signal),
    Feed(FeedEvent),
    Fetch(FetchId, FetchUpdate),
    /// From now on arrivals count.
    Measure,
    Report(oneshot::Sender<Outcome>),
}

/// What a shell has seen since `Measure`.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) snapshot: Snapshot,
    pub(crate) gaps: Gaps,
}

/// Who takes the stream from whom.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) me: u64,
    pub(crate) source: Source,
    pub(crate) standby: Option<Source>,
    pub(crate) children: Vec<(u64, bool)>,
    pub(crate) upload_bps: u64,
    pub(crate) role: Role,
}

struct Slot {
    link: Option<Arc<dyn Link>>,
    open: bool,
    /// Whether the other end has said Hello.
    greeted: bool,
    queue: VecDeque<OutgoingFrame>,
}

/// The shell; see the module.
pub(crate) struct Shell {
    engine: RelayEngine,
    me: u64,
    start: Instant,
    transport: Arc<dyn Transport>,
    events: EventSender,
    slots: HashMap<PeerId, Slot>,
    owners: HashMap<LinkId, PeerId>,
    early: Vec<(u64, Signal)>,
    next_link: u64,
    signals: mpsc::UnboundedSender<Envelope>,
    inputs: mpsc::Sender<Input>,
    stream: Stream,
    cdn: Cdn,
    gaps: Gaps,
    opened: mpsc::UnboundedSender<u64>,
}

impl Shell {
    /// Starts a shell; returns where its inputs go.
    pub(crate) fn start(
        place: &Place,
        stream: Stream,
        cdn: Cdn,
        transport: Arc<dyn Transport>,
        signals: mpsc::UnboundedSender<Envelope>,
        opened: mpsc::UnboundedSender<u64>,
    ) -> mpsc::Sender<Input> {
        let (inputs, input_end) = mpsc::channel(256);
        let (events, event_end) = mpsc::channel(256);
        let mut config = EngineConfig::new(PeerId(place.me), "bench");
        config.role = place.role;
        let gaps = Gaps::new(stream.chunk_interval());
        let shell = Self {
            engine: RelayEngine::new(config),
            me: place.me,
            start: Instant::now(),
            transport,
            events,
            slots: HashMap::new(),
            owners: HashMap::new(),
            early: Vec::new(),
            next_link: place.me << 32,
            signals,
            inputs: inputs.clone(),
            stream,
            cdn,
            gaps,
            opened,
        };
        tokio::spawn(shell.run(place.clone(), input_end, event_end));
        inputs
    }

    async fn run(
        mut self,
        place: Place,
        mut inputs: mpsc::Receiver<Input>,
        mut events: mpsc::Receiver<TransportEvent>,
    ) {
        self.handle(Event::SessionWelcomed(Welcome {
            incarnation: 1,
            keys: self.stream.keys(),
        }));
        self.handle(Event::Assignment(assignment(&place)));
        let mut timeout = Alarm::default();
        loop {
            timeout.set(self.engine.poll_timeout().map(|at| self.start + at));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.link_says(event),
                    None => return,
                },
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                () = timeout.due() => self.handle(Event::Timeout),
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.now());
        while let Some(command) = self.engine.poll_command() {
            self.execute(command);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Signal(from, signal) => self.signalled(from, signal),
            Input::Feed(event) => self.handle(Event::Feed(event)),
            Input::Fetch(id, update) => self.handle(Event::Fetch { id, update }),
            Input::Measure => self.gaps = Gaps::new(self.stream.chunk_interval()),
            Input::Report(to) => {
                let snapshot = self.engine.snapshot(self.now());
                let gaps = self.gaps.clone();
                drop(to.send(Outcome { snapshot, gaps }));
            }
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Connect { peer, side } => self.connect(peer, side),
            Command::Disconnect { peer } => self.disconnect(peer),
            Command::SendFrame { peer, frame } => {
                if let Some(slot) = self.slots.get_mut(&peer) {
                    slot.queue.push_back(frame);
                    slot.flush();
                }
            }
            Command::SendPing { peer, bytes } => {
                let link = self.slots.get(&peer).and_then(|slot| slot.link.as_ref());
                if let Some(Err(error)) = link.map(|link| link.try_ping(&bytes)) {
                    tracing::debug!(%error, "ping");
                }
            }
            Command::Fetch(request) => {
                self.cdn
                    .answer(self.stream.clone(), request, self.inputs.clone());
            }
            Command::Publish(Publication::Chunk { bytes, .. }) => self.gaps.arrived(bytes.len()),
            Command::CancelFetch { .. }
            | Command::FetchPlaylist { .. }
            | Command::OpenFeed
            | Command::CloseFeed
            | Command::Publish(_)
            | Command::Acknowledge { .. }
            | Command::ReportTracksWanted { .. } => {}
            Command::ReportLink {
                peer,
                state,
                detail,
            } => {
                tracing::info!(me = self.me, %peer, ?state, detail, "link");
            }
            Command::ReportSource(report) => tracing::info!(me = self.me, ?report, "source"),
        }
    }

    fn connect(&mut self, peer: PeerId, side: LinkSide) {
        self.disconnect(peer);
        let slot = Slot {
            link: None,
            open: false,
            greeted: false,
            queue: VecDeque::new(),
        };
        self.slots.insert(peer, slot);
        if side == LinkSide::Offer {
            let id = self.new_link(peer);
            let link = self
                .transport
                .offer(id, self.events.clone())
                .expect("a link");
            self.slots
                .entry(peer)
                .and_modify(|slot| slot.link = Some(link));
        }
        for (from, signal) in std::mem::take(&mut self.early) {
            self.signalled(from, signal);
        }
    }

    fn new_link(&mut self, peer: PeerId) -> LinkId {
        self.next_link += 1;
        let id = LinkId(self.next_link);
        self.owners.insert(id, peer);
        id
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some(link) = self.slots.remove(&peer).and_then(|slot| slot.link) {
            self.owners.remove(&link.id());
            link.close();
        }
    }

    fn signalled(&mut self, from: u64, signal: Signal) {
        let peer = PeerId(from);
        if !self.slots.contains_key(&peer) {
            self.early.push((from, signal));
            return;
        }
        if let Signal::Offer(sdp) = signal {
            let id = self.new_link(peer);
            let link = self
                .transport
                .accept(id, sdp, self.events.clone())
                .expect("a link");
            self.slots
                .entry(peer)
                .and_modify(|slot| slot.link = Some(link));
        } else if let Some(link) = self.slots.get(&peer).and_then(|slot| slot.link.as_ref())
            && let Err(error) = link.signal(signal)
        {
            tracing::warn!(%error, "signal");
        }
    }

    fn link_says(&mut self, event: TransportEvent) {
        let Some(&peer) = self.owners.get(&event.link()) else {
            return;
        };
        match event {
            TransportEvent::Signal { signal, .. } => {
                drop(self.signals.send(Envelope {
                    from: self.me,
                    to: peer.0,
                    signal,
                }));
            }
            TransportEvent::Open { .. } => {
                if let Some(slot) = self.slots.get_mut(&peer) {
                    slot.open = true;
                    slot.flush();
                }
                self.handle(Event::LinkUp { peer });
            }
            TransportEvent::Frame { bytes, .. } => {
                self.handle(Event::Frame { peer, bytes });
                if let Some(slot) = self.slots.get_mut(&peer)
                    && !std::mem::replace(&mut slot.greeted, true)
                {
                    self.opened.send(peer.0).ok();
                }
            }
            TransportEvent::Ping { bytes, .. } => self.handle(Event::Ping { peer, bytes }),
            TransportEvent::Writable { .. } => {
                let Some(slot) = self.slots.get_mut(&peer) else {
                    return;
                };
                slot.flush();
                let bytes = slot.buffered();
                self.handle(Event::Buffered { peer, bytes });
            }
            TransportEvent::Closed { reason, .. } => {
                tracing::warn!(me = self.me, %peer, %reason, "closed");
                self.disconnect(peer);
                self.handle(Event::LinkDown {
                    peer,
                    reason: LinkDown::Lost,
                });
            }
        }
    }
}

impl Slot {
    fn flush(&mut self) {
        let Some(link) = self.link.as_ref().filter(|_| self.open) else {
            return;
        };
        while let Some(frame) = self.queue.front() {
            match link.try_send(frame.header(), frame.payload()) {
                Err(SendError::Full { .. }) => return,
                Ok(()) | Err(SendError::NotOpen | SendError::TooLarge { .. }) => {}
            }
            self.queue.pop_front();
        }
    }

    fn buffered(&self) -> u64 {
        let queued: u64 = self.queue.iter().map(OutgoingFrame::length).sum();
        queued + self.link.as_ref().map_or(0, |link| link.buffered() as u64)
    }
}

fn assignment(place: &Place) -> Assignment {
    Assignment {
        generation: Generation {
            incarnation: 1,
            term: 1,
            index: 1,
        },
        tracks: vec![TrackAssignment {
            track: TrackName(TRACK.to_owned()),
            stripe: 0,
            stripes: 1,
            source: Some(place.source),
            standby: place.standby,
            make_before_break: false,
        }],
        children: place
            .children
            .iter()
            .map(|&(peer, standby)| ChildAssignment {
                track: TrackName(TRACK.to_owned()),
                stripe: 0,
                peer: PeerId(peer),
                standby,
            })
            .collect(),
        cdn_lease: None,
        upload_bps: place.upload_bps,
    }
}

/// Feeds the statements of a stream into shells, each when its segment exists.
pub(crate) async fn feed(stream: &Stream, to: &[mpsc::Sender<Input>], length: Duration) {
    tell_all(to, FeedEvent::Opened).await;
    for statement in stream.headers() {
        tell_all(to, FeedEvent::Statement(statement)).await;
    }
    tell_all(to, FeedEvent::CaughtUp).await;
    let start = Instant::now();
    for sequence in 0.. {
        if Stream::due(sequence) >= length {
            return;
        }
        let statement = stream.descriptor(sequence);
        sleep_until(start + Stream::due(sequence)).await;
        tell_all(to, FeedEvent::Statement(statement)).await;
    }
}

async fn tell_all(to: &[mpsc::Sender<Input>], event: FeedEvent) {
    for inputs in to {
        inputs
            .send(Input::Feed(event.clone()))
            .await
            .expect("a live shell");
    }
}

/// Asks a shell what it has seen.
pub(crate) async fn report(inputs: &mpsc::Sender<Input>) -> Outcome {
    let (to, outcome) = oneshot::channel();
    inputs.send(Input::Report(to)).await.expect("a live shell");
    outcome.await.expect("a report")
}
