//! What a relay's decisions cost: one engine between its parents and its children, without a network.
//!
//! Each chunk arrives as one frame, is verified, stored, published and pushed to every child, and every
//! child acknowledges at once. The time is the engine's alone; its hashing is in it, and is measured apart.
//! Not a test: it measures the machine too.
//!
//! `cargo bench --profile release -p espalier-peer-core --bench relay`

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::expect_used, reason = "what is not expected ends a benchmark")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use espalier_media::{
    CHUNK_SIZE, ChunkIndex, Descriptor, MasterHeader, ObjectHasher, ObjectKey, SignedStatement,
    Statement, StatementKey, Track, TrackHeader, TrackIndex, TrackKind, TrustedKeys,
};
use espalier_peer_core::frame::{DataHeader, Frame, Hello, Ping, StatementPart, Subscribe};
use espalier_peer_core::{
    Assignment, ChildAssignment, Command, EngineConfig, Event, Generation, PeerId, Publication,
    RelayEngine, Source, TrackAssignment, TrackName, Welcome,
};
use sha2::{Digest as _, Sha256};

const TRACK: TrackIndex = TrackIndex(0);
/// 2 MB a segment, as of four seconds at 4 Mbit/s.
const CHUNKS: u32 = 34;
const SEGMENTS: u64 = 60;
const ROUNDS: usize = 7;

struct Bench {
    engine: RelayEngine,
    now: Duration,
    spent: Duration,
    sent: u64,
    published: u64,
}

impl Bench {
    /// A relay of a track in so many stripes, each from a parent of its own.
    fn new(stripes: u8, children: u64) -> Self {
        let key = signer();
        let mut bench = Self {
            engine: RelayEngine::new(EngineConfig::new(PeerId(1), "demo")),
            now: Duration::ZERO,
            spent: Duration::ZERO,
            sent: 0,
            published: 0,
        };
        bench.tell(Event::SessionWelcomed(Welcome {
            incarnation: 1,
            keys: TrustedKeys::new([key.public_key()]),
        }));
        bench.tell(Event::Assignment(assignment(stripes, children)));
        for peer in (0..stripes).map(parent).chain((0..children).map(child)) {
            bench.tell(Event::LinkUp { peer });
            let hello = Hello {
                min_version: 1,
                max_version: 1,
                peer,
                channel: "demo".into(),
            };
            bench.hear(peer, &Frame::Hello(hello));
        }
        for statement in [master(), header()] {
            bench.hear(parent(0), &signed(statement, &key));
        }
        for (peer, stripe) in (0..children).flat_map(|c| (0..stripes).map(move |s| (child(c), s))) {
            let subscribe = Subscribe {
                track: TRACK,
                stripe,
                stripes,
                cursor: None,
            };
            bench.hear(peer, &Frame::Subscribe(subscribe));
        }
        bench
    }

    fn hear(&mut self, peer: PeerId, frame: &Frame) {
        let bytes = frame.encode().to_bytes();
        self.tell(Event::Frame { peer, bytes });
    }

    fn tell(&mut self, event: Event) {
        let mut receivers = Vec::new();
        let begun = Instant::now();
        self.engine.handle(event, self.now);
        while let Some(command) = self.engine.poll_command() {
            if let Command::SendFrame { peer, frame } = &command {
                // The kind of a DATA frame.
                self.sent += u64::from(frame.header().first() == Some(&3));
                receivers.push(*peer);
            }
            let chunk = matches!(command, Command::Publish(Publication::Chunk { .. }));
            self.published += u64::from(chunk);
        }
        self.spent += begun.elapsed();
        for peer in receivers {
            self.tell(Event::Buffered { peer, bytes: 0 });
        }
    }
}

fn signer() -> StatementKey {
    StatementKey::from_seed(&[1; 32])
}

fn parent(stripe: u8) -> PeerId {
    PeerId(1_000 + u64::from(stripe))
}

fn child(number: u64) -> PeerId {
    PeerId(2_000 + number)
}

fn assignment(stripes: u8, children: u64) -> Assignment {
    let track = TrackName("main".into());
    let taken = |stripe| TrackAssignment {
        track: track.clone(),
        stripe,
        stripes,
        source: Some(Source::Peer(parent(stripe))),
        standby: None,
        make_before_break: false,
    };
    let served = |(number, stripe)| ChildAssignment {
        track: track.clone(),
        stripe,
        peer: child(number),
        standby: false,
    };
    let pairs = (0..children).flat_map(|number| (0..stripes).map(move |stripe| (number, stripe)));
    Assignment {
        generation: Generation {
            incarnation: 1,
            term: 1,
            index: 1,
        },
        tracks: (0..stripes).map(taken).collect(),
        children: pairs.map(served).collect(),
        cdn_lease: None,
        upload_bps: 100_000_000_000,
    }
}

fn master() -> Statement {
    Statement::Master(MasterHeader {
        revision: 1,
        tracks: vec![Track {
            index: TRACK,
            name: "main".into(),
            uri: "http://cdn/main.m3u8".into(),
            bandwidth_bps: 4_000_000,
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
        target_duration: Duration::from_secs(4),
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
        duration: Duration::from_secs(4),
        program_date_time_ms: None,
        lines: vec!["#EXTINF:4,".into()],
        key_lines: Vec::new(),
        init_sequence: None,
        discontinuity_sequence: 0,
        uri: format!("http://cdn/{sequence}.ts"),
        byte_range: None,
    })
}

fn signed(statement: Statement, key: &StatementKey) -> Frame {
    let statement = SignedStatement::sign(statement, key).expect("valid");
    let bytes = statement.encoded().clone();
    let total = u32::try_from(bytes.len()).expect("short");
    Frame::Statement(StatementPart {
        offset: 0,
        total,
        bytes,
    })
}

/// The engine's time for a chunk that is received and goes to every child.
fn relay(stripes: u8, children: u64) -> Duration {
    let (key, chunk) = (signer(), Bytes::from(vec![7; CHUNK_SIZE]));
    let body = chunk.repeat(CHUNKS as usize);
    let mut bench = Bench::new(stripes, children);
    (bench.spent, bench.sent, bench.published) = (Duration::ZERO, 0, 0);
    let alive = Bytes::copy_from_slice(&Ping::Pong(0).encode());
    for sequence in 0..SEGMENTS {
        let statement = signed(descriptor(sequence, &body), &key);
        (0..stripes).for_each(|stripe| bench.hear(parent(stripe), &statement));
        for index in 0..CHUNKS {
            bench.now += Duration::from_secs(4) / CHUNKS;
            for peer in (0..stripes).map(parent).chain((0..children).map(child)) {
                let bytes = alive.clone();
                bench.engine.handle(Event::Ping { peer, bytes }, bench.now);
            }
            let stripe = u8::try_from(index % u32::from(stripes)).expect("small");
            let header = DataHeader {
                object: ObjectKey::segment(TRACK, 0, sequence),
                chunk: ChunkIndex(index),
                offset: 0,
                stripe,
            };
            bench.hear(parent(stripe), &Frame::Data(header, chunk.clone()));
        }
    }
    let chunks = SEGMENTS * u64::from(CHUNKS);
    assert_eq!(bench.published, chunks, "every chunk is published");
    assert_eq!(bench.sent, chunks * children, "and sent to every child");
    bench.spent / u32::try_from(chunks).expect("some thousands")
}

/// The time that a chunk's hash takes.
fn hash() -> Duration {
    let chunk = vec![7; CHUNK_SIZE];
    let begun = Instant::now();
    for _ in 0..2_000 {
        assert_ne!(Sha256::digest(&chunk)[..], [0; 32]);
    }
    begun.elapsed() / 2_000
}

fn main() {
    println!("the hash of a chunk: {:.2} us", hash().as_secs_f64() * 1e6);
    println!("a chunk taken in and passed on, its hash included, best of {ROUNDS}:");
    for (stripes, children) in [(1, 1), (1, 4), (1, 16), (4, 4), (8, 16)] {
        let best = (0..ROUNDS).map(|_| relay(stripes, children)).min();
        let best = best.unwrap_or_default().as_secs_f64() * 1e6;
        println!("  {stripes} stripes, {children:2} children: {best:6.2} us");
    }
}
