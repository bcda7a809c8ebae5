//! Entries, commits and what peers are told.

use core::time::Duration;

use super::world::*;
use crate::*;
use PeerRole::Contributor;

const MBIT: u64 = 1_000_000;

fn opened(id: u64, attachment: u64) -> SessionOpened {
    SessionOpened {
        peer: peer(id),
        attachment,
        role: Contributor,
        upload_bps: 8 * MBIT,
        profile: PeerProfile::default(),
        tracks: Vec::new(),
        held: Vec::new(),
        generation: None,
    }
}

/// An engine with a track, driven by hand.
fn engine() -> ChannelEngine {
    let config = ChannelConfig {
        policy: Policy::default(),
        incarnation: 7,
        term: 3,
        recovering: false,
    };
    let mut engine = ChannelEngine::new(config, Duration::ZERO);
    let tracks = vec![info(0, 1_500_000)];
    engine.handle(ChannelEvent::TracksChanged { tracks }, Duration::ZERO);
    let Some(ChannelCommand::Commit { entry }) = engine.poll_command() else {
        panic!("a new owner has to know the tracks")
    };
    assert_eq!(entry.tracks.unwrap()[0].rate_bps, 1_500_000);
    let committed = ChannelEvent::Committed {
        index: 1,
        entries: 1,
    };
    engine.handle(committed, Duration::ZERO);
    assert_eq!(engine.poll_command(), None, "there is nobody to tell");
    engine
}

#[test]
fn nobody_is_told_before_the_commit_and_then_with_its_generation() {
    let mut engine = engine();
    engine.handle(ChannelEvent::SessionOpened(opened(1, 1)), Duration::ZERO);
    let Some(ChannelCommand::Commit { entry }) = engine.poll_command() else {
        panic!("no entry")
    };
    assert_eq!(entry.version, state::ENTRY_VERSION);
    assert_eq!(entry.peers.len(), 1);
    assert_eq!(
        (entry.peers[0].peer, entry.peers[0].record.role),
        (peer(1), Contributor)
    );
    assert_eq!(entry.told.len(), 1);
    assert_eq!(entry.told[0].peer, peer(1));
    assert_eq!(entry.edges.len(), 1);
    assert_eq!(entry.edges[0].edge.unwrap().source, Source::Cdn);
    assert_eq!(engine.poll_command(), None, "not committed yet");
    let committed = |index| ChannelEvent::Committed { index, entries: 1 };
    engine.handle(committed(41), Duration::ZERO);
    let Some(ChannelCommand::Assign {
        peer: to,
        assignment,
    }) = engine.poll_command()
    else {
        panic!("nobody is told")
    };
    assert_eq!(to, peer(1));
    let generation = Generation {
        incarnation: 7,
        term: 3,
        index: 41,
    };
    assert_eq!(assignment.generation, generation);
    assert_eq!(engine.generation(), generation);
    assert_eq!(assignment.upload_bps, 8 * MBIT);
    let lease = CdnLease {
        rate_bps: 6 * MBIT,
        burst_bytes: 3 * MBIT,
        lifetime: Duration::from_secs(600),
    };
    assert_eq!(assignment.cdn_lease, lease, "four times the track's rate");
    assert_eq!(engine.poll_command(), None);
}

#[test]
fn a_failed_commit_ends_the_engine() {
    let mut engine = engine();
    engine.handle(ChannelEvent::SessionOpened(opened(1, 1)), Duration::ZERO);
    engine.handle(ChannelEvent::CommitFailed, Duration::ZERO);
    assert_eq!(engine.poll_command(), Some(ChannelCommand::Rebuild));
    let (index, entries) = (1, 1);
    engine.handle(ChannelEvent::Committed { index, entries }, Duration::ZERO);
    engine.handle(ChannelEvent::SessionOpened(opened(2, 1)), Duration::ZERO);
    assert_eq!((engine.poll_command(), engine.poll_timeout()), (None, None));
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut engine = engine();
    let (index, entries) = (9, 1);
    engine.handle(ChannelEvent::Committed { index, entries }, Duration::ZERO);
    assert_eq!(
        (engine.poll_command(), engine.generation().index),
        (None, 1)
    );
}

#[test]
fn an_event_that_decides_nothing_makes_no_entry() {
    let mut world = World::new(PolicyDraft::default());
    world.join(1, Contributor, 4 * MBIT);
    let entries = world.entries.len();
    world.event(ChannelEvent::Report {
        peer: peer(1),
        report: PeerReport::default(),
    });
    world.event(ChannelEvent::Left { peer: peer(99) });
    world.event(ChannelEvent::SessionLost {
        peer: peer(99),
        attachment: 1,
    });
    world.event(ChannelEvent::TrackRate {
        track: TrackIndex(0),
        rate_bps: 1_400_000,
    });
    world.event(ChannelEvent::TrackRate {
        track: TrackIndex(9),
        rate_bps: 1_400_000,
    });
    world.say_link(99, 1, LinkState::Corrupt);
    world.say_link(1, 1, LinkState::Corrupt);
    world.run(30);
    assert_eq!(world.entries.len(), entries);
    assert!(world.engine.suspects().is_empty());
}

#[test]
fn a_peer_that_comes_back_is_told_again_only_what_it_lacks() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=3 {
        world.join(id, Contributor, 4 * MBIT);
    }
    world.detach(2);
    let sent = world.sent.len();
    world.attach(2);
    assert_eq!(world.sent.len(), sent, "it lacks nothing");
    world.detach(1);
    world.leave(2);
    world.attach(1);
    let again = &world.sent.last().unwrap();
    assert_eq!(again.0, peer(1));
    assert!(again.1.children.iter().all(|child| child.peer != peer(2)));
}

#[test]
fn a_peer_whose_gateway_is_silent_gets_no_children_and_is_not_taken_for_gone() {
    let mut world = World::new(PolicyDraft::default());
    world.join(1, Contributor, 4 * MBIT);
    world.event(ChannelEvent::SessionSilent { peer: peer(1) });
    world.join(2, Contributor, 4 * MBIT);
    assert!(world.row(1).children.is_empty() && !world.row(1).session);
    world.run(60);
    assert_eq!(world.row(1).source, Some(Source::Cdn), "it is where it was");
    world.attach(1);
    assert!(world.row(1).session);
    world.join(3, Contributor, 4 * MBIT);
    assert_ne!(world.row(3).source, Some(Source::Cdn));
}

#[test]
fn a_late_end_of_an_older_session_changes_nothing() {
    let mut world = World::new(PolicyDraft::default());
    world.join(1, Contributor, 4 * MBIT);
    world.attach(1);
    world.event(ChannelEvent::SessionLost {
        peer: peer(1),
        attachment: 1,
    });
    assert!(world.row(1).session);
}

#[test]
fn a_process_that_starts_anew_with_its_old_id_starts_as_a_newcomer() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=4 {
        world.join(id, Contributor, 4 * MBIT);
    }
    let children = world.row(1).children;
    assert!(!children.is_empty());
    world.detach(1);
    world.obedient = false;
    world.join(1, Contributor, 4 * MBIT);
    assert!(world.row(1).children.is_empty());
    assert_eq!(world.row(1).state, NodeState::Joining);
}

#[test]
fn a_peer_that_offers_less_when_it_comes_back_gives_up_children() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=5 {
        world.join(id, Contributor, 8 * MBIT);
    }
    assert_eq!(world.row(1).children.len(), 4);
    world.actors.get_mut(&peer(1)).unwrap().upload_bps = 2 * MBIT;
    world.attach(1);
    assert!(world.row(1).children.len() <= 1);
    world.actors.get_mut(&peer(1)).unwrap().role = PeerRole::Consumer;
    world.attach(1);
    assert!(world.row(1).children.is_empty());
}

#[test]
fn a_word_that_was_said_before_it_became_the_plan_is_believed() {
    let mut world = World::new(PolicyDraft::default());
    world.join(1, Contributor, 4 * MBIT);
    world.obedient = false;
    world.join(2, Contributor, 4 * MBIT);
    world.say_source(peer(2), &track("v0"), Source::Cdn, SourceState::Flowing);
    assert_eq!(
        world.row(2).state,
        NodeState::Joining,
        "a newcomer's first objects"
    );
    world.say_link(2, 1, LinkState::Failed);
    let row = world.row(2);
    assert_eq!(
        (row.source, row.state),
        (Some(Source::Cdn), NodeState::Active)
    );
}

#[test]
fn the_audience_adds_up() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=3 {
        world.join(id, Contributor, 4 * MBIT);
        let bytes_from_cdn = if id == 1 { 1000 } else { 0 };
        let bytes_from_peers = 1000 - bytes_from_cdn;
        let report = PeerReport {
            bytes_from_cdn,
            bytes_from_peers,
            stalls: 1,
            ..PeerReport::default()
        };
        world.event(ChannelEvent::Report {
            peer: peer(id),
            report,
        });
    }
    let audience = world.engine.audience(world.now);
    let expect = Audience {
        peers: 3,
        roots: 1,
        max_depth: 2,
        bytes_from_cdn: 1000,
        bytes_from_peers: 2000,
        offload_permille: 666,
        stalls: 3,
    };
    assert_eq!(audience, expect);
    assert_eq!(world.row(2).health.unwrap().bytes_from_peers, 1000);
}

#[test]
fn a_changed_profile_is_in_the_log_and_an_equal_one_is_not() {
    let mut engine = engine();
    let next_entry = |engine: &mut ChannelEngine| match engine.poll_command() {
        Some(ChannelCommand::Commit { entry }) => Some(entry),
        _ => None,
    };
    let mut metered = opened(1, 1);
    metered.profile.metered = true;
    engine.handle(ChannelEvent::SessionOpened(metered.clone()), Duration::ZERO);
    let entry = next_entry(&mut engine).unwrap();
    assert!(entry.peers[0].record.profile.metered);
    metered.attachment = 2;
    metered.generation = Some(Generation::default());
    engine.handle(ChannelEvent::SessionOpened(metered.clone()), Duration::ZERO);
    assert_eq!(next_entry(&mut engine), None, "nothing changed");
    metered.attachment = 3;
    metered.profile.metered = false;
    engine.handle(ChannelEvent::SessionOpened(metered), Duration::ZERO);
    let entry = next_entry(&mut engine).unwrap();
    assert_eq!(entry.peers[0].record.profile, PeerProfile::default());
    assert_eq!(entry.edges, [], "its place is what it was");
    assert_eq!(engine.profile(peer(1)), PeerProfile::default());
}

#[test]
fn what_a_peer_finds_out_about_itself_is_in_the_log() {
    let mut engine = engine();
    engine.handle(ChannelEvent::SessionOpened(opened(1, 1)), Duration::ZERO);
    while engine.poll_command().is_some() {}
    let profile = PeerProfile {
        nat: NatClass::Symmetric,
        ..PeerProfile::default()
    };
    let changed = |peer| ChannelEvent::ProfileChanged { peer, profile };
    engine.handle(changed(peer(1)), Duration::ZERO);
    let Some(ChannelCommand::Commit { entry }) = engine.poll_command() else {
        panic!("no entry")
    };
    assert_eq!(entry.peers[0].record.profile, profile);
    assert_eq!(entry.peers[0].record.upload_bps, 8 * MBIT);
    assert_eq!(engine.profile(peer(1)), profile);
    for again in [peer(1), peer(9)] {
        engine.handle(changed(again), Duration::ZERO);
        assert_eq!(engine.poll_command(), None, "{again}");
    }
}
