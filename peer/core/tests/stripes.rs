//! Tracks that are cut into stripes: each has a tree of its own, and loses no more than itself.

mod network;

use std::collections::BTreeSet;
use std::time::Duration;

use espalier_media::{ByteRange, CHUNK_SIZE};
use espalier_peer_core::{PeerId, Source, SourceState};
use network::{CdnFault, Edge, MS, Network, Origin, Place, TARGET, peer};
use proptest::prelude::*;

const MBIT: u64 = 1_000_000;
/// Eight chunks or more.
const SEGMENT: usize = 480_000;

fn from(id: u64) -> Source {
    Source::Peer(peer(id))
}

/// A network in which `count` peers with these uplinks exist, five seconds into the stream.
fn network(count: u64, upload_bps: u64, segment_bytes: usize) -> Network {
    let mut network = Network::new(Origin::new(segment_bytes, false));
    network.run_for(Duration::from_millis(5_100));
    for id in 1..=count {
        network.add(id, upload_bps);
    }
    network
}

/// For each stripe the same tree of `count` peers, two children each, with the peers in another order:
/// who is near the root in one is a leaf in the next. The standby is the parent's sibling, or the CDN.
fn rotated_trees(stripes: u64, count: u64) -> Vec<Vec<Edge>> {
    let tree = |stripe: u64| {
        let id = |place: u64| 1 + (place + stripe * count / stripes) % count;
        let edge = |place: u64| {
            let source = match place {
                0 => Source::Cdn,
                _ => from(id((place - 1) / 2)),
            };
            let standby = match place {
                0 => None,
                1 | 2 => Some(Source::Cdn),
                _ if (place - 1) / 2 % 2 == 1 => Some(from(id((place - 1) / 2 + 1))),
                _ => Some(from(id((place - 1) / 2 - 1))),
            };
            (peer(id(place)), source, standby)
        };
        (0..count).map(edge).collect()
    };
    (0..stripes).map(tree).collect()
}

fn source_in(trees: &[Vec<Edge>], stripe: usize, id: PeerId) -> Source {
    let edge = trees[stripe].iter().find(|(peer, ..)| *peer == id);
    edge.expect("everybody is in every tree").1
}

/// The chunks that a range of the resource covers.
fn chunks_of(range: ByteRange) -> std::ops::Range<u64> {
    let chunk = CHUNK_SIZE as u64;
    range.offset / chunk..(range.offset + range.length).div_ceil(chunk)
}

/// The stripes whose chunks a peer asked the CDN for since a time; a whole object is all of them.
fn stripes_read(network: &Network, id: PeerId, stripes: u64, since: Duration) -> BTreeSet<u64> {
    let requests = network.node(id).requests.iter();
    let requests = requests.filter(|(at, _)| *at >= since);
    let read = |range: Option<ByteRange>| match range {
        Some(range) => chunks_of(range).map(|chunk| chunk % stripes).collect(),
        None => (0..stripes).collect::<Vec<_>>(),
    };
    requests
        .flat_map(|(_, request)| read(request.range))
        .collect()
}

fn stalls(network: &Network, id: PeerId) -> u32 {
    let snapshot = network.node(id).engine.snapshot(network.now);
    snapshot.playout.stalls
}

#[test]
fn each_stripe_flows_down_its_own_tree_and_only_its_root_reads_it_from_the_cdn() {
    for stripes in [1, 2, 4] {
        let mut network = network(12, 30 * MBIT, SEGMENT);
        let trees = rotated_trees(stripes, 12);
        network.plant_striped(&trees, false);
        network.run_for(TARGET * 8);
        let since = network.now;
        network.run_for(TARGET * 10);
        network.assert_gapless(1);
        for id in (1..=12).map(peer) {
            let node = network.node(id);
            let snapshot = node.engine.snapshot(network.now);
            assert_eq!(snapshot.playout.stalls, 0, "{id} of {stripes}");
            let roots: BTreeSet<u64> = (0..stripes)
                .filter(|s| source_in(&trees, usize::try_from(*s).unwrap(), id) == Source::Cdn)
                .collect();
            let read = stripes_read(&network, id, stripes, since);
            assert_eq!(read, roots, "{id} of {stripes}");
            for (stripe, track) in snapshot.tracks.iter().enumerate() {
                let planned = source_in(&trees, stripe, id);
                let now = (track.source, track.state);
                assert_eq!(now, (Some(planned), SourceState::Flowing), "{id}");
                let said = node.reports.iter().rev();
                let mut said = said.filter(|(_, report)| usize::from(report.stripe) == stripe);
                let last = said.next().map(|(_, report)| (report.source, report.state));
                assert_eq!(last, Some(now), "{id} says so of stripe {stripe}");
            }
            // The start may come from the CDN and the parents both.
            let duplicates = snapshot.counters.duplicate_bytes;
            assert!(duplicates < 3 * SEGMENT as u64, "{id}: {duplicates}");
        }
    }
}

#[test]
fn a_root_of_one_stripe_takes_its_share_of_the_bytes() {
    let mut network = network(4, 30 * MBIT, SEGMENT);
    network.plant_striped(&rotated_trees(4, 4), false);
    network.run_for(TARGET * 4);
    let taken = |network: &Network| {
        let counters = |id| network.node(peer(id)).engine.snapshot(network.now).counters;
        (1..=4).map(|id| counters(id).bytes_from_cdn).sum::<u64>()
    };
    let (before, first) = (taken(&network), network.origin.next_sequence());
    network.run_for(TARGET * 10);
    let segments = network.origin.next_sequence() - first;
    let had = (taken(&network) - before) as f64 / (segments * SEGMENT as u64) as f64;
    assert!(
        (0.95..1.1).contains(&had),
        "each byte once, not {had} times"
    );
}

#[test]
fn who_has_every_stripe_from_the_cdn_reads_whole_objects() {
    let mut network = network(1, 10 * MBIT, SEGMENT);
    network.stripes = 4;
    network.assign(peer(1), Source::Cdn, None, &[], false);
    network.run_for(TARGET * 10);
    network.assert_gapless(1);
    let node = network.node(peer(1));
    assert!(
        node.requests
            .iter()
            .all(|(_, request)| request.range.is_none())
    );
    assert_eq!(
        node.requests.len(),
        node.fetched.len(),
        "an object was read twice"
    );
    assert!(
        network.worst_delay(peer(1), 4) < 50 * MS,
        "prefetching hides the CDN"
    );
}

#[test]
fn a_dead_parent_costs_its_stripe_and_nothing_else() {
    for moment in 0..8 {
        let mut network = network(12, 30 * MBIT, SEGMENT);
        let trees = rotated_trees(4, 12);
        network.plant_striped(&trees, false);
        network.run_for(TARGET * 8 + 250 * MS * moment);
        let (killed, next) = (network.now, network.origin.next_sequence());
        // It is in the second rank of stripe 0, and a leaf in most others.
        let victim = trees[0][1].0;
        network.kill(victim);
        network.run_for(TARGET * 6);
        network.assert_gapless(1);
        for id in (1..=12).map(peer).filter(|id| *id != victim) {
            assert_eq!(stalls(&network, id), 0, "{id}, moment {moment}");
            let worst = network.worst_delay(id, next - 1);
            assert!(
                worst < Duration::from_millis(2_500),
                "{id}, moment {moment}: {worst:?}"
            );
            let struck: BTreeSet<u64> = (0..4)
                .filter(|stripe| {
                    let stripe = usize::try_from(*stripe).expect("small");
                    let source = source_in(&trees, stripe, id);
                    source == Source::Cdn || source == Source::Peer(victim)
                })
                .collect();
            let read = stripes_read(&network, id, 4, killed);
            assert!(
                read.is_subset(&struck),
                "{id} reads {read:?}, lost {struck:?}"
            );
            for (stripe, track) in
                (0_usize..).zip(network.node(id).engine.snapshot(network.now).tracks)
            {
                let planned = source_in(&trees, stripe, id);
                if planned == Source::Peer(victim) {
                    assert_ne!(track.source, Some(planned), "{id}, stripe {stripe}");
                } else {
                    assert_eq!(track.source, Some(planned), "{id}, stripe {stripe}");
                }
                assert_eq!(track.state, SourceState::Flowing, "{id}, stripe {stripe}");
            }
        }
    }
}

#[test]
fn descriptors_come_as_long_as_one_parent_lives() {
    let mut network = network(5, 30 * MBIT, SEGMENT);
    let cdn = |id| (peer(id), Source::Cdn, None);
    let tree = |parent: u64| {
        let mut tree: Vec<Edge> = (1..=4).map(cdn).collect();
        tree.push((peer(5), from(parent), None));
        tree
    };
    network.plant_striped(&[tree(1), tree(2), tree(3), tree(4)], false);
    network.run_for(TARGET * 6);
    let opened = network.node(peer(5)).feed_opened;
    for (victim, left) in [(1, 3), (2, 2), (3, 1)] {
        network.kill(peer(victim));
        let next = network.origin.next_sequence();
        network.run_for(TARGET * 5);
        network.assert_gapless_from(peer(5), next - 1, 1);
        assert_eq!(stalls(&network, peer(5)), 0, "{left} parents left");
        assert!(network.worst_delay(peer(5), next + 1) < Duration::from_millis(900));
    }
    let node = network.node(peer(5));
    assert!(
        node.player.unverified.is_empty(),
        "nothing was played unverified"
    );
    assert!(
        node.feed_opened > opened,
        "who reads from the CDN hears the signer as well"
    );
}

#[test]
fn without_a_standby_only_the_lost_stripe_comes_from_the_cdn() {
    let mut network = network(5, 30 * MBIT, SEGMENT);
    let cdn = |id| (peer(id), Source::Cdn, None);
    let tree = |parent: u64| {
        let mut tree: Vec<Edge> = (1..=4).map(cdn).collect();
        tree.push((peer(5), from(parent), Some(Source::Cdn)));
        tree
    };
    network.plant_striped(&[tree(1), tree(2), tree(3), tree(4)], false);
    network.run_for(TARGET * 6);
    let since = network.now;
    network.kill(peer(3));
    network.run_for(TARGET * 8);
    network.assert_gapless(1);
    assert_eq!(stalls(&network, peer(5)), 0);
    assert_eq!(
        stripes_read(&network, peer(5), 4, since),
        BTreeSet::from([2])
    );
}

#[test]
fn an_answer_that_is_whole_although_a_part_was_asked_for_is_used_whole() {
    let mut network = network(4, 30 * MBIT, SEGMENT);
    network.cdn_fault = CdnFault::IgnoresRanges;
    network.plant_striped(&rotated_trees(4, 4), false);
    network.run_for(TARGET * 4);
    let (since, first) = (network.now, network.origin.next_sequence());
    let counters = |network: &Network| {
        let node = network.node(peer(1));
        node.engine.snapshot(network.now).counters.bytes_from_cdn
    };
    let before = counters(&network);
    network.run_for(TARGET * 10);
    network.assert_gapless(1);
    let segments = network.origin.next_sequence() - first;
    let requests = u64::try_from(network.requests_since(peer(1), since)).expect("few");
    assert!(
        requests <= segments + 2,
        "{requests} requests for {segments} segments"
    );
    let taken = counters(&network) - before;
    assert!(
        taken < (segments + 2) * (SEGMENT as u64 + 7_000),
        "{taken} bytes"
    );
    assert_eq!(stalls(&network, peer(1)), 0);
}

#[test]
fn uploads_below_the_bitrate_carry_the_stream_together() {
    // 1.93 Mbit/s of payload, and each peer has 1.9 Mbit/s of uplink: nobody could feed one child, but
    // each can feed three with a stripe.
    let upload = 1_900_000;
    let mut network = network(8, upload, SEGMENT);
    // Interior in one tree only: the first two ranks of each tree are peers of its own.
    let tree = |stripe: u64| {
        let own = [1 + stripe * 2, 2 + stripe * 2];
        let others: Vec<u64> = (1..=8).filter(|id| !own.contains(id)).collect();
        let mut tree: Vec<Edge> = vec![
            (peer(own[0]), Source::Cdn, None),
            (peer(own[1]), Source::Cdn, None),
        ];
        for (place, id) in others.into_iter().enumerate() {
            tree.push((peer(id), from(own[place % 2]), Some(Source::Cdn)));
        }
        tree
    };
    let trees: Vec<Vec<Edge>> = (0..4).map(tree).collect();
    network.plant_striped(&trees, false);
    network.run_for(TARGET * 12);
    let (since, at) = (network.now, network.now);
    let sent = |network: &Network, id| {
        let node = network.node(peer(id));
        node.engine.snapshot(network.now).counters.bytes_to_peers
    };
    let before: Vec<u64> = (1..=8).map(|id| sent(&network, id)).collect();
    network.run_for(TARGET * 12);
    network.assert_gapless(3);
    let seconds = (network.now - at).as_secs_f64();
    for (id, before) in (1..=8).zip(before) {
        assert_eq!(stalls(&network, peer(id)), 0, "peer {id}");
        let own = BTreeSet::from([(id - 1) / 2]);
        assert_eq!(stripes_read(&network, peer(id), 4, since), own, "peer {id}");
        let rate = (sent(&network, id) - before) as f64 * 8.0 / seconds;
        assert!(
            rate > 1_300_000.0,
            "peer {id} serves three with a quarter each: {rate}"
        );
        assert!(
            rate < upload as f64 * 0.9,
            "one budget for all children: {rate}"
        );
    }
}

#[test]
fn two_peers_may_take_different_stripes_from_each_other() {
    let mut network = network(2, 30 * MBIT, SEGMENT);
    let trees = [
        vec![
            (peer(1), Source::Cdn, None),
            (peer(2), from(1), Some(Source::Cdn)),
        ],
        vec![
            (peer(2), Source::Cdn, None),
            (peer(1), from(2), Some(Source::Cdn)),
        ],
    ];
    network.plant_striped(&trees, false);
    network.run_for(TARGET * 6);
    let since = network.now;
    network.run_for(TARGET * 6);
    network.assert_gapless(1);
    for id in [1, 2] {
        let own = BTreeSet::from([id - 1]);
        assert_eq!(stripes_read(&network, peer(id), 2, since), own, "peer {id}");
        assert_eq!(stalls(&network, peer(id)), 0);
    }
}

#[test]
fn stripes_that_no_chunk_belongs_to_flow_all_the_same() {
    // Two or three chunks an object, eight stripes.
    let mut network = network(3, 30 * MBIT, 120_000);
    network.stripes = 8;
    network.plant(&[
        (peer(1), Source::Cdn, None),
        (peer(2), from(1), Some(Source::Cdn)),
        (peer(3), from(2), Some(from(1))),
    ]);
    network.run_for(TARGET * 10);
    network.assert_gapless(1);
    for id in [2, 3] {
        let snapshot = network.node(peer(id)).engine.snapshot(network.now);
        assert_eq!(snapshot.tracks.len(), 8);
        for track in snapshot.tracks {
            let now = (track.source, track.state);
            assert_eq!(now, (Some(from(id - 1)), SourceState::Flowing), "{id}");
        }
        assert_eq!(network.requests_since(peer(id), TARGET * 6), 0, "peer {id}");
    }
}

#[test]
fn a_statement_goes_once_to_a_child_that_takes_all_stripes_from_one_parent() {
    let statements = |stripes| {
        let mut network = network(2, 30 * MBIT, SEGMENT);
        network.stripes = stripes;
        network.plant(&[
            (peer(1), Source::Cdn, None),
            (peer(2), from(1), Some(Source::Cdn)),
        ]);
        network.run_for(TARGET * 8);
        let before = network.statements;
        network.run_for(TARGET * 8);
        network.assert_gapless(1);
        network.statements - before
    };
    assert_eq!(statements(4), statements(1));
    assert!(statements(1) >= 8);
}

#[test]
fn a_track_is_cut_anew_without_a_gap() {
    let mut network = network(12, 30 * MBIT, SEGMENT);
    for (round, stripes) in [1, 4, 2, 1, 8, 3].into_iter().enumerate() {
        let trees = rotated_trees(stripes, 12);
        network.plant_striped(&trees, round > 0);
        network.run_for(TARGET * 4);
        let since = network.now;
        network.run_for(TARGET * 4);
        network.assert_gapless(1);
        for id in (1..=12).map(peer) {
            assert_eq!(stalls(&network, id), 0, "{id}, {stripes} stripes");
            let roots: BTreeSet<u64> = (0..stripes)
                .filter(|s| source_in(&trees, usize::try_from(*s).unwrap(), id) == Source::Cdn)
                .collect();
            assert_eq!(stripes_read(&network, id, stripes, since), roots, "{id}");
        }
    }
}

#[test]
fn a_stripe_that_is_not_named_comes_from_the_cdn() {
    let mut network = network(2, 30 * MBIT, SEGMENT);
    let nowhere = Place::default();
    let served = Place {
        source: Some(Source::Cdn),
        standby: None,
        children: vec![(peer(2), false)],
    };
    let fed = Place {
        source: Some(from(1)),
        ..Place::default()
    };
    network.assign_striped(peer(1), &[served, nowhere.clone()], false);
    network.assign_striped(peer(2), &[fed, nowhere], false);
    network.run_for(TARGET * 12);
    network.assert_gapless(1);
    let read = stripes_read(&network, peer(2), 2, TARGET * 8);
    assert_eq!(read, BTreeSet::from([1]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Whoever dies, whenever, wherever it stood in however many trees.
    #[test]
    fn any_death_is_survived(
        stripes in 1_u64..9,
        victim in 1_u64..13,
        moment in 0_u64..4_000,
        segment in 100_000_usize..700_000,
    ) {
        let mut network = network(12, 30 * MBIT, segment);
        network.plant_striped(&rotated_trees(stripes, 12), false);
        let moment = MS * u32::try_from(moment).expect("small");
        network.run_for(TARGET * 6 + moment);
        network.kill(peer(victim));
        network.run_for(TARGET * 8);
        network.assert_gapless(1);
        for id in (1..=12).filter(|id| *id != victim) {
            prop_assert_eq!(stalls(&network, peer(id)), 0, "{} of {} stripes", id, stripes);
        }
    }
}
