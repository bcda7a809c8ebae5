//! Point 5: a peer that stops reading slows none of its siblings.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::Scene;
use espalier_e2e::rhythm::{Arrival, arrivals, gaps};
use espalier_e2e::scene::Setup;
use espalier_e2e::statistics::{median, percentile};
use espalier_e2e::wait::{observe_for, unix_ms};
use nix::sys::signal::Signal;

use crate::steady::FORMING;

/// The parent's children, the frozen one among them.
const CHILDREN: usize = 5;
/// How long the siblings are watched before the stop, and during it.
const WATCHED: Duration = Duration::from_secs(30);
/// The most that an object may come later at a sibling than it usually does.
const LATEST_MS: f64 = 1500.0;
/// The most that the siblings' median may rise.
const RISE_MS: f64 = 250.0;

#[test]
fn a_peer_that_stops_reading_slows_no_sibling() -> Result<()> {
    Scene::play("frozen", Setup::default(), |scene| {
        let parent = scene.contributor("40mbit")?;
        scene.start_peers(&[parent])?;
        let parent = scene.peers[0].id.clone();
        scene.wait_for_tree("the parent is the root", FORMING, |tree| {
            tree.roots().contains(parent.as_str())
        })?;
        let child = scene.contributor("1mbit")?;
        scene.start_peers(&vec![child; CHILDREN])?;
        let tree = scene.wait_for_tree("all take from one parent", FORMING, |tree| {
            tree.place(&parent)
                .is_some_and(|place| place.children.len() == CHILDREN)
        })?;
        let place = tree.place(&parent).context("the parent's place")?;
        let (track, mut siblings) = (place.track.clone(), place.children.clone());
        let frozen = siblings.pop().context("a child")?;
        for id in &siblings {
            scene.watch(id, 0)?;
        }
        observe_for(WATCHED);
        let stopped_ms = unix_ms();
        scene.peer(&frozen)?.process.signal(Signal::SIGSTOP);
        observe_for(WATCHED);
        let (before, during) = latencies(scene, &track, &siblings, stopped_ms)?;
        scene.peer(&frozen)?.process.signal(Signal::SIGCONT);
        compare(scene, &before, &during)?;
        scene.expect_flawless("seg")?;
        scene
            .wait_for_tree("the thawed peer is back", FORMING, |_| true)
            .map(drop)
    })
}

/// The latencies of what appeared before the stop and during it, at all siblings together; none of them
/// stalled or missed anything.
fn latencies(
    scene: &Scene,
    track: &str,
    siblings: &[String],
    stopped_ms: i64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let watched_ms = i64::try_from(WATCHED.as_millis())?;
    let (from_ms, to_ms) = (stopped_ms - watched_ms, unix_ms() - 2000);
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for id in siblings {
        let stats = scene.peer(id)?.stats()?;
        ensure!(
            stats.playout.stalls == 0,
            "{id} stalled: {:?}",
            stats.playout
        );
        let arrivals = arrivals(&stats, track, &scene.origin, "seg");
        let missing = gaps(&arrivals);
        ensure!(missing.is_empty(), "{id} misses {missing:?}");
        let within = |from, to| {
            let appeared = arrivals
                .values()
                .filter(move |arrival| (from..to).contains(&arrival.appeared_ms));
            appeared.map(Arrival::latency_ms)
        };
        before.extend(within(from_ms, stopped_ms));
        during.extend(within(stopped_ms, to_ms));
    }
    Ok((before, during))
}

fn compare(scene: &mut Scene, before: &[f64], during: &[f64]) -> Result<()> {
    scene.figures.record("siblings", CHILDREN - 1)?;
    scene
        .figures
        .record_sample("sibling_latency_before_ms", before)?;
    scene
        .figures
        .record_sample("sibling_latency_during_ms", during)?;
    let usual = median(before).context("arrivals before the stop")?;
    let rise = median(during).context("arrivals during the stop")? - usual;
    let worst = percentile(during, 100).context("arrivals during the stop")? - usual;
    ensure!(rise <= RISE_MS, "the siblings' median rose by {rise} ms");
    ensure!(
        worst <= LATEST_MS,
        "an object came {worst} ms late at a sibling"
    );
    Ok(())
}
