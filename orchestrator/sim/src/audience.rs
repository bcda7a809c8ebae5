//! The audience: peers that come, watch, report, lose their sessions, come back elsewhere, and go.
//!
//! A peer does as the newest assignment says, and never believes two different ones of one generation.

use std::collections::{BTreeMap, BTreeSet};

use espalier_orchestrator_core::link::Said;
use espalier_orchestrator_core::{
    Assignment, ChannelId, HeldEdge, LinkReport, LinkState, PeerId, PeerReport, PeerRole,
    SessionOpened, Source, SourceReport, SourceState, TrackName,
};
use espalier_shards::NodeId;

use crate::audit::content_digest;
use crate::context::{Context, Event};
use crate::dice::Dice;
use crate::wires::{Down, End, Payload, Side, Up, WireId};

/// A peer, as it is in truth.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) channel: ChannelId,
    role: PeerRole,
    upload_bps: u64,
    wanted: Vec<TrackName>,
    /// Counts its attempts to attach.
    attempt: u64,
    /// It has been welcomed once and has a ticket.
    proven: bool,
    pub(crate) wire: Option<WireId>,
    pub(crate) welcomed: bool,
    pub(crate) assignment: Option<Assignment>,
    /// Where its data comes from.
    flowing: BTreeMap<TrackName, Source>,
}

/// Everybody.
pub(crate) struct Audience {
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    nodes: Vec<NodeId>,
    channels: Vec<ChannelId>,
    most: usize,
    last: u64,
    dice: Dice,
    /// Nobody comes, goes or plays tricks any more.
    pub(crate) calm: bool,
}

impl Audience {
    pub(crate) fn new(
        nodes: Vec<NodeId>,
        channels: Vec<ChannelId>,
        most: usize,
        dice: Dice,
    ) -> Self {
        Self {
            peers: BTreeMap::new(),
            nodes,
            channels,
            most,
            last: 0,
            dice,
            calm: false,
        }
    }

    /// Somebody new comes, if there is room; and the next one will.
    pub(crate) fn arrive(&mut self, context: &mut Context) {
        if self.calm {
            return;
        }
        let wait = self.dice.millis(5, 400);
        context.after(wait, Event::Arrival);
        if self.peers.len() < self.most {
            self.join(context);
        }
    }

    fn join(&mut self, context: &mut Context) {
        let Some(channel) = self.dice.pick(&self.channels).cloned() else {
            return;
        };
        self.last += 1;
        // Ids of a few low digits, in an order that is not that of the arrivals.
        let id = PeerId(self.dice.below(1 << 16) << 16 | self.last);
        let role = match self.dice.below(10) {
            0 | 1 => PeerRole::Consumer,
            2 => PeerRole::Relay,
            _ => PeerRole::Contributor,
        };
        let upload_bps = match role {
            PeerRole::Consumer => 0,
            PeerRole::Relay | PeerRole::Contributor => self.dice.below(9) * 1_000_000,
        };
        let wanted = self.wish(context, &channel);
        let peer = Peer {
            channel,
            role,
            upload_bps,
            wanted,
            attempt: 0,
            proven: false,
            wire: None,
            welcomed: false,
            assignment: None,
            flowing: BTreeMap::new(),
        };
        self.peers.insert(id, peer);
        self.attach(id, context);
        let wait = self.dice.millis(100, 2_000);
        context.after(wait, Event::Peer(id));
    }

    fn wish(&mut self, context: &Context, channel: &ChannelId) -> Vec<TrackName> {
        let tracks = context.tracks.get(channel).into_iter().flatten();
        let dice = &mut self.dice;
        let wanted = tracks.filter(|_| dice.chance(300));
        wanted.map(|track| track.name.clone()).collect()
    }

    /// Opens a session at some node, with all that the peer has.
    pub(crate) fn attach(&mut self, id: PeerId, context: &mut Context) {
        let Some(node) = self.dice.pick(&self.nodes).copied() else {
            return;
        };
        let children = |track: &TrackName| -> Vec<PeerId> {
            let fed = |peer: &Peer| peer.flowing.get(track) == Some(&Source::Peer(id));
            let fed = self.peers.iter().filter(|(_, peer)| fed(peer));
            fed.map(|(id, _)| *id).collect()
        };
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.wire.is_none()) else {
            return;
        };
        let told = peer.assignment.iter().flat_map(|told| &told.tracks);
        let standby: BTreeMap<_, _> = told.map(|track| (&track.track, track.standby)).collect();
        let held = peer.flowing.iter().map(|(track, source)| HeldEdge {
            track: track.clone(),
            stripe: 0,
            source: *source,
            standby: standby.get(track).copied().flatten(),
            children: children(track),
        });
        let opened = SessionOpened {
            peer: id,
            attachment: peer.attempt + 1,
            role: peer.role,
            upload_bps: peer.upload_bps,
            profile: espalier_orchestrator_core::PeerProfile::default(),
            tracks: peer.wanted.clone(),
            held: held.collect(),
            generation: peer.assignment.as_ref().map(|told| told.generation),
        };
        let (channel, proven) = (peer.channel.clone(), peer.proven);
        let wire = context.dial(End::Peer(id), node);
        context.audit.note(id.0 ^ node << 40, || {
            format!("{id} opens a session at node {node}")
        });
        let open = Up::Open {
            channel,
            opened,
            proven,
        };
        context.send(wire, Side::Caller, Payload::Up(open));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.attempt += 1;
            peer.wire = Some(wire);
            peer.welcomed = false;
        }
    }

    /// Something comes over the peer's connection.
    pub(crate) fn hear(
        &mut self,
        id: PeerId,
        wire: WireId,
        payload: Payload,
        context: &mut Context,
    ) {
        let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.wire == Some(wire))
        else {
            return context.close(wire, Side::Caller);
        };
        match payload {
            Payload::Down(Down::Welcome) => (peer.welcomed, peer.proven) = (true, true),
            Payload::Down(Down::Assign(assignment)) => self.assign(id, assignment, context),
            Payload::Down(Down::Taken) => {
                // Somebody has its id: it comes as somebody else.
                context.close(wire, Side::Caller);
                self.peers.remove(&id);
                self.join(context);
            }
            Payload::Closed => {
                peer.wire = None;
                context.close(wire, Side::Caller);
                let wait = self.dice.millis(5, 500);
                context.after(wait, Event::Attach(id));
            }
            other @ (Payload::ToOwner(_) | Payload::ToGateway(_) | Payload::Up(_)) => {
                let detail = format!("{id} was sent {other:?}");
                context
                    .audit
                    .violated("connections carry what they are for", detail);
            }
        }
    }

    fn assign(&mut self, id: PeerId, assignment: Assignment, context: &mut Context) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let generation = assignment.generation;
        if let Some(known) = &peer.assignment
            && known.generation.incarnation == generation.incarnation
        {
            if known.generation > generation {
                return;
            }
            let same = content_digest(known) == content_digest(&assignment);
            if known.generation == generation && !same {
                let detail = format!("{id} got two assignments under {generation}");
                context
                    .audit
                    .violated("one assignment a generation", detail);
            }
        }
        peer.assignment = Some(assignment);
        self.say(id, Said::Acknowledged(generation), context);
        let wait = self.dice.millis(10, 400);
        context.after(wait, Event::Flow(id));
    }

    fn say(&self, id: PeerId, said: Said, context: &mut Context) {
        let peer = self.peers.get(&id);
        if let Some(wire) = peer.filter(|peer| peer.welcomed).and_then(|peer| peer.wire) {
            context.send(wire, Side::Caller, Payload::Up(Up::Say(said)));
        }
    }

    /// Data comes from where the peer was told to take it, if that is there; else from its standby.
    pub(crate) fn flow(&mut self, id: PeerId, context: &mut Context) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let Some(told) = &peer.assignment else { return };
        let there = |source: Source| match source {
            Source::Cdn => true,
            Source::Peer(of) => self.peers.contains_key(&of),
        };
        let mut flowing = BTreeMap::new();
        let mut dead = BTreeSet::new();
        for track in &told.tracks {
            let mut from = track.source;
            if let (false, Source::Peer(gone)) = (there(from), from) {
                dead.insert(gone);
                from = track
                    .standby
                    .filter(|standby| there(*standby))
                    .unwrap_or(Source::Cdn);
            }
            flowing.insert(track.track.clone(), from);
        }
        let news: Vec<_> = flowing
            .iter()
            .filter(|(track, source)| peer.flowing.get(*track) != Some(source))
            .map(|(track, source)| (track.clone(), *source))
            .collect();
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.flowing = flowing;
        }
        for neighbour in dead {
            self.say_link(id, neighbour, LinkState::Dead, context);
        }
        for (track, source) in news {
            self.say_source(id, track, source, SourceState::Flowing, context);
        }
    }

    fn say_link(&self, peer: PeerId, neighbour: PeerId, state: LinkState, context: &mut Context) {
        let report = LinkReport {
            peer,
            neighbour,
            state,
        };
        self.say(peer, Said::Link(report), context);
    }

    fn say_source(
        &self,
        peer: PeerId,
        track: TrackName,
        source: Source,
        state: SourceState,
        context: &mut Context,
    ) {
        let told = self
            .peers
            .get(&peer)
            .and_then(|peer| peer.assignment.as_ref());
        let generation = told.map(|told| told.generation);
        let report = SourceReport {
            peer,
            track,
            stripe: 0,
            source,
            state,
            generation,
        };
        self.say(peer, Said::Source(report), context);
    }

    /// A peer does something of its own.
    pub(crate) fn turn(&mut self, id: PeerId, context: &mut Context) {
        if !self.peers.contains_key(&id) {
            return;
        }
        let wait = self.dice.millis(150, 2_500);
        context.after(wait, Event::Peer(id));
        self.flow(id, context);
        if self.calm {
            return;
        }
        let neighbour = self.neighbour(id);
        match self.dice.below(100) {
            0..=24 => self.report(id, context),
            25..=34 => {
                if let Some(neighbour) = neighbour {
                    self.say_link(id, neighbour, LinkState::Up, context);
                }
            }
            35..=44 => self.falter(id, context),
            45..=47 => {
                if let Some(neighbour) = neighbour {
                    let states = [
                        LinkState::Late,
                        LinkState::Failed,
                        LinkState::Dead,
                        LinkState::Corrupt,
                        LinkState::Closed,
                    ];
                    let state = self.dice.pick(&states).copied().unwrap_or(LinkState::Up);
                    self.say_link(id, neighbour, state, context);
                }
            }
            48..=57 => self.drop_session(id, context),
            58..=61 => self.change_wishes(id, context),
            62..=65 => self.leave(id, context),
            66..=68 => self.die(id, context),
            69..=70 => self.start_anew(id, context),
            _ => {}
        }
    }

    fn neighbour(&mut self, id: PeerId) -> Option<PeerId> {
        let told = self.peers.get(&id)?.assignment.as_ref()?;
        let sources = told.tracks.iter().filter_map(|track| match track.source {
            Source::Peer(peer) => Some(peer),
            Source::Cdn => None,
        });
        let children = told.children.iter().map(|child| child.peer);
        let neighbours: Vec<_> = sources.chain(children).collect();
        self.dice.pick(&neighbours).copied()
    }

    fn report(&mut self, id: PeerId, context: &mut Context) {
        let report = PeerReport {
            bytes_from_cdn: self.dice.below(1 << 20),
            bytes_from_peers: self.dice.below(1 << 20),
            ..PeerReport::default()
        };
        if let Some(peer) = self.peers.get(&id)
            && let Some(wire) = peer.wire.filter(|_| peer.welcomed)
        {
            context.send(wire, Side::Caller, Payload::Up(Up::Report(report)));
        }
    }

    /// A source fails, or the peer goes to its standby, or no statements come.
    fn falter(&mut self, id: PeerId, context: &mut Context) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let told = peer.assignment.iter().flat_map(|told| told.tracks.clone());
        let told: Vec<_> = told.collect();
        let Some(track) = self.dice.pick(&told).cloned() else {
            return;
        };
        let (source, state) = match self.dice.below(3) {
            0 => (track.source, SourceState::Repairing),
            1 => (track.source, SourceState::Bypass),
            _ => (track.standby.unwrap_or(Source::Cdn), SourceState::Flowing),
        };
        if state == SourceState::Flowing
            && let Some(peer) = self.peers.get_mut(&id)
        {
            peer.flowing.insert(track.track.clone(), source);
        }
        self.say_source(id, track.track, source, state, context);
    }

    fn drop_session(&mut self, id: PeerId, context: &mut Context) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(wire) = peer.wire.take() {
            context.close(wire, Side::Caller);
            let wait = self.dice.millis(0, 1_500);
            context.after(wait, Event::Attach(id));
        }
    }

    fn change_wishes(&mut self, id: PeerId, context: &mut Context) {
        let Some(channel) = self.peers.get(&id).map(|peer| peer.channel.clone()) else {
            return;
        };
        let wanted = self.wish(context, &channel);
        if let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.welcomed) {
            peer.wanted.clone_from(&wanted);
            self.say(id, Said::WantTracks(wanted), context);
        }
    }

    fn leave(&mut self, id: PeerId, context: &mut Context) {
        if let Some(peer) = self.peers.remove(&id)
            && let Some(wire) = peer.wire
        {
            context.audit.note(id.0, || format!("{id} leaves"));
            context.send(wire, Side::Caller, Payload::Up(Up::Leave));
        }
    }

    /// The peer's process is killed.
    fn die(&mut self, id: PeerId, context: &mut Context) {
        if let Some(peer) = self.peers.remove(&id)
            && let Some(wire) = peer.wire
        {
            context.audit.note(id.0 << 1, || format!("{id} dies"));
            context.close(wire, Side::Caller);
        }
    }

    /// The peer's process is started anew, with its ticket and nothing else.
    fn start_anew(&mut self, id: PeerId, context: &mut Context) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        (peer.assignment, peer.flowing) = (None, BTreeMap::new());
        if let Some(wire) = peer.wire.take() {
            context.close(wire, Side::Caller);
        }
        self.attach(id, context);
    }
}
