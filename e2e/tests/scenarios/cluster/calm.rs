//! Point 1, the other half: a leader that lives is not replaced, however busy it is.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::binaries::tool;
use espalier_e2e::ground::Ground;
use espalier_e2e::namespaces::{self, HUB, TwoLines};
use espalier_e2e::wait::{observe_for, wait_until};
use espalier_e2e::{Scene, scene::Setup};

use super::stage::{PATIENCE, Stage, owner_of, three_nodes, times, wait_until_whole};

/// What the busy disk is written in one go before it is synced.
const PIECE: usize = 8 << 20;
/// How long the load comes, and how long it stays away.
const BURST: Duration = Duration::from_secs(2);

#[test]
fn bursts_and_a_busy_disk_bring_no_election() -> Result<()> {
    Scene::play("cluster_calm", three_nodes(), |scene| {
        let mut stage = Stage::set(scene)?;
        let span = Duration::from_secs(times("ESPALIER_E2E_CALM_S", 30).into());
        let before = settled_terms(scene)?;
        let disk = BusyDisk::start(&scene.directory().join("busy"))?;
        let began = Instant::now();
        let mut joins = 0;
        while began.elapsed() < span {
            let load = stage.load(scene)?;
            observe_for(BURST);
            joins += load
                .iter()
                .map(espalier_e2e::joiner::Load::joins)
                .sum::<u64>();
            drop(load);
            observe_for(BURST / 2);
            let now = terms(scene)?;
            ensure!(now == before, "an election: {before:?} became {now:?}");
        }
        scene.figures.record("span_s", span.as_secs())?;
        scene.figures.record("joins_of_the_load", joins)?;
        scene.figures.record("busy_disk_mib", disk.stop()?)?;
        scene.figures.record("false_elections", 0)?;
        stage.expect_same_edges(&scene.cli)?;
        stage.expect_nobody_noticed(scene)
    })
}

#[test]
fn a_living_leader_whose_connections_are_cut_stays() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let name = "cluster::calm::a_living_leader_whose_connections_are_cut_stays";
    if !namespaces::enter(name, directory.path())? {
        return Ok(());
    }
    let grounds = (1..=3).map(|number| Ground::Lines(TwoLines { number }));
    let setup = Setup {
        cluster: grounds.collect(),
        address: HUB.to_owned(),
        ..three_nodes()
    };
    Scene::play("cluster_connections_cut", setup, |scene| {
        let mut stage = Stage::set(scene)?;
        let load = stage.load(scene)?;
        let before = settled_terms(scene)?;
        let mut cut = 0;
        for _ in 0..times("ESPALIER_E2E_CUTS", 3) {
            let (owner, _) = owner_of(scene, &stage.home)?;
            cut += cut_connections(scene.nodes[owner].process().id())?;
            // Several election timeouts.
            observe_for(Duration::from_secs(2));
            let now = terms(scene)?;
            ensure!(now == before, "an election: {before:?} became {now:?}");
        }
        ensure!(cut > 0, "no connection was cut");
        drop(load);
        scene.figures.record("connections_cut", cut)?;
        scene.figures.record("false_elections", 0)?;
        stage.expect_same_edges(&scene.cli)?;
        stage.expect_nobody_noticed(scene)
    })
}

/// Resets every connection to and from other nodes; answers how many there were.
fn cut_connections(process: u32) -> Result<usize> {
    let process = process.to_string();
    let output = Command::new(tool("nsenter")?)
        .args(["--target", &process, "--net"])
        .arg(tool("ss")?)
        .args(["-H", "-K", "-t", "( dport = :7301 or sport = :7301 )"])
        .output()
        .context("ss -K")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().count())
}

/// Every group's term and leader.
fn terms(scene: &Scene) -> Result<Vec<(String, u64, Option<u64>)>> {
    let status = wait_until("the cluster's status", PATIENCE, || {
        Ok(Some(scene.cli.status()?))
    })?;
    let shards = status.shards.into_iter();
    Ok(shards
        .map(|shard| (shard.shard, shard.term, shard.leader))
        .collect())
}

/// The terms once leaders are no longer moved for balance.
fn settled_terms(scene: &Scene) -> Result<Vec<(String, u64, Option<u64>)>> {
    wait_until_whole(scene)?;
    let mut last = terms(scene)?;
    let mut since = Instant::now();
    wait_until("leaders stay where they are", PATIENCE, || {
        let now = terms(scene)?;
        if now != last {
            last = now;
            since = Instant::now();
        }
        Ok((since.elapsed() > Duration::from_secs(5)).then(|| last.clone()))
    })
}

/// Writes and syncs, on the disk that the nodes' data are on, until it is stopped.
struct BusyDisk {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

impl BusyDisk {
    fn start(path: &Path) -> Result<Self> {
        let mut file = File::create(path)?;
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            let piece = vec![0x5a_u8; PIECE];
            while !stopped.load(Ordering::Relaxed) {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&piece)?;
                file.sync_data()?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self {
            stop,
            written,
            thread,
        })
    }

    /// Ends it; answers how many MiB it wrote.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the busy disk's thread panicked"))??;
        Ok(self.written.load(Ordering::Relaxed) * (PIECE >> 20) as u64)
    }
}
