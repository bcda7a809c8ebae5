//! Connections: between a peer and a gateway, between a gateway and an owner.
//!
//! What is sent over one comes in order and once, or the connection breaks. While a line between nodes is down
//! everything waits; after a while both ends find the connection broken.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use espalier_orchestrator_core::link::{Said, ToGateway, ToOwner};
use espalier_orchestrator_core::{Assignment, ChannelId, PeerId, PeerReport, SessionOpened};
use espalier_shards::NodeId;

use crate::dice::Dice;
use crate::sky::Sky;

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WireId(pub(crate) u64);

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who made it.
    Caller,
    /// To whom.
    Called,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Caller => Self::Called,
            Self::Called => Self::Caller,
        }
    }
}

/// Who is at an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A process of a node.
    Node(NodeId, u64),
    /// A peer.
    Peer(PeerId),
}

/// What goes over a connection.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    ToOwner(ToOwner),
    ToGateway(ToGateway),
    Up(Up),
    Down(Down),
    /// The other end has ended it, or it broke.
    Closed,
}

/// From a peer to its gateway.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Open {
        channel: ChannelId,
        opened: SessionOpened,
        proven: bool,
    },
    Say(Said),
    Report(PeerReport),
    Leave,
}

/// From a gateway to a peer.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    Welcome,
    Assign(Assignment),
    /// The id is another's; come with another one.
    Taken,
}

#[derive(Debug)]
struct Wire {
    caller: End,
    called: End,
    to_caller: Lane,
    to_called: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<(Duration, Payload)>,
    last: Duration,
    /// Nothing is delivered any more: that end is gone or was told of the end.
    over: bool,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Wires {
    wires: BTreeMap<WireId, Wire>,
    last: u64,
    dice: Dice,
}

/// What to do about the head of a lane.
pub(crate) enum Pumped {
    Deliver(End, Payload),
    Later(Duration),
    Nothing,
}

impl Wires {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            wires: BTreeMap::new(),
            last: 0,
            dice,
        }
    }

    pub(crate) fn dial(&mut self, caller: End, called: End) -> WireId {
        self.last += 1;
        let wire = Wire {
            caller,
            called,
            to_caller: Lane::default(),
            to_called: Lane::default(),
        };
        self.wires.insert(WireId(self.last), wire);
        WireId(self.last)
    }

    /// Sends from this side; returns when to pump the other side's lane.
    pub(crate) fn send(
        &mut self,
        id: WireId,
        from: Side,
        payload: Payload,
        now: Duration,
        sky: &Sky,
    ) -> Option<Duration> {
        let wire = self.wires.get_mut(&id)?;
        let delay = match (wire.caller, wire.called) {
            (End::Node(one, _), End::Node(other, _)) if one == other => Duration::from_micros(20),
            (End::Node(..), End::Node(..)) => sky.delay(),
            (End::Peer(_), _) | (_, End::Peer(_)) => self.dice.millis(1, 15),
        };
        let lane = wire.lane(from.other());
        if lane.over {
            return None;
        }
        let due = lane.last.max(now + delay);
        lane.last = due;
        lane.waiting.push_back((due, payload));
        Some(due)
    }

    /// Ends a connection from this side; returns when to pump the other side's lane.
    pub(crate) fn close(
        &mut self,
        id: WireId,
        from: Side,
        now: Duration,
        sky: &Sky,
    ) -> Option<Duration> {
        let due = self.send(id, from, Payload::Closed, now, sky);
        if let Some(wire) = self.wires.get_mut(&id) {
            let lane = wire.lane(from);
            lane.over = true;
            lane.waiting.clear();
        }
        due
    }

    /// The head of the lane towards this side, if it has arrived.
    pub(crate) fn pump(&mut self, id: WireId, to: Side, now: Duration, sky: &Sky) -> Pumped {
        let Some(wire) = self.wires.get_mut(&id) else {
            return Pumped::Nothing;
        };
        let (from, at) = match to {
            Side::Caller => (wire.called, wire.caller),
            Side::Called => (wire.caller, wire.called),
        };
        let down = match (from, at) {
            (End::Node(from, _), End::Node(to, _)) => sky.is_cut(from, to),
            (End::Node(..) | End::Peer(_), _) => false,
        };
        let lane = wire.lane(to);
        let Some((due, _)) = lane.waiting.front() else {
            return Pumped::Nothing;
        };
        if *due > now {
            return Pumped::Later(*due);
        }
        if down {
            return Pumped::Later(now + Duration::from_millis(20));
        }
        let Some((_, payload)) = lane.waiting.pop_front() else {
            return Pumped::Nothing;
        };
        if matches!(payload, Payload::Closed) {
            lane.over = true;
        }
        self.forget_if_over(id);
        Pumped::Deliver(at, payload)
    }

    /// Breaks a connection: both ends are told, whatever was on its way is lost. Returns whom to pump.
    pub(crate) fn break_both(&mut self, id: WireId, now: Duration) -> bool {
        let Some(wire) = self.wires.get_mut(&id) else {
            return false;
        };
        for side in [Side::Caller, Side::Called] {
            let lane = wire.lane(side);
            if !lane.over {
                lane.waiting.clear();
                lane.waiting.push_back((now, Payload::Closed));
            }
        }
        true
    }

    /// The connections that this process has.
    pub(crate) fn of(&self, node: NodeId, boot: u64) -> Vec<(WireId, Side)> {
        let end = End::Node(node, boot);
        let sides = |(id, wire): (&WireId, &Wire)| {
            let caller = (wire.caller == end).then_some((*id, Side::Caller));
            let called = (wire.called == end).then_some((*id, Side::Called));
            [caller, called]
        };
        self.wires.iter().flat_map(sides).flatten().collect()
    }

    /// The connections that a line that is down has stopped.
    pub(crate) fn stopped(&self, sky: &Sky) -> Vec<WireId> {
        let wires = self.wires.iter().filter(|(_, wire)| wire.is_stopped(sky));
        wires.map(|(id, _)| *id).collect()
    }

    /// Whether a line that is down has stopped this connection.
    pub(crate) fn is_stopped(&self, id: WireId, sky: &Sky) -> bool {
        self.wires.get(&id).is_some_and(|wire| wire.is_stopped(sky))
    }

    /// So many connections, by lot.
    pub(crate) fn some(&mut self, count: u64) -> Vec<WireId> {
        let all: Vec<WireId> = self.wires.keys().copied().collect();
        (0..count)
            .filter_map(|_| self.dice.pick(&all).copied())
            .collect()
    }

    fn forget_if_over(&mut self, id: WireId) {
        let over = |wire: &Wire| wire.to_caller.over && wire.to_called.over;
        if self.wires.get(&id).is_some_and(over) {
            self.wires.remove(&id);
        }
    }
}

impl Wire {
    fn is_stopped(&self, sky: &Sky) -> bool {
        match (self.caller, self.called) {
            (End::Node(one, _), End::Node(other, _)) => {
                sky.is_cut(one, other) || sky.is_cut(other, one)
            }
            (End::Node(..) | End::Peer(_), _) => false,
        }
    }

    fn lane(&mut self, to: Side) -> &mut Lane {
        match to {
            Side::Caller => &mut self.to_caller,
            Side::Called => &mut self.to_called,
        }
    }
}
