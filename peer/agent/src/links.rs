//! The links to neighbours: one for each pair of peers, made and kept as the engine asks.
//!
//! Translates between peers (the engine's names), attempts (the control plane's) and links (the
//! transport's). Signals of a peer that the engine has not asked for yet wait up to [`PATIENCE`]: they
//! may have outrun the assignment. If both ends offer, the lower id's offer wins.
//!
//! Invariants: for each `Connect`, at most one `LinkUp`, then one of `LinkDown` or `LinkFailed` unless
//! the engine disconnects first; events of a link that was replaced or closed here reach nobody; what
//! waits in here is bounded. It judges no silence and reads no frame.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use espalier_peer_core::{Event, LinkDown, LinkSide, OutgoingFrame, PeerId, frame::PING_LENGTH};
use espalier_proto::v1::{self, signal::Kind};
use tokio::time::Instant;

use crate::backlog::{Backlog, Reading};
use crate::transport::{
    CloseReason, EventSender, Link, LinkId, SendError, Signal, Transport, TransportEvent,
};

/// How long signals of a peer that nobody asked for are kept.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many signals may wait, of all peers.
const MAX_WAITING: usize = 256;
/// How many frames may wait for room on one link; the engine's own limits keep it far below.
const MAX_QUEUED_FRAMES: usize = 512;

/// What the links have to say, in order.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// To the engine.
    Engine(Event),
    /// To the session.
    Signal(Box<v1::Signal>),
}

/// All links of this peer.
pub(crate) struct Links {
    me: PeerId,
    transport: Arc<dyn Transport>,
    events: EventSender,
    slots: BTreeMap<PeerId, Slot>,
    owners: HashMap<LinkId, PeerId>,
    next_link: u64,
    waiting: VecDeque<Waiting>,
    outcomes: VecDeque<Outcome>,
    backlog: Backlog,
}

/// A link that the engine asked for.
struct Slot {
    side: LinkSide,
    attempt: u64,
    link: Option<Arc<dyn Link>>,
    open: bool,
    queue: VecDeque<OutgoingFrame>,
    queued_bytes: u64,
    reading: Reading,
}

struct Waiting {
    until: Instant,
    signal: v1::Signal,
}

impl Links {
    pub(crate) fn new(me: PeerId, transport: Arc<dyn Transport>, events: EventSender) -> Self {
        Self {
            me,
            transport,
            events,
            slots: BTreeMap::new(),
            owners: HashMap::new(),
            next_link: 0,
            waiting: VecDeque::new(),
            outcomes: VecDeque::new(),
            backlog: Backlog::default(),
        }
    }

    /// Takes the next thing that the links have to say.
    pub(crate) fn poll(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Begins a link, or waits for the other side to begin it.
    pub(crate) fn connect(&mut self, peer: PeerId, side: LinkSide) {
        self.disconnect(peer);
        let attempt = if side == LinkSide::Offer {
            rand::random()
        } else {
            0
        };
        let slot = Slot {
            side,
            attempt,
            link: None,
            open: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            reading: Reading::default(),
        };
        self.slots.insert(peer, slot);
        if side == LinkSide::Offer {
            let id = self.new_link_id(peer);
            match self.transport.offer(id, self.events.clone()) {
                Ok(link) => self.adopt(peer, link),
                Err(error) => self.fail(peer, error.to_string()),
            }
        }
        self.deliver_waiting(peer);
    }

    /// Closes a link, or stops waiting for one. The engine hears nothing more of it.
    pub(crate) fn disconnect(&mut self, peer: PeerId) {
        let Some(mut slot) = self.slots.remove(&peer) else {
            return;
        };
        self.backlog.remove(&mut slot.reading, Instant::now());
        if let Some(link) = slot.link {
            self.owners.remove(&link.id());
            link.close();
        }
    }

    /// Sends a frame, or keeps it until the link has room.
    pub(crate) fn send(&mut self, peer: PeerId, frame: OutgoingFrame) {
        let Some(slot) = self.slots.get_mut(&peer) else {
            return;
        };
        if slot.queue.len() >= MAX_QUEUED_FRAMES {
            tracing::warn!(%peer, "a neighbour's queue overflows, its link is given up");
            self.lose(peer, LinkDown::Lost);
            return;
        }
        let (now, added) = (Instant::now(), frame.length());
        slot.measure(&mut self.backlog, 0, now);
        slot.queued_bytes += added;
        slot.queue.push_back(frame);
        slot.flush();
        slot.measure(&mut self.backlog, added, now);
    }

    /// Milliseconds through which some link was behind, and the bytes that left meanwhile.
    pub(crate) fn backlog(&self) -> (u64, u64) {
        self.backlog.totals()
    }

    /// Sends a ping, or drops it if there is no room.
    pub(crate) fn ping(&self, peer: PeerId, bytes: [u8; PING_LENGTH]) {
        if let Some(link) = self.slots.get(&peer).and_then(|slot| slot.link.as_ref())
            && let Err(error) = link.try_ping(&bytes)
        {
            tracing::trace!(%peer, %error, "ping not sent");
        }
    }

    /// Whether some open link holds bytes that its other end has not acknowledged.
    pub(crate) fn has_unsent(&self) -> bool {
        self.slots
            .values()
            .any(|slot| slot.open && slot.buffered() > 0)
    }

    /// Uses the STUN servers that the node named for the links made from now on.
    pub(crate) fn use_stun(&self, uris: &[String]) {
        self.transport.use_stun(uris);
    }

    /// Takes in what the transport says.
    pub(crate) fn handle(&mut self, event: TransportEvent) {
        let Some(&peer) = self.owners.get(&event.link()) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&peer) else {
            return;
        };
        match event {
            TransportEvent::Open { .. } => {
                slot.open = true;
                slot.flush();
                self.tell(Event::LinkUp { peer });
            }
            TransportEvent::Frame { bytes, .. } => self.tell(Event::Frame { peer, bytes }),
            TransportEvent::Ping { bytes, .. } => self.tell(Event::Ping { peer, bytes }),
            TransportEvent::Writable { .. } => {
                slot.flush();
                slot.measure(&mut self.backlog, 0, Instant::now());
                let bytes = slot.buffered();
                self.tell(Event::Buffered { peer, bytes });
            }
            TransportEvent::Signal { signal, .. } => {
                let signal = to_wire(peer, slot.attempt, signal);
                self.outcomes.push_back(Outcome::Signal(Box::new(signal)));
            }
            TransportEvent::Closed { reason, .. } => self.closed(peer, &reason),
        }
    }

    /// Takes in a signal from the control plane.
    pub(crate) fn signal(&mut self, signal: v1::Signal) {
        let Ok(peer) = signal.peer.parse::<PeerId>() else {
            tracing::debug!(peer = signal.peer, "a signal from nobody");
            return;
        };
        if self.slots.contains_key(&peer) {
            self.apply(peer, signal);
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(Waiting {
                until: Instant::now() + PATIENCE,
                signal,
            });
        } else {
            tracing::debug!(%peer, "too many signals wait, one is dropped");
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.until)
    }

    /// Refuses the offers that nobody asked for in time.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.next_expiry().is_some_and(|until| until <= now) {
            let Some(Waiting { signal, .. }) = self.waiting.pop_front() else {
                return;
            };
            if matches!(signal.kind, Some(Kind::OfferSdp(_))) {
                self.refuse(signal.peer, signal.attempt, "no such link is assigned");
            }
        }
    }

    fn deliver_waiting(&mut self, peer: PeerId) {
        let name = peer.to_string();
        let (mine, others): (VecDeque<_>, VecDeque<_>) = self
            .waiting
            .drain(..)
            .partition(|waiting| waiting.signal.peer == name);
        self.waiting = others;
        for waiting in mine {
            self.signal(waiting.signal);
        }
    }

    fn apply(&mut self, peer: PeerId, signal: v1::Signal) {
        let v1::Signal { attempt, kind, .. } = signal;
        match kind {
            None => {}
            Some(Kind::OfferSdp(sdp)) => self.offered(peer, attempt, sdp),
            Some(Kind::AnswerSdp(sdp)) => self.pass_on(peer, attempt, Signal::Answer(sdp)),
            Some(Kind::Candidate(text)) => self.pass_on(peer, attempt, Signal::Candidate(text)),
            Some(Kind::Refused(why)) => {
                let mine = |slot: &Slot| slot.side == LinkSide::Offer && slot.attempt == attempt;
                if self
                    .slots
                    .get(&peer)
                    .is_some_and(|slot| mine(slot) && !slot.open)
                {
                    self.fail(peer, format!("refused: {why}"));
                }
            }
        }
    }

    fn offered(&mut self, peer: PeerId, attempt: u64, sdp: String) {
        let Some(slot) = self.slots.get_mut(&peer) else {
            return;
        };
        if slot.link.is_some() && slot.attempt == attempt {
            return;
        }
        if slot.open {
            // The other end has given this link up. The engine hears so and asks for a new one, which
            // will find the offer waiting.
            self.lose(peer, LinkDown::Lost);
            let kind = Some(Kind::OfferSdp(sdp));
            self.signal(v1::Signal {
                peer: peer.to_string(),
                attempt,
                kind,
            });
            return;
        }
        if slot.side == LinkSide::Offer && self.me < peer {
            return; // Both offer: ours wins, the other end will answer it.
        }
        if let Some(old) = slot.link.take() {
            self.owners.remove(&old.id());
            old.close();
        }
        slot.attempt = attempt;
        let id = self.new_link_id(peer);
        match self.transport.accept(id, sdp, self.events.clone()) {
            Ok(link) => self.adopt(peer, link),
            Err(error) => {
                self.owners.remove(&id);
                self.refuse(peer.to_string(), attempt, &error.to_string());
                self.attempt_failed(peer, error.to_string());
            }
        }
    }

    fn pass_on(&mut self, peer: PeerId, attempt: u64, signal: Signal) {
        let Some(slot) = self.slots.get(&peer).filter(|slot| slot.attempt == attempt) else {
            return;
        };
        if let Some(Err(error)) = slot.link.as_ref().map(|link| link.signal(signal)) {
            tracing::debug!(%peer, %error, "a neighbour's signal is refused");
        }
    }

    fn adopt(&mut self, peer: PeerId, link: Arc<dyn Link>) {
        if let Some(slot) = self.slots.get_mut(&peer) {
            slot.link = Some(link);
        }
    }

    fn closed(&mut self, peer: PeerId, reason: &CloseReason) {
        if self.slots.get(&peer).is_some_and(|slot| slot.open) {
            let down = match reason {
                CloseReason::Remote => LinkDown::Closed,
                CloseReason::Local
                | CloseReason::BadSignal(_)
                | CloseReason::Violation(_)
                | CloseReason::Failed(_) => LinkDown::Lost,
            };
            self.lose(peer, down);
        } else {
            self.attempt_failed(peer, reason.to_string());
        }
    }

    /// An attempt came to nothing. Who waits goes on waiting; who offered hears it.
    fn attempt_failed(&mut self, peer: PeerId, reason: String) {
        let Some(slot) = self.slots.get_mut(&peer) else {
            return;
        };
        match slot.side {
            LinkSide::Offer => self.fail(peer, reason),
            LinkSide::Await => {
                tracing::debug!(%peer, reason, "a neighbour's attempt failed");
                slot.attempt = 0;
                slot.queue.clear();
                slot.queued_bytes = 0;
                if let Some(link) = slot.link.take() {
                    self.owners.remove(&link.id());
                    link.close();
                }
            }
        }
    }

    fn fail(&mut self, peer: PeerId, reason: String) {
        self.disconnect(peer);
        self.tell(Event::LinkFailed { peer, reason });
    }

    fn lose(&mut self, peer: PeerId, reason: LinkDown) {
        self.disconnect(peer);
        self.tell(Event::LinkDown { peer, reason });
    }

    fn refuse(&mut self, peer: String, attempt: u64, why: &str) {
        let kind = Some(Kind::Refused(why.to_owned()));
        self.outcomes
            .push_back(Outcome::Signal(Box::new(v1::Signal {
                peer,
                attempt,
                kind,
            })));
    }

    fn tell(&mut self, event: Event) {
        self.outcomes.push_back(Outcome::Engine(event));
    }

    fn new_link_id(&mut self, peer: PeerId) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.owners.insert(id, peer);
        id
    }
}

impl Slot {
    /// Gives the transport what it takes, in order.
    fn flush(&mut self) {
        let Some(link) = self.link.as_ref().filter(|_| self.open) else {
            return;
        };
        while let Some(frame) = self.queue.front() {
            match link.try_send(frame.header(), frame.payload()) {
                Ok(()) => {}
                Err(SendError::Full { .. }) => return,
                Err(error @ (SendError::NotOpen | SendError::TooLarge { .. })) => {
                    tracing::debug!(%error, "a frame is not sent");
                }
            }
            self.queued_bytes -= frame.length();
            self.queue.pop_front();
        }
    }

    /// Takes in what waits on an open link, `added` of it since the last time.
    fn measure(&mut self, backlog: &mut Backlog, added: u64, now: Instant) {
        if self.open {
            let buffered = self.buffered();
            backlog.read(&mut self.reading, buffered, added, now);
        }
    }

    /// Bytes that were polled for this link and are not acknowledged.
    fn buffered(&self) -> u64 {
        let link = self.link.as_ref().map_or(0, |link| link.buffered());
        self.queued_bytes + u64::try_from(link).unwrap_or(u64::MAX)
    }
}

fn to_wire(peer: PeerId, attempt: u64, signal: Signal) -> v1::Signal {
    let kind = match signal {
        Signal::Offer(sdp) => Kind::OfferSdp(sdp),
        Signal::Answer(sdp) => Kind::AnswerSdp(sdp),
        Signal::Candidate(text) => Kind::Candidate(text),
    };
    v1::Signal {
        peer: peer.to_string(),
        attempt,
        kind: Some(kind),
    }
}

#[cfg(test)]
mod tests;
