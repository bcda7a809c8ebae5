//! The part of a node that faces peers: a thin shell round a `GatewayLink`.

use std::collections::BTreeMap;
use std::time::Duration;

use espalier_orchestrator_core::link::{GatewayCommand, GatewayLink, Refusal, ToGateway};
use espalier_orchestrator_core::{ChannelId, PeerId};
use espalier_shards::NodeId;

use super::Me;
use crate::context::Context;
use crate::wires::{Down, End, Payload, Side, Up, WireId};

const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

pub(super) struct Gateway {
    link: GatewayLink,
    /// Who owns the shard, as far as is known here.
    owner: Option<NodeId>,
    stream: Option<Stream>,
    wait: Duration,
    retry_at: Option<Duration>,
    sessions: BTreeMap<WireId, Session>,
    seats: BTreeMap<(ChannelId, PeerId), WireId>,
}

struct Stream {
    wire: WireId,
    to: NodeId,
    since: Duration,
}

struct Session {
    channel: ChannelId,
    peer: PeerId,
    attachment: u64,
    welcomed: bool,
}

impl Gateway {
    pub(super) fn new(node: NodeId, boot: u64) -> Self {
        Self {
            link: GatewayLink::new(espalier_orchestrator_core::NodeId(node), boot),
            owner: None,
            stream: None,
            wait: FIRST_WAIT,
            retry_at: None,
            sessions: BTreeMap::new(),
            seats: BTreeMap::new(),
        }
    }

    /// Follows who owns the shard.
    pub(super) fn set_owner(&mut self, owner: Option<NodeId>, me: &Me, context: &mut Context) {
        if self.owner == owner {
            return;
        }
        self.owner = owner;
        if let Some(stream) = self.stream.take() {
            self.link.stream_lost();
            context.close(stream.wire, Side::Caller);
        }
        self.wait = FIRST_WAIT;
        self.retry_at = None;
        self.open(me, context);
    }

    fn open(&mut self, me: &Me, context: &mut Context) {
        let Some(to) = self.owner else { return };
        if self.stream.is_some() {
            return;
        }
        let wire = context.dial(End::Node(me.life.node, me.life.boot), to);
        self.link.stream_opened();
        let since = context.now;
        self.stream = Some(Stream { wire, to, since });
        self.flush(me, context);
    }

    /// Sends what the link has to say.
    pub(super) fn flush(&mut self, me: &Me, context: &mut Context) {
        let Some(stream) = &self.stream else { return };
        while let Some(message) = self.link.poll_transmit(me.clock.at(context.now)) {
            context.send(stream.wire, Side::Caller, Payload::ToOwner(message));
        }
    }

    /// The line to the owner has ended.
    pub(super) fn stream_closed(&mut self, wire: WireId, context: &mut Context) {
        if self
            .stream
            .as_ref()
            .is_none_or(|stream| stream.wire != wire)
        {
            return;
        }
        if let Some(stream) = self.stream.take()
            && context.now - stream.since > LONGEST_WAIT
        {
            self.wait = FIRST_WAIT;
        }
        self.link.stream_lost();
        let pause = context.dice.time(self.wait / 2, self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.retry_at = Some(context.now + pause);
    }

    pub(super) fn hear_owner(
        &mut self,
        wire: WireId,
        message: ToGateway,
        me: &Me,
        context: &mut Context,
    ) {
        if self
            .stream
            .as_ref()
            .is_none_or(|stream| stream.wire != wire)
        {
            return;
        }
        self.link.receive(message);
        while let Some(command) = self.link.poll_command() {
            self.execute(command, context);
        }
        self.flush(me, context);
    }

    fn execute(&mut self, command: GatewayCommand, context: &mut Context) {
        match command {
            GatewayCommand::Admit {
                channel,
                peer,
                attachment,
            } => {
                if let Some(wire) = self.wire_of(&channel, peer, attachment) {
                    self.welcome(wire, context);
                }
            }
            GatewayCommand::Refuse {
                channel,
                peer,
                attachment,
                refusal,
            } => {
                if let Some(wire) = self.wire_of(&channel, peer, attachment) {
                    if refusal == Refusal::Taken {
                        context.send(wire, Side::Called, Payload::Down(Down::Taken));
                    }
                    self.end(wire, context);
                }
            }
            GatewayCommand::Supersede {
                channel,
                peer,
                attachment,
            } => {
                if let Some(wire) = self.wire_of(&channel, peer, attachment) {
                    self.end(wire, context);
                }
            }
            GatewayCommand::Assign {
                channel,
                peer,
                attachment,
                assignment,
            } => {
                if let Some(wire) = self.wire_of(&channel, peer, attachment) {
                    context.send(wire, Side::Called, Payload::Down(Down::Assign(assignment)));
                }
            }
            GatewayCommand::Locate { .. } => {}
            GatewayCommand::End { channel } => {
                let of = self.seats.iter().filter(|((of, _), _)| *of == channel);
                let wires: Vec<_> = of.map(|(_, wire)| *wire).collect();
                for wire in wires {
                    self.end(wire, context);
                }
            }
        }
    }

    fn wire_of(&self, channel: &ChannelId, peer: PeerId, attachment: u64) -> Option<WireId> {
        let wire = self.seats.get(&(channel.clone(), peer))?;
        let session = self.sessions.get(wire)?;
        (session.attachment == attachment).then_some(*wire)
    }

    fn welcome(&mut self, wire: WireId, context: &mut Context) {
        if let Some(session) = self.sessions.get_mut(&wire)
            && !std::mem::replace(&mut session.welcomed, true)
        {
            context.send(wire, Side::Called, Payload::Down(Down::Welcome));
        }
    }

    /// Ends a session; the link knows already.
    fn end(&mut self, wire: WireId, context: &mut Context) {
        context.close(wire, Side::Called);
        self.forget(wire);
    }

    fn forget(&mut self, wire: WireId) -> Option<Session> {
        let session = self.sessions.remove(&wire)?;
        let key = (session.channel.clone(), session.peer);
        if self.seats.get(&key) == Some(&wire) {
            self.seats.remove(&key);
        }
        Some(session)
    }

    /// A peer says something.
    pub(super) fn hear_peer(&mut self, wire: WireId, up: Up, me: &Me, context: &mut Context) {
        match up {
            Up::Open {
                channel,
                opened,
                proven,
            } => {
                let known = me
                    .group
                    .read(|_, replica| replica.state.channel(&channel).is_some());
                let (peer, attachment) = (opened.peer, opened.attachment);
                if !known || self.link.attach(&channel, opened, proven).is_err() {
                    return context.close(wire, Side::Called);
                }
                let session = Session {
                    channel: channel.clone(),
                    peer,
                    attachment,
                    welcomed: false,
                };
                self.sessions.insert(wire, session);
                if let Some(old) = self.seats.insert((channel, peer), wire) {
                    context.close(old, Side::Called);
                    self.sessions.remove(&old);
                }
                if proven {
                    self.welcome(wire, context);
                }
            }
            Up::Say(said) => {
                if let Some(session) = self.sessions.get(&wire) {
                    let (channel, peer) = (session.channel.clone(), session.peer);
                    let said = self.link.say(&channel, peer, session.attachment, said);
                    if said.is_err() {
                        self.lose(wire, context);
                    }
                }
            }
            Up::Report(report) => {
                if let Some(session) = self.sessions.get(&wire) {
                    let (channel, peer) = (&session.channel, session.peer);
                    self.link.report(channel, peer, session.attachment, report);
                }
            }
            Up::Leave => {
                if let Some(session) = self.forget(wire) {
                    let (channel, peer) = (&session.channel, session.peer);
                    self.link.leave(channel, peer, session.attachment);
                    context.close(wire, Side::Called);
                }
            }
        }
        self.flush(me, context);
    }

    fn lose(&mut self, wire: WireId, context: &mut Context) {
        context.close(wire, Side::Called);
        if let Some(session) = self.forget(wire) {
            self.link
                .detach(&session.channel, session.peer, session.attachment);
        }
    }

    /// A peer's connection has ended.
    pub(super) fn peer_closed(&mut self, wire: WireId, me: &Me, context: &mut Context) {
        if let Some(session) = self.forget(wire) {
            self.link
                .detach(&session.channel, session.peer, session.attachment);
            self.flush(me, context);
        }
    }

    pub(super) fn tick(&mut self, me: &Me, context: &mut Context) {
        if self.retry_at.take_if(|due| *due <= context.now).is_some() {
            self.open(me, context);
        }
        self.flush(me, context);
    }

    /// When there is something to do, in the world's time.
    pub(super) fn due(&self, me: &Me) -> Option<Duration> {
        let reports = self.link.poll_timeout().map(|due| me.clock.when(due));
        reports.into_iter().chain(self.retry_at).min()
    }

    pub(super) fn describe(&self) -> String {
        let stream = self.stream.as_ref().map(|stream| stream.to);
        format!("{} sessions, stream to {stream:?}", self.sessions.len())
    }
}
