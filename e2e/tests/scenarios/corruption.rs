//! Point 4: a peer that alters what it relays.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::peer::PeerOptions;
use espalier_e2e::scene::{CHANNEL, Setup};
use espalier_e2e::wait::{unix_ms, wait_until};
use espalier_e2e::{Scene, Tree};

use crate::steady::FORMING;

const VICTIMS: usize = 5;
/// How soon the offender is named.
const NAMED_MS: i64 = 2000;

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

        let named_ms = wait_until("the offender is named", Duration::from_secs(60), || {
            let channel = scene.cli.channel(CHANNEL)?;
            let suspects = channel
                .get("suspects")
                .and_then(|suspects| suspects.as_array());
            let names = |suspect: &serde_json::Value| {
                suspect.get("peer").and_then(|peer| peer.as_str()) == Some(offender.as_str())
            };
            Ok(suspects
                .is_some_and(|suspects| suspects.iter().any(names))
                .then(unix_ms))
        })?;
        let corrupted = scene.peers[0].process.output();
        let first = corrupted
            .lines()
            .find_map(|line| line.strip_prefix("CORRUPTED="));
        let first: i64 = first.context("the hostile peer altered nothing")?.parse()?;
        scene.figures.record("named_after_ms", named_ms - first)?;
        ensure!(
            named_ms - first <= NAMED_MS,
            "named {} ms after the first bad byte",
            named_ms - first
        );

        expect_separation(scene, &offender, &ids)?;
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

/// Nobody who met a bad byte takes anything from the offender again: three accusers are enough for
/// everyone.
fn expect_separation(scene: &mut Scene, offender: &str, victims: &[String]) -> Result<()> {
    let started = unix_ms();
    let is_fed_by = |tree: &Tree, id: &str| {
        let mut places = tree.places().iter().filter(|place| place.peer == id);
        places.any(|place| {
            [&place.source, &place.standby]
                .iter()
                .any(|source| source.as_deref() == Some(offender))
        })
    };
    let tree = scene.wait_for_tree("every victim has another source", FORMING, |tree| {
        !victims.iter().any(|id| is_fed_by(tree, id))
    })?;
    eprintln!("{}", tree.describe());
    scene
        .figures
        .record("all_separated_after_ms", unix_ms() - started)
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
