//! Point 8, behind slow lines: a chain of eight, each in a network namespace with 3 Mbit/s up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::namespaces::{self, HUB, Uplink};
use espalier_e2e::rhythm::{Arrival, arrivals, gaps};
use espalier_e2e::scene::Setup;
use espalier_e2e::statistics::{float_ms, percentile};
use espalier_e2e::wait::{observe_for, unix_ms};
use espalier_e2e::{Peer, Scene, Stats};

use crate::latency::hops;
use crate::player::Player;
use crate::steady::{FORMING, expect_only_roots};

const PEERS: u8 = 8;
/// How far the last viewer may be behind the first.
const BEHIND_MS: f64 = 4000.0;

#[test]
fn eight_in_a_chain_behind_slow_lines() -> Result<()> {
    let directory = tempfile::tempdir()?;
    if !namespaces::enter(
        "chain::eight_in_a_chain_behind_slow_lines",
        directory.path(),
    )? {
        return Ok(());
    }
    let setup = Setup {
        address: HUB.to_owned(),
        ..Setup::default()
    };
    Scene::play("chain", setup, |scene| {
        for number in 1..=PEERS {
            start_behind_a_line(scene, number)?;
        }
        let tree = scene.wait_for_tree("a chain of eight", FORMING, |tree| {
            tree.depth() == u32::from(PEERS)
        })?;
        eprintln!("{}", tree.describe());
        observe_for(Duration::from_secs(8));
        let from_ms = unix_ms();
        let last_peer = tree
            .places()
            .iter()
            .find(|place| place.depth == u32::from(PEERS));
        let last_peer = scene.peer(&last_peer.context("a last peer")?.peer)?;
        let player = Player::beside(scene, last_peer, Duration::from_secs(20))?;
        observe_for(Duration::from_secs(32));
        player.expect_flawless(Duration::from_secs(20))?;
        // All of it came down the chain.
        expect_only_roots(scene, &tree, from_ms)?;

        let mut chain: BTreeMap<u32, BTreeMap<u64, Arrival>> = BTreeMap::new();
        for place in tree.places() {
            let stats = scene.peer(&place.peer)?.stats()?;
            ensure!(
                stats.playout.stalls == 0,
                "{} stalled: {:?}",
                place.peer,
                stats.playout
            );
            let mut arrivals = arrivals(&stats, &place.track, &scene.origin, "seg");
            ensure!(
                gaps(&arrivals).is_empty(),
                "{} misses {:?}",
                place.peer,
                gaps(&arrivals)
            );
            expect_genuine(scene, &stats)?;
            arrivals.retain(|_, arrival| arrival.appeared_ms >= from_ms);
            chain.insert(place.depth, arrivals);
        }
        let first = chain.get(&1).context("a first viewer")?;
        let last = chain.get(&u32::from(PEERS)).context("a last viewer")?;
        let behind: Vec<f64> = last
            .iter()
            .filter_map(|(sequence, last)| {
                Some(float_ms(
                    last.completed_ms - first.get(sequence)?.completed_ms,
                ))
            })
            .collect();
        for (depth, arrivals) in &chain {
            let latencies: Vec<f64> = arrivals.values().map(Arrival::latency_ms).collect();
            scene
                .figures
                .record_sample(&format!("depth_{depth}_ms"), &latencies)?;
        }
        scene.figures.record_sample("hop_ms", &hops(&chain))?;
        scene
            .figures
            .record_sample("last_behind_first_ms", &behind)?;
        let worst = percentile(&behind, 95).context("objects that came all the way")?;
        ensure!(
            worst <= BEHIND_MS,
            "the last viewer is {worst} ms behind the first"
        );
        Ok(())
    })
}

/// What the peer holds is what the origin published. (Its player is on its own machine: reading it
/// from here would fill its uplink.)
fn expect_genuine(scene: &Scene, stats: &Stats) -> Result<()> {
    for object in &stats.objects {
        let published = scene.origin.segment("seg", object.sequence);
        let genuine = published.is_some_and(|published| published.sha256 == object.sha256);
        ensure!(
            genuine && object.verified,
            "{} holds {object:?}",
            stats.peer
        );
    }
    Ok(())
}

fn start_behind_a_line(scene: &mut Scene, number: u8) -> Result<()> {
    let line = Uplink {
        number,
        up: "3mbit".to_owned(),
        down: "20mbit".to_owned(),
    };
    let mut options = scene.contributor("3mbit")?;
    options.address = line.address();
    let arguments = options.arguments(scene.invitation());
    let name = format!("peer-{number}");
    let process = line.start(&name, &options.program, arguments, scene.directory())?;
    let peer = Peer::attach(process, &scene.http)?;
    scene.peers.push(peer);
    Ok(())
}
