//! Trees of real engines on a network in memory: the stream flows, and goes on flowing.

mod network;

use std::time::Duration;

use espalier_peer_core::{LinkState, PeerId, Source, SourceState};
use network::{CdnFault, MS, Network, Origin, TARGET, peer};

const MBIT: u64 = 1_000_000;

fn from(peer: PeerId) -> Source {
    Source::Peer(peer)
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

fn chain(count: u64, upload_bps: u64, segment_bytes: usize) -> Network {
    let mut network = network(count, upload_bps, segment_bytes);
    let tree: Vec<_> = (1..=count)
        .map(|id| {
            let source = if id == 1 {
                Source::Cdn
            } else {
                from(peer(id - 1))
            };
            (peer(id), source, Some(Source::Cdn))
        })
        .collect();
    network.plant(&tree);
    network
}

/// Twelve peers: one root, three below it, two below each of those, two below the first of these.
/// Standbys are outside the subtree of the one they stand by for.
fn tree() -> Network {
    let mut network = network(12, 30 * MBIT, 150_000);
    let edge = |id: u64, source: u64, standby: Option<u64>| {
        (
            peer(id),
            from(peer(source)),
            standby.map_or(Some(Source::Cdn), |s| Some(from(peer(s)))),
        )
    };
    network.plant(&[
        (peer(1), Source::Cdn, None),
        edge(2, 1, None),
        edge(3, 1, None),
        edge(4, 1, None),
        edge(5, 2, Some(3)),
        edge(6, 2, Some(3)),
        edge(7, 3, Some(4)),
        edge(8, 3, Some(4)),
        edge(9, 4, Some(2)),
        edge(10, 4, Some(2)),
        edge(11, 5, Some(7)),
        edge(12, 5, Some(7)),
    ]);
    network
}

#[test]
fn a_lone_root_plays_without_a_gap_and_reads_each_object_once() {
    let mut network = network(1, 10 * MBIT, 375_000);
    network.assign(peer(1), Source::Cdn, None, &[], false);
    network.run_for(TARGET * 15);
    network.assert_gapless(1);
    let node = network.node(peer(1));
    assert_eq!(
        node.requests.len(),
        node.fetched.len(),
        "an object was read twice"
    );
    assert_eq!(node.engine.snapshot(network.now).playout.stalls, 0);
    assert!(
        network.worst_delay(peer(1), 4) < 50 * MS,
        "prefetching hides the CDN"
    );
}

#[test]
fn a_chain_of_eight_flows_with_one_root_on_slow_uplinks() {
    let mut network = chain(8, 3 * MBIT, 375_000);
    network.run_for(TARGET * 20);
    network.assert_gapless(2);
    for id in 1..=8 {
        let node = network.node(peer(id));
        assert_eq!(
            node.engine.snapshot(network.now).playout.stalls,
            0,
            "peer {id}"
        );
        if id > 1 {
            assert!(node.fetched.len() <= 3, "peer {id} took {:?}", node.fetched);
            assert_eq!(network.requests_since(peer(id), TARGET * 6), 0, "peer {id}");
        }
    }
    let (first, last) = (
        network.worst_delay(peer(1), 6),
        network.worst_delay(peer(8), 6),
    );
    assert!(last - first < Duration::from_secs(4), "{first:?} {last:?}");
    // Cut-through: far less than eight times a segment's own transfer (1.1 s each).
    assert!(last < Duration::from_secs(3), "{last:?}");
}

#[test]
fn a_hop_adds_little_where_uplinks_are_fast() {
    let mut network = chain(5, 300 * MBIT, 375_000);
    network.latency = MS;
    network.run_for(TARGET * 15);
    network.assert_gapless(1);
    let delays: Vec<Duration> = (1..=5).map(|id| network.worst_delay(peer(id), 6)).collect();
    for hop in delays.windows(2) {
        assert!(hop[1].saturating_sub(hop[0]) < 25 * MS, "{delays:?}");
    }
}

#[test]
fn a_tree_of_twelve_flows_and_only_the_root_touches_the_cdn() {
    let mut network = tree();
    network.run_for(TARGET * 15);
    network.assert_gapless(1);
    for id in 2..=12 {
        let node = network.node(peer(id));
        assert!(node.fetched.len() <= 3, "peer {id} took {:?}", node.fetched);
        assert_eq!(network.requests_since(peer(id), TARGET * 6), 0, "peer {id}");
        let snapshot = node.engine.snapshot(network.now);
        assert_eq!(snapshot.counters.duplicate_bytes, 0, "peer {id}");
        let last = node
            .reports
            .last()
            .map(|(_, report)| (report.source, report.state));
        assert_eq!(
            last,
            Some((snapshot.tracks[0].source, SourceState::Flowing)),
            "peer {id}"
        );
    }
}

#[test]
fn a_deep_tree_on_slow_uplinks_paces_and_does_not_run_to_the_cdn() {
    let mut network = network(12, 4 * MBIT, 380_000);
    network.eager_players = true;
    // A spine of six, each with a leaf: two children at the most.
    let spine = |id: u64| (peer(id), from(peer(id - 1)), Some(Source::Cdn));
    let leaf = |id: u64| (peer(id), from(peer(id - 6)), Some(from(peer(1))));
    let mut tree = vec![(peer(1), Source::Cdn, None)];
    tree.extend((2..=6).map(spine));
    tree.extend((7..=12).map(leaf));
    network.plant(&tree);
    network.run_for(TARGET * 25);
    network.assert_gapless(3);
    for id in 2..=12 {
        assert_eq!(network.requests_since(peer(id), TARGET * 8), 0, "peer {id}");
        let snapshot = network.node(peer(id)).engine.snapshot(network.now);
        assert_eq!(snapshot.playout.stalls, 0, "peer {id}");
        // What it lists of its start may come from the CDN and the parent.
        assert!(
            snapshot.counters.duplicate_bytes < 400_000,
            "{id}: {:?}",
            snapshot.counters
        );
    }
}

#[test]
fn a_killed_interior_peer_is_replaced_by_the_standby_in_time() {
    for moment in 0..10 {
        let mut network = tree();
        network.run_for(TARGET * 8 + 200 * MS * moment);
        let (killed, next) = (network.now, network.origin.next_sequence());
        network.kill(peer(2));
        network.run_for(TARGET * 6);
        network.assert_gapless(1);
        for id in [5, 6, 11, 12, 9, 10, 1, 3, 4, 7, 8] {
            let usual = network.worst_delay(peer(3), 5);
            let worst = network.worst_delay(peer(id), next - 1);
            assert!(
                worst < usual + Duration::from_millis(1_500),
                "peer {id}, moment {moment}: {worst:?}"
            );
            let snapshot = network.node(peer(id)).engine.snapshot(network.now);
            assert_eq!(snapshot.playout.stalls, 0, "peer {id}");
        }
        for id in [11, 12, 7, 8, 9, 10, 3, 4] {
            assert_eq!(
                network.requests_since(peer(id), killed),
                0,
                "peer {id} is no orphan head"
            );
        }
        for id in [5, 6] {
            let node = network.node(peer(id));
            let dead = node
                .link_reports
                .iter()
                .any(|(_, peer, state)| *peer == PeerId(2) && *state == LinkState::Dead);
            assert!(dead, "peer {id} reports its dead parent");
            let last = node
                .reports
                .last()
                .map(|(_, report)| (report.source, report.state));
            assert_eq!(last, Some((Some(from(peer(3))), SourceState::Flowing)));
        }
    }
}

/// Below a killed peer, those who stand by for each other lack the same chunks: what one asks of the other
/// cannot come, and has to come from its parent as soon as that has it.
#[test]
fn standbys_that_lack_the_same_do_not_keep_the_parent_from_bringing_it() {
    for moment in 0..20 {
        let mut network = network(12, 5 * MBIT, 375_000);
        let edge = |id, source, standby| (peer(id), from(peer(source)), Some(standby));
        let by = |id| from(peer(id));
        network.plant(&[
            (peer(1), Source::Cdn, None),
            edge(2, 1, Source::Cdn),
            edge(3, 1, Source::Cdn),
            edge(4, 2, by(7)),
            edge(5, 2, by(7)),
            edge(6, 3, by(8)),
            edge(7, 3, by(8)),
            edge(8, 4, by(10)),
            edge(9, 4, by(10)),
            edge(10, 5, by(8)),
            edge(11, 5, by(8)),
            edge(12, 6, by(9)),
        ]);
        network.run_for(TARGET * 8 + 100 * MS * moment);
        let (killed, next) = (network.now, network.origin.next_sequence());
        let usual = network.worst_delay(peer(8), 5);
        network.kill(peer(2));
        network.run_for(TARGET * 6);
        network.assert_gapless(2);
        for id in [8, 9, 10, 11] {
            assert_eq!(network.requests_since(peer(id), killed), 0, "peer {id}");
        }
        for id in [4, 5, 8, 9, 10, 11] {
            let late = network
                .worst_delay(peer(id), next - 1)
                .saturating_sub(usual);
            // A second until the loss is felt; then two hops of uplinks that are full.
            assert!(
                late < Duration::from_millis(2_500),
                "peer {id}, moment {moment}: {late:?}"
            );
        }
    }
}

#[test]
fn an_orphan_head_without_a_standby_takes_over_from_the_cdn_and_its_subtree_waits_for_it() {
    for moment in 0..10 {
        let mut network = chain(6, 30 * MBIT, 150_000);
        network.run_for(TARGET * 8 + 200 * MS * moment);
        let (killed, next) = (network.now, network.origin.next_sequence());
        network.kill(peer(2));
        network.run_for(TARGET * 6);
        network.assert_gapless(1);
        for id in 3..=6 {
            let worst = network.worst_delay(peer(id), next - 1);
            assert!(
                worst < Duration::from_millis(1_600),
                "peer {id}, moment {moment}: {worst:?}"
            );
            if id > 3 {
                assert_eq!(network.requests_since(peer(id), killed), 0, "peer {id}");
            }
        }
    }
}

#[test]
fn a_corrupting_parent_is_separated_and_no_bad_byte_is_played_or_relayed() {
    let mut network = tree();
    network.run_for(TARGET * 6);
    network.node_mut(peer(2)).corrupts_every = 20;
    let since = network.now;
    network.run_for(TARGET * 12);
    network.assert_gapless(1);
    for id in [5, 6] {
        let node = network.node(peer(id));
        let named = node.link_reports.iter().any(|(at, peer, state)| {
            *peer == PeerId(2) && *state == LinkState::Corrupt && *at >= since
        });
        assert!(named, "peer {id} names the offender");
        assert!(
            !network.is_linked(peer(id), peer(2)),
            "the pair is separated"
        );
        assert_eq!(node.engine.snapshot(network.now).counters.corrupt_chunks, 1);
    }
}

#[test]
fn a_frozen_child_slows_no_sibling() {
    let mut network = tree();
    network.run_for(TARGET * 6);
    let next = network.origin.next_sequence();
    network.freeze(peer(5));
    network.run_for(TARGET * 5);
    for id in [6, 3, 4, 7, 8, 9, 10] {
        let worst = network.worst_delay(peer(id), next);
        assert!(worst < 250 * MS, "peer {id}: {worst:?}");
    }
    // Its own children have gone to their standby.
    network.assert_gapless(1);
    network.thaw(peer(5));
    network.run_for(TARGET * 8);
    network.assert_gapless(1);
}

#[test]
fn without_a_signer_everybody_goes_into_bypass_and_comes_back() {
    let mut network = tree();
    network.run_for(TARGET * 6);
    network.stop_signing();
    network.run_for(TARGET * 15);
    for id in 1..=12 {
        let node = network.node(peer(id));
        let state = node.reports.last().map(|(_, report)| report.state);
        assert_eq!(state, Some(SourceState::Bypass), "peer {id}");
        assert!(node.player.unverified.len() > 8, "peer {id}");
    }
    let duplicates = |network: &Network, id| {
        network
            .node(peer(id))
            .engine
            .snapshot(network.now)
            .counters
            .duplicate_bytes
    };
    let before: Vec<u64> = (1..=12).map(|id| duplicates(&network, id)).collect();
    network.resume_signing();
    let back = network.now;
    network.run_for(TARGET * 5);
    for (id, before) in (1..=12).zip(before) {
        let again = duplicates(&network, id) - before;
        assert!(
            again <= 160_000,
            "peer {id} got {again} bytes that it had played"
        );
    }
    network.assert_gapless(2);
    for id in 1..=12 {
        let node = network.node(peer(id));
        let last = node.reports.last().map(|(at, report)| (*at, report.state));
        let (at, state) = last.expect("reports");
        assert_eq!(state, SourceState::Flowing, "peer {id}");
        assert!(
            at < back + Duration::from_secs(10),
            "peer {id}: {:?}",
            at - back
        );
        let snapshot = node.engine.snapshot(network.now);
        assert_eq!(snapshot.playout.stalls, 0, "peer {id}");
    }
    let quiet = network.now;
    network.run_for(TARGET * 6);
    for id in 2..=12 {
        assert_eq!(
            network.requests_since(peer(id), quiet),
            0,
            "peer {id} is in the tree again"
        );
    }
}

#[test]
fn a_child_moves_to_another_parent_without_a_gap() {
    let mut network = tree();
    network.run_for(TARGET * 6);
    let since = network.now;
    // Peer 6 moves from 2 to 4.
    network.assign(
        peer(4),
        from(peer(1)),
        Some(Source::Cdn),
        &[
            (peer(9), false),
            (peer(10), false),
            (peer(6), false),
            (peer(7), true),
            (peer(8), true),
        ],
        false,
    );
    network.assign(peer(6), from(peer(4)), Some(from(peer(3))), &[], true);
    network.assign(
        peer(2),
        from(peer(1)),
        Some(Source::Cdn),
        &[(peer(5), false), (peer(9), true), (peer(10), true)],
        false,
    );
    network.run_for(TARGET * 8);
    network.assert_gapless(1);
    assert!(!network.is_linked(peer(6), peer(2)));
    assert_eq!(network.requests_since(peer(6), since), 0);
    let node = network.node(peer(6));
    let last = node
        .reports
        .last()
        .map(|(_, report)| (report.source, report.state));
    assert_eq!(last, Some((Some(from(peer(4))), SourceState::Flowing)));
    assert!(network.worst_delay(peer(6), 6) < 250 * MS);
    assert_eq!(node.acknowledged, node.engine.held().generation);
}

/// The source and state that a peer last reported.
fn reported(network: &Network, id: PeerId) -> Option<(Option<Source>, SourceState)> {
    let reports = &network.node(id).reports;
    reports
        .last()
        .map(|(_, report)| (report.source, report.state))
}

#[test]
fn a_root_that_gets_a_parent_slower_than_the_cdn_says_so_when_it_flows() {
    let mut network = network(2, 5 * MBIT, 375_000);
    network.plant(&[(peer(1), Source::Cdn, None), (peer(2), Source::Cdn, None)]);
    network.run_for(TARGET * 3);
    let served = [(peer(2), false)];
    network.assign(peer(1), Source::Cdn, None, &served, false);
    network.assign(peer(2), from(peer(1)), Some(Source::Cdn), &[], true);
    network.run_for(TARGET * 3);
    let expected = Some((Some(from(peer(1))), SourceState::Flowing));
    assert_eq!(reported(&network, peer(2)), expected);
    let since = network.now;
    network.run_for(TARGET * 5);
    network.assert_gapless(1);
    assert_eq!(network.requests_since(peer(2), since), 0);
}

#[test]
fn a_child_that_moves_says_so_although_the_old_parent_is_always_first() {
    let mut network = network(4, 5 * MBIT, 375_000);
    network.plant(&[
        (peer(1), Source::Cdn, None),
        (peer(2), from(peer(1)), Some(Source::Cdn)),
        (peer(3), from(peer(2)), Some(Source::Cdn)),
        (peer(4), from(peer(1)), Some(Source::Cdn)),
    ]);
    network.run_for(TARGET * 4);
    let below = [(peer(4), false)];
    network.assign(peer(3), from(peer(2)), Some(Source::Cdn), &below, false);
    network.assign(peer(4), from(peer(3)), Some(Source::Cdn), &[], true);
    network.run_for(TARGET * 4);
    let expected = Some((Some(from(peer(3))), SourceState::Flowing));
    assert_eq!(reported(&network, peer(4)), expected);
    network.run_for(TARGET * 4);
    network.assert_gapless(1);
}

#[test]
fn a_parent_that_is_too_slow_is_helped_out_and_reported() {
    let mut network = network(3, 30 * MBIT, 375_000);
    // A third of what the stream needs.
    network.add(4, MBIT / 2);
    network.plant(&[
        (peer(1), Source::Cdn, None),
        (peer(2), from(peer(1)), Some(Source::Cdn)),
        (peer(4), from(peer(1)), Some(Source::Cdn)),
        (peer(3), from(peer(4)), Some(from(peer(2)))),
    ]);
    network.run_for(TARGET * 25);
    network.assert_gapless(3);
    let node = network.node(peer(3));
    let snapshot = node.engine.snapshot(network.now);
    assert_eq!(snapshot.playout.stalls, 0);
    assert!(
        snapshot.counters.bytes_from_standby > 1_000_000,
        "{:?}",
        snapshot.counters
    );
    let late = node
        .link_reports
        .iter()
        .any(|(_, id, state)| (*id, *state) == (peer(4), LinkState::Late));
    assert!(late, "{:?}", node.link_reports);
}

/// Half a minute of 6 Mbit/s over a path to the parent that carries less than half of it and loses 1 %.
/// The standby's path carries `standby_bps` and loses so many packets of a thousand.
fn check_duplicates_over_lossy_paths(standby_bps: u64, standby_per_mille: u64, most: u64) {
    let mut network = network(3, 50 * MBIT, 1_500_000);
    network.latency = 20 * MS;
    network.make_lossy(peer(1), peer(3), 2_500_000, 10);
    network.make_lossy(peer(2), peer(3), standby_bps, standby_per_mille);
    network.plant(&[
        (peer(1), Source::Cdn, None),
        (peer(2), Source::Cdn, None),
        (peer(3), from(peer(1)), Some(from(peer(2)))),
    ]);
    network.run_for(TARGET * 15);
    network.assert_gapless(4);
    let snapshot = network.node(peer(3)).engine.snapshot(network.now);
    let counters = snapshot.counters;
    assert_eq!(snapshot.playout.stalls, 0, "{counters:?}");
    let from_parent = counters.bytes_from_peers - counters.bytes_from_standby;
    assert!(from_parent > 4_000_000, "the parent is used: {counters:?}");
    assert!(counters.duplicate_bytes <= most, "{counters:?}");
}

#[test]
fn what_a_lossy_parent_has_under_way_is_not_asked_of_the_standby_too() {
    check_duplicates_over_lossy_paths(50 * MBIT, 0, 1_200_000);
}

#[test]
fn two_lossy_paths_bring_little_twice() {
    check_duplicates_over_lossy_paths(2_500_000, 10, 2_500_000);
}

#[test]
fn a_cdn_that_ignores_ranges_is_used_whole() {
    let mut network = chain(3, 30 * MBIT, 375_000);
    network.run_for(TARGET * 6);
    network.cdn_fault = CdnFault::IgnoresRanges;
    network.kill(peer(2));
    network.run_for(TARGET * 6);
    network.assert_gapless(1);
}

#[test]
fn a_cdn_that_fails_for_a_while_stops_nobody_for_longer() {
    let mut network = chain(3, 30 * MBIT, 150_000);
    network.run_for(TARGET * 6);
    for fault in [CdnFault::NotFound, CdnFault::Hangs] {
        network.cdn_fault = fault;
        network.run_for(Duration::from_millis(2_500));
        network.cdn_fault = CdnFault::None;
        network.run_for(TARGET * 5);
        network.assert_gapless(1);
        for id in 1..=3 {
            assert_eq!(
                network
                    .node(peer(id))
                    .engine
                    .snapshot(network.now)
                    .playout
                    .stalls,
                0
            );
        }
    }
}

#[test]
fn other_bytes_at_the_cdn_are_played_by_the_root_and_relayed_to_nobody() {
    let mut network = chain(2, 30 * MBIT, 150_000);
    network.run_for(TARGET * 6);
    for id in 1..=2 {
        network.node_mut(peer(id)).player.tolerates_other_bytes = true;
    }
    network.cdn_fault = CdnFault::OtherBytes;
    network.run_for(TARGET * 3);
    network.cdn_fault = CdnFault::None;
    network.run_for(TARGET * 5);
    network.assert_gapless(1);
    let snapshot = network.node(peer(1)).engine.snapshot(network.now);
    assert!(
        snapshot.counters.origin_mismatches >= 2,
        "{:?}",
        snapshot.counters
    );
    for id in 1..=2 {
        let node = network.node(peer(id));
        assert!(node.player.unverified.len() >= 2, "peer {id}");
        assert_eq!(node.engine.snapshot(network.now).counters.corrupt_chunks, 0);
        assert!(
            node.link_reports
                .iter()
                .all(|(_, _, state)| *state == LinkState::Up)
        );
    }
}

#[test]
fn init_sections_come_before_the_segments_that_need_them() {
    let mut network = Network::new(Origin::new(150_000, true));
    network.run_for(Duration::from_millis(9_100));
    for id in 1..=4 {
        network.add(id, 30 * MBIT);
    }
    network.plant(&[
        (peer(1), Source::Cdn, None),
        (peer(2), from(peer(1)), Some(Source::Cdn)),
        (peer(3), from(peer(2)), Some(from(peer(1)))),
        (peer(4), from(peer(3)), Some(Source::Cdn)),
    ]);
    network.run_for(TARGET * 8);
    network.assert_gapless(1);
    for id in 2..=4 {
        assert!(network.node(peer(id)).fetched.len() <= 3, "peer {id}");
        let counters = network.node(peer(id)).engine.snapshot(network.now).counters;
        // The init section came from the CDN with the start, and once more with the subscription.
        assert!(counters.duplicate_bytes <= 900, "{counters:?}");
    }
}
