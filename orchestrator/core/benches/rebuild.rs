//! What a channel of a million peers costs: entries applied, a snapshot taken, written and read, a new
//! owner's engine rebuilt. `cargo bench --bench rebuild [-- PEERS]`
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use core::time::Duration;
use std::time::Instant;

use espalier_orchestrator_core::state::{
    ChannelSettings, DecidedEdge, DecidedPeer, Edge, Entry, LogPosition, Offer, Sealed, ShardEntry,
    ShardOp, ShardState, Telling, TrackRecord,
};
use espalier_orchestrator_core::{
    ChannelEngine, ChannelEvent, ChannelId, PeerId, PeerProfile, PeerRole, Policy, PolicyDraft,
    SessionOpened, Source, TrackIndex,
};

const FANOUT: u64 = 4;
const BATCH: u64 = 64;
const TERM: u64 = 1;
const INCARNATION: u64 = 1;
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// A complete tree with four children a peer, under random ids.
struct Audience {
    peers: u64,
}

impl Audience {
    /// A permutation of the numbers (SplitMix64), so that ids are as scattered as real ones.
    fn id(number: u64) -> PeerId {
        let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        PeerId(z ^ (z >> 31))
    }

    fn parent(number: u64) -> Option<u64> {
        (number > 0).then(|| (number - 1) / FANOUT)
    }

    fn has_children(&self, number: u64) -> bool {
        number * FANOUT + 1 < self.peers
    }

    /// The leaf that takes over from an interior peer: from the last on, each for one.
    fn successor(&self, number: u64) -> Option<u64> {
        let leaf = self.peers - 1 - number;
        let outside = !self.has_children(leaf) && !Self::is_within(leaf, number);
        (self.has_children(number) && outside).then_some(leaf)
    }

    fn is_within(number: u64, top: u64) -> bool {
        core::iter::successors(Some(number), |at| Self::parent(*at)).any(|at| at == top)
    }

    fn offer() -> Offer {
        Offer {
            role: PeerRole::Contributor,
            upload_bps: 8_000_000,
            profile: PeerProfile::default(),
            wanted: Vec::new(),
            joined_at: NOW,
        }
    }

    fn tells(number: u64) -> Telling {
        let (peer, digest) = (Self::id(number), number);
        Telling { peer, digest }
    }

    fn edge(&self, number: u64) -> DecidedEdge {
        let parent = Self::parent(number);
        let edge = Edge {
            source: parent.map_or(Source::Cdn, |parent| Source::Peer(Self::id(parent))),
            moving_from: None,
            evicted: false,
            successor: None,
            warm: true,
            deadline: None,
            hold_until: Duration::ZERO,
            root_since: u64::from(parent.is_none()),
        };
        DecidedEdge {
            peer: Self::id(number),
            track: TrackIndex(0),
            stripe: 0,
            edge: Some(edge),
        }
    }

    /// The peers join in batches, as entries would bring them; then successors are found.
    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let numbers = (0..self.peers).step_by(usize::try_from(BATCH).unwrap_or(64));
        let batch = move |first: u64| first..(first + BATCH).min(self.peers);
        let joins = numbers.clone().map(move |first| Entry {
            peers: batch(first)
                .map(|number| DecidedPeer {
                    peer: Self::id(number),
                    record: Self::offer(),
                })
                .collect(),
            edges: batch(first).map(|number| self.edge(number)).collect(),
            told: batch(first).map(Self::tells).collect(),
            ..Entry::new(INCARNATION, NOW)
        });
        let successions = numbers.map(move |first| Entry {
            edges: batch(first)
                .filter_map(|number| self.succession(number))
                .collect(),
            ..Entry::new(INCARNATION, NOW)
        });
        joins.chain(successions.filter(|entry| !entry.is_empty()))
    }

    fn succession(&self, number: u64) -> Option<DecidedEdge> {
        let successor = self.successor(number)?;
        let mut decided = self.edge(number);
        decided.edge.as_mut()?.successor = Some(Self::id(successor));
        Some(decided)
    }
}

fn channel() -> ChannelId {
    "bench".parse().expect("invariant: a channel's id")
}

fn create() -> ShardOp {
    ShardOp::Create {
        channel: channel(),
        settings: ChannelSettings {
            incarnation: INCARNATION,
            origin_uri: String::new(),
            signer_uri: None,
            policy: PolicyDraft::default(),
            create_time_ms: 0,
            etag: String::new(),
            signing: Sealed::default(),
        },
        policy: Policy::default(),
    }
}

fn tracks() -> ShardOp {
    let track = TrackRecord {
        index: TrackIndex(0),
        name: "v0".parse().expect("invariant: a track's name"),
        default: true,
        rate_bps: 1_500_000,
        measured: true,
    };
    decide(Entry {
        tracks: Some(vec![track]),
        ..Entry::new(INCARNATION, NOW)
    })
}

fn decide(entry: Entry) -> ShardOp {
    let channel = channel();
    ShardOp::Decide { channel, entry }
}

/// Calls and says how long that took, and how long it had a processor.
fn measured<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let (started, ran) = (Instant::now(), processor_time());
    let result = call();
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    let ran = (processor_time() - ran).as_secs_f64() * 1e3;
    println!("{what:<44} {elapsed:>12.3} ms {ran:>12.3} ms of processor");
    result
}

/// What this thread has had, where the system says.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = statistics.split_whitespace().next();
    Duration::from_nanos(ran.and_then(|ran| ran.parse().ok()).unwrap_or(0))
}

fn apply(shard: &mut ShardState, index: u64, op: ShardOp) {
    let outcomes = shard.apply(
        &ShardEntry::new(TERM, vec![op]),
        LogPosition { term: TERM, index },
    );
    assert!(
        outcomes.iter().all(|outcome| outcome.is_applied()),
        "{outcomes:?}"
    );
}

/// Resident memory in MiB, where the system says.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    let given = std::env::args().find_map(|argument| argument.parse().ok());
    let audience = Audience {
        peers: given.unwrap_or(1_000_000),
    };
    println!(
        "{} peers, random ids, {FANOUT} children each",
        audience.peers
    );

    let mut shard = ShardState::default();
    apply(&mut shard, 1, create());
    apply(&mut shard, 2, tracks());
    let ops: Vec<_> = audience.entries().map(decide).collect();
    let bytes: Vec<_> = measured("entries encoded", || {
        let entry = |op: &ShardOp| ShardEntry::new(TERM, vec![op.clone()]).encode();
        ops.iter()
            .map(|op| entry(op).expect("invariant: a short entry"))
            .collect()
    });
    drop(ops);
    let total: usize = bytes.iter().map(Vec::len).sum();
    println!(
        "{:<44} {:>12}",
        "bytes of entries a peer",
        total as u64 / audience.peers
    );
    let before = resident();
    measured("entries decoded and applied", || {
        for (index, bytes) in (3..).zip(&bytes) {
            let entry = ShardEntry::decode(bytes).expect("invariant: an entry");
            let outcomes = shard.apply(&entry, LogPosition { term: TERM, index });
            assert!(outcomes.iter().all(|outcome| outcome.is_applied()));
        }
    });
    drop(bytes);
    println!(
        "{:<44} {:>12}",
        "state, MiB",
        resident().saturating_sub(before)
    );

    let frozen = measured("clone", || shard.clone());
    measured("first change after the clone", || {
        let entry = Entry {
            told: vec![Audience::tells(77)],
            ..Entry::new(INCARNATION, NOW)
        };
        apply(&mut shard, 1_000_000, decide(entry));
    });
    let mut snapshot = Vec::new();
    measured("snapshot written", || frozen.write_snapshot(&mut snapshot))
        .expect("invariant: memory takes it");
    println!(
        "{:<44} {:>12}",
        "bytes of snapshot a peer",
        snapshot.len() as u64 / audience.peers
    );
    drop(frozen);
    let read = measured("snapshot read", || ShardState::read_snapshot(&snapshot[..]))
        .expect("invariant: it was written");
    measured("hash", || read.hash());
    drop((snapshot, shard));

    let state = &read
        .channel(&channel())
        .expect("invariant: it was made")
        .state;
    let before = resident();
    let mut engine = measured("engine rebuilt", || {
        ChannelEngine::from_state(state, 2, NOW)
    });
    println!(
        "{:<44} {:>12}",
        "engine, MiB",
        resident().saturating_sub(before)
    );
    let again = measured("engine rebuilt again", || {
        ChannelEngine::from_state(state, 2, NOW)
    });
    drop(again);
    let attached = audience.peers.min(100_000);
    measured("100,000 peers attached", || {
        for number in 0..attached {
            engine.handle(ChannelEvent::SessionOpened(opened(number)), NOW);
            while engine.poll_command().is_some() {}
        }
    });
    measured("absence counts", || {
        engine.handle(ChannelEvent::AbsenceCounts, NOW)
    });
    let findings = measured("check", || engine.check());
    // The entries' digests are made up, so what was told is not what is planned.
    let mut findings = findings.iter();
    let findings: Vec<_> = findings
        .find(|one| one.invariant != "assignment")
        .into_iter()
        .collect();
    assert!(findings.is_empty(), "{:?}", findings.first());
}

fn opened(number: u64) -> SessionOpened {
    let offer = Audience::offer();
    SessionOpened {
        peer: Audience::id(number),
        attachment: 1,
        role: offer.role,
        upload_bps: offer.upload_bps,
        profile: offer.profile,
        tracks: Vec::new(),
        held: Vec::new(),
        generation: Some(espalier_orchestrator_core::Generation::default()),
    }
}
