//! The part of a node that owns the shard's channels while it leads: thin shells round `Intake`, `Seats` and
//! `ChannelEngine`, wired as the production node wires them.
//!
//! Planted: an actor that goes on when its term has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use espalier_orchestrator_core::link::ToOwner;
use espalier_orchestrator_core::state::{ChannelSettings, Lifecycle};
use espalier_orchestrator_core::{ChannelEvent, ChannelId, Policy};
use openraft::AsyncRuntime as _;

use super::running::{Actor, Running, submit};
use super::{Me, NodeEvent};
use crate::context::{Context, Mail};
use crate::planted::Bug;
use crate::runtime::{NodeRuntime, spawn_in};
use crate::wires::{Side, WireId};

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
        self.running = Some(Running::new(self.runs, term));
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
                let tracks_at = now + context.dice.millis(0, 400);
                let actor = Actor::new(&id, &channel, term, now, tracks_at);
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
