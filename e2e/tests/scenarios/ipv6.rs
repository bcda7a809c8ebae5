//! Everything over IPv6: playlists, sessions, statements, and the links between peers.

use anyhow::{Result, ensure};
use espalier_e2e::scene::Setup;
use espalier_e2e::wait::{unix_ms, wait_until};
use espalier_e2e::{Scene, Viewer};

use crate::steady::{FORMING, expect_only_roots};

#[test]
fn a_tree_grows_where_there_is_only_ipv6() -> Result<()> {
    let setup = Setup {
        address: "::1".to_owned(),
        ..Setup::default()
    };
    Scene::play("ipv6", setup, |scene| {
        let peer = scene.contributor("4mbit")?;
        scene.start_peers(&vec![peer; 4])?;
        let tree = scene.wait_for_tree("four peers below each other", FORMING, |tree| {
            tree.roots().len() == 1 && tree.depth() >= 3
        })?;
        let ids: Vec<String> = scene.peers.iter().map(|peer| peer.id.clone()).collect();
        for id in &ids {
            scene.watch(id, 0)?;
        }
        let settled_ms = unix_ms();
        wait_until("every player has played on", FORMING, || {
            let played = |viewer: &Viewer| {
                let last = viewer.received().into_iter().next_back();
                last.is_some_and(|last| last.received_ms > settled_ms + 8000)
            };
            Ok(scene.viewers.iter().all(played).then_some(()))
        })?;
        ensure!(
            scene.nodes[0].endpoint.contains("[::1]"),
            "the node is at {}",
            scene.nodes[0].endpoint
        );
        expect_only_roots(scene, &tree, settled_ms)?;
        scene.figures.record("depth", tree.depth())?;
        scene.expect_flawless("seg").map(drop)
    })
}
