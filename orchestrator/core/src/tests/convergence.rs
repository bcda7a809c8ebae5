//! What the trees come to when the world is friendly: as few roots as the audience's upload allows,
//! shallow trees, few edges touched, and a bounded amount of work however large the audience is.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::*;
use crate::forest::Work;
use crate::*;
use PeerRole::{Consumer, Contributor};

const MBIT: u64 = 1_000_000;
/// What a child of the worlds' one track costs.
const COST: u64 = 1_800_000;

/// The reference: who is in, with how many slots. A forest over them needs at least this many roots.
fn least_roots(audience: &BTreeMap<u64, u64>) -> usize {
    let slots: u64 = audience.values().map(|upload| upload * MBIT / COST).sum();
    let peers = audience.len();
    peers.saturating_sub(usize::try_from(slots).unwrap()).max(1)
}

/// The least depth that so many peers can have under `roots` of them: the strongest on top.
fn least_depth(audience: &BTreeMap<u64, u64>, roots: usize) -> u32 {
    let mut slots: Vec<u64> = audience
        .values()
        .map(|upload| upload * MBIT / COST)
        .collect();
    slots.sort_unstable_by(|one, other| other.cmp(one));
    let (mut placed, mut depth) = (roots, 1);
    while placed < audience.len() {
        let sum: u64 = slots[..placed].iter().sum();
        placed = roots + usize::try_from(sum).unwrap();
        depth += 1;
    }
    depth
}

fn deep_policy() -> PolicyDraft {
    PolicyDraft {
        max_depth: Some(64),
        ..PolicyDraft::default()
    }
}

/// One peer is killed; its children notice and switch to their standbys by themselves.
fn kill(world: &mut World, id: u64) {
    let row = world.row(id);
    world.kill(id);
    for child in row.children {
        world.say_link(child.0, id, LinkState::Dead);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn roots_fall_to_what_the_slots_allow(
        steps in proptest::collection::vec((0_u8..10, 0_u64..10, any::<u64>()), 1..80),
    ) {
        let mut world = World::new(deep_policy());
        let mut audience = BTreeMap::new();
        for (id, (kind, upload, lot)) in (1..).zip(steps) {
            let known: Vec<u64> = audience.keys().copied().collect();
            let one = known.get(usize::try_from(lot).unwrap() % known.len().max(1)).copied();
            match (kind, one) {
                (0, Some(one)) => {
                    world.leave(one);
                    audience.remove(&one);
                }
                (1, Some(one)) => {
                    kill(&mut world, one);
                    audience.remove(&one);
                    world.run(11);
                }
                (2..=4, _) => {
                    world.join(id, Consumer, upload * MBIT);
                    audience.insert(id, 0);
                }
                _ => {
                    world.join(id, Contributor, upload * MBIT);
                    audience.insert(id, upload);
                }
            }
        }
        world.run(200);
        if !audience.is_empty() {
            prop_assert_eq!(world.roots().len(), least_roots(&audience));
        }
        let rows = world.engine.topology();
        prop_assert_eq!(rows.len(), audience.len());
        prop_assert!(rows.iter().all(|row| row.state == NodeState::Active));
    }
}

#[test]
fn trees_are_not_much_deeper_than_they_must_be() {
    for (peers, uploads) in [(100, [4, 4, 4]), (300, [2, 4, 9]), (300, [0, 8, 8])] {
        let mut world = World::new(deep_policy());
        let mut audience = BTreeMap::new();
        for id in 1..=peers {
            let upload = uploads[usize::try_from(id % 3).unwrap()];
            world.join(id, Contributor, upload * MBIT);
            audience.insert(id, upload);
        }
        world.run(30);
        assert_eq!(world.roots().len(), least_roots(&audience));
        let (depth, least) = (
            world.engine.audience(world.now).max_depth,
            least_depth(&audience, 1),
        );
        assert!(
            depth <= least + 2,
            "{peers} peers with {uploads:?}: {depth}, {least} would do"
        );
    }
}

#[test]
fn the_death_of_an_interior_peer_moves_its_children_and_nobody_below_them() {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=60 {
        world.join(id, Contributor, 4 * MBIT);
    }
    world.run(10);
    for depth in [3, 4, 3, 4, 2] {
        let rows = world.engine.topology();
        let dead = rows
            .iter()
            .find(|row| row.depth == depth && row.children.len() == 2)
            .unwrap();
        let before = world.edges();
        world.obedient = false;
        kill(&mut world, dead.peer.0);
        let after = world.edges();
        let moved = after
            .iter()
            .filter(|(id, source)| before.get(id) != Some(source))
            .count();
        assert!(
            moved <= dead.children.len() + 1,
            "{moved} moved: the children and the successor"
        );
        assert_eq!(world.roots().len(), 1, "the CDN feeds nobody more");
        world.obedient = true;
        let ids: Vec<_> = world.actors.keys().copied().collect();
        ids.into_iter().for_each(|id| world.flow(id));
        world.run(100);
    }
}

/// The most that one event did in an audience of this size.
fn most_work(peers: u64) -> Work {
    let mut world = World::new(deep_policy());
    for id in 1..=peers {
        let role = if id % 3 == 0 { Consumer } else { Contributor };
        world.join_quietly(id, role, (2 + id % 7) * MBIT);
    }
    for id in (1..=peers).step_by(5) {
        world.leave_quietly(id);
    }
    world.most
}

#[test]
fn the_work_of_an_event_does_not_grow_with_the_audience() {
    // Depths are written for all that is below a node that moves; that alone may grow.
    let (small, large) = (most_work(250), most_work(2000));
    for work in [small, large] {
        assert!(work.examined <= 600, "{work:?}");
        assert!(work.edges <= 24, "{work:?}");
    }
    assert!(
        large.examined <= (small.examined * 2).max(256),
        "{small:?}, then {large:?}"
    );
}
