//! The part of a node that owns the shard's channels while it leads: thin shells round `Intake`, `Seats` and
//! `ChannelEngine`, wired as the production node wires them.
//!
//! Planted: an actor that goes on when its term has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use espalier_orchestrator_core::link::{
    Change, Intake, Refusal, SeatCommand, Seats, StreamKey, ToGateway, ToOwner,
};
use espalier_orchestrator_core::state::{ChannelSettings, Lifecycle, Outcome, ShardEntry, ShardOp};
use espalier_orchestrator_core::{
    Alarm, ChannelCommand, ChannelEngine, ChannelEvent, ChannelId, NodeId, Policy,
};

use super::flights::Flights;
use super::{Me, NodeEvent};
use crate::context::{Context, Mail};
use crate::planted::Bug;
use crate::runtime::{NodeRuntime, spawn_in};
use crate::wires::{Payload, Side, WireId};
use openraft::AsyncRuntime as _;

/// How long a gateway's stream waits for a shard that is about to be taken up.
const TAKING_UP: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Owner {
    pub(super) running: Option<Running>,
    runs: u64,
    /// The run whose end is being settled, and the term.
    settling: Option<(u64, u64)>,
    parked: Vec<Parked>,
}

/// A stream that came before the shard was taken up.
struct Parked {
    wire: WireId,
    until: Duration,
    messages: Vec<ToOwner>,
}

pub(super) struct Running {
    run: u64,
    pub(super) term: u64,
    streams: u64,
    posts: BTreeMap<NodeId, Post>,
    intakes: BTreeMap<WireId, (StreamKey, Intake)>,
    pub(super) actors: BTreeMap<ChannelId, Actor>,
    failed: bool,
}

struct Post {
    stream: u64,
    opening: (u64, u64),
    wire: WireId,
}

pub(super) struct Actor {
    pub(super) engine: ChannelEngine,
    seats: Seats,
    pub(super) flights: Flights,
    /// The settings that the engine plans with.
    etag: String,
    incarnation: u64,
    /// When the signer says which tracks there are.
    tracks_at: Option<Duration>,
    touched: bool,
}

impl Owner {
    /// The node leads in this term now, or does not lead.
    pub(super) fn set_leading(&mut self, term: Option<u64>, me: &Me, context: &mut Context) {
        let running = self.running.as_ref().map(|running| running.term);
        if running.is_some() && running == term {
            return;
        }
        if context.bug == Some(Bug::OutlivingActor) && running.is_some() {
            if let (Some(running), Some(term)) = (&mut self.running, term) {
                running.term = term;
            }
            return;
        }
        self.stand_down(context);
        self.settling = None;
        if let Some(term) = term {
            self.take_up(term, me, context);
        }
    }

    fn stand_down(&mut self, context: &mut Context) {
        let Some(running) = self.running.take() else {
            return;
        };
        for post in running.posts.values() {
            context.close(post.wire, Side::Called);
        }
    }

    fn take_up(&mut self, term: u64, me: &Me, context: &mut Context) {
        self.runs += 1;
        context.audit.note(term ^ me.life.node << 32, || {
            format!("node {} takes the shard up in term {term}", me.life.node)
        });
        self.running = Some(Running {
            run: self.runs,
            term,
            streams: 0,
            posts: BTreeMap::new(),
            intakes: BTreeMap::new(),
            actors: BTreeMap::new(),
            failed: false,
        });
        self.follow_channels(me, context);
        for parked in std::mem::take(&mut self.parked) {
            for message in parked.messages {
                self.take(parked.wire, message, me, context);
            }
        }
    }

    /// Starts, updates and ends actors as the shard's state wants it.
    pub(super) fn follow_channels(&mut self, me: &Me, context: &mut Context) {
        let Some(running) = &mut self.running else {
            return;
        };
        let wanted = me.group.read(|_, replica| {
            let channels = replica.state.channels();
            let active = channels.filter(|(_, channel)| channel.lifecycle == Lifecycle::Active);
            let changed = active.map(|(id, channel)| {
                let known = running.actors.get(id);
                let same = known.is_some_and(|actor| {
                    (actor.incarnation, &actor.etag)
                        == (channel.settings.incarnation, &channel.settings.etag)
                });
                (id.clone(), (!same).then(|| channel.clone()))
            });
            changed.collect::<BTreeMap<_, _>>()
        });
        let gone = |id: &ChannelId| !wanted.contains_key(id);
        let gone: Vec<_> = running
            .actors
            .keys()
            .filter(|id| gone(id))
            .cloned()
            .collect();
        for id in gone {
            if let Some(mut actor) = running.actors.remove(&id) {
                actor.seats.end();
                running.drain_seats(&mut actor, context);
            }
        }
        for (id, changed) in wanted {
            let Some(channel) = changed else { continue };
            let settings = &channel.settings;
            let term = running.term;
            let now = me.clock.at(context.now);
            let same = |actor: &Actor| actor.incarnation == settings.incarnation;
            if !running.actors.get(&id).is_some_and(same) {
                let known = channel.state.peers().map(|(peer, _)| peer);
                let tracks_at = now + context.dice.millis(0, 400);
                let actor = Actor {
                    engine: ChannelEngine::from_state(&channel.state, term, now),
                    seats: Seats::new(id.clone(), known, now),
                    flights: Flights::default(),
                    etag: String::new(),
                    incarnation: settings.incarnation,
                    tracks_at: Some(tracks_at),
                    touched: true,
                };
                running.actors.insert(id.clone(), actor);
            }
            let policy = wanted_policy(settings);
            if let Some(actor) = running.actors.get_mut(&id) {
                actor.etag.clone_from(&settings.etag);
            }
            running.tell(&id, ChannelEvent::PolicyChanged { policy }, me, context);
            running.settle(&id, me, context);
        }
        self.after(me, context);
    }

    /// A gateway says something.
    pub(super) fn hear_gateway(
        &mut self,
        wire: WireId,
        message: ToOwner,
        me: &Me,
        context: &mut Context,
    ) {
        if self.running.is_some() {
            return self.take(wire, message, me, context);
        }
        match self.parked.iter_mut().find(|parked| parked.wire == wire) {
            Some(parked) => parked.messages.push(message),
            None => self.parked.push(Parked {
                wire,
                until: context.now + TAKING_UP,
                messages: vec![message],
            }),
        }
    }

    fn take(&mut self, wire: WireId, message: ToOwner, me: &Me, context: &mut Context) {
        let Some(running) = &mut self.running else {
            return;
        };
        if let ToOwner::Open {
            gateway,
            boot,
            opening,
        } = message
        {
            running.open(wire, gateway, (boot, opening), me, context);
            return;
        }
        running.hear(wire, message, me, context);
        self.after(me, context);
    }

    /// The line to a gateway has ended.
    pub(super) fn stream_closed(&mut self, wire: WireId, me: &Me, context: &mut Context) {
        self.parked.retain(|parked| parked.wire != wire);
        if let Some(running) = &mut self.running {
            running.close(wire, me, context);
        }
        self.after(me, context);
    }

    /// A proposal's fate is known.
    pub(super) fn landed(
        &mut self,
        (run, channel, flight): (u64, ChannelId, u64),
        outcome: Option<u64>,
        me: &Me,
        context: &mut Context,
    ) {
        let Some(running) = self.running.as_mut().filter(|running| running.run == run) else {
            return;
        };
        if let Some(actor) = running.actors.get_mut(&channel) {
            actor.flights.land(flight, outcome);
            running.propose(&channel, me, context);
            running.settle(&channel, me, context);
        }
        self.after(me, context);
    }

    /// Whatever was proposed in the term is applied here.
    pub(super) fn settled(&mut self, run: u64, me: &Me, context: &mut Context) {
        let Some((of, term)) = self.settling else {
            return;
        };
        if of == run && self.running.is_none() {
            self.settling = None;
            self.take_up(term, me, context);
        }
    }

    pub(super) fn tick(&mut self, me: &Me, context: &mut Context) {
        let late = |parked: &Parked| parked.until <= context.now;
        let late: Vec<_> = self
            .parked
            .iter()
            .filter(|p| late(p))
            .map(|p| p.wire)
            .collect();
        self.parked.retain(|parked| !late.contains(&parked.wire));
        for wire in late {
            context.close(wire, Side::Called);
        }
        if let Some(running) = &mut self.running {
            let channels: Vec<_> = running.actors.keys().cloned().collect();
            for channel in channels {
                running.tick(&channel, me, context);
            }
        }
        self.after(me, context);
    }

    /// When there is something to do, in the world's time.
    pub(super) fn due(&self, me: &Me) -> Option<Duration> {
        let actors = self
            .running
            .iter()
            .flat_map(|running| running.actors.values());
        let due = actors.flat_map(|actor| {
            let engine = actor.engine.poll_timeout();
            [engine, actor.seats.poll_timeout(), actor.tracks_at]
        });
        let parked = self.parked.iter().map(|parked| parked.until);
        due.flatten()
            .min()
            .map(|due| me.clock.when(due))
            .into_iter()
            .chain(parked)
            .min()
    }

    /// What is due, for whoever wonders why it stays so.
    pub(super) fn describe_due(&self, me: &Me) -> String {
        let actors = self.running.iter().flat_map(|running| &running.actors);
        let due = actors.map(|(channel, actor)| {
            let due = [
                actor.engine.poll_timeout(),
                actor.seats.poll_timeout(),
                actor.tracks_at,
            ];
            let due = due.map(|due| due.map(|due| me.clock.when(due)));
            format!("{channel}: engine, seats, tracks {due:?}")
        });
        due.collect::<Vec<_>>().join("; ")
    }

    /// Takes the shard up anew if a decision could not be kept, and looks at every engine that did something.
    fn after(&mut self, me: &Me, context: &mut Context) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.failed {
            let (run, term) = (running.run, running.term);
            context.audit.note(run ^ term << 8, || {
                format!("node {} takes the shard up anew", me.life.node)
            });
            self.stand_down(context);
            self.settling = Some((run, term));
            spawn_settling(run, term, me, context);
            return;
        }
        for (channel, actor) in &mut running.actors {
            if std::mem::take(&mut actor.touched)
                && let Some(finding) = actor.engine.check().first()
            {
                let detail = format!("{channel} at node {}: {finding:?}", me.life.node);
                context.audit.violated("planner invariants", detail);
            }
        }
    }
}

impl Running {
    fn open(
        &mut self,
        wire: WireId,
        gateway: NodeId,
        opening: (u64, u64),
        me: &Me,
        context: &mut Context,
    ) {
        let known = self.posts.get(&gateway);
        if known.is_some_and(|post| post.opening.0 == opening.0 && post.opening.1 >= opening.1) {
            return context.close(wire, Side::Called);
        }
        self.streams += 1;
        let stream = self.streams;
        let post = Post {
            stream,
            opening,
            wire,
        };
        if let Some(old) = self.posts.insert(gateway, post) {
            context.close(old.wire, Side::Called);
            self.close(old.wire, me, context);
        }
        let key = StreamKey { gateway, stream };
        self.intakes.insert(wire, (key, Intake::default()));
    }

    fn close(&mut self, wire: WireId, me: &Me, context: &mut Context) {
        let Some((key, _)) = self.intakes.remove(&wire) else {
            return;
        };
        if self
            .posts
            .get(&key.gateway)
            .is_some_and(|post| post.stream == key.stream)
        {
            self.posts.remove(&key.gateway);
        }
        let now = me.clock.at(context.now);
        self.tell_all(|seats| seats.stream_lost(key, now), me, context);
    }

    fn hear(&mut self, wire: WireId, message: ToOwner, me: &Me, context: &mut Context) {
        let Some((key, intake)) = self.intakes.get_mut(&wire) else {
            return;
        };
        let key = *key;
        match message {
            ToOwner::Open { .. } => {}
            ToOwner::Change {
                seq,
                channel,
                change,
            } => {
                match intake.take(seq) {
                    Err(gap) => {
                        return context
                            .audit
                            .violated("links lose nothing", gap.to_string());
                    }
                    Ok(false) => return,
                    Ok(true) => {}
                }
                let through = intake.acknowledge();
                self.take_change(key, channel, change, me, context);
                if let Some(through) = through {
                    self.send(key.gateway, ToGateway::Acked { through }, context);
                }
            }
            ToOwner::Synced => self.tell_all(|seats| seats.synced(key), me, context),
            ToOwner::Reports { channel, reports } => {
                if let Some(actor) = self.actors.get_mut(&channel) {
                    actor.seats.report(key, reports);
                    self.settle(&channel, me, context);
                }
            }
        }
    }

    fn take_change(
        &mut self,
        key: StreamKey,
        channel: ChannelId,
        change: Change,
        me: &Me,
        context: &mut Context,
    ) {
        if let Some(actor) = self.actors.get_mut(&channel) {
            actor.seats.change(key, change);
            self.settle(&channel, me, context);
        } else if let Change::Attached(attached) = change {
            let refused = ToGateway::Refused {
                channel,
                peer: attached.session.peer,
                attachment: attached.session.attachment,
                refusal: Refusal::NoChannel,
            };
            self.send(key.gateway, refused, context);
        }
    }

    fn tell_all(&mut self, tell: impl Fn(&mut Seats), me: &Me, context: &mut Context) {
        let channels: Vec<_> = self.actors.keys().cloned().collect();
        for channel in channels {
            if let Some(actor) = self.actors.get_mut(&channel) {
                tell(&mut actor.seats);
            }
            self.settle(&channel, me, context);
        }
    }

    fn tick(&mut self, channel: &ChannelId, me: &Me, context: &mut Context) {
        let now = me.clock.at(context.now);
        let Some(actor) = self.actors.get_mut(channel) else {
            return;
        };
        let said = actor.tracks_at.take_if(|due| *due <= now).is_some();
        let engine = actor.engine.poll_timeout().is_some_and(|due| due <= now);
        let seats = actor.seats.poll_timeout().is_some_and(|due| due <= now);
        if said {
            let tracks = context.tracks.get(channel).cloned().unwrap_or_default();
            self.tell(channel, ChannelEvent::TracksChanged { tracks }, me, context);
        }
        if engine || seats {
            if let Some(actor) = self.actors.get_mut(channel) {
                actor.seats.tick(now);
            }
            self.tell(channel, ChannelEvent::Tick, me, context);
        }
        if said || engine || seats {
            self.settle(channel, me, context);
        }
    }

    /// Carries out what the seats want done.
    fn settle(&mut self, channel: &ChannelId, me: &Me, context: &mut Context) {
        while let Some(command) = self
            .actors
            .get_mut(channel)
            .and_then(|actor| actor.seats.poll_command())
        {
            match command {
                SeatCommand::Tell(event) => self.tell(channel, event, me, context),
                SeatCommand::Send(gateway, message) => self.send(gateway, message, context),
            }
        }
    }

    /// What an actor that ends has to say to the gateways.
    fn drain_seats(&self, actor: &mut Actor, context: &mut Context) {
        while let Some(command) = actor.seats.poll_command() {
            match command {
                SeatCommand::Tell(_) => {}
                SeatCommand::Send(gateway, message) => self.send(gateway, message, context),
            }
        }
    }

    fn send(&self, gateway: NodeId, message: ToGateway, context: &mut Context) {
        if let Some(post) = self.posts.get(&gateway) {
            context.send(post.wire, Side::Called, Payload::ToGateway(message));
        }
    }

    fn tell(&mut self, channel: &ChannelId, event: ChannelEvent, me: &Me, context: &mut Context) {
        if self.failed {
            return;
        }
        self.handle(channel, event, me, context);
        self.propose(channel, me, context);
    }

    fn handle(&mut self, channel: &ChannelId, event: ChannelEvent, me: &Me, context: &mut Context) {
        let Some(actor) = self.actors.get_mut(channel) else {
            return;
        };
        context
            .audit
            .note(channel.as_str().len() as u64 ^ me.life.node, || {
                format!("node {} {channel}: {event:?}", me.life.node)
            });
        actor.touched = true;
        actor.engine.handle(event, me.clock.at(context.now));
        while let Some(command) = actor.engine.poll_command() {
            match command {
                ChannelCommand::Commit { entry } => {
                    let digest = entry.edges.len() as u64 ^ (entry.told.len() as u64) << 8;
                    context.audit.note(digest, || {
                        format!("node {} {channel} decides {entry:?}", me.life.node)
                    });
                    actor.flights.push(entry);
                }
                ChannelCommand::Assign { peer, assignment } => {
                    context
                        .audit
                        .told((&me.life, self.term), channel, peer, &assignment);
                    let generation = assignment.generation;
                    context.audit.note(peer.0 ^ generation.index << 8, || {
                        format!(
                            "node {} {channel} tells {peer} {generation}: {:?} children {:?}",
                            me.life.node, assignment.tracks, assignment.children
                        )
                    });
                    actor.seats.assign(peer, assignment);
                }
                ChannelCommand::Raise(Alarm::PeerPresumedGone { peer, .. }) => {
                    actor.seats.gone(peer);
                }
                ChannelCommand::Raise(_) => {}
                ChannelCommand::Rebuild => {
                    self.failed = true;
                    actor.flights.forget();
                }
            }
        }
    }

    /// Gives the log what was decided, and the engine what became of it.
    fn propose(&mut self, channel: &ChannelId, me: &Me, context: &mut Context) {
        while !self.failed {
            let (run, term) = (self.run, self.term);
            let Some(actor) = self.actors.get_mut(channel) else {
                return;
            };
            if let Some((outcome, entries)) = actor.flights.pop() {
                let event = match outcome {
                    Some(index) => ChannelEvent::Committed { index, entries },
                    // It goes on as if nothing had happened.
                    None if context.bug == Some(Bug::OutlivingActor) => continue,
                    None => ChannelEvent::CommitFailed,
                };
                self.handle(channel, event, me, context);
                continue;
            }
            let Some((flight, entries)) = actor.flights.take_off() else {
                return;
            };
            let decide = |entry| ShardOp::Decide {
                channel: channel.clone(),
                entry,
            };
            let ops = entries.into_iter().map(decide).collect();
            let (group, audit, mail) = (
                me.group.clone(),
                context.audit.clone(),
                context.mail.clone(),
            );
            let (life, channel) = (me.life.clone(), channel.clone());
            spawn_in(Some(me.life.clone()), async move {
                let outcome = submit(&group, &audit, term, ops).await;
                let landed = NodeEvent::Landed(run, channel, flight, outcome);
                // The world is gone only when the run is over.
                drop(mail.unbounded_send(Mail::Node(life, landed)));
            });
        }
    }
}

/// Proposes operations; where they are, or that they failed or their fate is unknown.
async fn submit(
    group: &super::ShardGroup,
    audit: &crate::audit::Audit,
    term: u64,
    ops: Vec<ShardOp>,
) -> Option<u64> {
    let command: Bytes = ShardEntry::new(term, ops).encode().ok()?.into();
    let (at, answer) = group.propose(term, command.clone()).await.ok()?;
    audit.acknowledged(at, &command);
    let outcomes = Outcome::decode_all(&answer).ok()?;
    if let Some(refused) = outcomes.iter().find(|outcome| !outcome.is_applied()) {
        audit.note(at.index, || format!("{at}: {refused:?}"));
        return None;
    }
    Some(at.index)
}

/// Waits until whatever was proposed in the term is applied.
fn spawn_settling(run: u64, term: u64, me: &Me, context: &Context) {
    let (group, audit, mail) = (
        me.group.clone(),
        context.audit.clone(),
        context.mail.clone(),
    );
    let life = me.life.clone();
    spawn_in(Some(me.life.clone()), async move {
        while submit(&group, &audit, term, Vec::new()).await.is_none() {
            NodeRuntime::sleep(AFTER_FAILURE).await;
            if group.current_leadership().leading_term() != Some(term) {
                return;
            }
        }
        // The world is gone only when the run is over.
        drop(mail.unbounded_send(Mail::Node(life, NodeEvent::Settled(run))));
    });
}

fn wanted_policy(settings: &ChannelSettings) -> Policy {
    Policy::validate(&settings.policy).unwrap_or_default()
}
