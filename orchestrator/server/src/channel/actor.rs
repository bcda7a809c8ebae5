//! The actor: a thin shell round one channel's engine and its table of seats.

use core::task::{Context as TaskContext, Poll};
use core::time::Duration;
use std::sync::Arc;

use actix::fut::WrapFuture as _;
use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    SpawnHandle,
};
use espalier_orchestrator_core::link::{SeatCommand, Seats};
use espalier_orchestrator_core::{
    Alarm, ChannelCommand, ChannelConfig, ChannelEngine, ChannelEvent, Policy, TrackInfo,
};
use futures::FutureExt as _;
use tokio::sync::{oneshot, watch};

use super::attempt::{Attempt, attempt, twice};
use super::clock::Clock;
use super::flights::{Flights, Outcome};
use super::handle::{FromGateway, Outlet, Start};
use super::log::Log;
use super::view::{ChannelView, CheckReport, SuspectView};
use crate::metrics;

/// How often what others see is brought up to date, at most.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);

/// Something for the engine.
pub(super) struct Tell(pub(super) ChannelEvent);

/// What a gateway said, in its order.
pub(super) struct Hear(pub(super) Vec<FromGateway>);

/// Asks for the view as it is now.
pub(super) struct Look(pub(super) oneshot::Sender<ChannelView>);

/// Asks for a check of every invariant.
pub(super) struct Check(pub(super) oneshot::Sender<CheckReport>);

/// Ends the actor; with `deleted`, the gateways are told that the channel has ended.
pub(super) struct Stop {
    pub(super) deleted: bool,
}

// By hand: actix's derive would bring a macro crate for these few lines.
impl Message for Tell {
    type Result = ();
}
impl Message for Hear {
    type Result = ();
}
impl Message for Look {
    type Result = ();
}
impl Message for Check {
    type Result = ();
}
impl Message for Stop {
    type Result = ();
}

pub(super) struct ChannelActor {
    start: Start,
    outlet: Arc<dyn Outlet>,
    log: Arc<dyn Log>,
    engine: ChannelEngine,
    seats: Seats,
    flights: Flights,
    clock: Clock,
    term: u64,
    policy: Policy,
    tracks: Vec<TrackInfo>,
    degraded: bool,
    /// A decision's fate is unknown: nothing is done any more until the shard is taken up anew.
    failed: bool,
    view: watch::Sender<ChannelView>,
    view_is_old: bool,
    publishing: bool,
    timer: Option<(Duration, SpawnHandle)>,
}

impl ChannelActor {
    pub(super) fn new(
        start: Start,
        outlet: Arc<dyn Outlet>,
        log: Arc<dyn Log>,
        view: watch::Sender<ChannelView>,
    ) -> Self {
        let clock = Clock::start();
        let config = config(&start, start.policy.clone(), start.term);
        let engine = log.engine(&start.channel, config, clock.now());
        let known = log.known_peers(&start.channel);
        Self {
            seats: Seats::new(start.channel.clone(), known, clock.now()),
            policy: start.policy.clone(),
            term: start.term,
            start,
            outlet,
            log,
            engine,
            flights: Flights::default(),
            clock,
            tracks: Vec::new(),
            degraded: false,
            failed: false,
            view,
            view_is_old: true,
            publishing: false,
            timer: None,
        }
    }

    /// Carries out what the seats want done, which may be much: one gateway's word about many peers. All that
    /// it makes the engine decide goes to the log together.
    fn settle(&mut self, context: &mut Context<Self>) {
        loop {
            while let Some(command) = self.seats.poll_command() {
                match command {
                    SeatCommand::Tell(event) => self.tell(event),
                    SeatCommand::Send(gateway, message) => self.outlet.send(gateway, message),
                }
            }
            if !self.propose(context) {
                break;
            }
        }
        self.arm_timer(context);
        self.view_is_old = true;
        self.publish_soon(context);
    }

    fn hear(&mut self, from: FromGateway) {
        match from {
            FromGateway::Change(key, change) => self.seats.change(key, change),
            FromGateway::Reports(key, reports) => self.seats.report(key, reports),
            FromGateway::Synced(key) => self.seats.synced(key),
            FromGateway::Lost(key) => self.seats.stream_lost(key, self.clock.now()),
        }
    }

    fn tell(&mut self, event: ChannelEvent) {
        if self.failed {
            return;
        }
        self.remember(&event);
        let dropped = twice(self, &event, Self::handle_and_drain, Self::replace_engine);
        if dropped {
            tracing::error!(channel = %self.start.channel, ?event, "an event was dropped: two engines panicked at it");
            metrics::event_dropped();
            self.degraded = true;
        }
    }

    /// Keeps what a new engine has to be told and nobody else would repeat.
    fn remember(&mut self, event: &ChannelEvent) {
        if let ChannelEvent::PolicyChanged { policy } = event {
            self.policy = policy.clone();
        }
        if let ChannelEvent::TracksChanged { tracks } = event {
            self.tracks.clone_from(tracks);
        }
    }

    fn handle_and_drain(&mut self, event: ChannelEvent) {
        let now = self.clock.now();
        self.engine.handle(event, now);
        while let Some(command) = self.engine.poll_command() {
            self.execute(command);
        }
    }

    fn execute(&mut self, command: ChannelCommand) {
        match command {
            ChannelCommand::Commit { entry } => {
                tracing::debug!(channel = %self.start.channel, edges = entry.edges.len(), "decided");
                self.flights.push(entry);
            }
            ChannelCommand::Assign { peer, assignment } => self.seats.assign(peer, assignment),
            ChannelCommand::Raise(alarm) => self.raise(&alarm),
            ChannelCommand::Rebuild => self.fail(),
        }
    }

    fn raise(&mut self, alarm: &Alarm) {
        if let Alarm::PeerPresumedGone { peer, .. } = alarm {
            self.seats.gone(*peer);
        }
        log_alarm(self.start.channel.as_str(), alarm);
    }

    /// Gives the log what was decided, and the engine what became of it; returns whether anything came back.
    fn propose(&mut self, context: &mut Context<Self>) -> bool {
        let mut news = false;
        while !self.failed {
            if let Some((outcome, entries)) = self.flights.pop() {
                self.take_outcome(outcome, entries);
                news = true;
                continue;
            }
            let Some((id, entries)) = self.flights.take_off() else {
                break;
            };
            let mut proposal = self.log.propose(&self.start.channel, self.term, entries);
            // A log that has it at once is not waited for.
            let mut at_once = TaskContext::from_waker(futures::task::noop_waker_ref());
            if let Poll::Ready(outcome) = proposal.poll_unpin(&mut at_once) {
                self.flights.land(id, outcome);
                continue;
            }
            let landing = proposal
                .into_actor(self)
                .map(move |outcome, actor, context| {
                    actor.flights.land(id, outcome);
                    actor.settle(context);
                });
            context.spawn(landing);
        }
        news
    }

    fn take_outcome(&mut self, outcome: Outcome, entries: usize) {
        let event = match outcome {
            Ok(index) => ChannelEvent::Committed { index, entries },
            Err(_failed) => ChannelEvent::CommitFailed,
        };
        if attempt(|| self.handle_and_drain(event)) == Attempt::Panicked {
            self.replace_engine();
        }
    }

    /// Stops doing anything: what is in the log is not what the engine believes. The shard's owner, if it
    /// is this node still, is to start all of its channels anew.
    fn fail(&mut self) {
        self.failed = true;
        self.flights.forget();
        self.outlet.failed();
    }

    /// Makes a new engine from the log and tells it what else this node knows. Nothing is on its way to the
    /// log then, so the log has all that the old engine decided and anybody heard of.
    fn replace_engine(&mut self) {
        tracing::error!(channel = %self.start.channel, "the channel's engine is replaced");
        metrics::engine_replaced();
        if self.flights.are_open() {
            self.fail();
            return;
        }
        self.flights.forget();
        self.engine = self.new_engine();
        let policy = self.policy.clone();
        // No tracks means that nobody has said anything about them yet.
        let tracks = Some(self.tracks.clone()).filter(|tracks| !tracks.is_empty());
        let tracks = tracks.map(|tracks| ChannelEvent::TracksChanged { tracks });
        let policy = ChannelEvent::PolicyChanged { policy };
        let known = std::iter::once(policy).chain(tracks);
        let sessions = self.seats.sessions().into_iter();
        let sessions = sessions.map(ChannelEvent::SessionOpened);
        for event in known.chain(sessions) {
            if attempt(|| self.handle_and_drain(event)) == Attempt::Panicked {
                // Not even what is known can be told: start from nothing; peers come back by themselves.
                self.degraded = true;
                self.flights.forget();
                self.engine = self.new_engine();
            }
        }
    }

    fn new_engine(&self) -> ChannelEngine {
        let config = config(&self.start, self.policy.clone(), self.term);
        self.log
            .engine(&self.start.channel, config, self.clock.now())
    }

    fn arm_timer(&mut self, context: &mut Context<Self>) {
        let due = [self.engine.poll_timeout(), self.seats.poll_timeout()];
        let due = due.into_iter().flatten().min().filter(|_due| !self.failed);
        if self.timer.map(|(at, _)| at) == due {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            context.cancel_future(handle);
        }
        let Some(due) = due else { return };
        let wait = due.saturating_sub(self.clock.now());
        let handle = context.run_later(wait, |actor, context| {
            actor.timer = None;
            actor.seats.tick(actor.clock.now());
            actor.tell(ChannelEvent::Tick);
            actor.settle(context);
        });
        self.timer = Some((due, handle));
    }

    fn publish_soon(&mut self, context: &mut Context<Self>) {
        if self.publishing {
            return;
        }
        self.publishing = true;
        self.publish();
        context.run_later(PUBLISH_INTERVAL, |actor, context| {
            actor.publishing = false;
            if actor.view_is_old {
                actor.publish_soon(context);
            }
        });
    }

    fn publish(&mut self) {
        self.view_is_old = false;
        if let Some(view) = self.ask(Self::look) {
            self.view.send_replace(view);
        }
    }

    /// Asks the engine something; `None` if it panicked at that, and was replaced.
    fn ask<T>(&mut self, question: impl FnOnce(&Self) -> T) -> Option<T> {
        let mut answer = None;
        if attempt(|| answer = Some(question(self))) == Attempt::Panicked {
            self.replace_engine();
        }
        answer
    }

    fn check(&self) -> CheckReport {
        let nodes = self.engine.topology();
        let mut peers: Vec<_> = nodes.iter().map(|node| node.peer).collect();
        peers.dedup();
        CheckReport {
            findings: self.engine.check(),
            peers: peers.len(),
        }
    }

    fn look(&self) -> ChannelView {
        let suspects = self
            .engine
            .suspects()
            .into_iter()
            .map(|suspect| SuspectView {
                peer: suspect.peer,
                accusers: suspect.accusers,
                reports: suspect.reports,
                last_report: self.clock.time_of_day(suspect.last_report),
            });
        ChannelView {
            generation: self.engine.generation(),
            nodes: self.engine.topology(),
            audience: self.engine.audience(self.clock.now()),
            suspects: suspects.collect(),
            degraded: self.degraded,
        }
    }
}

fn config(start: &Start, policy: Policy, term: u64) -> ChannelConfig {
    ChannelConfig {
        policy,
        incarnation: start.incarnation,
        term,
        recovering: false,
    }
}

fn log_alarm(channel: &str, alarm: &Alarm) {
    match alarm {
        Alarm::RootsOverPolicy {
            track,
            roots,
            limit,
        } => {
            tracing::warn!(channel, %track, roots, limit, "the CDN feeds more peers than planned");
        }
        Alarm::RootsWithinPolicy { track } => {
            tracing::info!(channel, %track, "the CDN feeds no more peers than planned, again");
        }
        Alarm::PairSeparated { accuser, suspect } => {
            tracing::warn!(channel, %accuser, %suspect, "a peer is accused of corrupt bytes");
        }
        Alarm::PeerQuarantined { peer, accusers } => {
            tracing::warn!(channel, %peer, accusers, "a peer gets no children any more");
        }
        Alarm::SerialAccuser { peer } => {
            tracing::warn!(channel, %peer, "a peer accuses so many that it is not believed any more");
        }
        Alarm::PeerPresumedGone { peer, reported } => {
            tracing::info!(channel, %peer, reported, "a peer is taken for gone");
        }
        Alarm::Recovered { peers, edges } => {
            tracing::info!(channel, peers, edges, "what the peers held was taken up");
        }
    }
}

impl Actor for ChannelActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(self.start.queue);
        // The log has the policy that was planned with, which may not be the one that is wanted.
        let policy = self.policy.clone();
        self.tell(ChannelEvent::PolicyChanged { policy });
        self.settle(context);
    }
}

impl Handler<Tell> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Tell(event): Tell, context: &mut Context<Self>) {
        self.tell(event);
        self.settle(context);
    }
}

impl Handler<Hear> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Hear(said): Hear, context: &mut Context<Self>) {
        for from in said {
            self.hear(from);
        }
        self.settle(context);
    }
}

impl Handler<Look> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Look(answer): Look, _context: &mut Context<Self>) {
        // Whoever asked may have gone away; without an answer it is told that the channel has ended.
        drop(self.ask(Self::look).map(|view| answer.send(view)));
    }
}

impl Handler<Check> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Check(answer): Check, _context: &mut Context<Self>) {
        // Whoever asked may have gone away; without an answer it is told that the channel has ended.
        drop(self.ask(Self::check).map(|report| answer.send(report)));
    }
}

impl Handler<Stop> for ChannelActor {
    type Result = ();

    fn handle(&mut self, stop: Stop, context: &mut Context<Self>) {
        if stop.deleted {
            self.seats.end();
            self.settle(context);
        }
        context.stop();
    }
}
