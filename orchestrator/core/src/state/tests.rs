//! The states as a whole: what is refused, what survives bytes, and that equal entries make equal states.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::{ChannelId, NodeId, PeerId, ShardId, Source, TrackIndex};
use crate::policy::{Policy, PolicyDraft};
use crate::{PeerProfile, PeerRole, TrackName};

const AT: LogPosition = LogPosition { term: 3, index: 9 };

fn channel(name: &str) -> ChannelId {
    name.parse().unwrap()
}

fn settings(incarnation: u64) -> ChannelSettings {
    ChannelSettings {
        incarnation,
        origin_uri: "http://127.0.0.1/live.m3u8".to_owned(),
        signer_uri: None,
        policy: PolicyDraft::default(),
        create_time_ms: 5,
        etag: "a".to_owned(),
        signing: Sealed::new(vec![1, 2, 3]),
    }
}

fn create(incarnation: u64) -> ShardOp {
    ShardOp::Create {
        channel: channel("news"),
        settings: settings(incarnation),
        policy: Policy::default(),
    }
}

fn track(index: u32, name: &str) -> TrackRecord {
    TrackRecord {
        index: TrackIndex(index),
        name: name.parse().unwrap(),
        default: true,
        rate_bps: 1_000_000,
        measured: true,
    }
}

fn joins(peer: u64) -> DecidedPeer {
    DecidedPeer {
        peer: PeerId(peer),
        record: Offer {
            role: PeerRole::Contributor,
            upload_bps: peer,
            profile: PeerProfile::default(),
            wanted: Vec::<TrackName>::new(),
            joined_at: Duration::from_millis(1),
        },
    }
}

fn edge(peer: u64, track: u32, source: Option<Source>) -> DecidedEdge {
    let edge = source.map(|source| Edge {
        source,
        moving_from: None,
        evicted: false,
        successor: None,
        warm: true,
        deadline: None,
        hold_until: Duration::ZERO,
        root_since: 0,
    });
    DecidedEdge {
        peer: PeerId(peer),
        track: TrackIndex(track),
        stripe: 0,
        edge,
    }
}

fn tells(peer: u64) -> Telling {
    let (peer, digest) = (PeerId(peer), peer);
    Telling { peer, digest }
}

fn under(parent: u64) -> Option<Source> {
    Some(Source::Peer(PeerId(parent)))
}

/// A state with the peers 1, a root, and 2 below it.
fn two() -> ChannelState {
    let mut state = ChannelState::new(7, Policy::default());
    let entry = Entry {
        tracks: Some(vec![track(0, "v0"), track(1, "v1")]),
        peers: vec![joins(1), joins(2)],
        edges: vec![edge(1, 0, Some(Source::Cdn)), edge(2, 0, under(1))],
        told: vec![tells(1), tells(2)],
        ..Entry::new(7, Duration::from_millis(50))
    };
    assert_eq!(state.apply(&entry, AT), Outcome::Applied);
    state
}

#[test]
fn a_bad_entry_changes_nothing() {
    let new = || Entry::new(7, Duration::from_secs(9));
    let workless = Policy {
        target_roots: 0,
        ..Policy::default()
    };
    let own = Parting {
        one: PeerId(1),
        other: PeerId(1),
        until: Duration::MAX,
    };
    let unknown = Refusal::UnknownPeer(PeerId(5));
    let left = || vec![PeerId(1)];
    let edges = |edges: &[DecidedEdge]| edges.to_vec();
    for (entry, refusal) in [
        (
            Entry {
                version: 6,
                ..new()
            },
            Refusal::Version(6),
        ),
        (Entry::new(8, Duration::ZERO), Refusal::Incarnation),
        (
            Entry {
                follows: Some(2),
                ..new()
            },
            Refusal::Gap {
                follows: 2,
                here: 1,
            },
        ),
        (
            Entry {
                policy: Some(Box::new(workless)),
                ..new()
            },
            Refusal::Policy,
        ),
        (
            Entry {
                tracks: Some(vec![track(0, "a"), track(0, "b")]),
                ..new()
            },
            Refusal::Tracks,
        ),
        (
            Entry {
                tracks: Some(vec![track(0, "a"), track(1, "a")]),
                ..new()
            },
            Refusal::Tracks,
        ),
        (
            Entry {
                edges: edges(&[edge(5, 0, Some(Source::Cdn))]),
                ..new()
            },
            unknown,
        ),
        (
            Entry {
                edges: edges(&[edge(1, 0, under(5))]),
                ..new()
            },
            unknown,
        ),
        (
            Entry {
                edges: edges(&[edge(1, 0, under(1))]),
                ..new()
            },
            Refusal::OwnNeighbour(PeerId(1)),
        ),
        (
            Entry {
                edges: edges(&[edge(1, 4, under(2))]),
                ..new()
            },
            Refusal::UnknownTrack(TrackIndex(4)),
        ),
        (
            Entry {
                left: left(),
                edges: edges(&[edge(2, 0, under(1))]),
                ..new()
            },
            Refusal::UnknownPeer(PeerId(1)),
        ),
        (
            Entry {
                told: vec![tells(5)],
                ..new()
            },
            unknown,
        ),
        (
            Entry {
                parted: vec![own],
                ..new()
            },
            Refusal::OwnNeighbour(PeerId(1)),
        ),
    ] {
        let mut state = two();
        let before = state.hash();
        assert_eq!(
            state.apply(&entry, AT),
            Outcome::Refused(refusal),
            "{entry:?}"
        );
        assert_eq!(state.hash(), before, "{entry:?}");
        assert_eq!(state.time(), Duration::from_millis(50));
    }
}

#[test]
fn records_say_when_a_source_was_decided_and_when_a_peer_was_told() {
    let mut state = two();
    let later = LogPosition { term: 3, index: 12 };
    let moved = Entry {
        edges: vec![edge(2, 0, Some(Source::Cdn)), edge(1, 0, Some(Source::Cdn))],
        told: vec![tells(1)],
        ..Entry::new(7, Duration::ZERO)
    };
    assert!(state.apply(&moved, later).is_applied());
    let since = |peer| state.peer(PeerId(peer)).unwrap().edges[0].since;
    assert_eq!(
        (since(1), since(2)),
        (AT, later),
        "the source of 1 is what it was"
    );
    let told = |peer| state.peer(PeerId(peer)).unwrap().told.map(|told| told.at);
    assert_eq!((told(1), told(2)), (Some(later), Some(AT)));
    assert_eq!(
        state.time(),
        Duration::from_millis(50),
        "time never goes back"
    );
}

#[test]
fn who_leaves_and_joins_in_one_entry_starts_anew() {
    let mut state = two();
    let anew = Entry {
        left: vec![PeerId(2)],
        peers: vec![joins(2)],
        edges: vec![edge(2, 1, Some(Source::Cdn))],
        ..Entry::new(7, Duration::ZERO)
    };
    assert!(state.apply(&anew, AT).is_applied());
    let record = state.peer(PeerId(2)).unwrap();
    assert_eq!((record.told, record.edges.len()), (None, 1));
    assert_eq!(record.edges[0].track, TrackIndex(1));
    let gone = Entry {
        left: vec![PeerId(1), PeerId(2)],
        edges: vec![edge(1, 0, None)],
        ..Entry::new(7, Duration::ZERO)
    };
    assert!(state.apply(&gone, AT).is_applied());
    assert_eq!(state.peer_count(), 0);
    let mut empty = ChannelState::new(7, Policy::default());
    empty.head = state.head.clone();
    assert_eq!(state.hash(), empty.hash(), "a sum of nothing is nothing");
}

fn apply_one(shard: &mut ShardState, op: ShardOp) -> Outcome {
    let entry = ShardEntry::new(AT.term, vec![op]);
    let bytes = entry.encode().unwrap();
    assert_eq!(ShardEntry::decode(&bytes).unwrap(), entry);
    shard.apply(&entry, AT)[0]
}

#[test]
fn a_channels_life_in_its_shard() {
    let id = || channel("news");
    let mut shard = ShardState::default();
    let update = |etag: Option<&str>, new: &str| ShardOp::Update {
        channel: id(),
        expected_etag: etag.map(str::to_owned),
        settings: ChannelSettings {
            etag: new.to_owned(),
            create_time_ms: 99,
            ..settings(7)
        },
    };
    let decide = |incarnation| ShardOp::Decide {
        channel: id(),
        entry: Entry::new(incarnation, Duration::from_secs(1)),
    };
    let keep = |incarnation| ShardOp::KeepSignerState {
        channel: id(),
        incarnation,
        state: Sealed::new(vec![9; 100]),
    };
    let retire = |incarnation| ShardOp::Retire {
        channel: id(),
        incarnation,
    };
    let delete = |incarnation| ShardOp::Delete {
        channel: id(),
        incarnation,
    };
    let refused = Outcome::Refused;
    for (op, outcome) in [
        (decide(7), refused(Refusal::UnknownChannel)),
        (update(None, "b"), refused(Refusal::UnknownChannel)),
        (create(7), Outcome::Applied),
        (create(7), Outcome::Applied),
        (create(8), refused(Refusal::AlreadyExists)),
        (update(Some("x"), "b"), refused(Refusal::Etag)),
        (update(Some("a"), "b"), Outcome::Applied),
        (update(Some("a"), "c"), refused(Refusal::Etag)),
        (decide(7), Outcome::Applied),
        (decide(8), refused(Refusal::Incarnation)),
        (keep(7), Outcome::Applied),
        (keep(8), refused(Refusal::Incarnation)),
        (retire(8), refused(Refusal::Incarnation)),
        (retire(7), Outcome::Applied),
        (retire(7), Outcome::Applied),
        (decide(7), refused(Refusal::Deleting)),
        (create(7), refused(Refusal::Deleting)),
        (update(None, "d"), refused(Refusal::Deleting)),
        (delete(8), refused(Refusal::Incarnation)),
        (delete(7), Outcome::Applied),
        (delete(7), Outcome::Applied),
    ] {
        assert_eq!(apply_one(&mut shard, op.clone()), outcome, "{op:?}");
        if let Some(known) = shard.channel(&id()) {
            assert_eq!(known.settings.create_time_ms, 5, "{op:?}");
        }
    }
    assert_eq!(
        (shard.channel_count(), shard.hash()),
        (0, StateHash::default())
    );
}

#[test]
fn another_terms_operations_change_nothing() {
    let mut shard = ShardState::default();
    let entry = ShardEntry::new(2, vec![create(7), create(7)]);
    let refusal = Outcome::Refused(Refusal::Term {
        made: 2,
        written: 3,
    });
    assert_eq!(shard.apply(&entry, AT), [refusal, refusal]);
    assert_eq!(shard.channel_count(), 0);
    let mut meta = MetaState::default();
    let op = MetaOp::RemoveNode { node: NodeId(1) };
    assert_eq!(meta.apply(&MetaEntry::new(4, vec![op]), AT).len(), 1);
}

#[test]
fn settings_that_are_too_much_are_refused() {
    let mut shard = ShardState::default();
    let long = ChannelSettings {
        signing: Sealed::new(vec![0; MOST_SEALED_BYTES + 1]),
        ..settings(7)
    };
    let create = ShardOp::Create {
        channel: channel("news"),
        settings: long,
        policy: Policy::default(),
    };
    assert_eq!(
        apply_one(&mut shard, create),
        Outcome::Refused(Refusal::TooMuch)
    );
}

#[test]
fn unknown_versions_and_kinds_are_told_apart_from_damage() {
    let bytes = ShardEntry::new(3, vec![create(7)]).encode().unwrap();
    let what = "a shard's entry";
    for (at, value, error) in [
        (0, 9, DecodeError::UnknownVersion { what, version: 9 }),
        (3, 77, DecodeError::UnknownKind { what, kind: 77 }),
        (2, 2, DecodeError::Damaged { what }),
        (2, 0, DecodeError::Damaged { what }),
    ] {
        let mut other = bytes.clone();
        other[at] = value;
        assert_eq!(ShardEntry::decode(&other), Err(error));
    }
    for end in 0..bytes.len() {
        assert!(ShardEntry::decode(&bytes[..end]).is_err());
    }
    let meta = MetaEntry::new(3, vec![MetaOp::RaiseVersion { version: 1 }]);
    let mut bytes = meta.encode().unwrap();
    bytes[3] = 99;
    let what = "the meta group's entry";
    assert_eq!(
        MetaEntry::decode(&bytes),
        Err(DecodeError::UnknownKind { what, kind: 99 })
    );
}

fn node(address: &str) -> NodeRecord {
    NodeRecord {
        addresses: NodeAddresses {
            cluster: vec![address.to_owned()],
            ..NodeAddresses::default()
        },
        membership: Membership::Voter,
        phase: NodePhase::Joining,
    }
}

fn cluster(id: &str, shards: u32) -> MetaOp {
    let (id, version) = (id.to_owned(), 1);
    MetaOp::Initialise {
        cluster: ClusterRecord {
            id,
            version,
            shards,
        },
    }
}

/// Applies operations to a meta state and expects what becomes of each.
fn meta(steps: &[(MetaOp, Result<(), Refusal>)]) -> MetaState {
    let mut state = MetaState::default();
    for (op, expect) in steps {
        let entry = MetaEntry::new(AT.term, vec![op.clone()]);
        assert_eq!(MetaEntry::decode(&entry.encode().unwrap()).unwrap(), entry);
        let outcome = state.apply(&entry, AT);
        assert_eq!(outcome, [Outcome::from(*expect)], "{op:?}");
    }
    state
}

fn some_meta() -> MetaState {
    use NodePhase::{Active, Draining, Joining};
    let news = || channel("news");
    let reserve = |shard, incarnation| MetaOp::ReserveChannel {
        channel: news(),
        shard: ShardId(shard),
        incarnation,
    };
    let activate = |incarnation| MetaOp::ActivateChannel {
        channel: news(),
        incarnation,
    };
    let forget = |incarnation| MetaOp::ForgetChannel {
        channel: news(),
        incarnation,
    };
    let retire = MetaOp::RetireChannel {
        channel: news(),
        incarnation: 1,
    };
    let add = |id, address: &str| MetaOp::AddNode {
        node: NodeId(id),
        record: node(address),
    };
    let remove = |id| MetaOp::RemoveNode { node: NodeId(id) };
    let shift = |id, address| MetaOp::MoveNode {
        node: NodeId(id),
        addresses: node(address).addresses,
    };
    let turn = |id, from, to| MetaOp::TurnNode {
        node: NodeId(id),
        from,
        to,
    };
    let put = MetaOp::PutSecret {
        name: "ticket".to_owned(),
        secret: Sealed::new(vec![7; 32]),
    };
    let drop_it = || MetaOp::DropSecret {
        name: "ticket".to_owned(),
    };
    let raise = |version| MetaOp::RaiseVersion { version };
    meta(&[
        (raise(1), Err(Refusal::NotInitialised)),
        (reserve(1, 1), Err(Refusal::NotInitialised)),
        (cluster("c", 0), Err(Refusal::UnknownShard)),
        (cluster("c", 16), Ok(())),
        (cluster("c", 16), Ok(())),
        (cluster("c", 8), Err(Refusal::AlreadyExists)),
        (cluster("d", 16), Err(Refusal::OtherCluster)),
        (raise(2), Ok(())),
        (raise(1), Err(Refusal::VersionFalls)),
        (add(1, "a:1"), Ok(())),
        (add(1, "a:1"), Ok(())),
        (add(1, "b:1"), Err(Refusal::AlreadyExists)),
        (add(4, "d:1"), Ok(())),
        (remove(4), Ok(())),
        (remove(4), Ok(())),
        (add(4, "d:1"), Err(Refusal::NodeIdUsed)),
        (remove(9), Err(Refusal::UnknownNode)),
        (shift(9, "b:1"), Err(Refusal::UnknownNode)),
        (turn(9, Joining, Active), Err(Refusal::UnknownNode)),
        (turn(1, Joining, Active), Ok(())),
        (turn(1, Joining, Active), Ok(())),
        (turn(1, Active, Draining), Ok(())),
        (turn(1, Joining, Active), Err(Refusal::Lifecycle)),
        (shift(1, "b:1"), Ok(())),
        (reserve(0, 1), Err(Refusal::UnknownShard)),
        (reserve(17, 1), Err(Refusal::UnknownShard)),
        (activate(1), Err(Refusal::UnknownChannel)),
        (reserve(16, 1), Ok(())),
        (reserve(16, 1), Ok(())),
        (reserve(16, 2), Err(Refusal::AlreadyExists)),
        (activate(2), Err(Refusal::Incarnation)),
        (activate(1), Ok(())),
        (forget(1), Err(Refusal::Lifecycle)),
        (retire, Ok(())),
        (activate(1), Err(Refusal::Deleting)),
        (reserve(3, 3), Err(Refusal::Deleting)),
        (forget(2), Err(Refusal::Incarnation)),
        (forget(1), Ok(())),
        (forget(1), Ok(())),
        (reserve(3, 3), Ok(())),
        (drop_it(), Err(Refusal::UnknownSecret)),
        (put.clone(), Ok(())),
        (drop_it(), Ok(())),
        (put, Ok(())),
    ])
}

#[test]
fn the_life_of_a_cluster() {
    let state = some_meta();
    assert_eq!(state.unused_node_id(), NodeId(5), "4 is used up");
    let moved = &state.nodes()[&NodeId(1)];
    assert_eq!(moved.addresses, node("b:1").addresses);
    assert_eq!(moved.phase, NodePhase::Draining, "as it was before");
    assert_eq!(state.cluster().unwrap().version, 2);
    assert_eq!(state.channels()[&channel("news")].shard, ShardId(3));
}

/// Operations by lot, most of them good, on a small world.
fn any_entry() -> impl Strategy<Value = Entry> {
    let peer = || (1_u64..30).prop_map(PeerId);
    let peers = || proptest::collection::vec(peer(), 0..3);
    let source = prop_oneof![
        Just(None),
        Just(Some(Source::Cdn)),
        (1..30_u64).prop_map(under),
    ];
    let edge = (1..30_u64, 0..3_u32, source).prop_map(|(peer, track, at)| edge(peer, track, at));
    let parting = (1..30_u64, 30..60_u64, 0..90_u64).prop_map(|(one, other, until)| Parting {
        one: PeerId(one),
        other: PeerId(other),
        until: match until {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        },
    });
    let accusation =
        (peer(), peer()).prop_map(|(accuser, suspect)| Accusation { accuser, suspect });
    let joined = proptest::collection::vec((1..30_u64).prop_map(joins), 0..3);
    let edges = proptest::collection::vec(edge, 0..3);
    let parted = proptest::collection::vec(parting, 0..2);
    let accusations = proptest::collection::vec(accusation, 0..2);
    let parts = (
        joined,
        edges,
        parted,
        accusations,
        peers(),
        peers(),
        peers(),
    );
    (0..99_u64, parts).prop_map(|(time, parts)| {
        let (joined, edges, parted, accusations, left, forgotten, told) = parts;
        let mut entry = Entry::new(7, Duration::from_secs(time));
        (entry.peers, entry.edges, entry.parted) = (joined, edges, parted);
        (entry.accusations, entry.forgotten) = (accusations, forgotten);
        if time % 4 == 0 {
            entry.left = left;
            entry.told = told.iter().map(|peer| tells(peer.0)).collect();
        }
        entry
    })
}

fn snapshot(shard: &ShardState) -> Vec<u8> {
    let mut bytes = Vec::new();
    shard.write_snapshot(&mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn equal_entries_make_equal_states_and_snapshots_lose_nothing(
        entries in proptest::collection::vec(any_entry(), 1..150),
        cut in any::<proptest::sample::Index>(),
    ) {
        let cut = cut.index(entries.len());
        let mut one = ShardState::default();
        apply_one(&mut one, create(7));
        let tracks = Entry {
            tracks: Some(vec![track(0, "v0"), track(1, "v1")]),
            ..Entry::new(7, Duration::ZERO)
        };
        let decide = |entry| ShardOp::Decide { channel: channel("news"), entry };
        apply_one(&mut one, decide(tracks));
        let mut copies = Vec::new();
        for (at, entry) in entries.into_iter().enumerate() {
            if at == cut {
                let again = ShardState::read_snapshot(&snapshot(&one)[..]).unwrap();
                copies.push((one.clone(), one.hash(), again));
            }
            let op = decide(entry);
            let outcome = apply_one(&mut one, op.clone());
            for (_, _, again) in &mut copies {
                prop_assert_eq!(apply_one(again, op.clone()), outcome);
                prop_assert_eq!(again.hash(), one.hash());
            }
        }
        for (frozen, hash, again) in copies {
            prop_assert_eq!(frozen.hash(), hash, "a clone stays as it is");
            prop_assert_eq!(snapshot(&again), snapshot(&one));
        }
    }
}

#[test]
fn a_snapshot_that_is_cut_off_or_garbled_is_an_error() {
    let mut shard = ShardState::default();
    apply_one(&mut shard, create(7));
    let decided = Entry {
        tracks: Some(vec![track(0, "v0")]),
        peers: vec![joins(1), joins(2)],
        edges: vec![edge(1, 0, Some(Source::Cdn)), edge(2, 0, under(1))],
        ..Entry::new(7, Duration::from_secs(1))
    };
    let (id, entry) = (channel("news"), decided);
    assert!(apply_one(&mut shard, ShardOp::Decide { channel: id, entry }).is_applied());
    let mut meta_bytes = Vec::new();
    some_meta().write_snapshot(&mut meta_bytes).unwrap();
    let shard_bytes = snapshot(&shard);
    let read_shard = |bytes: &[u8]| ShardState::read_snapshot(bytes).map(|shard| shard.hash());
    let read_meta = |bytes: &[u8]| MetaState::read_snapshot(bytes).map(|meta| meta.hash());
    assert_eq!(read_shard(&shard_bytes).unwrap(), shard.hash());
    assert_eq!(read_meta(&meta_bytes).unwrap(), some_meta().hash());
    type Read<'a> = &'a dyn Fn(&[u8]) -> Result<StateHash, SnapshotError>;
    let both: [(&[u8], Read<'_>); 2] = [(&shard_bytes, &read_shard), (&meta_bytes, &read_meta)];
    for (bytes, read) in both {
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut garbled = bytes.to_vec();
            garbled[at] ^= 0x55;
            assert!(read(&garbled).is_err(), "garbled at {at}");
        }
    }
    assert!(read_shard(&meta_bytes).is_err() && read_meta(&shard_bytes).is_err());
}
