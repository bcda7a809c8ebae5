use espalier_media::{CHUNK_SIZE, Descriptor, ObjectHasher, Statement, StatementKey};
use proptest::prelude::*;

use super::*;
use crate::ids::FetchId;
use crate::stripe::StripeSet;

const LIMIT: u64 = 10 * CHUNK_SIZE as u64;

fn key(sequence: u64) -> ObjectKey {
    ObjectKey::segment(TrackIndex(1), 0, sequence)
}

fn statement(sequence: u64, chunks: usize) -> SignedStatement {
    let mut hasher = ObjectHasher::new();
    hasher.push(&vec![0; chunks * CHUNK_SIZE]).expect("short");
    let hashed = hasher.finish();
    let descriptor = Descriptor {
        key: key(sequence),
        length: hashed.length,
        chunk_hashes: hashed.chunk_hashes,
        duration: Duration::from_secs(2),
        program_date_time_ms: None,
        lines: Vec::new(),
        key_lines: Vec::new(),
        init_sequence: None,
        discontinuity_sequence: 0,
        uri: "http://cdn/x.ts".into(),
        byte_range: None,
    };
    SignedStatement::sign(
        Statement::Object(descriptor),
        &StatementKey::from_seed(&[1; 32]),
    )
    .expect("valid")
}

#[test]
fn the_first_statement_about_an_object_stays() {
    let mut ring = Ring::new(LIMIT);
    assert_eq!(
        ring.insert(key(1), statement(1, 1), 1, Duration::ZERO),
        Inserted::New
    );
    assert_eq!(
        ring.insert(key(1), statement(1, 1), 1, Duration::ZERO),
        Inserted::Known
    );
    assert_eq!(
        ring.insert(key(1), statement(1, 2), 1, Duration::ZERO),
        Inserted::Conflict
    );
    assert_eq!(ring.get(&key(1)).map(Object::chunk_count), Some(1));
}

#[test]
fn an_object_without_bytes_is_complete_as_soon_as_it_is_wanted() {
    let mut ring = Ring::new(LIMIT);
    ring.insert(key(1), statement(1, 0), 1, Duration::ZERO);
    assert!(ring.want(&key(1)));
    assert_eq!(
        ring.get(&key(1)).map(Object::status),
        Some(Status::Complete)
    );
}

#[test]
fn runs_name_what_is_missing_and_what_is_held() {
    let mut ring = Ring::new(LIMIT);
    ring.insert(key(1), statement(1, 6), 1, Duration::ZERO);
    ring.want(&key(1));
    for index in [1, 2, 5] {
        assert!(ring.store(&key(1), ChunkIndex(index), Bytes::from_static(b"x")));
        assert!(
            !ring.store(&key(1), ChunkIndex(index), Bytes::from_static(b"x")),
            "held"
        );
    }
    assert!(
        !ring.store(&key(1), ChunkIndex(6), Bytes::from_static(b"x")),
        "there is none"
    );
    let object = ring.get(&key(1)).expect("known");
    assert_eq!(object.missing_runs(StripeSet::of(0)), [(0, 1), (3, 2)]);
    assert_eq!(object.had_runs(0), [(1, 2), (5, 1)]);
    assert_eq!(object.first_missing(0), Some(ChunkIndex(0)));
}

#[test]
fn each_stripe_misses_its_own_chunks() {
    let mut ring = Ring::new(LIMIT);
    ring.insert(key(1), statement(1, 7), 3, Duration::ZERO);
    ring.want(&key(1));
    for index in [1, 2, 4] {
        assert!(ring.store(&key(1), ChunkIndex(index), Bytes::from_static(b"x")));
    }
    let object = ring.get_mut(&key(1)).expect("known");
    let missing = |object: &Object| [0, 1, 2].map(|stripe| object.share(stripe).missing());
    assert_eq!(missing(object), [3, 0, 1]);
    assert_eq!(
        object.missing_runs(StripeSet::of(0)),
        [(0, 1), (3, 1), (6, 1)]
    );
    assert_eq!(object.missing_runs(StripeSet::of(1)), []);
    assert_eq!(object.first_missing(2), Some(ChunkIndex(5)));
    assert_eq!(object.had_runs(0), [], "no run has a chunk of it");
    assert_eq!(object.had_runs(1), [(1, 2), (4, 1)]);
    object.begin_reading(FetchId(1), 5, 2);
    assert!(object.share_is_read(0) && object.share_is_read(2) && !object.share_is_read(1));
    assert_eq!(object.missing_runs(StripeSet::of(0)), [(0, 1), (3, 1)]);
    assert_eq!(object.had_runs(0), [(4, 3)], "6 is on its way");
    assert_eq!(object.reads_all(FetchId(1)), []);
    assert!(object.share_is_read(0));
    object.restripe(1);
    assert_eq!(object.share(0).missing(), 4);
}

#[test]
fn descriptors_are_bounded_in_number() {
    let mut ring = Ring::new(LIMIT);
    let count = MAX_OBJECTS_PER_TRACK as u64 + 10;
    for sequence in 0..count {
        ring.insert(key(sequence), statement(sequence, 0), 1, Duration::ZERO);
    }
    ring.prune(TrackIndex(1));
    assert_eq!(ring.of_track(TrackIndex(1)).count(), MAX_OBJECTS_PER_TRACK);
    assert!(ring.get(&key(9)).is_none() && ring.get(&key(10)).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Store(u64, u32),
    Lose(u64),
    Evict(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u64..12, 0_u32..4).prop_map(|(sequence, chunk)| Step::Store(sequence, chunk)),
        1 => (0_u64..12).prop_map(Step::Lose),
        2 => (0_u64..20).prop_map(Step::Evict),
    ]
}

proptest! {
    #[test]
    fn bytes_are_counted_and_bounded_and_the_oldest_go_first(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut ring = Ring::new(LIMIT);
        // The model: the chunks that are held.
        let mut model: BTreeSet<(u64, u32)> = BTreeSet::new();
        for (sequence, step) in (0_u64..).zip(&steps) {
            let now = Duration::from_secs(sequence);
            match *step {
                Step::Store(sequence, chunk) => {
                    ring.insert(key(sequence), statement(sequence, 4), 1, now);
                    ring.want(&key(sequence));
                    let bytes = Bytes::from(vec![0; CHUNK_SIZE]);
                    if ring.store(&key(sequence), ChunkIndex(chunk), bytes) {
                        prop_assert!(model.insert((sequence, chunk)));
                    }
                }
                Step::Lose(sequence) => {
                    ring.lose(&key(sequence));
                    model.retain(|(held, _)| *held != sequence);
                }
                Step::Evict(keep_since) => {
                    let keep_since = Duration::from_secs(keep_since);
                    let arrival = |ring: &Ring, s| ring.get(&key(s)).map(|object| object.arrived);
                    let gone = ring.evict(keep_since);
                    for key in &gone {
                        model.retain(|(held, _)| *held != key.sequence);
                    }
                    prop_assert!(ring.bytes() <= LIMIT * 2);
                    let newest_gone = gone.iter().filter_map(|k| arrival(&ring, k.sequence)).max();
                    let oldest_kept = model.iter().filter_map(|(s, _)| arrival(&ring, *s)).min();
                    prop_assert!(newest_gone <= oldest_kept || oldest_kept.is_none());
                    let old_kept = oldest_kept.is_some_and(|at| at < keep_since);
                    prop_assert!(ring.bytes() <= LIMIT || !old_kept);
                }
            }
            prop_assert_eq!(ring.bytes(), model.len() as u64 * CHUNK_SIZE as u64);
        }
    }
}
