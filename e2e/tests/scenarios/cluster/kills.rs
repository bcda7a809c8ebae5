//! Point 1: the owner is killed, again and again.

use std::time::Instant;

use anyhow::Result;
use espalier_e2e::Scene;

use super::stage::{Stage, endpoints_without, owner_of, three_nodes, times, wait_until_whole};

#[test]
fn a_killed_owner_is_replaced_and_no_viewer_notices() -> Result<()> {
    Scene::play("cluster_kills", three_nodes(), |scene| {
        let mut stage = Stage::set(scene)?;
        let load = stage.load(scene)?;
        let kills = times("ESPALIER_E2E_KILLS", 20);
        let (mut home, mut last, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for kill in 0..kills {
            wait_until_whole(scene)?;
            stage.remember(scene)?;
            let acknowledged = stage.acknowledged(scene)?;
            // Leaders may be moved for balance until the last moment.
            let (owner, groups) = owner_of(scene, &stage.home)?;
            let survivors = endpoints_without(scene, owner);
            let killed = Instant::now();
            scene.nodes[owner].kill()?;
            let first = stage.first_joins(&groups, &survivors, killed)?;
            let cli = scene.cli_without(owner)?;
            stage.expect_same_edges(&cli)?;
            stage.expect_kept(&cli, &acknowledged)?;
            drop(acknowledged);
            eprintln!("kill {kill}: node {} led {first:.0?}", owner + 1);
            home.extend(first.get(&stage.home));
            last.extend(first.values().copied().max_by(f64::total_cmp));
            all.extend(first.into_values());
            scene.nodes[owner].start_again()?;
        }
        wait_until_whole(scene)?;
        stage.expect_same_edges(&scene.cli)?;
        let joins: u64 = load.iter().map(espalier_e2e::joiner::Load::joins).sum();
        drop(load);
        scene.figures.record("kills", kills)?;
        scene.figures.record("loaded_groups", stage.doors.len())?;
        scene.figures.record("joins_of_the_load", joins)?;
        scene.figures.record_sample("first_join_ms", &home)?;
        scene
            .figures
            .record_sample("first_join_any_group_ms", &all)?;
        scene
            .figures
            .record_sample("first_join_slowest_group_ms", &last)?;
        stage.expect_obedience(scene)?;
        stage.expect_nobody_noticed(scene)
    })
}
