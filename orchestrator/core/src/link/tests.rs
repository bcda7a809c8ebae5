//! Many gateways, one owner, and a network that breaks: the owner ends up knowing who is where.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not expected here fails the test, whatever it is called"
)]

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::commands::{Assignment, CdnLease, ChildAssignment, TrackAssignment};
use crate::events::{
    ChannelEvent, LinkReport, LinkState, PeerReport, PeerRole, SessionOpened, SourceReport,
    SourceState,
};
use crate::ids::{ChannelId, Generation, NodeId, PeerId, Source};
use crate::sessions::SessionTable;

fn news() -> ChannelId {
    "news".parse().unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn opened(peer: u64, attachment: u64) -> SessionOpened {
    SessionOpened {
        peer: PeerId(peer),
        attachment,
        role: PeerRole::Contributor,
        upload_bps: 1,
        profile: crate::PeerProfile::default(),
        tracks: Vec::new(),
        held: Vec::new(),
        generation: None,
    }
}

fn attached(peer: u64, attachment: u64, proven: bool) -> Change {
    Change::Attached(Attached {
        session: opened(peer, attachment),
        proven,
        asked: false,
    })
}

fn key(gateway: u64, stream: u64) -> StreamKey {
    StreamKey {
        gateway: NodeId(gateway),
        stream,
    }
}

fn assignment(source: Source, children: &[u64], index: u64) -> Assignment {
    let track: crate::ids::TrackName = "v0".parse().unwrap();
    let child = |peer: &u64| ChildAssignment {
        track: track.clone(),
        stripe: 0,
        peer: PeerId(*peer),
        standby: false,
    };
    Assignment {
        generation: Generation {
            incarnation: 1,
            term: 1,
            index,
        },
        tracks: vec![TrackAssignment {
            track: track.clone(),
            stripe: 0,
            stripes: 1,
            source,
            standby: None,
            make_before_break: false,
        }],
        children: children.iter().map(child).collect(),
        cdn_lease: CdnLease {
            rate_bps: 1,
            burst_bytes: 1,
            lifetime: at(1),
        },
        upload_bps: 1,
    }
}

fn events(seats: &mut Seats) -> (Vec<ChannelEvent>, Vec<(u64, ToGateway)>) {
    let (mut told, mut sent) = (Vec::new(), Vec::new());
    while let Some(command) = seats.poll_command() {
        match command {
            SeatCommand::Tell(event) => told.push(event),
            SeatCommand::Send(gateway, message) => sent.push((gateway.0, message)),
        }
    }
    (told, sent)
}

// ---- the owner's table -------------------------------------------------------------------------

#[test]
fn a_late_end_at_an_old_gateway_removes_nobody() {
    let mut seats = Seats::new(news(), [], at(0));
    seats.change(key(1, 1), attached(7, 1, false));
    seats.change(key(2, 2), attached(7, 2, true));
    let (told, sent) = events(&mut seats);
    assert_eq!(told.len(), 2);
    let ended = |(gateway, message): &(u64, ToGateway)| {
        *gateway == 1 && matches!(message, ToGateway::Superseded { by: 2, .. })
    };
    assert!(sent.iter().any(ended), "the old session is ended: {sent:?}");
    let (peer, attachment) = (PeerId(7), 1);
    seats.change(key(1, 1), Change::Detached { peer, attachment });
    seats.change(key(1, 1), Change::Left { peer, attachment });
    assert_eq!(events(&mut seats), (vec![], vec![]));
    assert_eq!(seats.gateway_of(peer), Some(NodeId(2)));
    let said = Said::WantTracks(Vec::new());
    seats.change(
        key(1, 1),
        Change::Said {
            peer,
            attachment,
            said,
        },
    );
    assert_eq!(events(&mut seats), (vec![], vec![]), "nor is it heard");
    seats.change(key(3, 3), attached(7, 1, true));
    let (told, sent) = events(&mut seats);
    assert_eq!(told, []);
    assert!(matches!(
        sent[..],
        [(3, ToGateway::Superseded { by: 2, .. })]
    ));
}

#[test]
fn an_id_is_taken_over_only_by_whoever_shows_that_it_is_its_own() {
    for (proven, asked, known, here, admitted) in [
        (false, false, false, false, true),
        (false, false, true, false, false),
        (false, false, true, true, false),
        (true, false, true, true, true),
        (false, true, true, false, true),
        (false, true, true, true, false),
    ] {
        let mut seats = Seats::new(news(), known.then_some(PeerId(7)), at(0));
        if here {
            seats.change(key(1, 1), attached(7, 1, true));
        }
        events(&mut seats);
        let session = opened(7, 2);
        let change = Change::Attached(Attached {
            session,
            proven,
            asked,
        });
        seats.change(key(2, 2), change.clone());
        let (told, sent) = events(&mut seats);
        let case = (proven, asked, known, here);
        assert_eq!(told.len(), usize::from(admitted), "{case:?}");
        let was =
            |message: &ToGateway| matches!(message, ToGateway::Admitted { attachment: 2, .. });
        assert_eq!(
            sent.iter().any(|(gateway, m)| *gateway == 2 && was(m)),
            admitted,
            "{case:?}"
        );
        seats.change(key(2, 2), change);
        let (_, again) = events(&mut seats);
        assert_eq!(
            again.iter().any(|(_, m)| was(m)),
            admitted,
            "said twice: {case:?}"
        );
    }
}

#[test]
fn sessions_of_a_gateway_that_is_down_are_lost_only_after_a_while() {
    let mut seats = Seats::new(news(), [], at(0));
    for peer in 1..=3 {
        seats.change(key(1, 1), attached(peer, 1, false));
    }
    seats.synced(key(1, 1));
    events(&mut seats);
    seats.stream_lost(key(1, 1), at(5));
    seats.stream_lost(key(1, 1), at(6));
    let silent = |peer| ChannelEvent::SessionSilent { peer: PeerId(peer) };
    assert_eq!(events(&mut seats).0, [1, 2, 3].map(silent), "once");
    assert_eq!(seats.poll_timeout(), Some(at(10)));
    seats.tick(at(10));
    assert_eq!(events(&mut seats).0, [ChannelEvent::AbsenceCounts], "once");
    assert_eq!(seats.poll_timeout(), Some(at(15)));
    seats.tick(at(14));
    seats.change(key(1, 1), attached(9, 1, false));
    assert_eq!(events(&mut seats).0, [], "a stream that ended says nothing");
    seats.change(key(2, 2), attached(1, 2, true));
    seats.change(key(1, 3), attached(2, 1, true));
    assert_eq!(seats.poll_timeout(), None, "the gateway is back");
    assert_eq!(events(&mut seats).0.len(), 2);
    seats.stream_lost(key(1, 1), at(6));
    assert_eq!(seats.poll_timeout(), None, "that was an older stream");
    seats.synced(key(1, 3));
    let lost = |peer| ChannelEvent::SessionLost {
        peer: PeerId(peer),
        attachment: 1,
    };
    assert_eq!(
        events(&mut seats).0,
        [lost(3)],
        "its gateway did not say it"
    );
    seats.stream_lost(key(1, 3), at(20));
    seats.tick(at(30));
    assert_eq!(events(&mut seats).0, [silent(2), lost(2)]);
    assert_eq!(seats.poll_timeout(), None);
}

#[test]
fn gateways_learn_where_neighbours_sit_and_when_they_move() {
    let mut seats = Seats::new(news(), [], at(0));
    seats.change(key(1, 1), attached(1, 1, false));
    seats.change(key(2, 2), attached(2, 1, false));
    events(&mut seats);
    seats.assign(PeerId(1), assignment(Source::Cdn, &[2], 1));
    seats.assign(PeerId(2), assignment(Source::Peer(PeerId(1)), &[], 1));
    let (_, sent) = events(&mut seats);
    let hints: Vec<_> = sent
        .iter()
        .map(|(gateway, message)| match message {
            ToGateway::Assigned { seats, .. } => (
                *gateway,
                seats.iter().map(|s| (s.peer.0, s.gateway.0)).collect(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(hints, [(1, vec![(2, 2)]), (2, vec![(1, 1)])]);
    // It holds what it was assigned and attaches elsewhere.
    let mut session = opened(2, 5);
    session.held = seats.sessions()[1].held.clone();
    seats.change(
        key(3, 3),
        Change::Attached(Attached {
            session,
            proven: true,
            asked: false,
        }),
    );
    let (_, sent) = events(&mut seats);
    let moved = |to: u64, peer: u64, gateway: u64| {
        sent.iter().any(|(at, message)| {
            let expect = [Whereabouts {
                peer: PeerId(peer),
                gateway: NodeId(gateway),
            }];
            *at == to && matches!(message, ToGateway::Seats { seats, .. } if *seats == expect)
        })
    };
    assert!(moved(1, 2, 3), "the neighbour's gateway: {sent:?}");
    assert!(moved(3, 1, 1), "its own: {sent:?}");
}

// ---- the gateway's end -------------------------------------------------------------------------

fn drain(link: &mut GatewayLink, now: Duration) -> Vec<ToOwner> {
    core::iter::from_fn(|| link.poll_transmit(now)).collect()
}

#[test]
fn a_stream_that_opens_says_every_session_and_what_nobody_took_in() {
    let mut link = GatewayLink::new(NodeId(1), 9);
    link.attach(&news(), opened(1, 1), false).unwrap();
    link.attach(&news(), opened(2, 1), false).unwrap();
    assert_eq!(drain(&mut link, at(0)), [], "there is no stream");
    link.stream_opened();
    let said = drain(&mut link, at(0));
    assert!(matches!(
        said[0],
        ToOwner::Open {
            boot: 9,
            opening: 1,
            ..
        }
    ));
    assert!(matches!(said[1], ToOwner::Change { seq: 1, .. }));
    assert!(matches!(said[3], ToOwner::Synced));
    let dead = Said::Link(LinkReport {
        peer: PeerId(1),
        neighbour: PeerId(2),
        state: LinkState::Dead,
    });
    let flowing = Said::Source(SourceReport {
        peer: PeerId(1),
        track: "v0".parse().unwrap(),
        stripe: 0,
        source: Source::Cdn,
        state: SourceState::Flowing,
        generation: None,
    });
    for said in [dead.clone(), flowing.clone()] {
        link.say(&news(), PeerId(1), 1, said).unwrap();
    }
    assert!(link.leave(&news(), PeerId(2), 1));
    assert_eq!(drain(&mut link, at(0)).len(), 3);
    link.receive(ToGateway::Acked { through: 2 });
    link.stream_lost();
    link.stream_opened();
    let again = drain(&mut link, at(0));
    let changes: Vec<_> = again
        .iter()
        .filter_map(|message| match message {
            ToOwner::Change { seq, change, .. } => Some((*seq, change.clone())),
            ToOwner::Open { .. } | ToOwner::Synced | ToOwner::Reports { .. } => None,
        })
        .collect();
    let (peer, attachment) = (PeerId(1), 1);
    let said = |said| Change::Said {
        peer,
        attachment,
        said,
    };
    let generation = Some(Generation::default());
    let session = SessionOpened {
        generation,
        ..opened(1, 1)
    };
    let attached = Change::Attached(Attached {
        session,
        proven: false,
        asked: true,
    });
    let left = Change::Left {
        peer: PeerId(2),
        attachment,
    };
    assert_eq!(
        changes,
        [
            (1, attached),
            (2, said(flowing)),
            (3, said(dead)),
            (4, left)
        ]
    );
    link.receive(ToGateway::Acked { through: 4 });
    link.stream_lost();
    link.stream_opened();
    assert_eq!(
        drain(&mut link, at(0)).len(),
        4,
        "Open, one session, its source, Synced"
    );
}

#[test]
fn a_session_is_taken_over_by_its_own_peer_only_and_only_by_a_newer_attachment() {
    let mut link = GatewayLink::new(NodeId(1), 1);
    link.attach(&news(), opened(1, 5), false).unwrap();
    for (attachment, proven, expect) in [
        (6, false, Err(AttachError::Taken)),
        (4, true, Err(AttachError::Superseded)),
        (6, true, Ok(())),
    ] {
        let result = link.attach(&news(), opened(1, attachment), proven);
        assert_eq!(result, expect);
    }
    assert!(!link.is_current(&news(), PeerId(1), 5));
    assert!(!link.detach(&news(), PeerId(1), 5));
    assert!(
        link.is_current(&news(), PeerId(1), 6),
        "the old one's end is no news"
    );
}

#[test]
fn nothing_waits_without_bound() {
    let mut link = GatewayLink::new(NodeId(1), 1);
    link.attach(&news(), opened(1, 1), false).unwrap();
    let dead = || {
        Said::Link(LinkReport {
            peer: PeerId(1),
            neighbour: PeerId(2),
            state: LinkState::Dead,
        })
    };
    let refused = (0..100_000).find(|_| link.say(&news(), PeerId(1), 1, dead()).is_err());
    assert!(refused.is_some());
    assert_eq!(
        link.attach(&news(), opened(2, 1), false),
        Err(AttachError::Full(LinkFull))
    );
    link.stream_opened();
    let sent = drain(&mut link, at(0)).len();
    assert!(sent < 10_000, "{sent} are on their way");
    link.receive(ToGateway::Acked { through: 4_096 });
    assert!(link.poll_transmit(at(0)).is_some());
    link.attach(&news(), opened(2, 1), false).unwrap();
}

#[test]
fn reports_are_merged_and_sent_once_a_second() {
    let mut link = GatewayLink::new(NodeId(1), 1);
    for peer in 1..=2 {
        link.attach(&news(), opened(peer, 1), false).unwrap();
    }
    link.stream_opened();
    drain(&mut link, at(10));
    let report = |stalls| PeerReport {
        stalls,
        ..PeerReport::default()
    };
    for (peer, stalls) in [(1, 1), (2, 1), (1, 2)] {
        link.report(&news(), PeerId(peer), 1, report(stalls));
    }
    let sent = drain(&mut link, at(10));
    let expect = ToOwner::Reports {
        channel: news(),
        reports: vec![(PeerId(1), report(2)), (PeerId(2), report(1))],
    };
    assert_eq!(sent, [expect]);
    link.report(&news(), PeerId(1), 1, report(3));
    assert_eq!(link.poll_timeout(), Some(at(11)));
    assert_eq!(drain(&mut link, Duration::from_millis(10_999)), []);
    assert_eq!(drain(&mut link, at(11)).len(), 1);
    assert_eq!(link.poll_timeout(), None);
    link.report(&news(), PeerId(1), 7, report(9));
    assert_eq!(link.poll_timeout(), None, "not of its newest session");
}

// ---- both ends and a network that breaks -------------------------------------------------------

const GATEWAYS: u64 = 3;
const PEERS: u64 = 6;

#[derive(Debug, Clone)]
enum Op {
    Attach {
        peer: u64,
        gateway: u64,
    },
    Detach {
        peer: u64,
        gateway: u64,
    },
    Leave {
        peer: u64,
        gateway: u64,
    },
    Assign {
        peer: u64,
    },
    Open {
        gateway: u64,
    },
    Cut {
        gateway: u64,
    },
    /// The gateway's process dies and comes back without sessions.
    Crash {
        gateway: u64,
    },
    /// Another owner takes over; it knows from the records who is in the channel.
    Fail,
    /// Some messages go through, up to the gateways and down.
    Deliver {
        gateway: u64,
        up: usize,
        down: usize,
    },
    Pass {
        seconds: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (gateway, peer) = (0..GATEWAYS, 0..PEERS);
    prop_oneof![
        4 => (peer.clone(), gateway.clone()).prop_map(|(peer, gateway)| Op::Attach { peer, gateway }),
        2 => (peer.clone(), gateway.clone()).prop_map(|(peer, gateway)| Op::Detach { peer, gateway }),
        1 => (peer.clone(), gateway.clone()).prop_map(|(peer, gateway)| Op::Leave { peer, gateway }),
        2 => peer.prop_map(|peer| Op::Assign { peer }),
        3 => gateway.clone().prop_map(|gateway| Op::Open { gateway }),
        2 => gateway.clone().prop_map(|gateway| Op::Cut { gateway }),
        1 => gateway.clone().prop_map(|gateway| Op::Crash { gateway }),
        1 => Just(Op::Fail),
        6 => (gateway, 0..6_usize, 0..6_usize)
            .prop_map(|(gateway, up, down)| Op::Deliver { gateway, up, down }),
        1 => (0..6_u64).prop_map(|seconds| Op::Pass { seconds }),
    ]
}

/// One open stream: what is on its way.
struct Wire {
    key: StreamKey,
    intake: Intake,
    up: VecDeque<ToOwner>,
    down: VecDeque<ToGateway>,
}

struct World {
    now: Duration,
    gateways: Vec<GatewayLink>,
    wires: BTreeMap<u64, Wire>,
    seats: Seats,
    /// What the owner's engine makes of the events.
    table: SessionTable,
    members: BTreeSet<PeerId>,
    /// Of whom the engine was told that nothing reaches them.
    silent: BTreeSet<PeerId>,
    streams: u64,
    attachments: u64,
    generation: u64,
    /// Every session that has not ended: its peer, its attachment, its gateway.
    live: BTreeSet<(PeerId, u64, u64)>,
    /// Each peer's newest attachment, ended or not.
    newest: BTreeMap<PeerId, u64>,
    admitted: BTreeSet<PeerId>,
    assigned: BTreeMap<(PeerId, u64), u64>,
}

impl World {
    fn new() -> Self {
        let gateways = (0..GATEWAYS).map(|id| GatewayLink::new(NodeId(id), 1));
        Self {
            now: Duration::ZERO,
            gateways: gateways.collect(),
            wires: BTreeMap::new(),
            seats: Seats::new(news(), [], at(0)),
            table: SessionTable::default(),
            members: BTreeSet::new(),
            silent: BTreeSet::new(),
            streams: 0,
            attachments: 0,
            generation: 0,
            live: BTreeSet::new(),
            newest: BTreeMap::new(),
            admitted: BTreeSet::new(),
            assigned: BTreeMap::new(),
        }
    }

    fn gateway(&mut self, id: u64) -> &mut GatewayLink {
        &mut self.gateways[usize::try_from(id).unwrap()]
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Attach { peer, gateway } => self.attach(PeerId(peer), gateway),
            Op::Detach { peer, gateway } => {
                let peer = PeerId(peer);
                if let Some(attachment) = self.gateway(gateway).attachment(&news(), peer) {
                    assert!(self.gateway(gateway).detach(&news(), peer, attachment));
                    self.end(peer, gateway, attachment);
                }
            }
            Op::Leave { peer, gateway } => {
                let peer = PeerId(peer);
                if let Some(attachment) = self.gateway(gateway).attachment(&news(), peer) {
                    assert!(self.gateway(gateway).leave(&news(), peer, attachment));
                    self.end(peer, gateway, attachment);
                }
            }
            Op::Assign { peer } => {
                self.generation += 1;
                let assignment = assignment(Source::Cdn, &[], self.generation);
                self.seats.assign(PeerId(peer), assignment);
                self.settle_owner();
            }
            Op::Open { gateway } => self.open(gateway),
            Op::Cut { gateway } => self.cut(gateway),
            Op::Crash { gateway } => {
                let lost: Vec<_> = self
                    .gateway(gateway)
                    .sessions()
                    .map(|s| (s.1, s.2))
                    .collect();
                for (peer, attachment) in lost {
                    self.end(peer, gateway, attachment);
                }
                self.cut(gateway);
                *self.gateway(gateway) = GatewayLink::new(NodeId(gateway), 2);
            }
            Op::Fail => {
                for gateway in 0..GATEWAYS {
                    self.cut(gateway);
                }
                self.seats = Seats::new(news(), self.members.iter().copied(), self.now);
                self.table = SessionTable::default();
                self.silent.clear();
            }
            Op::Deliver { gateway, up, down } => self.deliver(gateway, up, down),
            Op::Pass { seconds } => {
                self.now += at(seconds);
                self.seats.tick(self.now);
                self.settle_owner();
            }
        }
    }

    fn attach(&mut self, peer: PeerId, gateway: u64) {
        self.attachments += 1;
        let attachment = self.attachments;
        let proven = self.admitted.contains(&peer);
        let result = self
            .gateway(gateway)
            .attach(&news(), opened(peer.0, attachment), proven);
        match result {
            Ok(()) => {
                // An older session of the peer at this gateway ends with that.
                self.live
                    .retain(|(of, _, at)| (*of, *at) != (peer, gateway));
                self.live.insert((peer, attachment, gateway));
                self.newest.insert(peer, attachment);
            }
            Err(AttachError::Taken) => assert!(!proven),
            Err(other) => panic!("{other}"),
        }
    }

    fn end(&mut self, peer: PeerId, gateway: u64, attachment: u64) {
        assert!(self.live.remove(&(peer, attachment, gateway)));
    }

    fn open(&mut self, gateway: u64) {
        if self.wires.contains_key(&gateway) {
            return;
        }
        self.gateway(gateway).stream_opened();
        self.streams += 1;
        let wire = Wire {
            key: key(gateway, self.streams),
            intake: Intake::default(),
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        self.wires.insert(gateway, wire);
    }

    fn cut(&mut self, gateway: u64) {
        if let Some(wire) = self.wires.remove(&gateway) {
            self.gateway(gateway).stream_lost();
            self.seats.stream_lost(wire.key, self.now);
            self.settle_owner();
        }
    }

    fn deliver(&mut self, gateway: u64, up: usize, down: usize) {
        let now = self.now;
        let Some(mut wire) = self.wires.remove(&gateway) else {
            return;
        };
        let link = self.gateway(gateway);
        wire.up
            .extend(core::iter::from_fn(|| link.poll_transmit(now)));
        self.wires.insert(gateway, wire);
        for _ in 0..up {
            self.deliver_up(gateway);
        }
        for _ in 0..down {
            let message = self
                .wires
                .get_mut(&gateway)
                .and_then(|wire| wire.down.pop_front());
            if let Some(message) = message {
                self.gateway(gateway).receive(message);
                self.settle_gateway(gateway);
            }
        }
    }

    fn deliver_up(&mut self, gateway: u64) {
        let Some(wire) = self.wires.get_mut(&gateway) else {
            return;
        };
        let Some(message) = wire.up.pop_front() else {
            return;
        };
        match message {
            ToOwner::Open { .. } => {}
            ToOwner::Change { seq, change, .. } => {
                assert!(wire.intake.take(seq).unwrap());
                if wire.intake.owed() >= 3 {
                    let through = wire.intake.acknowledge().unwrap();
                    wire.down.push_back(ToGateway::Acked { through });
                }
                self.seats.change(wire.key, change);
            }
            ToOwner::Synced => self.seats.synced(wire.key),
            ToOwner::Reports { reports, .. } => self.seats.report(wire.key, reports),
        }
        self.settle_owner();
    }

    fn settle_owner(&mut self) {
        let (told, sent) = events(&mut self.seats);
        for (gateway, message) in sent {
            if let Some(wire) = self.wires.get_mut(&gateway) {
                wire.down.push_back(message);
            }
        }
        for event in told {
            match event {
                ChannelEvent::SessionOpened(session) => {
                    assert!(self.table.attach(session.peer, session.attachment));
                    self.members.insert(session.peer);
                    self.silent.remove(&session.peer);
                }
                ChannelEvent::SessionLost { peer, attachment } => {
                    self.table.detach(peer, attachment, self.now);
                    self.silent.remove(&peer);
                }
                ChannelEvent::SessionSilent { peer } => {
                    assert!(self.table.is_attached(peer));
                    self.silent.insert(peer);
                }
                ChannelEvent::AbsenceCounts => {}
                ChannelEvent::Left { peer } => {
                    self.table.remove(peer);
                    self.members.remove(&peer);
                    self.silent.remove(&peer);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn settle_gateway(&mut self, gateway: u64) {
        while let Some(command) = self.gateway(gateway).poll_command() {
            match command {
                GatewayCommand::Admit { peer, .. } => drop(self.admitted.insert(peer)),
                GatewayCommand::Refuse {
                    peer, attachment, ..
                } => self.end(peer, gateway, attachment),
                GatewayCommand::Supersede {
                    peer, attachment, ..
                } => {
                    assert!(
                        attachment < self.newest[&peer],
                        "a newest session was ended"
                    );
                    self.end(peer, gateway, attachment);
                }
                GatewayCommand::Assign {
                    peer,
                    attachment,
                    assignment,
                    ..
                } => {
                    let index = assignment.generation.index;
                    self.assigned.insert((peer, attachment), index);
                }
                GatewayCommand::Locate { .. } => {}
                GatewayCommand::End { .. } => panic!("the channel goes on"),
            }
        }
    }

    /// The network heals and everything that is on its way arrives.
    fn heal(&mut self) {
        for gateway in 0..GATEWAYS {
            self.open(gateway);
        }
        for _ in 0..4 {
            for gateway in 0..GATEWAYS {
                self.deliver(gateway, 1_000, 1_000);
            }
        }
        self.now += at(20);
        self.seats.tick(self.now);
        self.settle_owner();
    }

    fn verify(&mut self) {
        let mut union = BTreeSet::new();
        for gateway in 0..GATEWAYS {
            let sessions = self.gateway(gateway).sessions();
            union.extend(sessions.map(|(_, peer, attachment)| (peer, attachment, gateway)));
        }
        assert_eq!(
            union, self.live,
            "gateways hold other sessions than there are"
        );
        let peers: BTreeSet<_> = self.live.iter().map(|session| session.0).collect();
        assert_eq!(peers.len(), self.live.len(), "a peer has two sessions");
        let seated = self.seats.sessions().into_iter().map(|session| {
            let gateway = self.seats.gateway_of(session.peer).unwrap();
            (session.peer, session.attachment, gateway.0)
        });
        let seated: BTreeSet<_> = seated.collect();
        assert_eq!(
            seated, self.live,
            "the owner knows other sessions than there are"
        );
        assert_eq!(self.silent, BTreeSet::new());
        for peer in (0..PEERS).map(PeerId) {
            let attached = self.table.is_attached(peer);
            assert_eq!(
                attached,
                peers.contains(&peer),
                "{peer}: the engine was told otherwise"
            );
        }
    }

    /// Every session gets what is assigned now.
    fn verify_assignments(&mut self) {
        for peer in 0..PEERS {
            self.run(Op::Assign { peer });
        }
        for gateway in 0..GATEWAYS {
            self.deliver(gateway, 1_000, 1_000);
        }
        for (peer, attachment, _) in &self.live {
            let index = self.generation - PEERS + 1 + peer.0;
            assert_eq!(self.assigned.get(&(*peer, *attachment)), Some(&index));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_owner_comes_to_know_exactly_the_sessions_that_there_are(
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.heal();
        world.verify();
        world.verify_assignments();
    }
}
