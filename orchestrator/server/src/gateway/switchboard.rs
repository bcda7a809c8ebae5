//! The sessions of one channel: who is attached, what each was last told, who may signal to whom.
//!
//! Invariants: of a peer's sessions the newest attachment alone sends and receives; a signal passes only
//! between two peers of which one was told of the other; nothing here waits.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use espalier_orchestrator_core::{
    Assignment, ChannelId, Generation, HeldEdge, PeerId, PeerRole, SessionOpened, Source,
    SourceReport, TrackName,
};
use espalier_proto::v1::{self, node_message::Kind, signal};
use tokio::sync::Notify;

use super::line::{Closing, Line};
use super::signal_desk::SignalDesk;
use crate::channel::Outlet;
use crate::status::SessionError;
use crate::store::ChannelStore;
use crate::translate;

/// What a peer opened its session with, kept for an engine that has to begin again.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) role: PeerRole,
    pub(crate) upload_bps: u64,
    pub(crate) tracks: Vec<TrackName>,
    pub(crate) held: Vec<HeldEdge>,
    pub(crate) generation: Option<Generation>,
}

/// The sessions of one channel.
#[derive(Debug)]
pub(crate) struct Switchboard {
    channel: ChannelId,
    store: ChannelStore,
    started: Instant,
    /// Woken when the desk's oldest signal changes.
    desk_changed: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_attachment: u64,
    seats: BTreeMap<PeerId, Seat>,
    desk: SignalDesk<v1::Signal>,
    /// Set when the channel ends: later sessions are refused.
    ended: bool,
}

/// One peer.
#[derive(Debug)]
struct Seat {
    attachment: u64,
    /// `None` while the peer has no session.
    line: Option<Line>,
    opened: Opened,
    /// The peers that it was last told of.
    neighbours: BTreeSet<PeerId>,
}

impl Switchboard {
    pub(crate) fn new(channel: ChannelId, store: ChannelStore) -> Self {
        Self {
            channel,
            store,
            started: Instant::now(),
            desk_changed: Notify::new(),
            inner: Mutex::default(),
        }
    }

    /// Seats a peer, welcomes it, and returns its attachment. A session that the peer had ends. The welcome
    /// carries the peer's ticket, so nobody gets it who is not let in, and it comes before everything else.
    ///
    /// # Errors
    /// When the id is known and `proven` says that the caller could not show whose it is.
    pub(crate) fn attach(
        &self,
        peer: PeerId,
        opened: Opened,
        proven: bool,
        line: Line,
        welcome: v1::Welcome,
    ) -> Result<u64, SessionError> {
        let mut inner = self.lock();
        if inner.ended {
            return Err(SessionError::NoChannel(self.channel.to_string()));
        }
        if inner.seats.contains_key(&peer) && !proven {
            return Err(SessionError::Taken(peer.to_string()));
        }
        line.send(Kind::Welcome(welcome));
        inner.last_attachment += 1;
        let attachment = inner.last_attachment;
        let neighbours = held_neighbours(&opened.held);
        let seat = Seat {
            attachment,
            line: Some(line),
            opened,
            neighbours,
        };
        if let Some(Seat {
            line: Some(old), ..
        }) = inner.seats.insert(peer, seat)
        {
            old.close(Closing::Now(Box::new(SessionError::Superseded.into())));
        }
        inner.deliver_waiting(peer);
        Ok(attachment)
    }

    /// Notes that a session ended; returns whether it was the peer's newest.
    pub(crate) fn detach(&self, peer: PeerId, attachment: u64) -> bool {
        let mut inner = self.lock();
        let Some(seat) = inner.seat(peer, attachment) else {
            return false;
        };
        seat.line = None;
        true
    }

    /// Notes that a peer left for good; returns whether that was for this session to say.
    pub(crate) fn leave(&self, peer: PeerId, attachment: u64) -> bool {
        let mut inner = self.lock();
        let current = inner.seat(peer, attachment).is_some();
        if current {
            inner.seats.remove(&peer);
        }
        current
    }

    /// Returns whether this session is still the peer's newest.
    pub(crate) fn is_current(&self, peer: PeerId, attachment: u64) -> bool {
        self.lock().seat(peer, attachment).is_some()
    }

    /// Remembers which tracks a peer wants.
    pub(crate) fn note_tracks(&self, peer: PeerId, tracks: &[TrackName]) {
        if let Some(seat) = self.lock().seats.get_mut(&peer) {
            seat.opened.tracks = tracks.to_vec();
        }
    }

    /// Remembers where a peer takes a track from.
    pub(crate) fn note_source(&self, report: &SourceReport) {
        let mut inner = self.lock();
        let Some(seat) = inner.seats.get_mut(&report.peer) else {
            return;
        };
        let held = seat
            .opened
            .held
            .iter_mut()
            .find(|held| held.track == report.track);
        if let Some(held) = held {
            held.source = report.source;
        }
    }

    /// Passes a signal on, keeps it for a while, or refuses it to its sender.
    pub(crate) fn signal(&self, from: PeerId, to: PeerId, signal: v1::Signal) {
        let now = self.started.elapsed();
        let mut inner = self.lock();
        if from != to && inner.may_deliver(from, to) && !inner.desk.holds(from, to) {
            inner.deliver(from, to, signal);
            return;
        }
        let kept = if from == to {
            Err(signal)
        } else {
            inner.desk.hold(from, to, signal, now)
        };
        if let Err(signal) = kept {
            inner.refuse(from, to, signal.attempt, "it cannot be delivered");
        }
        drop(inner);
        self.desk_changed.notify_one();
    }

    /// Refuses signals that have waited too long, for as long as the future is polled.
    pub(crate) async fn expire_signals(&self) {
        loop {
            let due = self.lock().desk.poll_timeout();
            let wait = due.map(|due| due.saturating_sub(self.started.elapsed()));
            tokio::select! {
                () = sleep_or_forever(wait) => {}
                () = self.desk_changed.notified() => {}
            }
            let now = self.started.elapsed();
            let mut inner = self.lock();
            for late in inner.desk.expire(now) {
                inner.refuse(
                    late.from,
                    late.to,
                    late.signal.attempt,
                    "the other peer is not there, or not linked",
                );
            }
        }
    }

    /// Says something to every session.
    pub(crate) fn broadcast(&self, notice: v1::Notice) {
        for seat in self.lock().seats.values() {
            if let Some(line) = &seat.line {
                line.send(Kind::Notice(notice));
            }
        }
    }

    /// Ends every session, after what waits for it, and refuses new ones.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        for seat in inner.seats.values() {
            if let Some(line) = &seat.line {
                line.close(Closing::AfterQueue);
            }
        }
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_or_forever(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

impl Inner {
    fn seat(&mut self, peer: PeerId, attachment: u64) -> Option<&mut Seat> {
        self.seats
            .get_mut(&peer)
            .filter(|seat| seat.attachment == attachment)
    }

    fn line(&self, peer: PeerId) -> Option<&Line> {
        self.seats.get(&peer)?.line.as_ref()
    }

    fn may_deliver(&self, from: PeerId, to: PeerId) -> bool {
        self.line(to).is_some() && linked(&self.seats, from, to)
    }

    fn deliver(&self, from: PeerId, to: PeerId, signal: v1::Signal) {
        if let Some(line) = self.line(to) {
            line.send(Kind::Signal(v1::Signal {
                peer: from.to_string(),
                ..signal
            }));
        }
    }

    fn deliver_waiting(&mut self, peer: PeerId) {
        let seats = &self.seats;
        let ready = |from: PeerId, to: PeerId| {
            let present = seats.get(&to).is_some_and(|seat| seat.line.is_some());
            present && linked(seats, from, to)
        };
        for waited in self.desk.release(peer, ready) {
            self.deliver(waited.from, waited.to, waited.signal);
        }
    }

    fn refuse(&self, from: PeerId, to: PeerId, attempt: u64, why: &str) {
        if let Some(line) = self.line(from) {
            let kind = signal::Kind::Refused(why.to_owned());
            line.send(Kind::Signal(v1::Signal {
                peer: to.to_string(),
                attempt,
                kind: Some(kind),
            }));
        }
    }
}

fn linked(seats: &BTreeMap<PeerId, Seat>, left: PeerId, right: PeerId) -> bool {
    let told = |one: PeerId, other: PeerId| {
        seats
            .get(&one)
            .is_some_and(|seat| seat.neighbours.contains(&other))
    };
    told(left, right) || told(right, left)
}

fn held_neighbours(held: &[HeldEdge]) -> BTreeSet<PeerId> {
    held.iter()
        .flat_map(|edge| {
            let sources = [Some(edge.source), edge.standby]
                .into_iter()
                .flatten()
                .filter_map(peer_of);
            sources.chain(edge.children.iter().copied())
        })
        .collect()
}

fn peer_of(source: Source) -> Option<PeerId> {
    match source {
        Source::Cdn => None,
        Source::Peer(peer) => Some(peer),
    }
}

/// What a peer has once it follows an assignment.
fn held_after(assignment: &Assignment) -> Vec<HeldEdge> {
    let held = |track: &espalier_orchestrator_core::TrackAssignment| HeldEdge {
        track: track.track.clone(),
        source: track.source,
        standby: track.standby,
        children: assignment
            .children
            .iter()
            .filter(|child| child.track == track.track && !child.standby)
            .map(|child| child.peer)
            .collect(),
    };
    assignment.tracks.iter().map(held).collect()
}

impl Outlet for Switchboard {
    fn assign(&self, peer: PeerId, assignment: Assignment) {
        let mut inner = self.lock();
        let Some(seat) = inner.seats.get_mut(&peer) else {
            return;
        };
        seat.opened.held = held_after(&assignment);
        seat.opened.generation = Some(assignment.generation);
        let named = assignment.children.iter().map(|child| child.peer);
        seat.neighbours = held_neighbours(&seat.opened.held);
        seat.neighbours.extend(named);
        if let Some(line) = &seat.line {
            line.send(Kind::Assignment(translate::assignment_out(&assignment)));
        }
        inner.deliver_waiting(peer);
    }

    fn gone(&self, peer: PeerId) {
        let mut inner = self.lock();
        if inner
            .seats
            .get(&peer)
            .is_some_and(|seat| seat.line.is_none())
        {
            inner.seats.remove(&peer);
        }
    }

    fn sessions(&self) -> Vec<SessionOpened> {
        let mut inner = self.lock();
        // A new engine knows nothing of the absent, and would never say that they are gone.
        inner.seats.retain(|_, seat| seat.line.is_some());
        let seats = inner.seats.iter();
        seats
            .map(|(peer, seat)| seat.opened.session(*peer, seat.attachment))
            .collect()
    }

    fn next_term(&self, term: u64) -> u64 {
        self.store
            .next_term(self.channel.as_str())
            .unwrap_or_else(|error| {
                // The new term is still higher than the old one; only the next restart may repeat it.
                tracing::error!(channel = %self.channel, %error, "the term could not be kept");
                term + 1
            })
    }
}

impl Opened {
    /// What the engine is told of this session.
    pub(crate) fn session(&self, peer: PeerId, attachment: u64) -> SessionOpened {
        SessionOpened {
            peer,
            attachment,
            role: self.role,
            upload_bps: self.upload_bps,
            tracks: self.tracks.clone(),
            held: self.held.clone(),
            generation: self.generation,
        }
    }
}
