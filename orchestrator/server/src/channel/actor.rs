//! The actor: a thin shell round one channel's engine.

use core::time::Duration;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler, Message, SpawnHandle};
use espalier_orchestrator_core::{
    Alarm, ChannelCommand, ChannelConfig, ChannelEngine, ChannelEvent, Policy, TrackInfo,
};
use tokio::sync::{oneshot, watch};

use super::attempt::{Attempt, attempt, twice};
use super::handle::{Outlet, Start};
use super::view::{ChannelView, CheckReport, SuspectView};
use crate::metrics;

/// How often what others see is brought up to date, at most.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(250);

/// Something for the engine.
pub(super) struct Tell(pub(super) ChannelEvent);

/// Asks for the view as it is now.
pub(super) struct Look(pub(super) oneshot::Sender<ChannelView>);

/// Asks for a check of every invariant.
pub(super) struct Check(pub(super) oneshot::Sender<CheckReport>);

/// Ends the actor.
pub(super) struct Stop;

// By hand: actix's derive would bring a macro crate for these four lines.
impl Message for Tell {
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
    engine: ChannelEngine,
    clock: Clock,
    term: u64,
    index: u64,
    policy: Policy,
    tracks: Vec<TrackInfo>,
    degraded: bool,
    view: watch::Sender<ChannelView>,
    view_is_old: bool,
    publishing: bool,
    timer: Option<(Duration, SpawnHandle)>,
}

/// Where the engine's time meets the clock and the calendar.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    started_at: SystemTime,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    fn now(self) -> Duration {
        self.started.elapsed()
    }

    fn time_of_day(self, at: Duration) -> SystemTime {
        self.started_at + at
    }
}

impl ChannelActor {
    pub(super) fn new(
        start: Start,
        outlet: Arc<dyn Outlet>,
        view: watch::Sender<ChannelView>,
    ) -> Self {
        let clock = Clock::start();
        let engine = ChannelEngine::new(
            config(&start, start.policy.clone(), start.term),
            clock.now(),
        );
        Self {
            policy: start.policy.clone(),
            term: start.term,
            start,
            outlet,
            engine,
            clock,
            index: 0,
            tracks: Vec::new(),
            degraded: false,
            view,
            view_is_old: true,
            publishing: false,
            timer: None,
        }
    }

    fn tell(&mut self, event: ChannelEvent, context: &mut Context<Self>) {
        self.remember(&event);
        let dropped = twice(self, &event, Self::handle_and_drain, Self::replace_engine);
        if dropped {
            tracing::error!(channel = %self.start.channel, ?event, "an event was dropped: two engines panicked at it");
            metrics::event_dropped();
            self.degraded = true;
        }
        self.arm_timer(context);
        self.view_is_old = true;
        self.publish_soon(context);
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
            self.execute(command, now);
        }
    }

    fn execute(&mut self, command: ChannelCommand, now: Duration) {
        match command {
            // One node: what it decided is committed. The replicated log takes this place.
            ChannelCommand::Commit { entry } => {
                self.index += 1;
                tracing::debug!(channel = %self.start.channel, index = self.index, edges = entry.edges.len(), "committed");
                let (index, entries) = (self.index, 1);
                let committed = ChannelEvent::Committed { index, entries };
                self.engine.handle(committed, now);
            }
            ChannelCommand::Assign { peer, assignment } => self.outlet.assign(peer, assignment),
            ChannelCommand::Raise(alarm) => self.raise(&alarm),
            ChannelCommand::Rebuild => self.replace_engine(),
        }
    }

    fn raise(&self, alarm: &Alarm) {
        if let Alarm::PeerPresumedGone { peer, .. } = alarm {
            self.outlet.gone(*peer);
        }
        log_alarm(self.start.channel.as_str(), alarm);
    }

    /// Makes a new engine and tells it what this node knows: a new term, so that peers take its word over
    /// the old one's, and the peers' edges as they are, so that nobody has to move.
    fn replace_engine(&mut self) {
        tracing::error!(channel = %self.start.channel, "the channel's engine is replaced");
        metrics::engine_replaced();
        self.term = self.outlet.next_term(self.term);
        let start = Start {
            recovering: true,
            ..self.start.clone()
        };
        let now = self.clock.now();
        self.engine = ChannelEngine::new(config(&start, self.policy.clone(), self.term), now);
        self.index = 0;
        let tracks = ChannelEvent::TracksChanged {
            tracks: self.tracks.clone(),
        };
        let sessions = self
            .outlet
            .sessions()
            .into_iter()
            .map(ChannelEvent::SessionOpened);
        for event in std::iter::once(tracks).chain(sessions) {
            let outcome = attempt(|| self.handle_without_rebuild(event));
            if outcome == Attempt::Panicked {
                // Not even what is known can be told: start from nothing; peers come back by themselves.
                self.degraded = true;
                self.engine =
                    ChannelEngine::new(config(&start, self.policy.clone(), self.term), now);
            }
        }
    }

    /// As [`Self::handle_and_drain`], but a wish to be rebuilt is not granted a second time.
    fn handle_without_rebuild(&mut self, event: ChannelEvent) {
        let now = self.clock.now();
        self.engine.handle(event, now);
        while let Some(command) = self.engine.poll_command() {
            if command != ChannelCommand::Rebuild {
                self.execute(command, now);
            }
        }
    }

    fn arm_timer(&mut self, context: &mut Context<Self>) {
        let due = self.engine.poll_timeout();
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
            actor.tell(ChannelEvent::Tick, context);
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
        recovering: start.recovering,
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
        self.arm_timer(context);
        self.publish_soon(context);
    }
}

impl Handler<Tell> for ChannelActor {
    type Result = ();

    fn handle(&mut self, Tell(event): Tell, context: &mut Context<Self>) {
        self.tell(event, context);
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

    fn handle(&mut self, _stop: Stop, context: &mut Context<Self>) {
        context.stop();
    }
}
