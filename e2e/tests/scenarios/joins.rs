//! Point 7: how soon a newcomer plays, and how soon the tree feeds it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::scene::Setup;
use espalier_e2e::statistics::float;
use espalier_e2e::wait::wait_until;
use espalier_e2e::{Peer, Scene};

use crate::steady::FORMING;

const JOINS: usize = 20;

#[test]
fn newcomers_play_at_once_and_join_the_tree() -> Result<()> {
    Scene::play("joins", Setup::default(), |scene| {
        let peer = scene.contributor("8mbit")?;
        scene.start_peers(&vec![peer.clone(); 4])?;
        scene.wait_for_tree("four peers", FORMING, |_| true)?;
        let (mut session, mut playable, mut tree_byte, mut objects) =
            (vec![], vec![], vec![], vec![]);
        for _ in 0..JOINS {
            scene.start_peers(std::slice::from_ref(&peer))?;
            let newcomer = scene.peers.last().context("the newcomer")?;
            let first = wait_until(
                "the tree feeds the newcomer",
                Duration::from_secs(30),
                || {
                    let first = newcomer.stats()?.first;
                    let all = (first.session_open, first.playable_playlist, first.tree_byte);
                    Ok(if let (Some(a), Some(b), Some(c)) = all {
                        Some((a, b, c))
                    } else {
                        None
                    })
                },
            );
            let first = first
                .with_context(|| format!("{:?}", newcomer.stats().map(|stats| stats.first)))?;
            session.push(float(first.0));
            playable.push(float(first.1));
            tree_byte.push(float(first.2));
            let taken = scene
                .cdn
                .media_by_peer(0)?
                .get(&newcomer.id)
                .map_or(0, |names| names.len());
            ensure!(
                taken <= 3,
                "the newcomer {} took {taken} objects from the CDN",
                newcomer.id
            );
            objects.push(float(u64::try_from(taken)?));
            leave(scene)?;
        }
        scene.figures.record_sample("session_ms", &session)?;
        scene
            .figures
            .record_sample("playable_playlist_ms", &playable)?;
        scene
            .figures
            .record_sample("first_byte_from_tree_ms", &tree_byte)?;
        scene.figures.record_sample("cdn_objects", &objects)
    })
}

/// The newcomer goes in order, and the tree is whole without it.
fn leave(scene: &mut Scene) -> Result<()> {
    let Peer {
        id, mut process, ..
    } = scene.peers.pop().context("the newcomer")?;
    process.terminate(Duration::from_secs(10))?;
    scene
        .wait_for_tree("four peers again", FORMING, |tree| {
            tree.place(&id).is_none()
        })
        .map(drop)
}
