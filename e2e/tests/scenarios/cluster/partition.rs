//! Point 2: the owner lives and sees nobody, or its host has gone silent.

use std::time::{Duration, Instant};

use anyhow::Result;
use espalier_e2e::Scene;
use espalier_e2e::ground::Ground;
use espalier_e2e::namespaces::{self, HUB, Side, TwoLines};
use espalier_e2e::scene::Setup;
use espalier_e2e::wait::observe_for;

use super::stage::{Stage, endpoints_without, owner_of, three_nodes, times, wait_until_whole};

/// How long the owner stays away after another has taken its place.
const AWAY: Duration = Duration::from_secs(3);
/// After a silence peers' connections notice (2 s until a ping, 3 s for its answer) and are made anew; a
/// second host that falls silent before that is another scene.
const RECOVERY: Duration = Duration::from_secs(10);

#[test]
fn an_owner_that_sees_no_other_node_is_replaced_and_changes_nothing_when_it_returns() -> Result<()>
{
    cut_off(
        "cluster::partition::an_owner_that_sees_no_other_node_is_replaced_and_changes_nothing_when_it_returns",
        "cluster_partition",
        &[Side::Between],
    )
}

#[test]
fn an_owner_whose_host_is_silent_is_replaced_and_changes_nothing_when_it_returns() -> Result<()> {
    cut_off(
        "cluster::partition::an_owner_whose_host_is_silent_is_replaced_and_changes_nothing_when_it_returns",
        "cluster_silent_host",
        &[Side::Between, Side::Public],
    )
}

fn cut_off(test: &str, scene: &str, sides: &[Side]) -> Result<()> {
    let directory = tempfile::tempdir()?;
    if !namespaces::enter(test, directory.path())? {
        return Ok(());
    }
    let lines: Vec<TwoLines> = (1..=3).map(|number| TwoLines { number }).collect();
    let setup = Setup {
        cluster: lines.iter().cloned().map(Ground::Lines).collect(),
        address: HUB.to_owned(),
        ..three_nodes()
    };
    Scene::play(scene, setup, |scene| {
        let mut stage = Stage::set(scene)?;
        let (mut home, mut all) = (Vec::new(), Vec::new());
        for _ in 0..times("ESPALIER_E2E_PARTITIONS", 3) {
            wait_until_whole(scene)?;
            stage.remember(scene)?;
            let acknowledged = stage.acknowledged(scene)?;
            // Leaders may be moved for balance until the last moment.
            let (owner, groups) = owner_of(scene, &stage.home)?;
            let survivors = endpoints_without(scene, owner);
            let cut = Instant::now();
            for side in sides {
                lines[owner].set(*side, false)?;
            }
            let first = stage.first_joins(&groups, &survivors, cut)?;
            eprintln!("node {} cut off: {first:.0?}", owner + 1);
            let cli = scene.cli_without(owner)?;
            stage.expect_same_edges(&cli)?;
            stage.expect_kept(&cli, &acknowledged)?;
            drop(acknowledged);
            home.extend(first.get(&stage.home));
            all.extend(first.into_values());
            observe_for(AWAY);
            stage.obeyed_nothing_stale(scene)?;
            for side in sides {
                lines[owner].set(*side, true)?;
            }
            wait_until_whole(scene)?;
            stage.expect_same_edges(&scene.cli)?;
            stage.obeyed_nothing_stale(scene)?;
            observe_for(RECOVERY);
        }
        scene.figures.record_sample("first_join_ms", &home)?;
        scene
            .figures
            .record_sample("first_join_any_group_ms", &all)?;
        stage.expect_obedience(scene)?;
        stage.expect_nobody_noticed(scene)
    })
}
