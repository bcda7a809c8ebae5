//! The sessions of one channel at this gateway: their lines, and who may signal to whom.
//!
//! Invariants: of a peer's sessions the newest attachment alone sends and receives; nobody is told anything
//! before its Welcome, and nobody is welcomed before it has shown that its id is its own or the channel's
//! owner has taken it in; a signal passes only between two peers of which one was told of the other; nothing
//! here waits.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{
    AttachError, Refusal, Said, Whereabouts, neighbours_assigned, neighbours_held,
};
use espalier_orchestrator_core::{Assignment, ChannelId, PeerId, PeerReport, SessionOpened};
use espalier_proto::cluster::v1::PassedSignal;
use espalier_proto::v1::{self, node_message::Kind, signal};
use tokio::sync::{Notify, oneshot};

use super::gate::{Gate, sleep_or_forever};
use super::line::{Closing, Line};
use super::move_pace::WITHIN;
use super::signal_desk::SignalDesk;
use super::signal_posts::SignalPosts;
use crate::channel::HandleError;
use crate::status::SessionError;
use crate::translate;

/// Hints of this many peers are kept besides those of the sessions' neighbours.
const SPARE_HINTS: usize = 1_024;
/// A peer that did not go elsewhere when it was told to is told again after this time.
const SEND_AGAIN: Duration = Duration::from_secs(5);

/// The sessions of one channel.
#[derive(Debug)]
pub(crate) struct Switchboard {
    channel: ChannelId,
    gate: Arc<Gate>,
    posts: Arc<SignalPosts>,
    started: Instant,
    /// Woken when the desk's oldest signal changes.
    desk_changed: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    this: NodeId,
    seats: BTreeMap<PeerId, Seat>,
    desk: SignalDesk<Held>,
    /// Where neighbours of peers here sit that do not sit here, as far as somebody said so.
    elsewhere: BTreeMap<PeerId, NodeId>,
    /// The highest attachment that was given here.
    newest: u64,
    /// Set when the channel ends: later sessions are refused.
    ended: bool,
}

/// A session here.
#[derive(Debug)]
struct Seat {
    attachment: u64,
    line: Line,
    /// What the peer is told first; `None` once it has been.
    welcome: Option<(v1::Welcome, oneshot::Sender<()>)>,
    /// The peers that it was last told of.
    neighbours: BTreeSet<PeerId>,
    /// When it was last told to go elsewhere.
    sent_elsewhere: Option<Instant>,
}

/// A session that is about to be.
#[derive(Debug)]
pub(crate) struct Joining {
    /// What the peer opened with; its attachment is the peer's own count, or 0.
    pub(crate) opened: SessionOpened,
    /// The peer has shown that the id is its own.
    pub(crate) proven: bool,
    pub(crate) line: Line,
    pub(crate) welcome: v1::Welcome,
}

/// A signal that waits, and where it came from.
#[derive(Debug)]
struct Held {
    signal: v1::Signal,
    /// The sender's gateway; `None`: this one.
    origin: Option<NodeId>,
    /// The sender was told of the receiver.
    told: bool,
}

impl Switchboard {
    pub(crate) fn new(channel: ChannelId, gate: Arc<Gate>, posts: Arc<SignalPosts>) -> Self {
        let inner = Inner {
            this: gate.this(),
            seats: BTreeMap::new(),
            desk: SignalDesk::default(),
            elsewhere: BTreeMap::new(),
            newest: 0,
            ended: false,
        };
        Self {
            channel,
            gate,
            posts,
            started: Instant::now(),
            desk_changed: Notify::new(),
            inner: Mutex::new(inner),
        }
    }

    /// Seats a peer and returns its attachment. A session that the peer had here ends. Who is proven is
    /// welcomed at once; all others when the channel's owner has taken them in, which is said to the
    /// receiver. The welcome carries the peer's ticket, so nobody gets it who is not let in.
    ///
    /// # Errors
    /// When the peer has a session here that is not the caller's to take over, or too much waits.
    pub(crate) fn attach(
        &self,
        joining: Joining,
        clock_ms: u64,
    ) -> Result<(u64, oneshot::Receiver<()>), SessionError> {
        let Joining {
            mut opened,
            proven,
            line,
            welcome,
        } = joining;
        let mut inner = self.lock();
        if inner.ended {
            return Err(SessionError::NoChannel(self.channel.to_string()));
        }
        let peer = opened.peer;
        if opened.attachment == 0 {
            opened.attachment = clock_ms.max(inner.newest + 1);
        }
        let attachment = opened.attachment;
        let neighbours = neighbours_held(&opened.held);
        self.gate
            .attach(&self.channel, opened, proven)
            .map_err(|error| match error {
                AttachError::Full(_) => SessionError::Channel(HandleError::Busy),
                AttachError::Taken => SessionError::Taken(peer.to_string()),
                AttachError::Superseded => SessionError::Superseded,
            })?;
        inner.newest = inner.newest.max(attachment);
        let (admitted, admission) = oneshot::channel();
        let seat = Seat {
            attachment,
            line,
            welcome: Some((welcome, admitted)),
            neighbours,
            sent_elsewhere: None,
        };
        if let Some(old) = inner.seats.insert(peer, seat) {
            old.line.close(superseded());
        }
        if proven {
            self.welcome(&mut inner, peer);
        }
        Ok((attachment, admission))
    }

    /// Notes that a session ended.
    pub(crate) fn detach(&self, peer: PeerId, attachment: u64) {
        let mut inner = self.lock();
        if inner.seat(peer, attachment).is_some() {
            inner.seats.remove(&peer);
            self.gate.detach(&self.channel, peer, attachment);
        }
    }

    /// Notes that a peer left for good; returns whether that was for this session to say.
    pub(crate) fn leave(&self, peer: PeerId, attachment: u64) -> bool {
        let mut inner = self.lock();
        let current = inner.seat(peer, attachment).is_some();
        if current {
            inner.seats.remove(&peer);
            self.gate.leave(&self.channel, peer, attachment);
        }
        current
    }

    /// Returns whether this session is still the peer's newest.
    pub(crate) fn is_current(&self, peer: PeerId, attachment: u64) -> bool {
        self.lock().seat(peer, attachment).is_some()
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.lock().seats.len()
    }

    /// Passes on to the channel's owner what a peer says.
    ///
    /// # Errors
    /// When too much waits for the owner.
    pub(crate) fn say(
        &self,
        peer: PeerId,
        attachment: u64,
        said: Said,
    ) -> Result<(), SessionError> {
        let said = self.gate.say(&self.channel, (peer, attachment), said);
        said.map_err(|_full| SessionError::Channel(HandleError::Busy))
    }

    /// Passes on a peer's counters, sooner or later.
    pub(crate) fn report(&self, peer: PeerId, attachment: u64, report: PeerReport) {
        self.gate.report(&self.channel, (peer, attachment), report);
    }

    /// The owner has taken a session in.
    pub(super) fn admit(&self, peer: PeerId, attachment: u64) {
        let mut inner = self.lock();
        if inner.seat(peer, attachment).is_some() {
            self.welcome(&mut inner, peer);
        }
    }

    /// The owner has not taken a session in.
    pub(super) fn refuse(&self, peer: PeerId, attachment: u64, refusal: Refusal) {
        let error = match refusal {
            Refusal::Taken => SessionError::Taken(peer.to_string()),
            // This node knows the channel: its owner is about to.
            Refusal::NoChannel => SessionError::Channel(HandleError::NoOwner),
        };
        self.end_session(peer, attachment, Closing::Now(Box::new(error.into())));
    }

    /// The peer has a newer session at another gateway.
    pub(super) fn supersede(&self, peer: PeerId, attachment: u64) {
        self.end_session(peer, attachment, superseded());
    }

    /// Gives a peer its assignment.
    pub(super) fn assign(&self, peer: PeerId, attachment: u64, assignment: &Assignment) {
        let mut inner = self.lock();
        let Some(seat) = inner.seat(peer, attachment) else {
            return;
        };
        seat.neighbours = neighbours_assigned(assignment);
        let kind = Kind::Assignment(translate::assignment_out(assignment));
        seat.line.send(kind);
        self.deliver_waiting(&mut inner, peer);
    }

    /// Takes in where peers sit that do not sit here.
    pub(super) fn locate(&self, seats: &[Whereabouts]) {
        let mut inner = self.lock();
        for seat in seats {
            inner.note(seat.peer, seat.gateway);
            self.deliver_waiting(&mut inner, seat.peer);
        }
        inner.prune_hints();
    }

    /// Passes a peer's signal on, keeps it for a while, or refuses it to its sender.
    pub(crate) fn signal(&self, from: PeerId, to: PeerId, signal: v1::Signal) {
        let mut inner = self.lock();
        let told = inner.told(from, to);
        let held = Held {
            signal,
            origin: None,
            told,
        };
        self.pass(&mut inner, from, to, held);
        drop(inner);
        self.desk_changed.notify_one();
    }

    /// Takes in a signal that another gateway passes on.
    pub(crate) fn signal_passed(&self, passed: PassedSignal) {
        let Some(signal) = passed.signal else { return };
        let (from, to) = (PeerId(passed.from), PeerId(passed.to));
        let origin = NodeId(passed.gateway);
        let mut inner = self.lock();
        inner.note(from, origin);
        let held = Held {
            signal,
            origin: Some(origin),
            told: passed.told,
        };
        self.pass(&mut inner, from, to, held);
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
            let inner = &mut *self.lock();
            for late in inner.desk.expire(now) {
                let why = "the other peer is not there, or not linked";
                self.send_back(inner, late.from, late.to, &late.signal, why);
            }
        }
    }

    /// Says something to every session.
    pub(crate) fn broadcast(&self, notice: v1::Notice) {
        for seat in self.lock().seats.values() {
            if seat.welcome.is_none() {
                seat.line.send(Kind::Notice(notice));
            }
        }
    }

    /// Whether something that was said waits to be sent.
    pub(crate) fn is_behind(&self) -> bool {
        self.lock().seats.values().any(|seat| seat.line.is_behind())
    }

    /// Tells up to so many peers to go to another node, each once in a while; returns how many it told.
    pub(crate) fn send_elsewhere(&self, most: usize) -> usize {
        let within_ms = u32::try_from(WITHIN.as_millis()).unwrap_or(u32::MAX);
        let drain = v1::notice::Kind::Drain(v1::Drain { within_ms });
        let notice = v1::Notice { kind: Some(drain) };
        let mut inner = self.lock();
        let due = |seat: &&mut Seat| {
            let rests = |at: Instant| at.elapsed() < SEND_AGAIN;
            seat.welcome.is_none() && !seat.sent_elsewhere.is_some_and(rests)
        };
        let mut told = 0;
        for seat in inner.seats.values_mut().filter(due).take(most) {
            seat.line.send(Kind::Notice(notice));
            seat.sent_elsewhere = Some(Instant::now());
            told += 1;
        }
        told
    }

    /// The channel is gone for good: says so, and ends every session.
    pub(crate) fn deleted(&self) {
        if self.lock().ended {
            return;
        }
        let kind = Some(v1::notice::Kind::ChannelDeleted(v1::ChannelDeleted {}));
        self.broadcast(v1::Notice { kind });
        self.end();
    }

    /// Ends every session, after what waits for it, and refuses new ones.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        for seat in inner.seats.values() {
            seat.line.close(Closing::AfterQueue);
        }
    }

    fn end_session(&self, peer: PeerId, attachment: u64, how: Closing) {
        let mut inner = self.lock();
        if inner.seat(peer, attachment).is_some()
            && let Some(seat) = inner.seats.remove(&peer)
        {
            seat.line.close(how);
        }
    }

    fn welcome(&self, inner: &mut Inner, peer: PeerId) {
        let seat = inner.seats.get_mut(&peer);
        let welcome = seat.and_then(|seat| Some((seat.welcome.take()?, &seat.line)));
        let Some(((welcome, admitted), line)) = welcome else {
            return;
        };
        line.send(Kind::Welcome(welcome));
        // A session that has ended meanwhile waits for nothing.
        let _ended = admitted.send(());
        self.deliver_waiting(inner, peer);
    }

    /// Delivers a signal, sends it to the receiver's gateway, or keeps it until one of both is possible.
    fn pass(&self, inner: &mut Inner, from: PeerId, to: PeerId, held: Held) {
        if from == to {
            self.send_back(inner, from, to, &held, "it cannot be delivered");
            return;
        }
        let kept = if inner.can_pass(from, to, &held) && !inner.desk.holds(from, to) {
            self.pass_now(inner, from, to, held)
        } else {
            Err(held)
        };
        let now = self.started.elapsed();
        let kept = kept.or_else(|held| inner.desk.hold(from, to, held, now));
        if let Err(held) = kept {
            self.send_back(inner, from, to, &held, "it cannot be delivered");
        }
    }

    fn pass_now(&self, inner: &Inner, from: PeerId, to: PeerId, held: Held) -> Result<(), Held> {
        if let Some(line) = inner.line(to) {
            line.send(Kind::Signal(v1::Signal {
                peer: from.to_string(),
                ..held.signal
            }));
            return Ok(());
        }
        let Some(gateway) = inner.elsewhere.get(&to) else {
            return Err(held);
        };
        let told = held.told || inner.told(from, to);
        let passed = self.passed(from, to, held.signal.clone(), told);
        if self.posts.send(*gateway, passed) {
            Ok(())
        } else {
            Err(held)
        }
    }

    fn deliver_waiting(&self, inner: &mut Inner, peer: PeerId) {
        for mut waited in inner.desk.take_of(peer) {
            let (from, to) = (waited.from, waited.to);
            // One that waits is not overtaken by the pair's next.
            if inner.can_pass(from, to, &waited.signal) && !inner.desk.holds(from, to) {
                match self.pass_now(inner, from, to, waited.signal) {
                    Ok(()) => continue,
                    Err(held) => waited.signal = held,
                }
            }
            inner.desk.put_back(waited);
        }
    }

    /// Tells a signal's sender that it did not arrive.
    fn send_back(&self, inner: &Inner, from: PeerId, to: PeerId, held: &Held, why: &str) {
        let refused = v1::Signal {
            peer: to.to_string(),
            attempt: held.signal.attempt,
            kind: Some(signal::Kind::Refused(why.to_owned())),
        };
        if let Some(line) = inner.line(from) {
            line.send(Kind::Signal(refused));
        } else if let Some(origin) = held.origin {
            // If that gateway cannot be reached, the sender's own patience ends the attempt.
            let _unsent = self
                .posts
                .send(origin, self.passed(to, from, refused, true));
        }
    }

    fn passed(&self, from: PeerId, to: PeerId, signal: v1::Signal, told: bool) -> PassedSignal {
        let peer = String::new();
        PassedSignal {
            channel: self.channel.to_string(),
            from: from.0,
            to: to.0,
            gateway: self.gate.this().0,
            told,
            signal: Some(v1::Signal { peer, ..signal }),
        }
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn superseded() -> Closing {
    Closing::Now(Box::new(SessionError::Superseded.into()))
}

impl Inner {
    fn seat(&mut self, peer: PeerId, attachment: u64) -> Option<&mut Seat> {
        self.seats
            .get_mut(&peer)
            .filter(|seat| seat.attachment == attachment)
    }

    /// The peer's line, once it has been welcomed.
    fn line(&self, peer: PeerId) -> Option<&Line> {
        let seat = self.seats.get(&peer)?;
        seat.welcome.is_none().then_some(&seat.line)
    }

    /// Whether `one`, which sits here, was told of `other`.
    fn told(&self, one: PeerId, other: PeerId) -> bool {
        let seat = self.seats.get(&one);
        seat.is_some_and(|seat| seat.neighbours.contains(&other))
    }

    /// The pair's own gateways vouch for what each of the two was told.
    fn can_pass(&self, from: PeerId, to: PeerId, held: &Held) -> bool {
        if self.seats.contains_key(&to) {
            let linked = held.told || self.told(from, to) || self.told(to, from);
            return linked && self.line(to).is_some();
        }
        // What came from elsewhere is not sent on: hints may be wrong, and two wrong ones would be a loop.
        held.origin.is_none() && self.elsewhere.contains_key(&to)
    }

    fn note(&mut self, peer: PeerId, gateway: NodeId) {
        if gateway == self.this {
            self.elsewhere.remove(&peer);
        } else {
            self.elsewhere.insert(peer, gateway);
        }
    }

    fn prune_hints(&mut self) {
        let neighbours: usize = self.seats.values().map(|seat| seat.neighbours.len()).sum();
        if self.elsewhere.len() > 2 * neighbours + SPARE_HINTS {
            let named: BTreeSet<_> = self
                .seats
                .values()
                .flat_map(|seat| &seat.neighbours)
                .collect();
            self.elsewhere.retain(|peer, _| named.contains(peer));
        }
    }
}

/// Milliseconds since the Unix epoch, for peers that do not count their attempts themselves.
pub(crate) fn clock_ms(now: std::time::SystemTime) -> u64 {
    let since = now.duration_since(std::time::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}
