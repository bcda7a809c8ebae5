//! After a restart of the orchestrator the trees are what they were.

use core::time::Duration;

use super::world::*;
use crate::*;
use PeerRole::{Consumer, Contributor};

const MBIT: u64 = 1_000_000;

fn twelve() -> World {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=12 {
        world.join(id, Contributor, 4 * MBIT);
    }
    world.run(5);
    world
}

fn restart(world: &mut World) {
    world.restart(Policy::default());
    world.event(ChannelEvent::TracksChanged {
        tracks: vec![info(0, 1_500_000)],
    });
    world.sent.clear();
}

#[test]
fn when_everybody_comes_back_every_edge_is_as_before() {
    let mut world = twelve();
    let before = world.edges();
    restart(&mut world);
    for id in [7, 3, 12, 1, 5, 9, 2, 4, 6, 8, 10] {
        world.attach(id);
        world.now += Duration::from_millis(350);
    }
    assert!(world.sent.is_empty(), "nobody is told anything yet");
    assert!(
        world
            .engine
            .topology()
            .iter()
            .all(|row| row.state == NodeState::Joining)
    );
    world.attach(11);
    assert!(world.engine.is_recovering());
    world.run(2);
    assert!(!world.engine.is_recovering());
    assert_eq!(world.edges(), before);
    assert_eq!(
        world.alarms,
        [Alarm::Recovered {
            peers: 12,
            edges: 12
        }]
    );
    assert_eq!(
        world.sent.len(),
        12,
        "each is told once, in the new incarnation"
    );
    assert!(
        world
            .sent
            .iter()
            .all(|(_, assignment)| assignment.generation.incarnation == 2)
    );
    world.run(60);
    assert_eq!(world.edges(), before);
}

#[test]
fn standbys_are_taken_up_too() {
    let mut world = twelve();
    let standbys = |world: &World| {
        let rows = world.engine.topology().into_iter();
        rows.map(|row| (row.peer, row.standby)).collect::<Vec<_>>()
    };
    let before = standbys(&world);
    restart(&mut world);
    for id in 1..=12 {
        world.attach(id);
    }
    world.run(2);
    assert_eq!(standbys(&world), before);
}

#[test]
fn a_newcomer_does_not_wait_and_is_taken_into_the_tree_later() {
    let mut world = twelve();
    restart(&mut world);
    world.attach(1);
    world.join(50, Consumer, 0);
    assert_eq!(world.row(50).source, Some(Source::Cdn));
    for id in 2..=12 {
        world.attach(id);
    }
    world.run(5);
    assert_eq!(world.roots(), [peer(1)].into());
}

#[test]
fn who_does_not_come_back_leaves_orphans_that_go_to_their_standbys() {
    let mut world = twelve();
    let row = world
        .engine
        .topology()
        .into_iter()
        .filter(|row| row.depth == 3);
    let lost = row.filter(|row| !row.children.is_empty()).last().unwrap();
    let orphan = world.row(lost.children[0].0);
    restart(&mut world);
    for id in (1..=12).filter(|id| peer(*id) != lost.peer) {
        world.attach(id);
    }
    world.run(5);
    assert!(world.engine.is_recovering(), "it may come yet");
    world.run(2);
    assert_eq!(world.row(orphan.peer.0).source, orphan.standby);
    world.attach(lost.peer.0);
    let back = world.row(lost.peer.0);
    assert_eq!(back.source, lost.source, "a late one keeps what it holds");
}

#[test]
fn tracks_that_come_late_delay_the_recovery() {
    let mut world = twelve();
    let before = world.edges();
    world.restart(Policy::default());
    for id in 1..=12 {
        world.attach(id);
    }
    world.run(20);
    assert!(world.engine.is_recovering());
    world.event(ChannelEvent::TracksChanged {
        tracks: vec![info(0, 1_500_000)],
    });
    world.run(1);
    assert_eq!(world.edges(), before);
}

#[test]
fn what_waiting_peers_say_is_not_lost() {
    let mut world = twelve();
    let rows: Vec<_> = world
        .engine
        .topology()
        .into_iter()
        .filter(|row| row.depth == 3)
        .collect();
    let (switched, bypassed, wary) = (&rows[0], &rows[1], &rows[2]);
    restart(&mut world);
    for id in 1..=11 {
        world.attach(id);
    }
    let v0 = track("v0");
    world.say_source(
        switched.peer,
        &v0,
        switched.standby.unwrap(),
        SourceState::Flowing,
    );
    world.say_source(
        bypassed.peer,
        &v0,
        bypassed.source.unwrap(),
        SourceState::Bypass,
    );
    let Some(Source::Peer(suspect)) = wary.source else {
        panic!("no parent")
    };
    world.say_link(wary.peer.0, suspect.0, LinkState::Corrupt);
    world.attach(12);
    world.obedient = false;
    world.run(2);
    assert_eq!(world.row(switched.peer.0).source, switched.standby);
    assert_eq!(world.row(bypassed.peer.0).state, NodeState::Bypass);
    assert_ne!(world.row(wary.peer.0).source, wary.source);
    assert_eq!(world.engine.suspects()[0].peer, suspect);
}

#[test]
fn impossible_claims_are_not_taken_up() {
    let mut world = World::empty(Policy::default(), true);
    world.event(ChannelEvent::TracksChanged {
        tracks: vec![info(0, 1_500_000)],
    });
    let claim = |id: u64, role, source: Source| SessionOpened {
        peer: peer(id),
        attachment: 1,
        role,
        upload_bps: 4 * MBIT,
        profile: PeerProfile::default(),
        tracks: Vec::new(),
        held: vec![HeldEdge {
            track: track("v0"),
            stripe: 0,
            source,
            standby: None,
            children: Vec::new(),
        }],
        generation: Some(Generation {
            incarnation: 0,
            term: 9,
            index: 9,
        }),
    };
    let under = |id| Source::Peer(peer(id));
    // Two that claim each other, a consumer's child, one child too many, and one that is its own.
    for (id, role, source) in [
        (1, Contributor, under(2)),
        (2, Contributor, under(1)),
        (3, Consumer, Source::Cdn),
        (4, Contributor, under(3)),
        (5, Contributor, Source::Cdn),
        (6, Contributor, under(5)),
        (7, Contributor, under(5)),
        (8, Contributor, under(5)),
        (9, Contributor, under(9)),
    ] {
        world.event(ChannelEvent::SessionOpened(claim(id, role, source)));
    }
    world.run(30);
    assert_eq!(world.engine.topology().len(), 9);
    assert_eq!(world.row(5).children.len(), 2);
    assert!(world.row(3).children.is_empty());
}

#[test]
fn who_starts_anew_while_it_is_awaited_is_a_newcomer() {
    let mut world = twelve();
    restart(&mut world);
    for id in 1..=11 {
        world.attach(id);
    }
    world.join(7, Contributor, 4 * MBIT);
    assert_eq!(world.row(7).source, Some(Source::Cdn));
    world.run(30);
    assert_eq!(world.engine.topology().len(), 11);
    assert_eq!(world.roots(), [peer(1)].into());
}
