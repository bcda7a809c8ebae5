//! What the planner's events cost with a large audience: a join, a leave, a region that vanishes, a rebuild.
//! `cargo bench --bench planner`; `PEERS=100000` plans for fewer.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use espalier_orchestrator_core::planner::{
    AT_ONCE, EdgeChange, Newcomer, PeerSlot, Planner, TreeId,
};
use espalier_orchestrator_core::state::ShardState;
use espalier_orchestrator_core::{
    PeerId, PeerProfile, PeerRole, Policy, PolicyDraft, TrackIndex, TrackInfo,
};

const RATE_BPS: u64 = 1_500_000;
const REGIONS: u16 = 20;
const TREE: TreeId = TreeId {
    track: TrackIndex(0),
    stripe: 0,
};

/// A planner with its audience, the oldest first.
struct Audience {
    planner: Planner,
    here: VecDeque<PeerSlot>,
    changes: Vec<EdgeChange>,
    numbers: u64,
    now: Duration,
}

impl Audience {
    fn of(peers: u64) -> Self {
        let draft = PolicyDraft {
            target_roots: Some(u32::try_from(peers / 1000).unwrap_or(1000).clamp(4, 1000)),
            ..PolicyDraft::default()
        };
        let policy = Policy::validate(&draft).expect("invariant: a sound policy");
        let track = TrackInfo {
            index: TrackIndex(0),
            name: "v0".parse().expect("invariant: a track's name"),
            rate_bps: RATE_BPS,
            default: true,
        };
        let mut audience = Self {
            planner: Planner::new(policy, &[track], Duration::ZERO),
            here: VecDeque::new(),
            changes: Vec::new(),
            numbers: 0,
            now: Duration::from_secs(1),
        };
        for number in 0..peers {
            if number.is_multiple_of(1000) {
                audience.pass(1);
            }
            audience.join_warm();
        }
        for _ in 0..60 {
            audience.pass(1);
        }
        audience
    }

    /// Ids are as scattered as real ones (SplitMix64), and uploads as uneven.
    fn newcomer(&mut self) -> Newcomer {
        self.numbers += 1;
        let mut z = self.numbers.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        let upload = [0, 0, 1, 2, 2, 4, 4, 8, 12, 20][usize::try_from(z % 10).unwrap_or(0)];
        let mut profile = PeerProfile::default();
        let region = u16::try_from((z >> 20) % u64::from(REGIONS)).unwrap_or(0);
        profile.locality.region = 1 + region;
        Newcomer {
            id: PeerId(z),
            role: PeerRole::Contributor,
            upload_bps: upload * RATE_BPS,
            profile,
            wanted: Vec::new(),
        }
    }

    fn join(&mut self, newcomer: Newcomer) -> PeerSlot {
        let slot = self.planner.join(newcomer, self.now);
        self.here.push_back(slot);
        self.take_changes();
        slot
    }

    /// So many come and as many go, each second a thousand; returns how long joins and leaves took.
    fn turn_over(&mut self, times: u64) -> (Duration, Duration) {
        let (mut joins, mut leaves) = (Duration::ZERO, Duration::ZERO);
        for number in 0..times {
            let newcomer = self.newcomer();
            let started = Instant::now();
            let slot = self.join(newcomer);
            joins += started.elapsed();
            self.planner.arrived(slot, TREE, self.now);
            let started = Instant::now();
            self.leave_oldest();
            leaves += started.elapsed();
            if number % 1000 == 999 {
                self.pass(1);
            }
        }
        (joins, leaves)
    }

    fn join_warm(&mut self) {
        let newcomer = self.newcomer();
        let slot = self.join(newcomer);
        self.planner.arrived(slot, TREE, self.now);
    }

    fn leave_oldest(&mut self) {
        if let Some(slot) = self.here.pop_front() {
            self.planner.leave(&[slot], self.now);
            self.take_changes();
        }
    }

    fn take_changes(&mut self) {
        self.changes.clear();
        self.planner.take_changes(&mut self.changes);
    }

    /// Time passes, and whoever was given another source has its data.
    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.planner.tick(self.now);
        self.take_changes();
        for change in core::mem::take(&mut self.changes) {
            if change.source.is_some() {
                self.planner.arrived(change.peer, change.tree, self.now);
            }
        }
    }
}

fn peers() -> u64 {
    let given = std::env::var("PEERS").ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000)
}

fn events(criterion: &mut Criterion) {
    let mut audience = Audience::of(peers());
    let mut group = criterion.benchmark_group("planner");
    group.bench_function("join", |bencher| {
        bencher.iter_custom(|times| audience.turn_over(times).0);
    });
    group.bench_function("leave", |bencher| {
        bencher.iter_custom(|times| audience.turn_over(times).1);
    });
    group.finish();
}

/// All of a region's peers go, in slices.
fn region_loss(criterion: &mut Criterion) {
    let audience = Audience::of(peers());
    let snapshot = audience.planner.records();
    let lost: Vec<PeerId> = records_of_region(&snapshot, 1);
    let (now, live) = (audience.now, audience.planner.state_hash());
    drop(audience);
    let mut group = criterion.benchmark_group("planner");
    group.sample_size(10);
    group.bench_function("region loss, one of twenty", |bencher| {
        bencher.iter_batched(
            || Planner::from_records(&snapshot, now),
            |mut planner| {
                let slots: Vec<_> = lost.iter().filter_map(|peer| planner.slot(*peer)).collect();
                for slice in slots.chunks(AT_ONCE) {
                    planner.lose(slice, now);
                }
                for slice in slots.chunks(AT_ONCE) {
                    planner.leave(slice, now);
                }
                planner
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("rebuild", |bencher| {
        bencher.iter_with_large_drop(|| Planner::from_records(&snapshot, now));
    });
    group.finish();
    let rebuilt = || Planner::from_records(&snapshot, now).state_hash();
    assert_eq!(rebuilt(), rebuilt(), "two rebuilds are the same");
    assert_eq!(
        rebuilt(),
        live,
        "and have every edge of the planner that went on"
    );
}

fn records_of_region(records: &ShardState, region: u16) -> Vec<PeerId> {
    let channels = records.channels();
    let peers = channels.flat_map(|(_, channel)| channel.state.peers());
    let there = peers.filter(|(_, record)| record.offer.profile.locality.region == region);
    there.map(|(peer, _)| peer).collect()
}

criterion_group!(benches, events, region_loss);
criterion_main!(benches);
