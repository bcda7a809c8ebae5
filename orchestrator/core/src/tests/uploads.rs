//! Uploads that are learned, in a channel.

use super::world::*;
use crate::*;
use PeerRole::{Contributor, Relay};

const MBIT: u64 = 1_000_000;
/// One child of the world's track: 1.5 Mbit/s and the overhead.
const CHILD: u64 = 1_800_000;

fn world() -> World {
    World::new(PolicyDraft {
        learn_upload: Some(true),
        ..PolicyDraft::default()
    })
}

fn budget(world: &World, id: u64) -> u64 {
    world.row(id).upload_bps
}

/// Two seconds in which a peer sends so much.
fn send(world: &mut World, id: u64, report: &mut PeerReport, bps: u64) {
    world.run(2);
    report.bytes_to_peers += bps * 2 / 8 * 1000 / 1200;
    world.event(ChannelEvent::Report {
        peer: peer(id),
        report: *report,
    });
}

#[test]
fn a_newcomer_starts_with_one_child_and_pays_its_way_up() {
    let mut world = world();
    world.join(1, Contributor, 20 * MBIT);
    assert_eq!(budget(&world, 1), CHILD);
    world.run(5);
    for id in 2..=9 {
        world.join(id, Contributor, 0);
    }
    world.run(5);
    assert_eq!(
        world.row(1).children.len(),
        1,
        "as many as it has shown to carry"
    );
    let mut report = PeerReport::default();
    for _ in 0..10 {
        let bps = budget(&world, 1);
        send(&mut world, 1, &mut report, bps);
    }
    assert_eq!(
        budget(&world, 1),
        11 * CHILD,
        "whole children, and not above the claim"
    );
    world.run(60);
    assert_eq!(world.row(1).children.len(), 8);
}

#[test]
fn relays_are_believed() {
    let mut world = world();
    world.join(1, Relay, 20 * MBIT);
    world.join(2, Contributor, 0);
    world.run(5);
    assert_eq!(budget(&world, 1), 20 * MBIT);
}

#[test]
fn what_was_learned_outlives_its_owner_and_a_lost_session() {
    let mut world = world();
    world.join(1, Contributor, 20 * MBIT);
    world.run(5);
    let mut report = PeerReport::default();
    for _ in 0..3 {
        let bps = budget(&world, 1);
        send(&mut world, 1, &mut report, bps);
    }
    let learned = budget(&world, 1);
    assert!(learned > CHILD && learned < 20 * MBIT, "{learned}");
    world.fail_over();
    assert_eq!(budget(&world, 1), learned);
    world.attach(1);
    assert_eq!(budget(&world, 1), learned);
    world.detach(1);
    world.attach(1);
    assert_eq!(budget(&world, 1), learned);
}

#[test]
fn the_word_of_one_child_takes_nothing_away_and_that_of_two_does() {
    let mut world = world();
    world.join(1, Contributor, 20 * MBIT);
    world.run(5);
    let mut report = PeerReport::default();
    for _ in 0..10 {
        let bps = budget(&world, 1);
        send(&mut world, 1, &mut report, bps);
    }
    for id in 2..=4 {
        world.join(id, Contributor, 0);
        world.run(2);
    }
    assert_eq!(world.row(1).children.len(), 3);
    let before = budget(&world, 1);
    world.say_link(1, 3, LinkState::Late);
    world.say_link(2, 1, LinkState::Late);
    world.say_link(9, 1, LinkState::Late);
    assert_eq!(
        budget(&world, 1),
        before,
        "one child, a parent and a stranger"
    );
    world.say_link(3, 1, LinkState::Late);
    assert_eq!(
        budget(&world, 1),
        8 * CHILD,
        "a quarter less, in whole children"
    );
}
