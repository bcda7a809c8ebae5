//! A track in four stripes: each comes down a tree of its own, and a killed parent stops nobody's picture.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::scene::Setup;
use espalier_e2e::topology::CDN;
use espalier_e2e::wait::{observe_for, unix_ms, wait_until};
use espalier_e2e::{Scene, Stats};

use crate::steady::FORMING;

const STRIPES: usize = 4;
const PEERS: usize = 8;

#[test]
fn eight_peers_take_four_stripes_and_lose_one_of_them() -> Result<()> {
    let setup = Setup {
        policy: Some(format!("stripes = {STRIPES}\n")),
        ..Setup::default()
    };
    Scene::play("stripes", setup, |scene| {
        let peer = scene.contributor("20mbit")?;
        scene.start_peers(&vec![peer; PEERS])?;
        let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
        for id in &ids {
            scene.watch(id, 0)?;
        }
        wait_until("every stripe flows, from one root each", FORMING, || {
            let stats = scene.all_stats()?;
            let fed = stats.iter().all(settled);
            let roots = stats.iter().flat_map(sources);
            let roots = roots.filter(|source| *source == Some(CDN)).count();
            Ok((fed && roots == STRIPES).then_some(()))
        })?;
        expect_ranges_only(scene)?;
        lose_the_busiest(scene)?;
        scene.expect_flawless("seg").map(drop)
    })
}

fn settled(stats: &Stats) -> bool {
    stats.tracks.len() == STRIPES && stats.tracks.iter().all(|track| track.state == "flowing")
}

fn sources(stats: &Stats) -> impl Iterator<Item = Option<&str>> {
    stats.tracks.iter().map(|track| track.source.as_deref())
}

/// Who roots some of the stripes reads their ranges; who roots none reads nothing; together they read
/// each byte about once.
fn expect_ranges_only(scene: &mut Scene) -> Result<()> {
    let (from_ms, before) = (unix_ms(), scene.all_stats()?);
    observe_for(Duration::from_secs(12));
    let requests = scene.cdn.requests()?;
    for (stats, after) in before.iter().zip(scene.all_stats()?) {
        let roots = sources(stats).filter(|source| *source == Some(CDN)).count();
        let still = sources(&after)
            .filter(|source| *source == Some(CDN))
            .count();
        let own = |r: &&espalier_e2e::cdn::Request| r.is_peer_media() && r.peer == stats.peer;
        let own = requests.iter().filter(own).filter(|r| r.at_ms >= from_ms);
        let own: Vec<_> = own.collect();
        match roots {
            _ if roots != still => {}
            0 => ensure!(own.is_empty(), "{} is no root and took {own:?}", stats.peer),
            STRIPES => {}
            _ => {
                let whole = own.iter().find(|request| request.status != 206);
                ensure!(whole.is_none(), "{} took {whole:?} whole", stats.peer);
                ensure!(
                    !own.is_empty(),
                    "{} roots {roots} and took nothing",
                    stats.peer
                );
            }
        }
    }
    let received = |stats: &[Stats]| -> u64 {
        let taken = stats.iter().map(|stats| stats.counters.bytes_from_cdn);
        taken.sum()
    };
    let whole = |stats: &[Stats]| -> u64 {
        let all = |s: &Stats| s.counters.bytes_from_cdn + s.counters.bytes_from_peers;
        stats.iter().map(all).sum()
    };
    let after = scene.all_stats()?;
    let cdn = received(&after) - received(&before);
    let each = (whole(&after) - whole(&before)) / PEERS as u64;
    scene.figures.record("cdn_bytes", cdn)?;
    scene.figures.record("bytes_of_each_peer", each)?;
    ensure!(
        cdn <= each + each / 4,
        "{cdn} bytes from the CDN, {each} to each peer"
    );
    Ok(())
}

/// Kills the peer that most stripes are taken from.
fn lose_the_busiest(scene: &mut Scene) -> Result<()> {
    let stats = scene.all_stats()?;
    let taken = |id: &str| {
        let from = stats.iter().flat_map(sources);
        from.filter(|source| *source == Some(id)).count()
    };
    let busiest = stats.iter().map(|stats| stats.peer.clone());
    let victim = busiest.max_by_key(|id| taken(id)).context("a peer")?;
    let struck: BTreeSet<&str> = stats
        .iter()
        .filter(|stats| sources(stats).any(|source| source == Some(&victim)))
        .map(|stats| stats.peer.as_str())
        .collect();
    eprintln!("killing {victim}, from whom {struck:?} take stripes");
    ensure!(struck.len() >= 2, "{victim} serves {struck:?}");
    let peer = scene.peers.iter_mut().find(|peer| peer.id == victim);
    peer.context("the victim")?.process.kill()?;
    scene.forget(&victim);
    observe_for(Duration::from_secs(20));
    for stats in scene.all_stats()? {
        ensure!(settled(&stats), "{} has {:?}", stats.peer, stats.tracks);
        ensure!(
            stats.playout.stalls == 0,
            "{} stalled: {:?}",
            stats.peer,
            stats.playout
        );
        ensure!(
            sources(&stats).all(|source| source != Some(&victim)),
            "{} takes stripes from the dead",
            stats.peer
        );
    }
    Ok(())
}
