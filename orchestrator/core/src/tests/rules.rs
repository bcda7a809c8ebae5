//! One table or scene for each rule.

use super::world::*;
use crate::*;

const MBIT: u64 = 1_000_000;
use PeerRole::{Consumer, Contributor, Relay};

fn source(id: u64) -> Option<Source> {
    Some(Source::Peer(peer(id)))
}

fn twelve() -> World {
    let mut world = World::new(PolicyDraft::default());
    for id in 1..=12 {
        world.join(id, Contributor, 4 * MBIT);
    }
    world.run(5);
    world
}

#[test]
fn the_first_peer_is_a_root_and_its_standby_does_not_exist() {
    let mut world = World::new(PolicyDraft::default());
    world.join(1, Contributor, 4 * MBIT);
    let row = world.row(1);
    assert_eq!(
        (row.source, row.standby, row.depth),
        (Some(Source::Cdn), None, 1)
    );
    assert_eq!(row.state, NodeState::Active);
}

#[test]
fn twelve_peers_with_two_slots_each_make_one_binary_tree() {
    let world = twelve();
    assert_eq!(world.roots().len(), 1);
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
fn a_settled_tree_stays_as_it_is() {
    let mut world = twelve();
    let (edges, sent, entries) = (world.edges(), world.sent.len(), world.entries.len());
    world.run(120);
    assert_eq!(world.edges(), edges);
    assert_eq!((world.sent.len(), world.entries.len()), (sent, entries));
}
