//! Point 4: a peer that alters what it relays.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::peer::PeerOptions;
use espalier_e2e::scene::{CHANNEL, Setup};
use espalier_e2e::statistics::float_ms;
use espalier_e2e::wait::{unix_ms, wait_until};
use espalier_e2e::{Scene, Tree};

use crate::steady::FORMING;

const VICTIMS: usize = 5;
/// How soon a pair is separated and the offender named.
const PROMPT_MS: i64 = 2000;

#[test]
fn a_peer_that_alters_bytes_is_left_alone_and_named() -> Result<()> {
    Scene::play("corruption", Setup::default(), |scene| {
        // Started first and with room for everyone, it is the root and feeds all the others.
        let hostile = PeerOptions {
            program: PathBuf::from(env!("CARGO_BIN_EXE_espalier-hostile-peer")),
            ..scene.contributor("40mbit")?
        };
        scene.start_peers(&[hostile])?;
        let offender = scene.peers[0].id.clone();
        scene.wait_for_tree("the hostile peer is the root", FORMING, |tree| {
            tree.roots().contains(offender.as_str())
        })?;
        let victim = scene.contributor("4mbit")?;
        scene.start_peers(&vec![victim; VICTIMS])?;
        let ids: Vec<String> = scene.peers[1..]
            .iter()
            .map(|peer| peer.id.clone())
            .collect();
        for id in &ids {
            scene.watch(id, 0)?;
        }

        let news = follow_the_pairs(scene, &offender, &ids)?;
        expect_promptness(scene, &offender, &news)?;
        let fresh_ms = unix_ms();
        wait_until("every victim plays on", FORMING, || {
            let plays_on = |viewer: &espalier_e2e::Viewer| {
                viewer
                    .received()
                    .last()
                    .is_some_and(|last| last.received_ms > fresh_ms + 4000)
            };
            Ok(scene.viewers.iter().all(plays_on).then_some(()))
        })?;
        scene.expect_flawless("seg")?;
        expect_clean_books(scene, &ids)
    })
}

/// When what was seen at the node for the first time.
#[derive(Debug, Default)]
struct News {
    named_ms: Option<i64>,
    /// For each victim that met a bad byte: when it did, and when the node had taken the two apart.
    separated_ms: BTreeMap<String, (i64, i64)>,
}

/// Looks at the node until the offender is named and feeds nobody any more. Three accusers are enough
/// for everyone, so not every victim has to meet a bad byte.
fn follow_the_pairs(scene: &Scene, offender: &str, victims: &[String]) -> Result<News> {
    let mut news = News::default();
    wait_until("every pair is separated", FORMING, || {
        if news.named_ms.is_none() && is_named(scene, offender)? {
            news.named_ms = Some(unix_ms());
        }
        let tree = scene.tree()?;
        let mut fed = 0;
        for victim in victims {
            if is_fed_by(&tree, victim, offender) {
                fed += 1;
            } else if let Some(separation) = separation(scene, victim, offender)? {
                news.separated_ms.insert(victim.clone(), separation);
            }
        }
        let done = fed == 0 && news.named_ms.is_some() && !news.separated_ms.is_empty();
        Ok((done && tree.is_settled(scene.peers.len())).then_some(()))
    })?;
    Ok(news)
}

/// When the victim closed its link to the offender for a chunk that failed its hash, and when the node
/// took the two apart, by their own logs; that it did, the tree has shown.
fn separation(scene: &Scene, victim: &str, offender: &str) -> Result<Option<(i64, i64)>> {
    let link = format!("neighbour={offender} ");
    let met_ms = scene.peer(victim)?.logged_ms(&[&link, "state=Corrupt"]);
    let (accuser, suspect) = (format!("accuser={victim}"), format!("suspect={offender}"));
    let apart_ms = scene.nodes[0].logged_ms(&[&accuser, &suspect]);
    Ok(met_ms.zip(apart_ms))
}

fn is_named(scene: &Scene, offender: &str) -> Result<bool> {
    let channel = scene.cli.channel(CHANNEL)?;
    let suspects = channel
        .get("suspects")
        .and_then(|suspects| suspects.as_array());
    let names = |suspect: &serde_json::Value| {
        suspect.get("peer").and_then(|peer| peer.as_str()) == Some(offender)
    };
    Ok(suspects.is_some_and(|suspects| suspects.iter().any(names)))
}

fn is_fed_by(tree: &Tree, peer: &str, offender: &str) -> bool {
    let mut places = tree.places().iter().filter(|place| place.peer == peer);
    places.any(|place| {
        [&place.source, &place.standby]
            .iter()
            .any(|source| source.as_deref() == Some(offender))
    })
}

/// From a pair's first bad byte to its separation, and from the very first to the offender's name.
fn expect_promptness(scene: &mut Scene, offender: &str, news: &News) -> Result<()> {
    let first_ms = news.separated_ms.values().map(|(met, _)| *met).min();
    let named_ms = news
        .named_ms
        .zip(first_ms)
        .map(|(named, first)| named - first)
        .context("the offender is not named")?;
    let pairs = news.separated_ms.values();
    let separated_ms: Vec<f64> = pairs.map(|(met, apart)| float_ms(apart - met)).collect();
    let altered: Vec<i64> = scene
        .peer(offender)?
        .process
        .output()
        .lines()
        .filter_map(|line| line.strip_prefix("CORRUPTED=")?.parse().ok())
        .collect();
    let noticed_ms = noticed_after_ms(&altered, news);
    scene.figures.record("named_after_ms", named_ms)?;
    scene
        .figures
        .record_sample("noticed_after_alteration_ms", &noticed_ms)?;
    scene
        .figures
        .record_sample("pair_separated_after_ms", &separated_ms)?;
    ensure!(
        named_ms <= PROMPT_MS,
        "named {named_ms} ms after the first bad byte"
    );
    ensure!(
        separated_ms.iter().all(|ms| *ms <= float_ms(PROMPT_MS)),
        "pairs were separated after {separated_ms:?} ms"
    );
    Ok(())
}

/// From the last alteration before a victim noticed one to that moment: a bound from below for how long
/// a bad chunk travels.
fn noticed_after_ms(altered: &[i64], news: &News) -> Vec<f64> {
    let before = |met: i64| altered.iter().copied().filter(|at| *at <= met).max();
    news.separated_ms
        .values()
        .filter_map(|(met, _)| Some(float_ms(met - before(*met)?)))
        .collect()
}

/// The victims noticed, and hold nothing but the origin's bytes.
fn expect_clean_books(scene: &Scene, victims: &[String]) -> Result<()> {
    let mut noticed = 0;
    for id in victims {
        let stats = scene.peer(id)?.stats()?;
        noticed += stats.counters.corrupt_chunks;
        ensure!(
            stats.playout.stalls == 0,
            "{id} stalled: {:?}",
            stats.playout
        );
        for object in &stats.objects {
            let genuine = scene.origin.name_of(&object.sha256).is_some();
            ensure!(
                genuine,
                "{id} holds {object:?}, which the origin never published"
            );
        }
    }
    ensure!(noticed > 0, "nobody noticed a bad chunk");
    Ok(())
}
