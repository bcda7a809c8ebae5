//! Joining, several tracks, an origin that stands still, a player that asks for old objects.

mod network;

use std::time::Duration;

use espalier_media::ObjectKey;
use espalier_peer_core::{Event, Source, SourceState};
use network::{MS, Network, Origin, TARGET, peer};

const MBIT: u64 = 1_000_000;

fn pair_of_peers(origin: Origin) -> Network {
    let mut network = Network::new(origin);
    network.run_for(Duration::from_millis(9_100));
    network.add(1, 20 * MBIT);
    network.add(2, 20 * MBIT);
    network.plant(&[
        (peer(1), Source::Cdn, None),
        (peer(2), Source::Peer(peer(1)), Some(Source::Cdn)),
    ]);
    network
}

#[test]
fn a_newcomer_plays_before_any_link_is_up_and_takes_little_from_the_cdn() {
    for moment in 0..20 {
        let mut network = pair_of_peers(Origin::new(375_000, false));
        network.run_for(TARGET * 3 + 97 * MS * moment);
        let (joined, id) = (network.now, network.add(3, 20 * MBIT));
        network.assign(
            peer(2),
            Source::Peer(peer(1)),
            Some(Source::Cdn),
            &[(id, false)],
            false,
        );
        network.assign(
            id,
            Source::Peer(peer(2)),
            Some(Source::Peer(peer(1))),
            &[],
            false,
        );
        network.run_for(140 * MS);
        let node = network.node(id);
        assert!(!network.is_linked(id, peer(2)), "a link takes 150 ms here");
        assert_eq!(
            node.player.completed.len(),
            1,
            "the newest object is there already"
        );
        // As HLS players do, it begins with the third segment from the end.
        let newest = node
            .player
            .listed
            .iter()
            .next_back()
            .copied()
            .expect("listed");
        let sequence = newest.sequence - 2;
        network.tell(
            id,
            Event::PlayerWants {
                object: ObjectKey { sequence, ..newest },
            },
        );
        network.run_for(400 * MS);
        assert!(network.node(id).player.completed.contains_key(&sequence));
        network.run_for(TARGET * 6);
        network.assert_gapless_from(id, newest.sequence, 1);
        let node = network.node(id);
        assert!(node.fetched.len() <= 3, "{:?}", node.fetched);
        let snapshot = node.engine.snapshot(network.now);
        assert_eq!(snapshot.playout.stalls, 0);
        assert_eq!(snapshot.tracks[0].source, Some(Source::Peer(peer(2))));
        let first = snapshot.first_tree_byte.expect("the tree flows");
        assert!(first < joined + TARGET + Duration::from_millis(500));
        assert_eq!(node.feed_opened, 1, "and the feed was closed for good");
    }
}

#[test]
fn what_the_player_wants_from_the_past_comes_from_the_parent() {
    let mut network = pair_of_peers(Origin::new(150_000, false));
    network.run_for(TARGET * 5);
    let id = network.add(3, 20 * MBIT);
    network.assign(
        peer(2),
        Source::Peer(peer(1)),
        Some(Source::Cdn),
        &[(id, false)],
        false,
    );
    network.assign(id, Source::Peer(peer(2)), None, &[], false);
    network.run_for(TARGET * 3);
    let start = network
        .node(id)
        .player
        .completed
        .keys()
        .next()
        .copied()
        .expect("played");
    let before = network.now;
    let object = ObjectKey::segment(Network::track(), 0, start - 1);
    network.tell(id, Event::PlayerWants { object });
    network.run_for(500 * MS);
    let from = network
        .node(id)
        .player
        .from
        .get(&(start - 1))
        .copied()
        .expect("it came");
    assert_eq!(from.parent_bytes, from.total());
    assert_eq!(network.requests_since(id, before), 0);
}

#[test]
fn two_tracks_flow_over_one_link() {
    let mut network = pair_of_peers(Origin::new(90_000, true).with_tracks(2));
    network.run_for(TARGET * 6);
    network.assert_gapless(1);
    for id in 1..=2 {
        let snapshot = network.node(peer(id)).engine.snapshot(network.now);
        assert_eq!(snapshot.tracks.len(), 2);
        assert_eq!(snapshot.links.len(), 1);
        assert_eq!(snapshot.playout.stalls, 0);
    }
    network.stop_signing();
    network.run_for(TARGET * 8);
    network.resume_signing();
    network.run_for(TARGET * 6);
    network.assert_gapless(2);
}

#[test]
fn an_origin_that_stands_still_is_not_stormed_and_goes_on_without_a_gap() {
    let mut network = pair_of_peers(Origin::new(90_000, false));
    network.run_for(TARGET * 4);
    network.publishing = false;
    let since = network.now;
    network.run_for(TARGET * 30);
    for id in 1..=2 {
        let node = network.node(peer(id));
        assert!(
            node.playlists.iter().filter(|at| **at >= since).count() <= 15,
            "peer {id}"
        );
        assert_eq!(network.requests_since(peer(id), since), 0, "peer {id}");
        assert!(
            node.reports
                .iter()
                .all(|(_, report)| report.state != SourceState::Bypass)
        );
    }
    network.publishing = true;
    network.run_for(TARGET * 6);
    network.assert_gapless(1);
}
