//! Point 6: one node's disk is full, or slow.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::Scene;
use espalier_e2e::ground::Ground;
use espalier_e2e::scene::Setup;
use espalier_e2e::wait::wait_until;
use nix::sys::statvfs::statvfs;

use super::stage::{PATIENCE, Stage, endpoints, three_nodes, wait_until_whole};

/// Room for the node's own state and some log.
const DISK: u64 = 256 << 20;
/// How much longer each sync of a slow disk takes.
const DELAY: Duration = Duration::from_millis(200);
const PIECE: u64 = 1 << 20;

#[test]
fn a_cluster_goes_on_while_one_node_s_disk_is_full() -> Result<()> {
    let setup = Setup {
        cluster: vec![
            Ground::SmallDisk { bytes: DISK },
            Ground::Plain,
            Ground::Plain,
        ],
        ..three_nodes()
    };
    Scene::play("cluster_disk_full", setup, |scene| {
        let mut stage = Stage::set(scene)?;
        // The node's own view of its files, from outside its namespace.
        let process = scene.nodes[0].process().id();
        let data = scene.nodes[0].data();
        let root = PathBuf::from(format!("/proc/{process}/root"));
        let data = root.join(data.strip_prefix("/")?);
        let ballast = take_all_room(&data)?;
        wait_until("the node says that its disk is full", PATIENCE, || {
            let log = scene.nodes[0].log();
            let _writes = joins(scene, &stage, 1)?;
            Ok(log.contains("full").then_some(()))
        })?;
        scene
            .figures
            .record_sample("join_while_full_ms", &joins(scene, &stage, 10)?)?;
        stage.expect_same_edges(&scene.cli)?;
        fs::remove_file(&ballast)?;
        wait_until_whole(scene)?;
        scene
            .figures
            .record_sample("join_after_ms", &joins(scene, &stage, 5)?)?;
        stage.expect_same_edges(&scene.cli)?;
        stage.expect_nobody_noticed(scene)
    })
}

#[test]
fn a_cluster_goes_on_while_one_node_s_disk_is_slow() -> Result<()> {
    let setup = Setup {
        cluster: vec![
            Ground::SlowDisk { delay: DELAY },
            Ground::Plain,
            Ground::Plain,
        ],
        ..three_nodes()
    };
    Scene::play("cluster_disk_slow", setup, |scene| {
        let mut stage = Stage::set(scene)?;
        scene
            .figures
            .record_sample("join_ms", &joins(scene, &stage, 20)?)?;
        let slow = scene.nodes[0].slow_syncs()?;
        scene.figures.record("slow_syncs", slow)?;
        ensure!(slow > 0, "no sync was slow");
        stage.expect_same_edges(&scene.cli)?;
        stage.expect_nobody_noticed(scene)
    })
}

/// Joins in every group by every node, so many times; answers how long each took.
fn joins(scene: &Scene, stage: &Stage, rounds: u32) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..rounds {
        for endpoint in endpoints(scene) {
            for door in stage.doors.values() {
                let began = Instant::now();
                let joined = stage.joiner.join(door, &endpoint, PATIENCE)?;
                took.push(joined.at.duration_since(began).as_secs_f64() * 1000.0);
                joined.leave();
            }
        }
    }
    Ok(took)
}

/// Fills a disk to the last byte.
fn take_all_room(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("ballast");
    let free = || -> Result<u64> {
        let figures = statvfs(directory)?;
        Ok(figures.blocks_available() * figures.fragment_size())
    };
    ensure!(free()? <= DISK, "the disk is not the small one");
    let mut file = File::create(&path).context("on the node's disk")?;
    while free()? > 0 {
        let piece = free()?.min(PIECE);
        file.write_all(&vec![1; usize::try_from(piece)?])?;
    }
    Ok(path)
}
