//! Whole agents: a real signer's feed, real HTTP on both sides, links in memory.

#[cfg(test)]
mod support;

use espalier_peer::transport::MemoryNetwork;
use espalier_proto::v1::{self, peer_message::Kind};

use crate::support::peer::{Peer, every_object_is_the_origins, root_and_child};
use crate::support::{Node, Origin, OwnSigner, segment, wait_for};

/// How many whole chunks the origin's segments have.
pub(crate) const SEGMENT_CHUNKS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_plays_what_the_origin_has_from_its_parent() {
    let origin = Origin::start().await;
    let node = Node::start(&origin).await;
    let (root, child) = root_and_child(&node, &MemoryNetwork::new()).await;
    for peer in [&root, &child] {
        every_object_is_the_origins(&peer.stats().await);
    }
    // How much a newcomer takes from the CDN depends on how soon its link is up. Once its parent's data flows,
    // what it has begun there may still end, and then it takes nothing more.
    more_objects(&child, 2).await;
    let taken = origin.segments_taken_by(&child.id);
    more_objects(&child, 6).await;
    let taken_since = origin.segments_taken_by(&child.id).split_off(taken.len());
    assert_eq!(taken_since, Vec::<String>::new(), "after {taken:?}");
    assert!(!origin.segments_taken_by(&root.id).is_empty());

    let master = child.get("/demo/master.m3u8").await.text().await.unwrap();
    assert!(master.contains("main/index.m3u8"), "{master}");
    let media = child
        .get("/demo/main/index.m3u8")
        .await
        .text()
        .await
        .unwrap();
    let newest = media
        .lines()
        .rev()
        .find(|line| !line.starts_with('#'))
        .unwrap();
    let sequence: u64 = newest
        .trim_start_matches("0-")
        .trim_end_matches(".ts")
        .parse()
        .unwrap();
    let body = child
        .get(&format!("/demo/main/{newest}"))
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(body, segment(sequence));

    node.hears(&child.id, "the child reports its source", |kind| {
        matches!(kind, Kind::SourceEvent(event) if event.state() == v1::SourceState::Flowing
            && event.source.as_ref().is_some_and(|source|
                source.kind == Some(v1::source::Kind::Peer(root.id.clone()))))
    })
    .await;
    node.hears(&child.id, "the child acknowledges", |k| {
        matches!(k, Kind::Acknowledge(_))
    })
    .await;
    node.hears(&root.id, "the root reports its link", |kind| {
        matches!(kind, Kind::LinkEvent(e) if e.state() == v1::LinkState::Up && e.neighbour == child.id)
    })
    .await;
    node.hears(
        &child.id,
        "the child reports its numbers",
        |kind| matches!(kind, Kind::Report(report) if report.bytes_from_peers > 0),
    )
    .await;
}

/// Waits until the peer has so many objects more than now.
async fn more_objects(peer: &Peer, many: u64) {
    let before = peer.newest().await;
    wait_for("the peer goes on", || async {
        (peer.newest().await >= before + many).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_goes_on_when_its_parent_is_killed() {
    let origin = Origin::start().await;
    let node = Node::start(&origin).await;
    let network = MemoryNetwork::new();
    let (_root, child) = root_and_child(&node, &network).await;
    let before = child.newest().await;
    network.kill("root");
    wait_for("the child goes on", || async {
        (child.newest().await >= before + 16).then_some(())
    })
    .await;
    let stats = child.stats().await;
    every_object_is_the_origins(&stats);
    assert_eq!(stats["playout"]["stalls"], 0, "{stats}");
    node.hears(
        &child.id,
        "the child reports its parent's death",
        |kind| matches!(kind, Kind::LinkEvent(event) if event.state() == v1::LinkState::Dead),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_goes_on_without_its_node_and_plays_unsigned_without_its_signer() {
    let origin = Origin::start().await;
    let node = Node::start(&origin).await;
    let (root, child) = root_and_child(&node, &MemoryNetwork::new()).await;
    drop(node);
    for peer in [&root, &child] {
        wait_for("bypass", || async {
            (peer.stats().await["counters"]["bypassed_objects"].as_u64()? >= 3).then_some(())
        })
        .await;
        let stats = peer.stats().await;
        assert_eq!(stats["session"], "detached");
        assert_eq!(stats["tracks"][0]["state"], "bypass");
        assert_eq!(stats["playout"]["stalls"], 0, "{stats}");
        every_object_is_the_origins(&stats);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_signer_takes_over_from_one_that_dies() {
    let origin = Origin::start().await;
    let first = OwnSigner::start(&origin).await;
    let signers = vec![first.uri.clone(), String::new()];
    let node = Node::start_with_signers(&origin, signers).await;
    let (root, child) = root_and_child(&node, &MemoryNetwork::new()).await;
    let before = child.newest().await;
    drop(first);
    wait_for("the child goes on", || async {
        (child.newest().await >= before + 16).then_some(())
    })
    .await;
    for peer in [&root, &child] {
        let stats = peer.stats().await;
        every_object_is_the_origins(&stats);
        assert_eq!(stats["playout"]["stalls"], 0, "{stats}");
        assert_eq!(stats["counters"]["conflicting_statements"], 0, "{stats}");
        let newest = stats["objects"].as_array().unwrap().last().unwrap();
        assert_eq!(newest["verified"], true, "{newest}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_shuts_down_says_so_and_leaves_nothing_open() {
    let origin = Origin::start().await;
    let node = Node::start(&origin).await;
    let (root, child) = root_and_child(&node, &MemoryNetwork::new()).await;
    let (child_id, address) = (child.id.clone(), child.agent.local_address().unwrap());
    child.agent.shutdown().await;
    node.hears(&child_id, "Leave", |kind| matches!(kind, Kind::Leave(_)))
        .await;
    node.hears(&root.id, "the root hears Bye", |kind| {
        matches!(kind, Kind::LinkEvent(event) if event.neighbour == child_id
            && event.state() == v1::LinkState::Closed)
    })
    .await;
    wait_for("the port is free", || async {
        std::net::TcpListener::bind(address).ok()
    })
    .await;
}
