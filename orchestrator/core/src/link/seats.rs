//! Who sits at which gateway: the owner's view of one channel's sessions.
//!
//! News of a peer's attachments come from several gateways, in any order. The highest attachment wins (of
//! equal ones, the gateway with the higher id); what an older one says is not heard. While a gateway's
//! stream is down its peers are neither here nor lost: they come back with the next stream, or attach
//! elsewhere, or are counted as lost after [`PATIENCE`].

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::held::{held_after, neighbours_assigned, neighbours_held};
use super::message::{Attached, Change, Refusal, Said, ToGateway, Whereabouts};
use super::stream::StreamKey;
use crate::commands::Assignment;
use crate::events::{ChannelEvent, PeerReport, SessionOpened};
use crate::ids::{ChannelId, NodeId, PeerId};

/// How long a gateway's stream may be down before its sessions count as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the shell has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeatCommand {
    /// Tell the channel's engine.
    Tell(ChannelEvent),
    /// Send to a gateway, if its stream is open.
    Send(NodeId, ToGateway),
}

/// The sessions of one channel, over all gateways.
#[derive(Debug)]
pub struct Seats {
    channel: ChannelId,
    seats: BTreeMap<PeerId, Seat>,
    gateways: BTreeMap<NodeId, Gateway>,
    /// When those of whom no gateway has said anything count as absent; `None` once they do.
    absence_counts: Option<Duration>,
    commands: VecDeque<SeatCommand>,
}

#[derive(Debug)]
struct Seat {
    attachment: u64,
    /// `None` while the peer has no session.
    at: Option<StreamKey>,
    /// What the peer opened with and has by now; `None` for one that has not attached to this owner.
    opened: Option<SessionOpened>,
    neighbours: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Gateway {
    stream: u64,
    lost_at: Option<Duration>,
}

impl Seats {
    /// Makes the table of a channel in which these peers are known, and nobody has a session. Gateways have
    /// ten seconds to say who is attached.
    pub fn new(channel: ChannelId, known: impl IntoIterator<Item = PeerId>, now: Duration) -> Self {
        let seat = || Seat {
            attachment: 0,
            at: None,
            opened: None,
            neighbours: BTreeSet::new(),
        };
        Self {
            channel,
            seats: known.into_iter().map(|peer| (peer, seat())).collect(),
            gateways: BTreeMap::new(),
            absence_counts: Some(now + PATIENCE),
            commands: VecDeque::new(),
        }
    }

    /// Takes in a change that a gateway saw.
    pub fn change(&mut self, from: StreamKey, change: Change) {
        if !self.is_newest(from) {
            return;
        }
        match change {
            Change::Attached(attached) => self.attach(from, attached),
            Change::Detached { peer, attachment } => {
                if self.seat_of(from, peer, attachment).is_some() {
                    self.lose(peer);
                }
            }
            Change::Left { peer, attachment } => self.leave(peer, (attachment, from.gateway)),
            Change::Said {
                peer,
                attachment,
                said,
            } => self.hear(from, peer, attachment, said),
        }
    }

    /// Takes in the counters of a gateway's peers.
    pub fn report(&mut self, from: StreamKey, reports: Vec<(PeerId, PeerReport)>) {
        if !self.is_newest(from) {
            return;
        }
        for (peer, report) in reports {
            let seat = self.seats.get(&peer).and_then(|seat| seat.at);
            if seat.is_some_and(|at| at.gateway == from.gateway) {
                self.tell(ChannelEvent::Report { peer, report });
            }
        }
    }

    /// The stream has said every session: those of its gateway that it did not say are lost.
    pub fn synced(&mut self, from: StreamKey) {
        if !self.is_newest(from) {
            return;
        }
        let unsaid = |at: StreamKey| at.gateway == from.gateway && at.stream < from.stream;
        self.lose_where(unsaid);
    }

    /// The stream is down.
    pub fn stream_lost(&mut self, from: StreamKey, now: Duration) {
        let known = self.gateways.get_mut(&from.gateway);
        let Some(gateway) = known.filter(|gateway| gateway.stream <= from.stream) else {
            return;
        };
        gateway.stream = from.stream;
        if gateway.lost_at.is_some() {
            return;
        }
        gateway.lost_at = Some(now);
        for peer in self.seated_where(|at| at.gateway == from.gateway) {
            self.tell(ChannelEvent::SessionSilent { peer });
        }
    }

    /// Takes in what a peer was assigned.
    pub fn assign(&mut self, peer: PeerId, assignment: Assignment) {
        let Some(seat) = self.seats.get_mut(&peer) else {
            return;
        };
        seat.neighbours = neighbours_assigned(&assignment);
        if let Some(opened) = &mut seat.opened {
            opened.held = held_after(&assignment);
            opened.generation = Some(assignment.generation);
        }
        let (Some(at), attachment) = (seat.at, seat.attachment) else {
            return;
        };
        let seats = self.neighbours_elsewhere(peer, at.gateway);
        let message = ToGateway::Assigned {
            channel: self.channel.clone(),
            peer,
            attachment,
            assignment,
            seats,
        };
        self.send(at.gateway, message);
    }

    /// The engine takes the peer for gone.
    pub fn gone(&mut self, peer: PeerId) {
        if self.seats.get(&peer).is_some_and(|seat| seat.at.is_none()) {
            self.seats.remove(&peer);
        }
    }

    /// Counts the sessions of gateways that have been down for too long as lost, and peers that no gateway has
    /// attached for too long as absent.
    pub fn tick(&mut self, now: Duration) {
        if self.absence_counts.take_if(|due| *due <= now).is_some() {
            self.tell(ChannelEvent::AbsenceCounts);
        }
        let over = |gateway: &Gateway| gateway.lost_at.is_some_and(|at| at + PATIENCE <= now);
        let down: Vec<NodeId> = self
            .gateways
            .iter()
            .filter(|(_, gateway)| over(gateway))
            .map(|(id, _)| *id)
            .collect();
        for id in down {
            self.gateways.remove(&id);
            self.lose_where(|at| at.gateway == id);
        }
    }

    /// Returns when [`Self::tick`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let lost = self.gateways.values().filter_map(|gateway| gateway.lost_at);
        let lost = lost.map(|at| at + PATIENCE);
        lost.chain(self.absence_counts).min()
    }

    /// Returns the next thing to do.
    pub fn poll_command(&mut self) -> Option<SeatCommand> {
        self.commands.pop_front()
    }

    /// Returns every session with what its peer is known to have, for an engine that begins anew.
    pub fn sessions(&self) -> Vec<SessionOpened> {
        let here = self.seats.values().filter(|seat| seat.at.is_some());
        here.filter_map(|seat| seat.opened.clone()).collect()
    }

    /// Forgets the peers that have no session: an engine that begins anew without records would never say
    /// that they are gone.
    pub fn forget_absent(&mut self) {
        self.seats.retain(|_, seat| seat.at.is_some());
    }

    /// The channel ends: tells every gateway.
    pub fn end(&mut self) {
        let gateways: BTreeSet<NodeId> = self.gateways.keys().copied().collect();
        for gateway in gateways {
            let channel = self.channel.clone();
            self.send(gateway, ToGateway::Ended { channel });
        }
    }

    /// Where a peer has its session.
    pub fn gateway_of(&self, peer: PeerId) -> Option<NodeId> {
        Some(self.seats.get(&peer)?.at?.gateway)
    }

    fn is_newest(&mut self, from: StreamKey) -> bool {
        let first = Gateway {
            stream: from.stream,
            lost_at: None,
        };
        let gateway = self.gateways.entry(from.gateway).or_insert(first);
        if from.stream > gateway.stream {
            gateway.stream = from.stream;
            gateway.lost_at = None;
        }
        from.stream == gateway.stream && gateway.lost_at.is_none()
    }

    /// The seat, if it is this gateway's and this is its attachment.
    fn seat_of(&mut self, from: StreamKey, peer: PeerId, attachment: u64) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(&peer)?;
        let same =
            seat.attachment == attachment && seat.at.is_some_and(|at| at.gateway == from.gateway);
        same.then_some(seat)
    }

    fn attach(&mut self, from: StreamKey, attached: Attached) {
        let session = attached.session;
        let (peer, attachment) = (session.peer, session.attachment);
        let old = self.seats.get(&peer);
        let old_at = old.and_then(|seat| seat.at);
        // A seat that nobody holds has no gateway that could win a tie.
        let held_by = old.map(|seat| (seat.attachment, seat.at.map(|at| at.gateway)));
        if held_by > Some((attachment, Some(from.gateway))) {
            if let Some((by, gateway)) = held_by {
                self.supersede(from.gateway, peer, by, gateway.unwrap_or(from.gateway));
            }
            return;
        }
        let again = held_by == Some((attachment, Some(from.gateway)));
        let mine = attached.proven || again || (attached.asked && old_at.is_none());
        if old.is_some() && !mine {
            self.refuse(from.gateway, peer, attachment, Refusal::Taken);
            return;
        }
        if let Some(at) = old_at.filter(|at| at.gateway != from.gateway) {
            self.supersede(at.gateway, peer, attachment, from.gateway);
        }
        let neighbours = neighbours_held(&session.held);
        let seat = Seat {
            attachment,
            at: Some(from),
            opened: Some(session.clone()),
            neighbours,
        };
        self.seats.insert(peer, seat);
        let channel = self.channel.clone();
        self.send(
            from.gateway,
            ToGateway::Admitted {
                channel,
                peer,
                attachment,
            },
        );
        self.announce(peer, from.gateway);
        self.tell(ChannelEvent::SessionOpened(session));
    }

    fn hear(&mut self, from: StreamKey, peer: PeerId, attachment: u64, said: Said) {
        let Some(seat) = self.seats.get_mut(&peer) else {
            return;
        };
        // A peer's last words may come after its session was found lost.
        let here = seat.at.is_none_or(|at| at.gateway == from.gateway);
        if seat.attachment != attachment || !here {
            return;
        }
        if let Some(opened) = &mut seat.opened {
            remember(opened, &said);
        }
        self.tell(said.into_event(peer));
    }

    fn leave(&mut self, peer: PeerId, by: (u64, NodeId)) {
        let seat = self.seats.get(&peer);
        let at = seat.and_then(|seat| seat.at).map(|at| at.gateway);
        if seat.is_some_and(|seat| (seat.attachment, at.unwrap_or(by.1)) > by) {
            return;
        }
        self.seats.remove(&peer);
        if let Some(other) = at.filter(|gateway| *gateway != by.1) {
            self.supersede(other, peer, by.0, by.1);
        }
        self.tell(ChannelEvent::Left { peer });
    }

    fn lose(&mut self, peer: PeerId) {
        let Some(seat) = self.seats.get_mut(&peer) else {
            return;
        };
        seat.at = None;
        let attachment = seat.attachment;
        self.tell(ChannelEvent::SessionLost { peer, attachment });
    }

    fn lose_where(&mut self, lost: impl Fn(StreamKey) -> bool) {
        for peer in self.seated_where(lost) {
            self.lose(peer);
        }
    }

    fn seated_where(&self, chosen: impl Fn(StreamKey) -> bool) -> Vec<PeerId> {
        let seats = self.seats.iter();
        seats
            .filter(|(_, seat)| seat.at.is_some_and(&chosen))
            .map(|(peer, _)| *peer)
            .collect()
    }

    /// Tells the gateways of a peer's neighbours where it sits now, and its own where they do.
    fn announce(&mut self, peer: PeerId, gateway: NodeId) {
        let elsewhere = self.neighbours_elsewhere(peer, gateway);
        if elsewhere.is_empty() {
            return;
        }
        let told: BTreeSet<NodeId> = elsewhere.iter().map(|seat| seat.gateway).collect();
        for other in told {
            let channel = self.channel.clone();
            let seats = vec![Whereabouts { peer, gateway }];
            self.send(other, ToGateway::Seats { channel, seats });
        }
        let channel = self.channel.clone();
        let seats = elsewhere;
        self.send(gateway, ToGateway::Seats { channel, seats });
    }

    fn neighbours_elsewhere(&self, peer: PeerId, gateway: NodeId) -> Vec<Whereabouts> {
        let neighbours = self.seats.get(&peer).map(|seat| seat.neighbours.iter());
        let seats = neighbours.into_iter().flatten().filter_map(|neighbour| {
            Some(Whereabouts {
                peer: *neighbour,
                gateway: self.gateway_of(*neighbour)?,
            })
        });
        seats.filter(|seat| seat.gateway != gateway).collect()
    }

    fn supersede(&mut self, at: NodeId, peer: PeerId, by: u64, gateway: NodeId) {
        let channel = self.channel.clone();
        self.send(
            at,
            ToGateway::Superseded {
                channel,
                peer,
                by,
                gateway,
            },
        );
    }

    fn refuse(&mut self, at: NodeId, peer: PeerId, attachment: u64, refusal: Refusal) {
        let channel = self.channel.clone();
        self.send(
            at,
            ToGateway::Refused {
                channel,
                peer,
                attachment,
                refusal,
            },
        );
    }

    fn tell(&mut self, event: ChannelEvent) {
        self.commands.push_back(SeatCommand::Tell(event));
    }

    fn send(&mut self, gateway: NodeId, message: ToGateway) {
        self.commands.push_back(SeatCommand::Send(gateway, message));
    }
}

/// Keeps what an engine that begins anew has to be told of the peer.
fn remember(opened: &mut SessionOpened, said: &Said) {
    match said {
        Said::WantTracks(tracks) => opened.tracks.clone_from(tracks),
        Said::Source(report) => {
            let mut held = opened.held.iter_mut();
            if let Some(held) = held.find(|held| held.track == report.track) {
                held.source = report.source;
            }
        }
        Said::Profile(profile) => opened.profile = *profile,
        Said::Acknowledged(_) | Said::Link(_) => {}
    }
}
