//! What another policy would do, against what it does.

use std::collections::BTreeSet;

use super::world::*;
use crate::*;
use PeerRole::Contributor;

const MBIT: u64 = 1_000_000;

fn draft(max_children: Option<u32>, target_roots: Option<u32>) -> PolicyDraft {
    PolicyDraft {
        max_children,
        target_roots,
        ..PolicyDraft::default()
    }
}

fn policy(draft: &PolicyDraft) -> Policy {
    Policy::validate(draft).unwrap()
}

/// Twenty peers in trees that have come to rest.
fn twenty() -> World {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=20 {
        world.join(id, Contributor, 20 * MBIT);
    }
    world.run(300);
    world
}

fn roots_and_depth(world: &World) -> (u32, u32) {
    let audience = world.engine.audience(world.now);
    (audience.roots, audience.max_depth)
}

#[test]
fn the_policy_of_now_changes_nothing() {
    let world = twenty();
    let plan = what_if(&world.state, &BTreeSet::new(), Policy::default());
    assert!(plan.settled);
    assert_eq!(plan.now, plan.then);
    assert_eq!((plan.moves, plan.peers_moved), (0, 0));
    assert_eq!(plan.now.peers, 20);
    assert_eq!(
        (plan.now.roots, plan.now.max_depth),
        roots_and_depth(&world)
    );
    assert_eq!(plan.now.offload_permille, 950, "one of twenty is a root");
}

#[test]
fn what_it_says_is_what_happens() {
    for draft in [draft(Some(2), None), draft(None, Some(4))] {
        let mut world = twenty();
        let plan = what_if(&world.state, &BTreeSet::new(), policy(&draft));
        assert!(plan.settled, "{draft:?}");
        assert!(plan.moves > 0 && plan.peers_moved > 0, "{plan:?}");
        assert_ne!(plan.now, plan.then);
        let policy = policy(&draft);
        world.event(ChannelEvent::PolicyChanged { policy });
        world.run(600);
        let then = (plan.then.roots, plan.then.max_depth);
        assert_eq!(then, roots_and_depth(&world), "{draft:?}");
    }
}

#[test]
fn nothing_of_it_is_real_and_it_is_the_same_each_time() {
    let world = twenty();
    let hash = world.state.hash();
    let other = policy(&draft(Some(2), None));
    let plan = what_if(&world.state, &BTreeSet::new(), other.clone());
    assert_eq!(what_if(&world.state, &BTreeSet::new(), other), plan);
    assert_eq!(world.state.hash(), hash);
}

#[test]
fn who_is_absent_is_not_planned_with() {
    let world = twenty();
    let all: BTreeSet<_> = (1..=20).map(peer).collect();
    // Nobody can be told anything, so nobody can be given children.
    let plan = what_if(&world.state, &all, policy(&draft(None, Some(4))));
    assert_eq!(plan.now.peers, 20);
    assert!(plan.then.roots >= plan.now.roots);
}

#[test]
fn an_empty_channel_is_at_rest() {
    let state = state::ChannelState::new(1, Policy::default());
    let plan = what_if(&state, &BTreeSet::new(), policy(&draft(Some(2), None)));
    assert!(plan.settled);
    assert_eq!(plan.then, PlanFigures::default());
}
