//! What every part of the world may use: the agenda, the connections, the network, the audit, chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_orchestrator_core::{ChannelId, PeerId, TrackInfo};
use espalier_shards::NodeId;
use futures::channel::mpsc;

use crate::audit::Audit;
use crate::clients::Answer;
use crate::dice::Dice;
use crate::faults::Fault;
use crate::node::{NodeEvent, ShardGroup};
use crate::planted::Bug;
use crate::runtime::Life;
use crate::sky::Sky;
use crate::wires::{End, Payload, Side, WireId, Wires};

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something may have arrived.
    Pump(WireId, Side),
    /// A connection that a line has stopped is found broken, if the line is down still.
    Keepalive(WireId),
    /// A node has something to do.
    Node(NodeId, u64),
    /// For a node.
    ToNode(NodeId, NodeEvent),
    Boot(NodeId),
    Fault(Fault),
    /// A peer does something.
    Peer(PeerId),
    /// Data reaches a peer from where it was told to take it.
    Flow(PeerId),
    /// A peer opens a session.
    Attach(PeerId),
    /// Somebody new comes.
    Arrival,
    /// An API client does something.
    Client(u32),
    /// An API client waits no longer.
    Late(u32, u64),
    /// The replicated state is looked at.
    Look,
}

/// What tasks tell the world.
pub(crate) enum Mail {
    /// To a process.
    Node(Arc<Life>, NodeEvent),
    /// A process's group has started.
    Started(Arc<Life>, ShardGroup),
    /// To an API client.
    Client(u32, Answer),
}

/// What is shared.
pub(crate) struct Context {
    pub(crate) now: Duration,
    pub(crate) agenda: Agenda,
    pub(crate) wires: Wires,
    pub(crate) sky: Sky,
    pub(crate) audit: Audit,
    pub(crate) mail: mpsc::UnboundedSender<Mail>,
    pub(crate) dice: Dice,
    pub(crate) bug: Option<Bug>,
    /// The processes that run.
    pub(crate) boots: BTreeMap<NodeId, u64>,
    /// What each channel's signer knows.
    pub(crate) tracks: BTreeMap<ChannelId, Vec<TrackInfo>>,
}

/// What is to happen, in order.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    events: BTreeMap<(Duration, u64), Event>,
    last: u64,
}

impl Agenda {
    pub(crate) fn at(&mut self, at: Duration, event: Event) {
        self.last += 1;
        self.events.insert((at, self.last), event);
    }

    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Event> {
        let first = self.events.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

impl Context {
    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.agenda.at(self.now + wait, event);
    }

    /// Connects to the process that runs at a node; if there is none, the connection ends soon.
    pub(crate) fn dial(&mut self, caller: End, node: NodeId) -> WireId {
        let boot = self.boots.get(&node).copied().unwrap_or(0);
        self.wires.dial(caller, End::Node(node, boot))
    }

    pub(crate) fn send(&mut self, wire: WireId, from: Side, payload: Payload) {
        if let Some(due) = self.wires.send(wire, from, payload, self.now, &self.sky) {
            self.agenda.at(due, Event::Pump(wire, other(from)));
        }
    }

    pub(crate) fn close(&mut self, wire: WireId, from: Side) {
        if let Some(due) = self.wires.close(wire, from, self.now, &self.sky) {
            self.agenda.at(due, Event::Pump(wire, other(from)));
        }
    }

    pub(crate) fn break_wire(&mut self, wire: WireId) {
        if self.wires.break_both(wire, self.now) {
            for side in [Side::Caller, Side::Called] {
                self.agenda.at(self.now, Event::Pump(wire, side));
            }
        }
    }

    /// Gives stopped connections their time.
    pub(crate) fn watch_stopped(&mut self) {
        for wire in self.wires.stopped(&self.sky) {
            let patience = self.dice.millis(300, 2_000);
            self.after(patience, Event::Keepalive(wire));
        }
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Caller => Side::Called,
        Side::Called => Side::Caller,
    }
}
