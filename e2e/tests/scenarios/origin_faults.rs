//! Point 6: an origin that freezes, vanishes, talks garbage, jumps back, restarts its numbering.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::publisher::Fault;
use espalier_e2e::scene::{CHANNEL, Setup};
use espalier_e2e::wait::{unix_ms, wait_until};
use espalier_e2e::{Scene, Viewer};

use crate::steady::FORMING;

const NOTICED: Duration = Duration::from_secs(20);
const RECOVERED: Duration = Duration::from_secs(40);

#[test]
fn faults_of_the_origin_are_named_and_survived() -> Result<()> {
    Scene::play("origin_faults", Setup::default(), |scene| {
        let peer = scene.contributor("4mbit")?;
        scene.start_peers(&vec![peer; 4])?;
        scene.wait_for_tree("four peers", FORMING, |_| true)?;
        let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
        for id in ids {
            scene.watch(&id, 0)?;
        }
        wait_for_state(scene, "live")?;

        // Short faults: the origin's window is longer, so nobody misses a segment.
        for (fault, state) in [
            (Fault::Frozen, "frozen"),
            (Fault::Missing, "unreachable"),
            (Fault::Garbage, "invalid"),
        ] {
            let noticed_ms = fault_until(scene, fault, state)?;
            scene
                .figures
                .record(&format!("{state}.named_after_ms"), noticed_ms)?;
            let recovered_ms = recover(scene)?;
            scene
                .figures
                .record(&format!("{state}.fresh_again_after_ms"), recovered_ms)?;
        }
        scene.expect_flawless("seg")?;

        jump_back(scene)?;
        restart_the_numbering(scene)?;
        for peer in &mut scene.peers {
            ensure!(peer.process.is_running()?, "{} ended", peer.id);
        }
        Ok(())
    })
}

/// Makes a fault and waits until the channel names it, with a reason for a person.
fn fault_until(scene: &Scene, fault: Fault, state: &str) -> Result<i64> {
    let began_ms = unix_ms();
    scene.origin.set_fault(fault)?;
    wait_for_state(scene, state)?;
    let channel = scene.cli.channel(CHANNEL)?;
    let problem = channel
        .get("origin_problem")
        .and_then(|problem| problem.as_str());
    ensure!(
        problem.is_some_and(|problem| !problem.is_empty()),
        "no reason is given: {channel}"
    );
    eprintln!("{fault:?}: {}", problem.unwrap_or_default());
    Ok(unix_ms() - began_ms)
}

fn wait_for_state(scene: &Scene, expected: &str) -> Result<()> {
    let mut last = None;
    let reached = wait_until(&format!("the channel says {expected}"), NOTICED, || {
        last = scene.cli.channel(CHANNEL)?.get("origin_state").cloned();
        let state = last.as_ref().and_then(|state| state.as_str());
        Ok(state
            .filter(|state| state.eq_ignore_ascii_case(expected))
            .map(drop))
    });
    reached.with_context(|| format!("it says {last:?}"))
}

/// Ends the fault, and waits until every player has what appeared after it.
fn recover(scene: &Scene) -> Result<i64> {
    let ended_ms = unix_ms();
    scene.origin.set_fault(Fault::None)?;
    wait_for_fresh(scene, ended_ms)?;
    wait_for_state(scene, "live")?;
    Ok(unix_ms() - ended_ms)
}

/// Every player has received something that appeared after `since_ms`.
fn wait_for_fresh(scene: &Scene, since_ms: i64) -> Result<()> {
    let is_fresh = |viewer: &Viewer| {
        let last = viewer.received().into_iter().next_back()?;
        let name = scene.origin.name_of(&last.sha256)?;
        Some(scene.origin.published(&name)?.appeared_ms >= since_ms)
    };
    let fresh = wait_until("every player plays on", RECOVERED, || {
        Ok(scene
            .viewers
            .iter()
            .all(|viewer| is_fresh(viewer) == Some(true))
            .then_some(()))
    });
    fresh.with_context(|| {
        let problems: Vec<_> = scene.viewers.iter().map(Viewer::problems).collect();
        format!("players say {problems:?}")
    })
}

/// The playlists of some minutes ago; their segments are long gone.
fn jump_back(scene: &mut Scene) -> Result<()> {
    let began_ms = unix_ms();
    scene.origin.set_fault(Fault::JumpedBack)?;
    wait_until("the channel says that something is wrong", NOTICED, || {
        let channel = scene.cli.channel(CHANNEL)?;
        let state = channel.get("origin_state").and_then(|state| state.as_str());
        Ok(state
            .filter(|state| !state.eq_ignore_ascii_case("live"))
            .map(drop))
    })?;
    scene
        .figures
        .record("jumped_back.named_after_ms", unix_ms() - began_ms)?;
    let recovered_ms = recover(scene)?;
    scene
        .figures
        .record("jumped_back.fresh_again_after_ms", recovered_ms)
}

/// A new packager that counts from 0: a new epoch.
fn restart_the_numbering(scene: &mut Scene) -> Result<()> {
    let epochs = |scene: &Scene| -> Vec<u32> {
        let last = |viewer: &Viewer| viewer.received().last().map_or(0, |last| last.epoch);
        scene.viewers.iter().map(last).collect()
    };
    let before = epochs(scene);
    let restarted_ms = unix_ms();
    scene.origin.restart_packager()?;
    wait_for_fresh(scene, restarted_ms)?;
    scene
        .figures
        .record("restarted.fresh_again_after_ms", unix_ms() - restarted_ms)?;
    let after = epochs(scene);
    ensure!(
        before.iter().zip(&after).all(|(b, a)| a > b),
        "epochs {before:?} became {after:?}"
    );
    for viewer in &scene.viewers {
        for segment in viewer.received() {
            let known = scene.origin.name_of(&segment.sha256).is_some();
            ensure!(
                known,
                "{} received {segment:?}, which the origin never published",
                viewer.name()
            );
        }
    }
    wait_for_state(scene, "live")
}
