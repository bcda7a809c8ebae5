//! Points 4 and 5: one node after the other is stopped in order, and all are lost at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::scene::{CHANNEL, Setup};
use espalier_e2e::wait::{observe_for, unix_ms, wait_until};
use espalier_e2e::{Scene, Stats};
use nix::sys::signal::Signal;

use super::stage::{PATIENCE, Stage, three_nodes, wait_until_whole};
use crate::steady::expect_only_roots;

/// How many peers a node may be sent in a second.
const MOVES_PER_SECOND: usize = 2;
const OUTAGE: Duration = Duration::from_secs(30);

#[test]
fn a_rolling_restart_costs_no_viewer_anything() -> Result<()> {
    let setup = Setup {
        limits: format!("moves_per_second = {MOVES_PER_SECOND}\n"),
        ..three_nodes()
    };
    Scene::play("cluster_rolling_restart", setup, |scene| {
        let mut stage = Stage::set(scene)?;
        let (mut took, mut busiest) = (Vec::new(), 0);
        for node in 0..scene.nodes.len() {
            wait_until_whole(scene)?;
            stage.remember(scene)?;
            let began = Instant::now();
            // The first is told to stop and no more; the others are drained by command before.
            let drained = node > 0;
            if drained {
                drain(scene, node, &[])?;
            } else {
                scene.nodes[node].signal(Signal::SIGTERM);
            }
            let (arrivals, ended) = arrivals_until_end(scene, node, drained)?;
            busiest = busiest.max(busiest_second(&arrivals));
            took.push(ended.duration_since(began).as_secs_f64() * 1000.0);
            stage.expect_same_edges(&scene.cli_without(node)?)?;
            scene.nodes[node].start_again()?;
            if drained {
                drain(scene, node, &["--undo"])?;
            }
        }
        wait_until_whole(scene)?;
        stage.expect_same_edges(&scene.cli)?;
        scene.figures.record_sample("stop_ms", &took)?;
        scene.figures.record("moves_per_second", MOVES_PER_SECOND)?;
        scene
            .figures
            .record("arrivals_in_the_busiest_second", busiest)?;
        ensure!(
            busiest <= MOVES_PER_SECOND,
            "{busiest} peers came to one node in a second"
        );
        stage.expect_obedience(scene)?;
        stage.expect_nobody_noticed(scene)
    })
}

#[test]
fn all_nodes_are_killed_at_once_and_the_tree_flows_on() -> Result<()> {
    let setup = Setup {
        own_signer: true,
        ..three_nodes()
    };
    Scene::play("cluster_outage_with_signer", setup, |scene| {
        let mut stage = Stage::set(scene)?;
        let before = Known::of(scene)?;
        let tree = scene.tree()?;
        let killed_ms = unix_ms();
        kill_all(scene)?;
        observe_for(OUTAGE);
        expect_only_roots(scene, &tree, killed_ms)?;
        for stats in scene.all_stats()? {
            let flows = stats.tracks.iter().all(|track| track.state == "flowing");
            ensure!(flows, "{} does not flow: {:?}", stats.peer, stats.tracks);
            let unverified = stats.objects.iter().find(|object| !object.verified);
            ensure!(unverified.is_none(), "{} has {unverified:?}", stats.peer);
        }
        start_all(scene)?;
        expect_return(scene, &mut stage, &before)
    })
}

#[test]
fn all_nodes_are_killed_at_once_and_without_a_signer_peers_bypass() -> Result<()> {
    Scene::play("cluster_outage_without_signer", three_nodes(), |scene| {
        let mut stage = Stage::set(scene)?;
        let before = Known::of(scene)?;
        let killed = Instant::now();
        kill_all(scene)?;
        wait_until("every peer is in bypass", Duration::from_secs(20), || {
            let bypasses = |stats: &Stats| stats.tracks.iter().all(|track| track.state == "bypass");
            Ok(scene.all_stats()?.iter().all(bypasses).then_some(()))
        })?;
        observe_for(OUTAGE.saturating_sub(killed.elapsed()));
        start_all(scene)?;
        expect_return(scene, &mut stage, &before)
    })
}

/// `espalier cluster drain`.
fn drain(scene: &Scene, node: usize, more: &[&str]) -> Result<()> {
    let number = scene.nodes[node].number.to_string();
    let mut words = vec!["cluster", "drain", &number];
    words.extend(more);
    scene.cli.text(&words).map(drop)
}

/// Whether a node leads nothing and has no sessions.
fn is_drained(scene: &Scene, node: usize) -> Result<bool> {
    let status = scene.cli.status()?;
    let number = scene.nodes[node].number;
    let record = status.nodes.iter().find(|record| record.node == number);
    let record = record.context("the node in the cluster's status")?;
    Ok(record.state == "draining" && record.leads == 0 && record.sessions == 0)
}

/// Waits until a node has ended that was asked to stop, or is drained and then asked to; answers when sessions were
/// opened at each of the others, and when it ended.
fn arrivals_until_end(
    scene: &mut Scene,
    node: usize,
    mut draining: bool,
) -> Result<(Vec<Vec<Instant>>, Instant)> {
    let mut before: Vec<Option<u64>> = vec![None; scene.nodes.len()];
    let mut arrivals = vec![Vec::new(); scene.nodes.len()];
    let mut ended = None;
    let ended = wait_until(
        "the node has ended and its peers are elsewhere",
        PATIENCE,
        || {
            for (at, other) in scene.nodes.iter().enumerate().filter(|(at, _)| *at != node) {
                let opened = sessions_opened(scene, &other.metrics_url())?;
                let more = opened - before[at].replace(opened).unwrap_or(opened);
                arrivals[at].extend((0..more).map(|_| Instant::now()));
            }
            if draining && is_drained(scene, node)? {
                draining = false;
                scene.nodes[node].signal(Signal::SIGTERM);
            }
            if ended.is_none() && !scene.nodes[node].process().is_running()? {
                ended = Some(Instant::now());
            }
            // Peers that were not moved but cut off come within a moment too.
            Ok(ended.filter(|ended| ended.elapsed() > Duration::from_secs(2)))
        },
    )?;
    let status = scene.nodes[node].process().wait_for_end(PATIENCE)?;
    ensure!(status.success(), "node {} ended with {status}", node + 1);
    Ok((arrivals, ended))
}

fn sessions_opened(scene: &Scene, url: &str) -> Result<u64> {
    let page = scene.http.get(url, Duration::from_secs(5))?.body;
    let page = String::from_utf8(page)?;
    let name = "espalier_orchestrator_sessions_opened_total ";
    let value = page.lines().find_map(|line| line.strip_prefix(name));
    // A counter is not there before it first counts.
    Ok(value.map(str::parse).transpose()?.unwrap_or(0))
}

/// The most sessions that any one node had opened in a second. Looks are 50 ms and more apart: so much is left out.
fn busiest_second(arrivals: &[Vec<Instant>]) -> usize {
    let second = Duration::from_millis(900);
    let within = |all: &[Instant], from: Instant| {
        let in_time = |at: &&Instant| (from..from + second).contains(*at);
        all.iter().filter(in_time).count()
    };
    let busiest = |all: &Vec<Instant>| all.iter().map(|from| within(all, *from)).max();
    arrivals.iter().filter_map(busiest).max().unwrap_or(0)
}

/// What the cluster must still know afterwards.
struct Known {
    channels: serde_json::Value,
    public_keys: serde_json::Value,
    token: String,
}

impl Known {
    fn of(scene: &Scene) -> Result<Self> {
        let list = scene.cli.text(&["channel", "list", "--format", "json"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let channels = list.as_array().context("an array of channels")?;
        let names = channels.iter().map(|channel| {
            channel
                .get("name")
                .or_else(|| channel.get("channel"))
                .cloned()
        });
        let names: Option<Vec<_>> = names.collect();
        let channel = scene.cli.channel(CHANNEL)?;
        Ok(Self {
            channels: names.with_context(|| format!("names in {list}"))?.into(),
            public_keys: channel.get("public_keys").cloned().unwrap_or_default(),
            token: scene.invitation().token.clone(),
        })
    }
}

fn kill_all(scene: &mut Scene) -> Result<()> {
    for node in &scene.nodes {
        node.signal(Signal::SIGKILL);
    }
    for node in &mut scene.nodes {
        node.kill()?;
    }
    Ok(())
}

fn start_all(scene: &mut Scene) -> Result<()> {
    // None is ready before a majority is there.
    for node in &mut scene.nodes {
        node.launch_again()?;
    }
    for node in &mut scene.nodes {
        node.wait_until_ready()?;
    }
    Ok(())
}

/// The cluster is back, and with it channels, keys, tokens and every edge; nobody noticed.
fn expect_return(scene: &mut Scene, stage: &mut Stage, before: &Known) -> Result<()> {
    let ready = Instant::now();
    wait_until_whole(scene)?;
    let now = Known::of(scene)?;
    ensure!(
        now.channels == before.channels,
        "{} became {}",
        before.channels,
        now.channels
    );
    ensure!(
        now.public_keys == before.public_keys,
        "the channel's keys changed"
    );
    // A token from before admits to the cluster of now.
    let door = espalier_e2e::joiner::Door::new(CHANNEL, &before.token)?;
    stage
        .joiner
        .join(&door, &scene.nodes[0].endpoint, PATIENCE)?
        .leave();
    scene.wait_for_tree("every peer is back in the tree", PATIENCE, |_| true)?;
    scene.figures.record(
        "back_in_the_tree_ms",
        u64::try_from(ready.elapsed().as_millis())?,
    )?;
    stage.expect_same_edges(&scene.cli)?;
    stage.expect_obedience(scene)?;
    stage.expect_nobody_noticed(scene)
}
