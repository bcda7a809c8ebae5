//! Point 3: the owner stands still for five seconds and goes on as if nothing had been.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use espalier_e2e::wait::{observe_for, wait_until};
use espalier_e2e::{Cli, Scene};
use nix::sys::signal::Signal;

use super::stage::{PATIENCE, Stage, endpoints_without, owner_of, three_nodes, wait_until_whole};

const STOPPED: Duration = Duration::from_secs(5);

#[test]
fn an_owner_that_stood_still_harms_nobody() -> Result<()> {
    Scene::play("cluster_stopped", three_nodes(), |scene| {
        let mut stage = Stage::set(scene)?;
        wait_until_whole(scene)?;
        stage.remember(scene)?;
        let acknowledged = stage.acknowledged(scene)?;
        // Leaders may be moved for balance until the last moment.
        let (owner, groups) = owner_of(scene, &stage.home)?;
        let stopped = Instant::now();
        scene.nodes[owner].signal(Signal::SIGSTOP);
        let first = stage.first_joins(&groups, &endpoints_without(scene, owner), stopped)?;
        eprintln!("node {} stopped: {first:.0?}", owner + 1);
        observe_for(STOPPED.saturating_sub(stopped.elapsed()));
        scene.nodes[owner].signal(Signal::SIGCONT);
        let cli = scene.cli_without(owner)?;
        stage.expect_same_edges(&cli)?;
        stage.expect_kept(&cli, &acknowledged)?;
        drop(acknowledged);
        all_agree_who_leads(scene)?;
        // Whatever the old owner had still queued would have been said by now.
        observe_for(Duration::from_secs(3));
        stage.obeyed_nothing_stale(scene)?;
        stage.expect_same_edges(&scene.cli)?;
        stage.expect_obedience(scene)?;
        let all: Vec<f64> = first.into_values().collect();
        scene
            .figures
            .record_sample("first_join_any_group_ms", &all)?;
        stage.expect_nobody_noticed(scene)
    })
}

/// Waits until every node names the same leader of every group, in the same term.
fn all_agree_who_leads(scene: &Scene) -> Result<()> {
    wait_until("all nodes name the same leaders", PATIENCE, || {
        let mut views = Vec::new();
        for node in &scene.nodes {
            let status = Cli::new(&node.endpoint, &node.token)?.status()?;
            let view: BTreeMap<_, _> = status
                .shards
                .into_iter()
                .map(|shard| (shard.shard, (shard.leader, shard.term)))
                .collect();
            ensure!(
                view.values().all(|(leader, _)| leader.is_some()),
                "{view:?}"
            );
            views.push(view);
        }
        Ok(views
            .windows(2)
            .all(|pair| pair[0] == pair[1])
            .then_some(()))
    })
}
