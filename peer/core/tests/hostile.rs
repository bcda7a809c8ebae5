//! One engine among hostile or broken neighbours, and the orchestrator's word.

use std::time::Duration;

use bytes::Bytes;
use espalier_media::{
    ChunkIndex, Descriptor, MasterHeader, ObjectHasher, ObjectKey, SignedStatement, Statement,
    StatementKey, Track, TrackHeader, TrackIndex, TrackKind, TrustedKeys,
};
use espalier_peer_core::frame::{DataHeader, Frame, Hello, StatementPart};
use espalier_peer_core::{
    Assignment, ChildAssignment, Command, EngineConfig, Event, Generation, LinkSide, LinkState,
    PeerId, Publication, RelayEngine, Source, TrackAssignment, TrackName, Welcome,
};
use proptest::prelude::*;

const ME: PeerId = PeerId(5);
const PARENT: PeerId = PeerId(3);
const CHILD: PeerId = PeerId(9);
const MS: Duration = Duration::from_millis(1);
const TRACK: TrackIndex = TrackIndex(0);

fn key() -> StatementKey {
    StatementKey::from_seed(&[1; 32])
}

fn keys() -> TrustedKeys {
    TrustedKeys::new([key().public_key()])
}

fn assignment(index: u64, source: Source, children: &[PeerId]) -> Assignment {
    let track = TrackName("main".into());
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
            source: Some(source),
            standby: None,
            make_before_break: false,
        }],
        children: children
            .iter()
            .map(|peer| ChildAssignment {
                track: track.clone(),
                stripe: 0,
                peer: *peer,
                standby: false,
            })
            .collect(),
        cdn_lease: None,
        upload_bps: 20_000_000,
    }
}

struct Peer {
    engine: RelayEngine,
    now: Duration,
}

impl Peer {
    fn new() -> Self {
        let engine = RelayEngine::new(EngineConfig::new(ME, "demo"));
        let mut peer = Self {
            engine,
            now: Duration::ZERO,
        };
        peer.tell(Event::SessionWelcomed(Welcome {
            incarnation: 1,
            keys: keys(),
        }));
        peer
    }

    /// Linked and greeted, below `PARENT` and above `CHILD`.
    fn linked() -> Self {
        let mut peer = Self::new();
        peer.tell(Event::Assignment(assignment(
            1,
            Source::Peer(PARENT),
            &[CHILD],
        )));
        for other in [PARENT, CHILD] {
            peer.tell(Event::LinkUp { peer: other });
            peer.hear(other, &hello(other));
        }
        peer
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        self.now += MS;
        self.engine.handle(event, self.now);
        core::iter::from_fn(|| self.engine.poll_command()).collect()
    }

    fn hear(&mut self, from: PeerId, frame: &Frame) -> Vec<Command> {
        self.tell(Event::Frame {
            peer: from,
            bytes: frame.encode().to_bytes(),
        })
    }
}

fn hello(peer: PeerId) -> Frame {
    Frame::Hello(Hello {
        min_version: 1,
        max_version: 1,
        peer,
        channel: "demo".into(),
    })
}

fn statement(statement: Statement, key: &StatementKey) -> Frame {
    let bytes = SignedStatement::sign(statement, key)
        .expect("valid")
        .encoded()
        .clone();
    let total = u32::try_from(bytes.len()).expect("short");
    Frame::Statement(StatementPart {
        offset: 0,
        total,
        bytes,
    })
}

fn master() -> Statement {
    Statement::Master(MasterHeader {
        revision: 1,
        tracks: vec![Track {
            index: TRACK,
            name: "main".into(),
            uri: "http://cdn/main.m3u8".into(),
            bandwidth_bps: 0,
            kind: TrackKind::Variant,
            group: String::new(),
            plays_with: Vec::new(),
            default_rendition: false,
        }],
        playlist: String::new(),
    })
}

fn header() -> Statement {
    Statement::Track(TrackHeader {
        track: TRACK,
        epoch: 0,
        from_sequence: 0,
        target_duration: Duration::from_secs(2),
        lines: Vec::new(),
        window_segments: 6,
        end_sequence: None,
    })
}

fn descriptor(sequence: u64, body: &[u8]) -> Statement {
    let mut hasher = ObjectHasher::new();
    hasher.push(body).expect("short");
    let hashed = hasher.finish();
    Statement::Object(Descriptor {
        key: ObjectKey::segment(TRACK, 0, sequence),
        length: hashed.length,
        chunk_hashes: hashed.chunk_hashes,
        duration: Duration::from_secs(2),
        program_date_time_ms: None,
        lines: vec!["#EXTINF:2,".into()],
        key_lines: Vec::new(),
        init_sequence: None,
        discontinuity_sequence: 0,
        uri: format!("http://cdn/{sequence}.ts"),
        byte_range: None,
    })
}

fn data(sequence: u64, chunk: u32, offset: u32, bytes: &'static [u8]) -> Frame {
    let object = ObjectKey::segment(TRACK, 0, sequence);
    let header = DataHeader {
        object,
        chunk: ChunkIndex(chunk),
        offset,
        stripe: 0,
    };
    Frame::Data(header, Bytes::from_static(bytes))
}

fn ended(commands: &[Command], peer: PeerId) -> Option<LinkState> {
    let closed = commands
        .iter()
        .any(|c| matches!(c, Command::Disconnect { peer: p } if *p == peer));
    commands.iter().find_map(|command| {
        if let Command::ReportLink { peer: p, state, .. } = command
            && *p == peer
            && closed
        {
            return Some(*state);
        }
        None
    })
}

fn published(commands: &[Command]) -> usize {
    let chunk = |c: &&Command| matches!(c, Command::Publish(Publication::Chunk { .. }));
    commands.iter().filter(chunk).count()
}

#[test]
fn what_ends_a_link_and_how_it_is_reported() {
    let other_key = StatementKey::from_seed(&[2; 32]);
    let mut forged = statement(header(), &key());
    if let Frame::Statement(part) = &mut forged {
        let mut bytes = part.bytes.to_vec();
        // A bit of the payload, near its end, within the target duration.
        bytes[6] ^= 1;
        part.bytes = bytes.into();
    }
    let named = |peer, channel: &str| {
        Frame::Hello(Hello {
            min_version: 1,
            max_version: 1,
            peer,
            channel: channel.into(),
        })
    };
    let cases: Vec<(&str, Vec<Frame>, Option<LinkState>)> = vec![
        (
            "a second Hello",
            vec![hello(PARENT)],
            Some(LinkState::Invalid),
        ),
        (
            "a statement with a changed byte",
            vec![forged],
            Some(LinkState::Corrupt),
        ),
        (
            "a statement with an unknown key",
            vec![statement(header(), &other_key)],
            None,
        ),
        (
            "good statements",
            vec![statement(master(), &key()), statement(header(), &key())],
            None,
        ),
        (
            "a wrong chunk",
            vec![
                statement(master(), &key()),
                statement(descriptor(1, b"right"), &key()),
                data(1, 0, 0, b"wrong"),
            ],
            Some(LinkState::Corrupt),
        ),
        (
            "a chunk that is not there",
            vec![
                statement(master(), &key()),
                statement(descriptor(1, b"right"), &key()),
                data(1, 1, 0, b"right"),
            ],
            Some(LinkState::Invalid),
        ),
        (
            "a fragment beyond its chunk",
            vec![
                statement(master(), &key()),
                statement(descriptor(1, b"right"), &key()),
                data(1, 0, 1, b"right"),
            ],
            Some(LinkState::Invalid),
        ),
        (
            "data about nothing known",
            vec![data(1, 0, 0, b"right")],
            None,
        ),
        (
            "half a statement, then another half",
            vec![
                Frame::Statement(StatementPart {
                    offset: 0,
                    total: 9,
                    bytes: Bytes::from_static(b"abc"),
                }),
                Frame::Statement(StatementPart {
                    offset: 5,
                    total: 9,
                    bytes: Bytes::from_static(b"fghi"),
                }),
            ],
            Some(LinkState::Invalid),
        ),
        (
            "a Bye",
            vec![Frame::Bye {
                reason: "enough".into(),
            }],
            Some(LinkState::Closed),
        ),
    ];
    for (name, frames, expected) in cases {
        let mut peer = Peer::linked();
        let commands: Vec<Command> = frames.iter().flat_map(|f| peer.hear(PARENT, f)).collect();
        assert_eq!(ended(&commands, PARENT), expected, "{name}");
        assert_eq!(published(&commands), 0, "{name}");
    }
    for (name, first) in [
        ("another peer", named(CHILD, "demo")),
        ("another channel", named(PARENT, "other")),
        (
            "no version in common",
            Frame::Hello(Hello {
                min_version: 2,
                max_version: 3,
                peer: PARENT,
                channel: "demo".into(),
            }),
        ),
        (
            "no Hello",
            Frame::Unsubscribe {
                track: TRACK,
                stripe: 0,
            },
        ),
    ] {
        let mut peer = Peer::new();
        peer.tell(Event::Assignment(assignment(1, Source::Peer(PARENT), &[])));
        peer.tell(Event::LinkUp { peer: PARENT });
        let commands = peer.hear(PARENT, &first);
        assert_eq!(ended(&commands, PARENT), Some(LinkState::Invalid), "{name}");
    }
}

#[test]
fn who_sent_something_false_is_not_linked_to_again_though_assigned() {
    let mut peer = Peer::linked();
    peer.hear(PARENT, &statement(master(), &key()));
    peer.hear(PARENT, &statement(descriptor(1, b"right"), &key()));
    let commands = peer.hear(PARENT, &data(1, 0, 0, b"wrong"));
    assert_eq!(ended(&commands, PARENT), Some(LinkState::Corrupt));
    let again = peer.tell(Event::Assignment(assignment(
        2,
        Source::Peer(PARENT),
        &[CHILD],
    )));
    let connects = |c: &Command| matches!(c, Command::Connect { peer, .. } if *peer == PARENT);
    assert!(!again.iter().any(connects));
    peer.now += Duration::from_secs(61);
    assert!(
        peer.tell(Event::Timeout).iter().any(connects),
        "a minute later it may try again"
    );
}

#[test]
fn a_verified_chunk_is_published_and_passed_on_at_once() {
    let mut peer = Peer::linked();
    for said in [master(), header(), descriptor(1, b"right")] {
        peer.hear(PARENT, &statement(said, &key()));
    }
    let subscribe = espalier_peer_core::frame::Subscribe {
        track: TRACK,
        stripe: 0,
        stripes: 1,
        cursor: None,
    };
    peer.hear(CHILD, &Frame::Subscribe(subscribe));
    let half = peer.hear(PARENT, &data(1, 0, 0, b"ri"));
    assert_eq!(published(&half), 0);
    let commands = peer.hear(PARENT, &data(1, 0, 2, b"ght"));
    assert_eq!(published(&commands), 1);
    let passed_on = commands.iter().any(|command| {
        if let Command::SendFrame { peer, frame } = command {
            *peer == CHILD && frame.payload()[..] == *b"right"
        } else {
            false
        }
    });
    assert!(passed_on, "{commands:?}");
}

#[test]
fn a_master_header_that_comes_before_a_neighbours_hello_is_passed_on() {
    let mut peer = Peer::new();
    peer.tell(Event::Assignment(assignment(
        1,
        Source::Peer(PARENT),
        &[CHILD],
    )));
    for other in [PARENT, CHILD] {
        peer.tell(Event::LinkUp { peer: other });
    }
    peer.hear(PARENT, &hello(PARENT));
    let master = statement(master(), &key());
    let commands = peer.hear(PARENT, &master);
    let to_child = |c: &Command| matches!(c, Command::SendFrame { peer, .. } if *peer == CHILD);
    assert_eq!(commands.iter().filter(|c| to_child(c)).count(), 1);
}

#[test]
fn a_link_whose_hello_was_lost_is_made_anew_though_it_lives() {
    let mut peer = Peer::new();
    peer.tell(Event::Assignment(assignment(1, Source::Peer(PARENT), &[])));
    peer.tell(Event::LinkUp { peer: PARENT });
    let mut commands = Vec::new();
    for nonce in 0..12_u8 {
        peer.now += 250 * MS;
        let mut ping = vec![1; 9];
        ping[0] = 0x10;
        ping[8] = nonce;
        commands.extend(peer.tell(Event::Ping {
            peer: PARENT,
            bytes: ping.into(),
        }));
        commands.extend(peer.tell(Event::Timeout));
    }
    assert_eq!(ended(&commands, PARENT), Some(LinkState::Dead));
    peer.now += 2_000 * MS;
    let again = peer.tell(Event::Timeout);
    let connects = |c: &Command| matches!(c, Command::Connect { peer, .. } if *peer == PARENT);
    assert!(commands.iter().chain(&again).any(connects));
}

#[test]
fn what_a_child_acknowledges_is_life_but_not_what_a_source_does() {
    let mut peer = Peer::linked();
    let mut commands = Vec::new();
    for round in 0..60_u64 {
        peer.now += 100 * MS;
        for other in [PARENT, CHILD] {
            let bytes = 1_000_000 - round * 1_000;
            commands.extend(peer.tell(Event::Buffered { peer: other, bytes }));
        }
        commands.extend(peer.tell(Event::Timeout));
    }
    assert_eq!(ended(&commands, PARENT), Some(LinkState::Dead));
    assert_eq!(ended(&commands, CHILD), None);
    let pings = |to: PeerId| {
        let is_ping = |c: &&Command| matches!(c, Command::SendPing { peer, .. } if *peer == to);
        commands.iter().filter(is_ping).count()
    };
    assert!(
        pings(PARENT) >= 12,
        "{} pings to a silent source",
        pings(PARENT)
    );
    assert!(
        pings(CHILD) <= 2,
        "{} pings to a child that lives",
        pings(CHILD)
    );
}

#[test]
fn a_fast_uplink_serves_all_children_without_waiting_for_a_timer() {
    static CHUNK: [u8; 61_440] = [7; 61_440];
    let children: Vec<PeerId> = (20..28).map(PeerId).collect();
    for (upload_bps, at_once) in [(1_000_000_000, 8), (20_000_000, 1)] {
        let mut peer = Peer::new();
        let assigned = assignment(1, Source::Peer(PARENT), &children);
        peer.tell(Event::Assignment(Assignment {
            upload_bps,
            ..assigned
        }));
        for &other in [PARENT].iter().chain(&children) {
            peer.tell(Event::LinkUp { peer: other });
            peer.hear(other, &hello(other));
        }
        for said in [master(), header(), descriptor(1, &CHUNK)] {
            peer.hear(PARENT, &statement(said, &key()));
        }
        for &child in &children {
            let subscribe = espalier_peer_core::frame::Subscribe {
                track: TRACK,
                stripe: 0,
                stripes: 1,
                cursor: None,
            };
            peer.hear(child, &Frame::Subscribe(subscribe));
        }
        peer.now += 1_000 * MS;
        let commands = peer.hear(PARENT, &data(1, 0, 0, &CHUNK));
        let chunk = |c: &&Command| matches!(c, Command::SendFrame { frame, .. } if frame.payload()[..] == CHUNK);
        assert_eq!(
            commands.iter().filter(chunk).count(),
            at_once,
            "{upload_bps}"
        );
    }
}

#[test]
fn nobody_but_a_child_is_served() {
    let mut peer = Peer::linked();
    for said in [master(), header(), descriptor(1, b"right")] {
        peer.hear(PARENT, &statement(said, &key()));
    }
    let subscribe = espalier_peer_core::frame::Subscribe {
        track: TRACK,
        stripe: 0,
        stripes: 1,
        cursor: None,
    };
    peer.hear(PARENT, &Frame::Subscribe(subscribe));
    let commands = peer.hear(PARENT, &data(1, 0, 0, b"right"));
    let payload = |c: &Command| matches!(c, Command::SendFrame { frame, .. } if frame.payload()[..] == *b"right");
    assert!(!commands.iter().any(payload));
}

#[test]
fn only_newer_assignments_of_the_sessions_incarnation_count() {
    let acknowledged = |commands: &[Command]| {
        commands.iter().find_map(|command| {
            if let Command::Acknowledge { generation } = command {
                return Some(generation.index);
            }
            None
        })
    };
    let mut peer = Peer::new();
    let said = |peer: &mut Peer, incarnation, index| {
        let mut assignment = assignment(index, Source::Cdn, &[]);
        assignment.generation.incarnation = incarnation;
        acknowledged(&peer.tell(Event::Assignment(assignment)))
    };
    assert_eq!(said(&mut peer, 1, 5), Some(5));
    assert_eq!(said(&mut peer, 1, 4), None, "older");
    assert_eq!(said(&mut peer, 1, 5), Some(5), "told again");
    assert_eq!(
        said(&mut peer, 2, 9),
        None,
        "of an incarnation that no session introduced"
    );
    peer.tell(Event::SessionWelcomed(Welcome {
        incarnation: 2,
        keys: keys(),
    }));
    assert_eq!(said(&mut peer, 1, 99), None, "of the incarnation before");
    assert_eq!(said(&mut peer, 2, 1), Some(1));
    assert_eq!(
        peer.engine.held().generation,
        Generation {
            incarnation: 2,
            term: 1,
            index: 1
        }
    );
}

#[test]
fn the_child_offers_and_in_doubt_the_lower_id() {
    let sides = |commands: Vec<Command>| -> Vec<(PeerId, LinkSide)> {
        let connect = |command: &Command| {
            if let Command::Connect { peer, side } = command {
                return Some((*peer, *side));
            }
            None
        };
        commands.iter().filter_map(connect).collect()
    };
    let connects = |source: PeerId, children: &[PeerId]| {
        let mut peer = Peer::new();
        sides(peer.tell(Event::Assignment(assignment(
            1,
            Source::Peer(source),
            children,
        ))))
    };
    assert_eq!(
        connects(PARENT, &[CHILD]),
        [(PARENT, LinkSide::Offer), (CHILD, LinkSide::Await)]
    );
    assert_eq!(connects(PARENT, &[PARENT]), [(PARENT, LinkSide::Await)]);
    assert_eq!(connects(CHILD, &[CHILD]), [(CHILD, LinkSide::Offer)]);
    assert_eq!(connects(ME, &[ME]), [], "never to itself");
}

fn mangled() -> impl Strategy<Value = Bytes> {
    let frames: Vec<Bytes> = [
        hello(PARENT),
        statement(master(), &key()),
        statement(header(), &key()),
        statement(descriptor(1, b"right"), &key()),
        statement(descriptor(2, b"other"), &key()),
        data(1, 0, 0, b"right"),
        data(2, 0, 0, b"ot"),
        data(2, 0, 2, b"her"),
        Frame::Subscribe(espalier_peer_core::frame::Subscribe {
            track: TRACK,
            stripe: 0,
            stripes: 2,
            cursor: None,
        }),
        Frame::Cancel {
            object: ObjectKey::segment(TRACK, 0, 2),
            first: ChunkIndex(0),
            count: 0,
        },
        Frame::Request {
            object: ObjectKey::segment(TRACK, 0, 1),
            ranges: vec![espalier_peer_core::frame::ChunkRun {
                first: ChunkIndex(0),
                count: 1_093,
            }],
        },
        Frame::Unavailable {
            object: ObjectKey::segment(TRACK, 0, 2),
        },
        Frame::Upstream {
            track: TRACK,
            stripe: 0,
            repairing: true,
            expected_ms: u32::MAX,
        },
    ]
    .iter()
    .map(|frame| frame.encode().to_bytes())
    .collect();
    let chosen = prop::sample::select(frames);
    (
        chosen,
        prop::option::weighted(0.15, (any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(frame, change)| match change {
            None => frame,
            Some((at, byte)) => {
                let mut bytes = frame.to_vec();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                bytes.into()
            }
        })
}

proptest! {
    #[test]
    fn no_order_of_frames_panics_or_publishes_what_was_not_signed(
        frames in prop::collection::vec((any::<bool>(), mangled(), 0_u32..400), 1..60),
    ) {
        let mut peer = Peer::linked();
        for (from_parent, bytes, pause) in frames {
            let from = if from_parent { PARENT } else { CHILD };
            let mut commands = peer.tell(Event::Frame { peer: from, bytes });
            peer.now += MS * pause;
            commands.extend(peer.tell(Event::Timeout));
            for command in commands {
                if let Command::Publish(Publication::Chunk { bytes, .. }) = &command {
                    prop_assert!(bytes[..] == *b"right" || bytes[..] == *b"other");
                }
                // As the transport would: a link that was closed comes up again.
                if let Command::Connect { peer: other, .. } = command {
                    peer.tell(Event::LinkUp { peer: other });
                    peer.hear(other, &hello(other));
                }
            }
            let timeout = peer.engine.poll_timeout();
            prop_assert!(timeout.is_none_or(|at| at >= peer.now), "it would spin");
        }
    }
}
