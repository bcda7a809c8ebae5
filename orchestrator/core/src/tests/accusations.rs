//! Corrupt bytes, from the first report to the quarantine.

use super::world::*;
use crate::*;
use PeerRole::Contributor;

const MBIT: u64 = 1_000_000;

fn star() -> World {
    let mut world = World::new(PolicyDraft::default());
    world.join(1, Contributor, 40 * MBIT);
    for id in 2..=9 {
        world.join(id, Contributor, 40 * MBIT);
    }
    assert_eq!(world.row(1).children.len(), 8);
    world
}

fn parent(world: &World, id: u64) -> Option<Source> {
    world.row(id).source
}

#[test]
fn one_report_separates_the_pair_at_once_and_names_the_suspect() {
    let mut world = star();
    world.say_link(2, 1, LinkState::Corrupt);
    let one = Some(Source::Peer(peer(1)));
    assert_ne!(parent(&world, 2), one);
    assert!(
        world
            .told(1)
            .children
            .iter()
            .all(|child| child.peer != peer(2))
    );
    assert_eq!(parent(&world, 3), one, "the others stay");
    let suspects = world.engine.suspects();
    assert_eq!(suspects.len(), 1);
    let Suspect {
        peer: suspect,
        accusers,
        reports,
        quarantined,
        ..
    } = suspects[0];
    assert_eq!(
        (suspect, accusers, reports, quarantined),
        (peer(1), 1, 1, false)
    );
    let separated = Alarm::PairSeparated {
        accuser: peer(2),
        suspect: peer(1),
    };
    assert_eq!(world.alarms, [separated]);
}

#[test]
fn a_separated_pair_never_meets_again() {
    let mut world = star();
    world.say_link(2, 1, LinkState::Corrupt);
    world.run(3600);
    world.leave(2);
    world.run(3600);
    world.join(2, Contributor, 40 * MBIT);
    assert_ne!(parent(&world, 2), Some(Source::Peer(peer(1))));
    for id in 3..=9 {
        world.leave(id);
    }
    world.run(60);
    assert_eq!(world.roots().len(), 2, "the two alone cannot make one tree");
}

#[test]
fn a_third_accuser_quarantines_the_suspect() {
    let mut world = star();
    for (accuser, quarantined) in [(2, false), (2, false), (3, false), (4, true)] {
        world.say_link(accuser, 1, LinkState::Corrupt);
        assert_eq!(world.engine.suspects()[0].quarantined, quarantined);
    }
    assert!(world.row(1).children.is_empty());
    assert!(world.alarms.contains(&Alarm::PeerQuarantined {
        peer: peer(1),
        accusers: 3
    }));
    world.run(60);
    assert_eq!(
        world.roots().len(),
        1,
        "the others have a tree of their own"
    );
    assert!(
        !world.roots().contains(&peer(1)),
        "and the suspect is a leaf of it"
    );
    world.leave(1);
    world.join(1, Contributor, 40 * MBIT);
    world.join(10, Contributor, 4 * MBIT);
    world.run(5);
    assert!(world.row(1).children.is_empty(), "leaving does not help");
}

#[test]
fn a_word_about_a_stranger_does_not_count() {
    let mut world = star();
    world.say_link(2, 5, LinkState::Corrupt);
    assert!(world.engine.suspects().is_empty());
}

#[test]
fn a_word_that_comes_after_the_switch_counts() {
    let mut world = star();
    world.say_source(peer(2), &track("v0"), Source::Cdn, SourceState::Flowing);
    world.say_link(2, 1, LinkState::Corrupt);
    assert_eq!(world.engine.suspects().len(), 1);
}

#[test]
fn a_serial_accuser_loses_its_rank_and_its_word() {
    let mut world = star();
    world.say_link(3, 1, LinkState::Corrupt);
    world.say_link(4, 1, LinkState::Corrupt);
    let mut accused = 0;
    while accused < 4 {
        match parent(&world, 2) {
            Some(Source::Peer(now)) => {
                world.say_link(2, now.0, LinkState::Corrupt);
                accused += 1;
            }
            Some(Source::Cdn) => world.run(3),
            None => panic!("2 has no source"),
        }
    }
    assert!(
        world
            .alarms
            .contains(&Alarm::SerialAccuser { peer: peer(2) })
    );
    assert!(
        world
            .engine
            .suspects()
            .iter()
            .all(|suspect| !suspect.quarantined)
    );
    world.run(60);
    assert!(
        !world.roots().contains(&peer(2)),
        "it is nobody's first choice"
    );
}
