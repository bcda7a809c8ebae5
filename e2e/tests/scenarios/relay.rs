//! A relay without a screen feeds viewers that pass nothing on.

use std::time::Duration;

use anyhow::{Result, ensure};
use espalier_e2e::Scene;
use espalier_e2e::peer::{PeerOptions, Role};
use espalier_e2e::scene::Setup;
use espalier_e2e::wait::{unix_ms, wait_until};

use crate::steady::{FORMING, expect_only_roots};

#[test]
fn a_relay_feeds_consumers() -> Result<()> {
    Scene::play("relay", Setup::default(), |scene| {
        let relay = PeerOptions {
            role: Role::Relay,
            ..scene.contributor("200mbit")?
        };
        let consumer = PeerOptions {
            role: Role::Consumer,
            ..scene.contributor("20mbit")?
        };
        scene.start_peers(&[relay, consumer.clone(), consumer.clone(), consumer])?;
        let relay = scene.peers[0].id.clone();
        let tree = scene.wait_for_tree("the relay feeds all", FORMING, |tree| {
            tree.place(&relay)
                .is_some_and(|place| place.children.len() == 3)
        })?;
        ensure!(
            tree.roots().into_iter().eq([relay.as_str()]),
            "{}",
            tree.describe()
        );

        let ids: Vec<String> = scene.peers[1..]
            .iter()
            .map(|peer| peer.id.clone())
            .collect();
        for id in &ids {
            scene.watch(id, 0)?;
        }
        let settled_ms = unix_ms();
        wait_until(
            "every player has played on",
            Duration::from_secs(60),
            || {
                let played = |viewer: &espalier_e2e::Viewer| {
                    viewer
                        .received()
                        .last()
                        .is_some_and(|last| last.received_ms > settled_ms + 8000)
                };
                Ok(scene.viewers.iter().all(played).then_some(()))
            },
        )?;
        expect_only_roots(scene, &tree, settled_ms)?;
        scene.expect_flawless("seg").map(drop)
    })
}
