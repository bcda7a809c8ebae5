//! One scene for each rule of the trees.

use super::world::*;
use crate::*;
use PeerRole::{Consumer, Contributor, Relay};

const MBIT: u64 = 1_000_000;

fn under(id: u64) -> Option<Source> {
    Some(Source::Peer(peer(id)))
}

const CDN: Option<Source> = Some(Source::Cdn);

fn default_world() -> World {
    World::new(PolicyDraft::default())
}

fn contributors(ids: core::ops::RangeInclusive<u64>, upload_bps: u64) -> World {
    let mut world = default_world();
    for id in ids {
        world.join(id, Contributor, upload_bps);
    }
    world.run(5);
    world
}

#[test]
fn the_first_peer_is_a_root_and_has_no_standby() {
    let world = contributors(1..=1, 4 * MBIT);
    let row = world.row(1);
    assert_eq!((row.source, row.standby, row.depth), (CDN, None, 1));
    assert_eq!(row.state, NodeState::Active);
}

#[test]
fn twelve_peers_with_two_slots_each_make_one_binary_tree() {
    let world = contributors(1..=12, 4 * MBIT);
    let audience = world.engine.audience(world.now);
    assert_eq!(
        (audience.peers, audience.roots, audience.max_depth),
        (12, 1, 4)
    );
    assert!(
        world
            .engine
            .topology()
            .iter()
            .all(|row| row.state == NodeState::Active)
    );
}

#[test]
fn twelve_peers_that_come_at_once_make_one_tree_as_soon_as_they_can_serve() {
    let mut world = default_world();
    world.obedient = false;
    for id in 1..=12 {
        world.join(id, Contributor, 4 * MBIT);
    }
    assert_eq!(world.roots().len(), 12, "nobody can serve yet");
    world.obedient = true;
    for id in 1..=12 {
        world.flow(peer(id));
    }
    world.run(10);
    assert_eq!(world.roots().len(), 1);
    let deepest = world.engine.audience(world.now).max_depth;
    assert!((4..=6).contains(&deepest), "{deepest}");
}

#[test]
fn a_settled_tree_stays_as_it_is() {
    let mut world = contributors(1..=12, 4 * MBIT);
    let (edges, sent, entries) = (world.edges(), world.sent.len(), world.entries.len());
    world.run(300);
    assert_eq!(world.edges(), edges);
    assert_eq!((world.sent.len(), world.entries.len()), (sent, entries));
}

#[test]
fn capacity_is_the_lesser_of_budget_and_policy() {
    for (upload_mbit, role, most, expect) in [
        (0, Contributor, None, 0),
        (1, Contributor, None, 0),
        (2, Contributor, None, 1),
        (4, Contributor, None, 2),
        (90, Contributor, None, 16),
        (90, Contributor, Some(5), 5),
        (90, Consumer, None, 0),
        (90, Relay, None, 50),
        (90, Relay, Some(5), 5),
    ] {
        let mut world = World::new(PolicyDraft {
            max_children: most,
            ..PolicyDraft::default()
        });
        world.join(1, role, upload_mbit * MBIT);
        for id in 2..=61 {
            world.join(id, Consumer, 0);
        }
        world.run(5);
        let children = world.row(1).children.len();
        assert_eq!(children, expect, "{upload_mbit} Mbit/s, {role:?}, {most:?}");
    }
}

#[test]
fn a_newcomer_serves_nobody_before_its_data_flows() {
    let mut world = default_world();
    world.obedient = false;
    world.join(1, Contributor, 40 * MBIT);
    world.join(2, Contributor, 40 * MBIT);
    assert_eq!((world.row(1).source, world.row(2).source), (CDN, CDN));
    world.flow(peer(1));
    assert_eq!(world.row(2).source, under(1));
    world.join(3, Contributor, 40 * MBIT);
    assert_eq!(world.row(3).source, under(1));
}

#[test]
fn a_consumer_that_was_first_makes_room_for_a_contributor() {
    let mut world = default_world();
    world.join(1, Consumer, 40 * MBIT);
    world.join(2, Contributor, 4 * MBIT);
    world.run(2);
    assert_eq!((world.row(1).source, world.row(2).source), (under(2), CDN));
}

#[test]
fn consumers_leave_the_shallow_slots_to_contributors() {
    let mut world = contributors(1..=6, 6 * MBIT);
    assert_eq!(world.row(1).children.len(), 3);
    let childless = |world: &World, id: u64| world.row(id).children.is_empty();
    let idle = (2..=4).find(|id| childless(&world, *id)).unwrap();
    world.leave(idle);
    world.join(7, Consumer, 0);
    assert_eq!(world.row(7).depth, 3, "although the root has a free slot");
    world.join(8, Contributor, 6 * MBIT);
    assert_eq!(world.row(8).depth, 2);
}

#[test]
fn a_relay_becomes_the_root() {
    let mut world = contributors(1..=6, 4 * MBIT);
    world.join(7, Relay, 200 * MBIT);
    world.run(5);
    assert_eq!(world.roots(), [peer(7)].into());
    world.join(8, Contributor, 4 * MBIT);
    assert_eq!(world.row(8).source, under(7));
}

#[test]
fn a_policy_with_three_roots_gets_three() {
    let mut world = World::new(PolicyDraft {
        target_roots: Some(3),
        ..PolicyDraft::default()
    });
    for id in 1..=9 {
        world.join(id, Contributor, 8 * MBIT);
    }
    world.run(5);
    assert_eq!(world.roots().len(), 3);
    let root = world.roots().first().unwrap().0;
    world.leave(root);
    world.run(5);
    assert_eq!(world.roots().len(), 3);
}

#[test]
fn more_roots_than_planned_raise_an_alarm_and_nobody_is_refused() {
    let mut world = World::new(PolicyDraft {
        max_planned_roots: Some(2),
        ..PolicyDraft::default()
    });
    for id in 1..=3 {
        world.join(id, Consumer, 0);
    }
    assert_eq!(world.roots().len(), 3);
    let over = Alarm::RootsOverPolicy {
        track: track("v0"),
        roots: 3,
        limit: 2,
    };
    assert_eq!(world.alarms, std::slice::from_ref(&over));
    world.leave(2);
    assert_eq!(
        world.alarms,
        [over, Alarm::RootsWithinPolicy { track: track("v0") }]
    );
}

#[test]
fn a_tree_is_never_deeper_than_the_policy_allows() {
    let mut world = World::new(PolicyDraft {
        max_depth: Some(3),
        ..PolicyDraft::default()
    });
    for id in 1..=8 {
        world.join(id, Contributor, 2 * MBIT);
    }
    world.run(5);
    assert_eq!(world.engine.audience(world.now).max_depth, 3);
    assert_eq!(world.roots().len(), 3, "chains of three");
    let policy = Policy::validate(&PolicyDraft {
        max_depth: Some(2),
        ..PolicyDraft::default()
    });
    world.event(ChannelEvent::PolicyChanged {
        policy: policy.unwrap(),
    });
    world.run(5);
    assert_eq!(world.roots().len(), 4, "chains of two");
}

#[test]
fn interior_nodes_have_a_successor_outside_their_subtree_where_there_is_one() {
    let world = contributors(1..=12, 4 * MBIT);
    let rows = world.engine.topology();
    for row in rows.iter().filter(|row| row.depth == 3 || row.depth == 4) {
        let Some(Source::Peer(standby)) = row.standby else {
            panic!("{} has no peer to fall back to", row.peer);
        };
        let waits = ChildAssignment {
            track: track("v0"),
            stripe: 0,
            peer: row.peer,
            standby: true,
        };
        assert!(world.told(standby.0).children.contains(&waits));
    }
    let below_the_root = rows.iter().filter(|row| row.depth == 2);
    assert!(
        below_the_root.clone().all(|row| row.standby == CDN),
        "all hangs on the one root"
    );
}

#[test]
fn in_a_chain_the_standby_is_the_cdn() {
    let world = contributors(1..=5, 2 * MBIT);
    assert_eq!(world.engine.audience(world.now).max_depth, 5);
    for row in world.engine.topology().iter().filter(|row| row.depth > 1) {
        assert!(row.standby == CDN || row.depth < 5, "{row:?}");
    }
}

#[test]
fn a_dead_interior_peers_successor_takes_over_its_children_and_its_position() {
    let mut world = contributors(1..=12, 4 * MBIT);
    let dead = world.engine.topology().into_iter();
    let dead = dead
        .filter(|row| row.depth == 2 && row.children.len() == 2)
        .last()
        .unwrap();
    let heads = dead.children.clone();
    let Some(Source::Peer(successor)) = world.row(heads[0].0).standby else {
        panic!("no standby")
    };
    let before = world.edges();
    let depths: Vec<_> = heads.iter().map(|head| world.row(head.0).depth).collect();
    let entries = world.entries.len();
    world.obedient = false;
    world.detach(dead.peer.0);
    assert_eq!(world.edges(), before, "a lost session is no death");
    world.say_link(heads[0].0, dead.peer.0, LinkState::Dead);
    let changed: Vec<_> = world.entries[entries..].to_vec();
    assert_eq!(changed.len(), 1, "one decision, one entry");
    assert_eq!(changed[0].left, [dead.peer]);
    for (head, depth) in heads.iter().zip(depths) {
        let row = world.row(head.0);
        assert_eq!((row.source, row.depth), (under(successor.0), depth));
    }
    assert_eq!(world.row(successor.0).source, dead.source);
    assert_eq!(world.row(successor.0).state, NodeState::Moving);
    let moved = [dead.peer, heads[0], heads[1], successor];
    for ((id, track), source) in before {
        let now = world.edges().get(&(id, track)).copied();
        assert!(
            moved.contains(&id) || now == Some(source),
            "{id} did not have to move"
        );
    }
}

#[test]
fn a_childs_own_switch_to_its_standby_is_adopted() {
    let mut world = contributors(1..=12, 4 * MBIT);
    let rows = world.engine.topology().into_iter();
    let child = rows.filter(|row| row.depth == 3).last().unwrap();
    let standby = child.standby.unwrap();
    assert_ne!(standby, Source::Cdn);
    world.say_source(child.peer, &track("v0"), standby, SourceState::Repairing);
    assert_eq!(world.row(child.peer.0).state, NodeState::Repairing);
    world.say_source(child.peer, &track("v0"), standby, SourceState::Flowing);
    let row = world.row(child.peer.0);
    assert_eq!((row.source, row.state), (Some(standby), NodeState::Active));
    assert_eq!(row.children, child.children, "its subtree moved with it");
}

#[test]
fn who_fell_to_the_cdn_is_brought_back_into_the_tree_elsewhere() {
    let mut world = contributors(1..=12, 4 * MBIT);
    let root = world.roots();
    let rows = world.engine.topology().into_iter();
    let child = rows.filter(|row| row.depth == 3).last().unwrap();
    world.say_source(child.peer, &track("v0"), Source::Cdn, SourceState::Flowing);
    assert_eq!(world.row(child.peer.0).source, CDN);
    world.run(5);
    assert_eq!(world.roots(), root, "the strongest stays");
    assert_ne!(world.row(child.peer.0).source, child.source);
}

#[test]
fn a_switch_that_breaks_a_rule_is_answered_with_another_place() {
    let mut world = contributors(1..=12, 4 * MBIT);
    let rows = world.engine.topology();
    let top = rows.iter().find(|row| row.depth == 2).unwrap();
    let below = Source::Peer(top.children[0]);
    world.say_source(top.peer, &track("v0"), below, SourceState::Flowing);
    assert_ne!(world.row(top.peer.0).source, Some(below), "a cycle");
    world.join(99, Consumer, 40 * MBIT);
    world.say_source(
        top.peer,
        &track("v0"),
        Source::Peer(peer(99)),
        SourceState::Flowing,
    );
    assert_ne!(world.row(top.peer.0).source, under(99), "a consumer");
    world.say_source(
        top.peer,
        &track("v0"),
        Source::Peer(peer(777)),
        SourceState::Flowing,
    );
    assert_ne!(world.row(top.peer.0).source, under(777), "a stranger");
}

#[test]
fn a_newcomers_first_objects_from_the_cdn_do_not_make_it_a_root() {
    let mut world = contributors(1..=2, 4 * MBIT);
    world.obedient = false;
    world.join(3, Contributor, 4 * MBIT);
    let planned = world.row(3).source;
    world.say_source(peer(3), &track("v0"), Source::Cdn, SourceState::Flowing);
    assert_eq!(
        (world.row(3).source, world.row(3).state),
        (planned, NodeState::Joining)
    );
}

#[test]
fn a_report_from_before_the_last_decision_is_ignored() {
    let mut world = contributors(1..=3, 2 * MBIT);
    world.obedient = false;
    let held = world.told(3).generation;
    let parent = world.row(3).source;
    assert!(matches!(parent, Some(Source::Peer(_))));
    let Some(Source::Peer(lost)) = parent else {
        unreachable!()
    };
    world.leave(lost.0);
    let planned = world.row(3).source;
    let report = SourceReport {
        peer: peer(3),
        track: track("v0"),
        stripe: 0,
        source: Source::Peer(lost),
        state: SourceState::Flowing,
        generation: Some(held),
    };
    world.event(ChannelEvent::Source(report));
    assert_eq!(world.row(3).source, planned);
}

#[test]
fn a_roots_strongest_child_takes_its_place_and_the_others_follow() {
    let mut world = default_world();
    world.join(1, Contributor, 6 * MBIT);
    for (id, upload) in [(2, 4 * MBIT), (3, 8 * MBIT), (4, 4 * MBIT)] {
        world.join(id, Contributor, upload);
    }
    for id in 5..=12 {
        world.join(id, Contributor, 4 * MBIT);
    }
    world.run(5);
    assert_eq!(world.roots(), [peer(1)].into());
    world.leave(1);
    assert_eq!(world.row(3).source, CDN);
    world.run(5);
    assert_eq!(world.roots(), [peer(3)].into());
}

#[test]
fn a_lost_session_gets_no_new_children_and_ten_seconds() {
    let mut world = contributors(1..=2, 40 * MBIT);
    assert_eq!(world.row(2).source, under(1));
    world.detach(1);
    world.join(3, Contributor, 40 * MBIT);
    assert_eq!(world.row(3).source, under(2));
    world.run(9);
    assert_eq!(world.row(2).source, under(1));
    assert!(!world.row(1).session);
    world.run(1);
    let gone = Alarm::PeerPresumedGone {
        peer: peer(1),
        reported: false,
    };
    assert_eq!(world.alarms, [gone]);
    assert_eq!(world.row(2).source, CDN);
}

#[test]
fn a_dead_link_and_a_lost_session_are_death_in_either_order() {
    for link_first in [false, true] {
        let mut world = contributors(1..=3, 2 * MBIT);
        assert_eq!(world.row(3).source, under(2));
        if link_first {
            world.say_link(3, 2, LinkState::Dead);
            assert!(
                world
                    .engine
                    .topology()
                    .iter()
                    .any(|row| row.peer == peer(2))
            );
            world.detach(2);
        } else {
            world.detach(2);
            world.say_link(3, 2, LinkState::Dead);
        }
        let gone = Alarm::PeerPresumedGone {
            peer: peer(2),
            reported: true,
        };
        assert_eq!(world.alarms, [gone], "link first: {link_first}");
        assert!(
            world
                .engine
                .topology()
                .iter()
                .all(|row| row.peer != peer(2))
        );
    }
}

#[test]
fn a_strangers_word_kills_nobody() {
    let mut world = contributors(1..=3, 2 * MBIT);
    world.detach(1);
    world.say_link(3, 1, LinkState::Dead);
    assert_eq!(world.row(2).source, under(1));
    assert!(world.alarms.is_empty());
}

#[test]
fn a_move_keeps_the_old_source_until_data_flows_from_the_new() {
    let mut world = contributors(1..=1, 2 * MBIT);
    world.obedient = false;
    world.join(2, Contributor, 2 * MBIT);
    world.join(3, Contributor, 40 * MBIT);
    world.flow(peer(3));
    world.flow(peer(2));
    let moving = world
        .engine
        .topology()
        .into_iter()
        .find(|row| row.state == NodeState::Moving);
    let moving = moving.expect("one of two roots goes under the other");
    let told = world.told(moving.peer.0).tracks[0].clone();
    assert!(told.make_before_break);
    assert_eq!(Some(told.source), moving.source);
    let sent = world.sent.len();
    world.flow(moving.peer);
    let row = world.row(moving.peer.0);
    assert_eq!((row.state, row.source), (NodeState::Active, moving.source));
    let again = world.sent[sent..]
        .iter()
        .filter(|(id, _)| *id == moving.peer)
        .count();
    assert_eq!(again, 0, "that it has arrived is its own news");
}

#[test]
fn a_move_that_does_not_arrive_is_taken_back_and_the_pair_rests() {
    let mut world = default_world();
    world.obedient = false;
    world.join(1, Contributor, 4 * MBIT);
    world.join(2, Contributor, 2 * MBIT);
    world.flow(peer(1));
    let moving = world.row(2);
    assert_eq!((world.roots().len(), moving.source), (1, under(1)));
    world.run(16);
    assert_eq!(world.roots().len(), 2);
    assert_eq!(world.row(moving.peer.0).source, CDN);
    world.run(40);
    assert_eq!(world.roots().len(), 2, "the pair is not tried again yet");
    world.obedient = true;
    world.run(40);
    assert_eq!(world.roots().len(), 1, "but later");
}

#[test]
fn who_fell_to_the_cdn_and_does_not_arrive_at_one_parent_is_soon_sent_to_another() {
    let mut world = contributors(1..=4, 4 * MBIT);
    let row = world
        .engine
        .topology()
        .into_iter()
        .find(|row| matches!(row.source, Some(Source::Peer(_))) && row.children.is_empty());
    let fallen = row.expect("a leaf").peer;
    world.say_source(fallen, &track("v0"), Source::Cdn, SourceState::Flowing);
    world.obedient = false;
    world.run(3);
    let first = world.row(fallen.0);
    assert_eq!(first.state, NodeState::Moving);
    // Nothing flows from there, and nobody says why.
    world.run(14);
    assert_eq!(world.row(fallen.0).source, CDN);
    world.obedient = true;
    world.run(6);
    let next = world.row(fallen.0);
    assert_eq!(world.roots().len(), 1);
    assert!(
        next.source != CDN && next.source != first.source,
        "{next:?}"
    );
}

#[test]
fn a_link_that_never_opened_sends_the_newcomer_elsewhere() {
    let mut world = contributors(1..=3, 4 * MBIT);
    world.obedient = false;
    world.join(4, Contributor, 4 * MBIT);
    let Some(Source::Peer(parent)) = world.row(4).source else {
        panic!("no parent")
    };
    world.say_link(4, parent.0, LinkState::Failed);
    let next = world.row(4).source;
    assert!(
        matches!(next, Some(Source::Peer(other)) if other != parent),
        "{next:?}"
    );
    assert!(
        world
            .told(parent.0)
            .children
            .iter()
            .all(|child| child.peer != peer(4))
    );
}

#[test]
fn a_link_that_cannot_carry_its_share_is_left_for_another_path() {
    let mut world = contributors(1..=4, 40 * MBIT);
    assert_eq!(world.row(4).source, under(1));
    world.obedient = false;
    world.say_link(4, 1, LinkState::Late);
    let row = world.row(4);
    assert_ne!(row.source, under(1));
    assert_eq!(row.state, NodeState::Moving);
    assert!(world.told(4).tracks[0].make_before_break);
}

#[test]
fn a_frozen_peer_with_a_session_gets_no_new_children_for_a_while() {
    let mut world = contributors(1..=3, 40 * MBIT);
    world.say_link(3, 1, LinkState::Dead);
    world.join(4, Contributor, 4 * MBIT);
    assert_ne!(world.row(4).source, under(1));
    world.run(11);
    world.join(5, Contributor, 4 * MBIT);
    assert_eq!(world.row(5).source, under(1));
}

#[test]
fn a_rate_that_rises_makes_parents_give_up_children_before_it_is_too_late() {
    let mut world = contributors(1..=7, 4 * MBIT);
    assert_eq!(world.roots().len(), 1);
    world.obedient = false;
    let rate = |rate_bps| ChannelEvent::TrackRate {
        track: TrackIndex(0),
        rate_bps,
    };
    world.event(rate(2_000_000));
    let moving = world.engine.topology();
    let moving = moving
        .iter()
        .filter(|row| row.state == NodeState::Moving)
        .count();
    assert!(moving >= 2, "two parents had two children each");
    assert!(
        world
            .engine
            .topology()
            .iter()
            .all(|row| row.children.len() <= 1)
    );
    world.obedient = true;
    for id in 1..=7 {
        world.flow(peer(id));
    }
    world.run(40);
    assert_eq!(world.roots().len(), 1, "a chain still carries everybody");
    let entries = world.entries.len();
    world.event(rate(1_900_000));
    world.event(rate(0));
    assert_eq!(
        world.entries.len(),
        entries,
        "a stream that breathes moves nobody"
    );
    assert_eq!(world.engine.audience(world.now).max_depth, 7);
}

#[test]
fn one_upload_budget_carries_all_tracks() {
    let mut world = default_world();
    let tracks = vec![info(0, 1_500_000), info(1, 500_000)];
    world.event(ChannelEvent::TracksChanged { tracks });
    world.join_for(1, Contributor, 4_200_000, &["v0", "v1"]);
    for id in 2..=6 {
        world.join_for(id, Consumer, 0, &["v0", "v1"]);
    }
    world.run(3);
    let served = (
        world.row_in(1, "v0").children.len(),
        world.row_in(1, "v1").children.len(),
    );
    let cost = served.0 * 1_800_000 + served.1 * 600_000;
    assert!(cost <= 4_200_000 && cost > 3_600_000, "{served:?}");
}

#[test]
fn tracks_are_joined_and_left_as_they_are_wanted() {
    let mut world = contributors(1..=3, 40 * MBIT);
    let want = |tracks: &[&str]| ChannelEvent::WantTracks {
        peer: peer(2),
        tracks: tracks.iter().map(|name| track(name)).collect(),
    };
    world.event(want(&["v1"]));
    assert!(
        world
            .engine
            .topology()
            .iter()
            .all(|row| row.peer != peer(2)),
        "v1 is not there yet"
    );
    let tracks = vec![info(0, 1_500_000), info(1, 3_000_000)];
    world.event(ChannelEvent::TracksChanged { tracks });
    assert_eq!(world.row_in(2, "v1").source, CDN);
    world.event(want(&[]));
    assert_eq!(world.row_in(2, "v0").source, under(1), "the default");
    world.event(ChannelEvent::TracksChanged {
        tracks: vec![info(1, 3_000_000)],
    });
    assert!(
        world.engine.topology().is_empty(),
        "nobody wants what is left"
    );
    assert!(world.told(1).tracks.is_empty());
}

#[test]
fn nobody_is_given_to_a_peer_in_bypass() {
    let mut world = contributors(1..=2, 40 * MBIT);
    world.say_source(peer(1), &track("v0"), Source::Cdn, SourceState::Bypass);
    world.join(3, Contributor, 4 * MBIT);
    assert_eq!(world.row(1).state, NodeState::Bypass);
    assert_eq!(world.row(3).source, under(2));
}
