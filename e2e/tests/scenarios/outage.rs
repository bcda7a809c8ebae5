//! Point 3: the orchestrator is killed for half a minute.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::orchestrator::Keeping;
use espalier_e2e::rhythm::{arrivals, worst_lateness_ms};
use espalier_e2e::scene::{CHANNEL, Setup};
use espalier_e2e::wait::{observe_for, unix_ms, wait_until};
use espalier_e2e::{Scene, Stats, Tree};

use crate::steady::{Coming, FORMING, expect_only_roots, tree_of_twelve};

const OUTAGE: Duration = Duration::from_secs(30);
/// How soon peers are back in the tree after the orchestrator is.
const RETURN: Duration = Duration::from_secs(10);

#[test]
fn with_the_signer_beside_the_packager_the_tree_flows_on() -> Result<()> {
    let setup = Setup {
        keeping: Keeping::Everything,
        own_signer: true,
        ..Setup::default()
    };
    Scene::play("outage_with_signer", setup, |scene| {
        let before = begin(scene)?;
        let killed_ms = unix_ms();
        scene.nodes[0].kill()?;
        observe_for(OUTAGE);
        expect_only_roots(scene, &before.tree, killed_ms)?;
        for stats in scene.all_stats()? {
            let bypassed = stats.tracks.iter().any(|track| track.state != "flowing");
            ensure!(
                !bypassed,
                "{} does not flow: {:?}",
                stats.peer,
                stats.tracks
            );
            let unverified = stats.objects.iter().find(|object| !object.verified);
            ensure!(unverified.is_none(), "{} has {unverified:?}", stats.peer);
        }
        scene.nodes[0].start_again()?;
        expect_return(scene, &before)?;
        expect_only_roots(scene, &before.tree, killed_ms)?;
        end(scene, &before, killed_ms)
    })
}

#[test]
fn with_the_signer_inside_peers_bypass_and_come_back() -> Result<()> {
    let setup = Setup {
        keeping: Keeping::Everything,
        ..Setup::default()
    };
    Scene::play("outage_without_signer", setup, |scene| {
        let before = begin(scene)?;
        let killed_ms = unix_ms();
        let killed = Instant::now();
        scene.nodes[0].kill()?;
        wait_until("every peer is in bypass", Duration::from_secs(20), || {
            let bypasses = |stats: &Stats| stats.tracks.iter().all(|track| track.state == "bypass");
            Ok(scene.all_stats()?.iter().all(bypasses).then_some(()))
        })?;
        scene
            .figures
            .record("all_in_bypass_ms", unix_ms() - killed_ms)?;
        observe_for(OUTAGE.saturating_sub(killed.elapsed()));
        scene.nodes[0].start_again()?;
        expect_return(scene, &before)?;
        let back_ms = unix_ms();
        observe_for(Duration::from_secs(8));
        // What was asked for in bypass may be answered a moment after it.
        expect_only_roots(scene, &before.tree, back_ms + 2000)?;
        end(scene, &before, killed_ms)
    })
}

struct Before {
    tree: Tree,
    track: String,
    public_keys: serde_json::Value,
    processes: BTreeSet<u32>,
}

fn begin(scene: &mut Scene) -> Result<Before> {
    let tree = tree_of_twelve(scene, Coming::InWaves)?;
    let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
    for id in ids {
        scene.watch(&id, 0)?;
    }
    observe_for(Duration::from_secs(10));
    let tree = scene.wait_for_tree("a settled tree", FORMING, |now| now.roots() == tree.roots())?;
    let track = tree.places().first().context("a place")?.track.clone();
    let public_keys = public_keys(scene)?;
    let processes = scene.peers.iter().map(|peer| peer.process.id()).collect();
    Ok(Before {
        tree,
        track,
        public_keys,
        processes,
    })
}

fn public_keys(scene: &Scene) -> Result<serde_json::Value> {
    let channel = scene.cli.channel(CHANNEL)?;
    let keys = channel
        .get("public_keys")
        .with_context(|| format!("public keys in {channel}"))?;
    ensure!(
        keys.as_array().is_some_and(|keys| !keys.is_empty()),
        "no public keys in {channel}"
    );
    Ok(keys.clone())
}

/// The orchestrator is back: so are channel, keys, peers and every edge, in time.
fn expect_return(scene: &mut Scene, before: &Before) -> Result<()> {
    let ready = Instant::now();
    let back = scene.wait_for_tree("every peer is back in the tree", FORMING, |_| true)?;
    let took = ready.elapsed();
    eprintln!("{}", back.describe());
    scene
        .figures
        .record("back_in_the_tree_ms", u64::try_from(took.as_millis())?)?;
    ensure!(
        took <= RETURN,
        "it took {took:?} until every peer was back in the tree"
    );
    ensure!(
        public_keys(scene)? == before.public_keys,
        "the channel's keys changed"
    );
    let (then, now) = (before.tree.edges(), back.edges());
    ensure!(
        then == now,
        "edges changed:\nbefore {then:?}\nafter {now:?}"
    );
    Ok(())
}

/// Nobody stalled, missed anything, or was started again.
fn end(scene: &mut Scene, before: &Before, killed_ms: i64) -> Result<()> {
    let compared = scene.expect_flawless("seg")?;
    scene
        .figures
        .record("segments_played_and_compared", compared)?;
    let mut worst = Vec::new();
    for stats in scene.all_stats()? {
        ensure!(
            stats.playout.stalls == 0,
            "{} stalled: {:?}",
            stats.peer,
            stats.playout
        );
        let arrivals = arrivals(&stats, &before.track, &scene.origin, "seg");
        worst.push(worst_lateness_ms(
            &arrivals,
            killed_ms,
            unix_ms() - 4000,
            10_000,
        )?);
    }
    scene.figures.record_sample("lateness_ms", &worst)?;
    for peer in &mut scene.peers {
        ensure!(peer.process.is_running()?, "{} ended", peer.id);
    }
    let processes = scene.peers.iter().map(|peer| peer.process.id()).collect();
    ensure!(before.processes == processes, "a peer was started again");
    Ok(())
}
