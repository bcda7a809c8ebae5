//! Point 8, on loopback: what a hop adds, and that an object is passed on before it is whole.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::cdn::SIGNER;
use espalier_e2e::rhythm::{Arrival, arrivals};
use espalier_e2e::scene::Setup;
use espalier_e2e::statistics::{float, float_ms, median};
use espalier_e2e::wait::{observe_for, unix_ms};
use espalier_e2e::{Scene, Tree};

use crate::steady::FORMING;

/// The most that a hop may add at the median.
const HOP_MS: f64 = 25.0;

/// A chain of five on lines that are no limit: one child each, by policy.
fn chain_setup(cdn_rate: Option<u64>) -> Setup {
    let policy = Some("max_children = 1\n".to_owned());
    Setup {
        policy,
        cdn_rate,
        ..Setup::default()
    }
}

#[test]
fn a_hop_adds_little() -> Result<()> {
    Scene::play("latency", chain_setup(None), |scene| {
        let tree = form_chain(scene)?;
        observe_for(Duration::from_secs(30));
        let chain = measure(scene, &tree)?;
        for (depth, arrivals) in &chain {
            let latencies: Vec<f64> = arrivals.values().map(Arrival::latency_ms).collect();
            scene
                .figures
                .record_sample(&format!("depth_{depth}_ms"), &latencies)?;
        }
        record_detection(scene)?;
        let hops = hops(&chain);
        scene.figures.record_sample("hop_ms", &hops)?;
        let hop = median(&hops).context("hops")?;
        ensure!(hop < HOP_MS, "a hop adds {hop} ms at the median");
        Ok(())
    })
}

#[test]
fn objects_are_passed_on_before_they_are_whole() -> Result<()> {
    // A segment of 375 kB takes a second from the CDN.
    Scene::play("cut_through", chain_setup(Some(375_000)), |scene| {
        let tree = form_chain(scene)?;
        observe_for(Duration::from_secs(24));
        let chain = measure(scene, &tree)?;
        let transfers: Vec<f64> = chain
            .get(&1)
            .context("a root")?
            .values()
            .map(Arrival::transfer_ms)
            .collect();
        let hops = hops(&chain);
        scene
            .figures
            .record_sample("root_transfer_ms", &transfers)?;
        scene.figures.record_sample("hop_ms", &hops)?;
        let (transfer, hop) = (
            median(&transfers).context("transfers")?,
            median(&hops).context("hops")?,
        );
        ensure!(
            transfer > 400.0,
            "the root has a segment in {transfer} ms: nothing to see here"
        );
        ensure!(
            hop < transfer / 5.0,
            "a hop adds {hop} ms of a transfer of {transfer} ms"
        );
        Ok(())
    })
}

fn form_chain(scene: &mut Scene) -> Result<Tree> {
    let peer = scene.contributor("100mbit")?;
    scene.start_peers(&vec![peer; 5])?;
    let tree = scene.wait_for_tree("a chain of five", FORMING, |tree| tree.depth() == 5)?;
    // The first objects of newcomers came another way.
    observe_for(Duration::from_secs(6));
    Ok(tree)
}

/// How soon the signer had each segment after its appearance, and how often it asked for the playlist.
fn record_detection(scene: &mut Scene) -> Result<()> {
    let from_ms = unix_ms() - 24_000;
    let (mut detection, mut polls) = (Vec::new(), 0);
    for request in scene
        .cdn
        .requests()?
        .iter()
        .filter(|request| request.peer == SIGNER)
    {
        if request.is_playlist() {
            polls += u64::from(request.at_ms >= from_ms);
        } else if let Some(published) = scene.origin.published(request.name())
            && published.appeared_ms >= from_ms
        {
            detection.push(float_ms(request.at_ms - published.appeared_ms));
        }
    }
    scene
        .figures
        .record_sample("signer_has_segment_after_ms", &detection)?;
    // Twelve segments of two seconds, which is their target duration too.
    scene.figures.record(
        "signer_playlist_requests_per_target_duration",
        float(polls) / 12.0,
    )
}

/// Arrivals by depth: of the objects that came down the tree to everyone.
fn measure(scene: &Scene, tree: &Tree) -> Result<BTreeMap<u32, BTreeMap<u64, Arrival>>> {
    let formed_ms = unix_ms() - 24_000;
    let mut chain = BTreeMap::new();
    for place in tree.places() {
        let stats = scene.peer(&place.peer)?.stats()?;
        let mut arrivals = arrivals(&stats, &place.track, &scene.origin, "seg");
        arrivals.retain(|_, arrival| arrival.appeared_ms >= formed_ms);
        ensure!(!arrivals.is_empty(), "{} has received nothing", place.peer);
        chain.insert(place.depth, arrivals);
    }
    Ok(chain)
}

/// What each hop added to each object.
pub(crate) fn hops(chain: &BTreeMap<u32, BTreeMap<u64, Arrival>>) -> Vec<f64> {
    let mut added = Vec::new();
    for (parents, children) in chain.values().zip(chain.values().skip(1)) {
        for (sequence, child) in children {
            if let Some(parent) = parents.get(sequence) {
                added.push(float_ms(child.completed_ms - parent.completed_ms));
            }
        }
    }
    added
}
