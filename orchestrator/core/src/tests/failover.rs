//! A new owner goes on where the old one stopped.

use core::time::Duration;

use super::world::*;
use crate::state::{ChannelState, DecidedEdge, Edge, Entry, LogPosition, Outcome, Refusal};
use crate::*;
use PeerRole::{Consumer, Contributor};

const MBIT: u64 = 1_000_000;

/// Twelve peers in a tree that has come to rest.
fn twelve() -> World {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=12 {
        world.join(id, Contributor, 4 * MBIT);
    }
    world.run(60);
    world
}

fn attach_all(world: &mut World) {
    for id in world.actors.keys().copied().collect::<Vec<_>>() {
        world.attach(id.0);
    }
}

#[test]
fn everybody_is_where_they_were_and_is_told_nothing() {
    let mut world = twelve();
    let (before, sent, entries) = (world.edges(), world.sent.len(), world.entries.len());
    world.verify_rebuild("rest");
    world.fail_over();
    assert_eq!(world.edges(), before, "before anybody is back");
    attach_all(&mut world);
    world.event(ChannelEvent::AbsenceCounts);
    world.run(60);
    assert_eq!(world.edges(), before);
    assert_eq!(world.sent.len(), sent, "they hold what was decided");
    assert_eq!(world.entries.len(), entries, "nothing was decided");
    assert!(world.alarms.is_empty(), "{:?}", world.alarms);
}

#[test]
fn a_newcomer_finds_the_tree_as_soon_as_its_parents_are_attached() {
    let mut world = twelve();
    world.fail_over();
    world.join(50, Consumer, 0);
    assert_eq!(
        world.row(50).source,
        Some(Source::Cdn),
        "nobody can be told of it"
    );
    attach_all(&mut world);
    world.join(51, Consumer, 0);
    assert!(matches!(world.row(51).source, Some(Source::Peer(_))));
    let generation = world.told(51).generation;
    assert_eq!(generation.term, 2);
    assert!(generation > world.told(1).generation);
}

#[test]
fn who_holds_something_older_is_told_the_whole_again_under_its_generation() {
    let mut world = twelve();
    let told = world.told(3).clone();
    world.fail_over();
    let held = Generation {
        index: told.generation.index - 1,
        ..told.generation
    };
    let actor = world.actors.get_mut(&peer(3)).unwrap();
    actor.assignment.as_mut().unwrap().generation = held;
    world.sent.clear();
    attach_all(&mut world);
    let mut again = told.clone();
    for track in &mut again.tracks {
        // The move has ended; that is no news for the peer.
        track.make_before_break = false;
    }
    assert_eq!(world.sent, [(peer(3), again)]);
}

#[test]
fn nobody_is_absent_before_all_gateways_have_spoken() {
    let mut world = twelve();
    world.fail_over();
    for id in 1..=10 {
        world.attach(id);
    }
    world.run(300);
    assert_eq!(world.edges().len(), 12);
    world.event(ChannelEvent::AbsenceCounts);
    world.run(9);
    assert_eq!(world.edges().len(), 12);
    world.run(2);
    assert_eq!(world.edges().len(), 10);
    world.verify_rebuild("two are gone");
}

#[test]
fn a_join_that_was_under_way_goes_on() {
    for flows in [true, false] {
        let mut world = twelve();
        world.obedient = false;
        world.join(20, Consumer, 0);
        let planned = world.row(20).source;
        world.now += Duration::from_secs(10);
        world.event(ChannelEvent::Tick);
        world.fail_over();
        attach_all(&mut world);
        assert_eq!(world.row(20).state, NodeState::Joining);
        if flows {
            world.flow(peer(20));
            assert_eq!(world.row(20).state, NodeState::Active);
        }
        world.run(4);
        assert_eq!(
            world.row(20).source,
            planned,
            "its fifteen seconds are not over"
        );
        world.run(2);
        assert_eq!(world.row(20).source == planned, flows);
    }
}

#[test]
fn what_was_not_committed_has_not_happened() {
    let mut world = twelve();
    let before = world.edges();
    world.lags = true;
    let sent = world.sent.len();
    world.join(20, Consumer, 0);
    world.leave(5);
    assert_eq!(world.sent.len(), sent, "and nobody was told of it");
    world.engine.handle(ChannelEvent::CommitFailed, world.now);
    assert_eq!(world.engine.poll_command(), Some(ChannelCommand::Rebuild));
    world.fail_over();
    assert_eq!(world.edges(), before);
}

#[test]
fn separations_and_quarantine_outlive_their_owner() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=9 {
        world.join(id, Contributor, 8 * MBIT);
    }
    let children: Vec<_> = world.row(1).children;
    for child in children.iter().take(3) {
        world.say_link(child.0, 1, LinkState::Corrupt);
    }
    assert!(world.engine.suspects()[0].quarantined);
    world.fail_over();
    attach_all(&mut world);
    assert!(world.engine.suspects()[0].quarantined);
    world.run(120);
    assert!(world.row(1).children.is_empty());
    world.verify_rebuild("the quarantine");
}

#[test]
fn time_goes_on_in_an_owner_whose_clock_is_behind() {
    let mut world = twelve();
    world.join(20, Consumer, 0);
    let time = world.state.time();
    assert!(time > Duration::from_secs(1));
    let clock = Duration::from_micros(1_500);
    let mut engine = ChannelEngine::from_state(&world.state, 2, clock);
    assert_eq!(engine.channel_time(clock), time);
    engine.handle(ChannelEvent::AbsenceCounts, clock);
    let due = engine.poll_timeout().unwrap();
    assert!(
        due <= clock + Duration::from_secs(30),
        "{due:?} is the shell's time"
    );
    let later = clock + Duration::from_secs(60);
    engine.handle(ChannelEvent::Tick, later);
    let entry = loop {
        match engine.poll_command() {
            Some(ChannelCommand::Commit { entry }) => break entry,
            Some(_) => {}
            None => panic!("the absent are not given up"),
        }
    };
    assert!(
        entry.time >= time + Duration::from_secs(59),
        "{:?}",
        entry.time
    );
}

/// Records that no planner decides: a circle, a parent in another tree, a consumer's child.
fn impossible() -> ChannelState {
    let mut world = twelve();
    world.event(ChannelEvent::TracksChanged {
        tracks: vec![info(0, 1_500_000), info(1, 1_000_000)],
    });
    world.join_for(20, Consumer, 0, &["v1"]);
    let mut entry = Entry::new(1, world.now);
    for (child, parent) in [(2, 3), (3, 4), (4, 2), (5, 20), (6, 5)] {
        entry.edges.push(DecidedEdge {
            peer: peer(child),
            track: TrackIndex(0),
            stripe: 0,
            edge: Some(Edge {
                source: Source::Peer(peer(parent)),
                moving_from: Some(Source::Peer(peer(parent))),
                evicted: false,
                successor: Some(peer(parent)),
                warm: true,
                deadline: None,
                hold_until: Duration::ZERO,
                root_since: 0,
            }),
        });
    }
    let at = LogPosition {
        term: 1,
        index: 1000,
    };
    assert!(world.state.apply(&entry, at).is_applied());
    world.state
}

#[test]
fn records_that_make_no_tree_are_mended_and_that_is_logged() {
    let mut state = impossible();
    let mut engine = ChannelEngine::from_state(&state, 2, Duration::ZERO);
    let holds = |findings: &[Finding]| {
        let structural = ["acyclic", "source", "depth", "height", "index"];
        let broken = findings
            .iter()
            .find(|one| structural.contains(&one.invariant));
        assert_eq!(broken, None);
    };
    holds(&engine.check());
    assert_eq!(engine.topology().len(), 13);
    engine.handle(ChannelEvent::Tick, Duration::ZERO);
    while let Some(command) = engine.poll_command() {
        if let ChannelCommand::Commit { entry } = command {
            assert!(entry.edges.iter().any(|edge| edge.peer == peer(2)));
            let told = entry.told.iter().any(|telling| telling.peer == peer(2));
            assert!(told, "it is told where it is");
            let at = LogPosition {
                term: 2,
                index: 1001,
            };
            assert!(state.apply(&entry, at).is_applied());
        }
    }
    let again = ChannelEngine::from_state(&state, 3, Duration::ZERO);
    holds(&again.check());
    let sources = |engine: &ChannelEngine| {
        let rows = engine.topology().into_iter();
        rows.map(|row| (row.peer, row.source)).collect::<Vec<_>>()
    };
    assert_eq!(sources(&again), sources(&engine));
}

/// A log may refuse a proposal, while a leader hands over and stays after all, and take the next one.
#[test]
fn what_was_decided_after_an_entry_that_was_lost_is_lost_with_it() {
    let mut world = World::new(PolicyDraft::default());
    world.lags = true;
    for id in 1..=3 {
        world.join(id, Contributor, 10_000_000);
    }
    let decided: Vec<_> = world.uncommitted.iter().cloned().collect();
    assert_eq!(decided.len(), 3);
    let mut state = world.state.clone();
    let mut apply = |index: u64, entry: &Entry| {
        let at = LogPosition { term: 1, index };
        state.apply(entry, at)
    };
    assert_eq!(apply(10, &decided[0]), Outcome::Applied);
    // The second never reaches the log.
    let refused = apply(11, &decided[2]);
    assert!(
        matches!(refused, Outcome::Refused(Refusal::Gap { .. })),
        "{refused:?}"
    );
    // A rebuilt owner goes on from what is there.
    let mut engine = ChannelEngine::from_state(&state, 1, world.now);
    assert_eq!(engine.check(), []);
    engine.handle(ChannelEvent::Left { peer: peer(1) }, world.now);
    let entry = std::iter::from_fn(|| engine.poll_command()).find_map(|command| match command {
        ChannelCommand::Commit { entry } => Some(entry),
        ChannelCommand::Assign { .. } | ChannelCommand::Raise(_) | ChannelCommand::Rebuild => None,
    });
    let at = LogPosition { term: 1, index: 12 };
    assert_eq!(state.apply(&entry.unwrap(), at), Outcome::Applied);
}
