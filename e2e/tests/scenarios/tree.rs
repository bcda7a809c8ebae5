//! Points 1 and 2: a tree of twelve, its interior killed; and the same tree with CMAF and two renditions.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::rhythm::{arrivals, gaps, worst_lateness_ms};
use espalier_e2e::scene::Setup;
use espalier_e2e::topology::CDN;
use espalier_e2e::wait::{observe_for, unix_ms, wait_until};
use espalier_e2e::{Form, Scene, Tree};

use crate::player::Player;
use crate::steady::{Coming, FORMING, expect_only_roots, expect_steady, tree_of_twelve};

/// The most that an object may be later than its rhythm after its parent's parent was killed.
const LATEST_MS: f64 = 1500.0;

#[test]
fn a_tree_of_twelve_and_its_losses() -> Result<()> {
    Scene::play("tree", Setup::default(), |scene| {
        let tree = tree_of_twelve(scene, Coming::InWaves)?;
        let track = watch_everyone(scene, &tree)?;
        let deepest = tree
            .places()
            .iter()
            .max_by_key(|place| place.depth)
            .context("a deepest peer")?;
        let player = Player::at(scene, scene.peer(&deepest.peer)?, Duration::from_secs(16))?;
        expect_steady(scene, &tree, &track, "seg", Duration::from_secs(24))?;
        let pictures = player.expect_flawless(Duration::from_secs(40))?;
        scene.figures.record("pictures_played", pictures)?;
        kill_an_interior_peer(scene, &track)?;
        let compared = scene.expect_flawless("seg")?;
        scene
            .figures
            .record("segments_played_and_compared", compared)
    })
}

#[test]
fn a_tree_of_twelve_with_two_renditions() -> Result<()> {
    let setup = Setup {
        form: Form::TwoRenditions,
        ..Setup::default()
    };
    Scene::play("renditions", setup, |scene| {
        let tree = tree_of_twelve(scene, Coming::InWaves)?;
        let track = watch_everyone(scene, &tree)?;
        let player = Player::at(scene, &scene.peers[11], Duration::from_secs(12))?;
        expect_steady(scene, &tree, &track, "v0", Duration::from_secs(20))?;
        player.expect_flawless(Duration::from_secs(40))?;
        scene.expect_flawless("v0")?;
        scene.viewers.clear();
        both_renditions(scene)
    })
}

#[test]
fn twelve_at_once_end_in_one_tree() -> Result<()> {
    Scene::play("at_once", Setup::default(), |scene| {
        let tree = tree_of_twelve(scene, Coming::AtOnce)?;
        let settled_ms = unix_ms();
        observe_for(Duration::from_secs(10));
        expect_only_roots(scene, &tree, settled_ms)
    })
}

fn watch_everyone(scene: &mut Scene, tree: &Tree) -> Result<String> {
    let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
    for id in ids {
        scene.watch(&id, 0)?;
    }
    Ok(tree.places().first().context("a place")?.track.clone())
}

/// Half of the audience turns to the second rendition.
fn both_renditions(scene: &mut Scene) -> Result<()> {
    let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
    let (first, second) = ids.split_at(6);
    for id in first {
        scene.watch(id, 0)?;
    }
    for id in second {
        scene.watch(id, 1)?;
    }
    let other = scene.track_name(&scene.peers[0], 1)?;
    let tree = scene.wait_for_tree(
        "six peers in the second rendition's tree",
        FORMING,
        |tree| {
            tree.places()
                .iter()
                .filter(|place| place.track == other)
                .count()
                == second.len()
        },
    )?;
    // Who starts in a tree may take its first objects from the CDN, and does so within two target durations.
    let started_ms = unix_ms() + 4_000;
    let enough = started_ms + 12_000;
    wait_until(
        "every player has played on",
        Duration::from_secs(60),
        || {
            let behind = |viewer: &espalier_e2e::Viewer| {
                viewer
                    .received()
                    .last()
                    .is_none_or(|last| last.received_ms < enough)
            };
            Ok((!scene.viewers.iter().any(behind)).then_some(()))
        },
    )?;
    expect_only_roots(scene, &tree, started_ms)?;
    for viewer in &scene.viewers {
        viewer.expect_flawless()?;
        let rendition = if first.iter().any(|id| id == viewer.name()) {
            "v0"
        } else {
            "v1"
        };
        viewer.expect_identical(&scene.origin, rendition)?;
    }
    Ok(())
}

/// Point 2.
fn kill_an_interior_peer(scene: &mut Scene, track: &str) -> Result<()> {
    let before = scene.wait_for_tree("a settled tree", FORMING, |_| true)?;
    let (victim, descendants) = before
        .places()
        .iter()
        .filter(|place| place.source.as_deref() != Some(CDN))
        .map(|place| (place, before.descendants(&place.peer)))
        .filter(|(_, descendants)| descendants.len() >= 3)
        .max_by_key(|(_, descendants)| descendants.len())
        .context("an interior peer with three descendants")?;
    let heads: BTreeSet<&str> = victim.children.iter().map(String::as_str).collect();
    eprintln!(
        "killing {} with children {heads:?} and descendants {descendants:?}",
        victim.peer
    );

    let killed_ms = unix_ms();
    let peer = scene
        .peers
        .iter_mut()
        .find(|peer| peer.id == victim.peer)
        .context("the victim")?;
    peer.process.kill()?;
    scene.forget(&victim.peer);
    let after = scene.wait_for_tree("the tree without the victim", FORMING, |tree| {
        tree.place(&victim.peer).is_none()
    })?;
    eprintln!("{}", after.describe());
    let whole_ms = unix_ms() - killed_ms;
    wait_for_appearances(killed_ms + 14_000);

    let mut worst = Vec::new();
    for id in &descendants {
        let stats = scene.peer(id)?.stats()?;
        let arrivals = arrivals(&stats, track, &scene.origin, "seg");
        let missing = gaps(&arrivals);
        ensure!(missing.is_empty(), "{id} misses {missing:?} after the kill");
        let to_ms = killed_ms + 10_000;
        worst.push(worst_lateness_ms(
            &arrivals,
            killed_ms - 2500,
            to_ms,
            20_000,
        )?);
    }
    let touched = scene.cdn.media_by_peer(killed_ms)?;
    scene
        .figures
        .record("kill.descendants", descendants.len())?;
    scene.figures.record("kill.tree_whole_again_ms", whole_ms)?;
    scene.figures.record_sample("kill.lateness_ms", &worst)?;
    let roots = before.roots();
    let heads_objects: Vec<usize> = heads
        .iter()
        .map(|head| touched.get(*head).map_or(0, BTreeSet::len))
        .collect();
    scene
        .figures
        .record("kill.cdn_objects_of_heads", heads_objects)?;
    for (peer, names) in &touched {
        let allowed = roots.contains(peer.as_str()) || heads.contains(peer.as_str());
        ensure!(
            allowed,
            "{peer} is no orphan head and took {names:?} from the CDN"
        );
    }
    for (id, worst) in descendants.iter().zip(&worst) {
        ensure!(
            *worst <= LATEST_MS,
            "an object came {worst} ms late at {id}"
        );
    }
    for viewer in &scene.viewers {
        viewer.expect_flawless()?;
    }
    Ok(())
}

/// Lets the stream run on until this moment.
fn wait_for_appearances(until_ms: i64) {
    let left = u64::try_from(until_ms - unix_ms()).unwrap_or(0);
    observe_for(Duration::from_millis(left));
}
