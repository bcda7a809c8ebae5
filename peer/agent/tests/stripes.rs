//! Whole agents that take a track in four stripes, each from another peer, over real links on loopback. The
//! node is the test's: it says who takes which stripe from whom.

#[cfg(test)]
mod support;

use std::collections::BTreeSet;

use espalier_proto::v1::{self, peer_message::Kind};
use serde_json::Value;

use crate::support::peer::{Peer, every_object_is_the_origins};
use crate::support::{Node, Origin, Place, wait_for};

/// How many whole chunks the origin's segments have.
pub(crate) const SEGMENT_CHUNKS: usize = 6;
const STRIPES: usize = 4;

/// Four peers, each the root of one stripe and a leaf in the three others; and a fifth that takes a stripe
/// from each of them, with the next one as its standby.
fn plant(node: &Node, roots: &[Peer], leaf: &Peer) {
    let next = |stripe: usize| (stripe + 1) % STRIPES;
    for (own, peer) in roots.iter().enumerate() {
        let place = |stripe: usize| {
            if stripe != own {
                let source = Some(roots[stripe].id.clone());
                let reserve = next(stripe) == own;
                let children = reserve.then(|| (leaf.id.clone(), true));
                return Place {
                    source,
                    standby: None,
                    children: children.into_iter().collect(),
                };
            }
            let others = roots.iter().filter(|other| other.id != peer.id);
            let children = others.chain([leaf]).map(|child| (child.id.clone(), false));
            Place {
                children: children.collect(),
                ..Place::default()
            }
        };
        node.assign_striped(&peer.id, &(0..STRIPES).map(place).collect::<Vec<_>>());
    }
    let place = |stripe: usize| Place {
        source: Some(roots[stripe].id.clone()),
        standby: Some(roots[next(stripe)].id.clone()),
        children: Vec::new(),
    };
    node.assign_striped(&leaf.id, &(0..STRIPES).map(place).collect::<Vec<_>>());
}

/// The source of each stripe, and whether all of them flow.
fn sources(stats: &Value) -> (Vec<String>, bool) {
    let tracks = || stats["tracks"].as_array().into_iter().flatten();
    let flows = tracks().all(|track| track["state"] == "flowing");
    let source = |track: &Value| track["source"].as_str().unwrap_or_default().to_owned();
    (tracks().map(source).collect(), flows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_stripes_come_from_four_peers_and_one_that_dies_costs_its_own() {
    let origin = Origin::start().await;
    let node = Node::start(&origin).await;
    let mut roots = Vec::new();
    for _ in 0..STRIPES {
        roots.push(Peer::start_real(&node).await);
    }
    let leaf = Peer::start_real(&node).await;
    plant(&node, &roots, &leaf);
    let everybody = || roots.iter().chain([&leaf]);
    for peer in everybody() {
        wait_for("every stripe flows", || async {
            let (from, flow) = sources(&peer.stats().await);
            (from.len() == STRIPES && flow).then_some(())
        })
        .await;
    }
    wait_for("the leaf takes whole objects from its parents", || async {
        (leaf.taken_from_parent().await.len() >= 8).then_some(())
    })
    .await;
    let expected: Vec<String> = roots.iter().map(|root| root.id.clone()).collect();
    assert_eq!(sources(&leaf.stats().await).0, expected);

    let settled = leaf.newest().await;
    wait_for("some more segments", || async {
        (leaf.newest().await >= settled + 10).then_some(())
    })
    .await;
    for (stripe, peer) in roots.iter().enumerate() {
        let taken = origin.chunks_taken_by(&peer.id, settled);
        let own: BTreeSet<usize> = (0..7).filter(|chunk| chunk % STRIPES == stripe).collect();
        assert_eq!(taken, own, "the root of stripe {stripe} takes its chunks");
    }
    assert_eq!(origin.chunks_taken_by(&leaf.id, settled), BTreeSet::new());
    for peer in everybody() {
        let stats = peer.stats().await;
        every_object_is_the_origins(&stats);
        assert_eq!(stats["playout"]["stalls"], 0, "{stats}");
    }
    node.hears(
        &leaf.id,
        "the leaf reports the source of each stripe",
        |kind| {
            matches!(kind, Kind::SourceEvent(event) if event.stripe == 3
            && event.state() == v1::SourceState::Flowing)
        },
    )
    .await;

    let lost = 2;
    let dead = roots.remove(lost);
    let before = leaf.newest().await;
    drop(dead.agent);
    wait_for("the leaf takes the stripe from its standby", || async {
        let (from, flow) = sources(&leaf.stats().await);
        (flow && from[lost] != expected[lost]).then_some(())
    })
    .await;
    wait_for("the stream goes on", || async {
        (leaf.newest().await >= before + 16).then_some(())
    })
    .await;
    for peer in roots.iter().chain([&leaf]) {
        let stats = peer.stats().await;
        every_object_is_the_origins(&stats);
        assert_eq!(stats["playout"]["stalls"], 0, "{stats}");
        let (from, _) = sources(&stats);
        for stripe in (0..STRIPES).filter(|stripe| *stripe != lost) {
            let still = peer.id == expected[stripe] || from[stripe] == expected[stripe];
            assert!(
                still,
                "{} takes stripe {stripe} from {}",
                peer.id, from[stripe]
            );
        }
    }
    let taken = origin.chunks_taken_by(&leaf.id, before);
    assert!(
        taken.iter().all(|chunk| chunk % STRIPES == lost),
        "{taken:?}"
    );
}
