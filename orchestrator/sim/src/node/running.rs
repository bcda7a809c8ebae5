//! The shard's channels while the node leads in one term: streams of gateways, seats, engines, proposals.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use espalier_orchestrator_core::link::{
    Change, Intake, Refusal, SeatCommand, Seats, StreamKey, ToGateway, ToOwner,
};
use espalier_orchestrator_core::state::{Outcome, ShardChannel, ShardEntry, ShardOp};
use espalier_orchestrator_core::{
    Alarm, ChannelCommand, ChannelEngine, ChannelEvent, ChannelId, NodeId,
};

use super::flights::Flights;
use super::{Me, NodeEvent};
use crate::context::{Context, Mail};
use crate::planted::Bug;
use crate::runtime::spawn_in;
use crate::wires::{Payload, Side, WireId};

pub(super) struct Running {
    pub(super) run: u64,
    pub(super) term: u64,
    streams: u64,
    pub(super) posts: BTreeMap<NodeId, Post>,
    intakes: BTreeMap<WireId, (StreamKey, Intake)>,
    pub(super) actors: BTreeMap<ChannelId, Actor>,
    pub(super) failed: bool,
}

pub(super) struct Post {
    stream: u64,
    opening: (u64, u64),
    pub(super) wire: WireId,
}

pub(super) struct Actor {
    pub(super) engine: ChannelEngine,
    pub(super) seats: Seats,
    pub(super) flights: Flights,
    /// The settings that the engine plans with.
    pub(super) etag: String,
    pub(super) incarnation: u64,
    /// When the signer says which tracks there are.
    pub(super) tracks_at: Option<Duration>,
    pub(super) touched: bool,
}

impl Actor {
    /// An actor of this term, from what the shard has of the channel.
    pub(super) fn new(
        id: &ChannelId,
        channel: &ShardChannel,
        term: u64,
        now: Duration,
        tracks_at: Duration,
    ) -> Self {
        let known = channel.state.peers().map(|(peer, _)| peer);
        Self {
            engine: ChannelEngine::from_state(&channel.state, term, now),
            seats: Seats::new(id.clone(), known, now),
            flights: Flights::default(),
            etag: String::new(),
            incarnation: channel.settings.incarnation,
            tracks_at: Some(tracks_at),
            touched: true,
        }
    }
}

impl Running {
    pub(super) fn new(run: u64, term: u64) -> Self {
        Self {
            run,
            term,
            streams: 0,
            posts: BTreeMap::new(),
            intakes: BTreeMap::new(),
            actors: BTreeMap::new(),
            failed: false,
        }
    }

    pub(super) fn open(
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

    pub(super) fn close(&mut self, wire: WireId, me: &Me, context: &mut Context) {
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

    pub(super) fn hear(&mut self, wire: WireId, message: ToOwner, me: &Me, context: &mut Context) {
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

    pub(super) fn tick(&mut self, channel: &ChannelId, me: &Me, context: &mut Context) {
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
    pub(super) fn settle(&mut self, channel: &ChannelId, me: &Me, context: &mut Context) {
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
    pub(super) fn drain_seats(&self, actor: &mut Actor, context: &mut Context) {
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

    pub(super) fn tell(
        &mut self,
        channel: &ChannelId,
        event: ChannelEvent,
        me: &Me,
        context: &mut Context,
    ) {
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
    pub(super) fn propose(&mut self, channel: &ChannelId, me: &Me, context: &mut Context) {
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
pub(super) async fn submit(
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
