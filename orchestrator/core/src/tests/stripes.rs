//! Tracks that are cut into stripes, each with a tree of its own over one upload budget.

use std::collections::{BTreeMap, BTreeSet};

use super::world::*;
use crate::*;
use PeerRole::Contributor;

const KBIT: u64 = 1000;

fn policy(stripes: u32) -> PolicyDraft {
    PolicyDraft {
        stripes: Some(stripes),
        ..PolicyDraft::default()
    }
}

/// Twelve peers that upload less than the bitrate each: 1.5 Mbit/s and a fifth on top.
fn twelve(stripes: u32) -> World {
    let mut world = World::new(policy(stripes));
    for id in 1..=12 {
        world.join(id, Contributor, 1_400 * KBIT);
    }
    world.run(30);
    world
}

fn sources(world: &World, id: u64) -> BTreeMap<u8, Source> {
    let told = world.told(id);
    let tracks = told.tracks.iter();
    tracks.map(|told| (told.stripe, told.source)).collect()
}

#[test]
fn a_peer_takes_every_stripe_and_is_told_how_many_there_are() {
    let world = twelve(4);
    for id in 1..=12 {
        let told = world.told(id);
        assert!(told.tracks.iter().all(|told| told.stripes == 4));
        let stripes: Vec<u8> = sources(&world, id).into_keys().collect();
        assert_eq!(stripes, [0, 1, 2, 3]);
    }
}

#[test]
fn upload_below_the_bitrate_counts_if_tracks_are_striped() {
    let whole = twelve(1);
    assert_eq!(whole.roots().len(), 12, "nobody can carry the whole track");
    let striped = twelve(4);
    let from_cdn = (1..=12).flat_map(|id| sources(&striped, id).into_values());
    let from_cdn = from_cdn.filter(|source| *source == Source::Cdn).count();
    assert!(from_cdn <= 16, "{from_cdn} of 48 stripes come from the CDN");
}

#[test]
fn the_stripes_of_a_peer_come_from_several_parents() {
    let world = twelve(4);
    let several = (1..=12).filter(|id| {
        let sources: BTreeSet<Source> = sources(&world, *id).into_values().collect();
        sources.len() > 1
    });
    assert!(several.count() >= 6, "most depend on nobody alone");
}

#[test]
fn another_number_of_stripes_makes_other_trees() {
    let mut world = twelve(4);
    for stripes in [2, 8, 1] {
        let policy = Policy::validate(&policy(stripes)).unwrap();
        world.event(ChannelEvent::PolicyChanged { policy });
        world.run(30);
        for id in 1..=12 {
            assert_eq!(sources(&world, id).len(), stripes as usize);
        }
    }
}
