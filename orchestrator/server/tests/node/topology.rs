//! Peers in a tree: assignments, signals, the topology as others see it.

use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::signal;
use tonic::Code;

use crate::support::{
    FakePeer, TestNode, assert_invalid, assert_refused, hex, is_cdn, open, origin, source_peer,
    until, within,
};

/// A root and a child of it.
struct Pair {
    node: TestNode,
    token: String,
    root: FakePeer,
    child: FakePeer,
}

async fn pair() -> Pair {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    node.tracks("news").await;
    let token = node.viewer_token("news").await;
    let mut root = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    let assignment = root
        .assigned(|it| {
            it.tracks
                .first()
                .is_some_and(|track| is_cdn(track.source.as_ref()))
        })
        .await;
    assert!(assignment.cdn_lease.is_some_and(|lease| lease.rate_bps > 0));
    root.flows(&assignment).await;
    node.node_when("news", 1, |node| node.state() == v1::NodeState::Active)
        .await;
    let mut child = FakePeer::join(&node, &token, open("news", 2))
        .await
        .unwrap();
    let assignment = child
        .assigned(|it| {
            it.tracks
                .first()
                .is_some_and(|track| source_peer(track.source.as_ref()) == Some(hex(1)))
        })
        .await;
    root.assigned(|it| it.children.iter().any(|child| child.peer == hex(2)))
        .await;
    child.flows(&assignment).await;
    Pair {
        node,
        token,
        root,
        child,
    }
}

async fn next_signal(peer: &mut FakePeer) -> v1::Signal {
    loop {
        if let Kind::Signal(signal) = peer.hear().await.unwrap() {
            return signal;
        }
    }
}

fn offer(to: u64, attempt: u64) -> Said {
    let kind = Some(signal::Kind::OfferSdp("v=0".to_owned()));
    Said::Signal(v1::Signal {
        peer: hex(to),
        attempt,
        kind,
    })
}

#[tokio::test]
async fn two_peers_form_a_tree_that_everybody_sees_the_same() {
    let pair = pair().await;
    let child = pair
        .node
        .node_when("news", 2, |node| node.state() == v1::NodeState::Active)
        .await;
    assert_eq!(
        (child.depth, source_peer(child.source.as_ref())),
        (2, Some(hex(1)))
    );
    let nodes = pair.node.nodes("news").await;
    let root = &nodes[&hex(1)];
    assert_eq!((root.depth, &root.children[..]), (1, &[hex(2)][..]));
    assert!(root.session && child.session);
    assert_eq!(root.upload_bps, 4_000_000);

    let request = v1::CheckTopologyRequest {
        channel: "channels/news".to_owned(),
    };
    let check = pair
        .node
        .topology()
        .check_topology(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (check.findings.len(), check.peers_checked),
        (0, 2),
        "{check:?}"
    );

    pair.child
        .say(Said::Report(v1::Report {
            bytes_from_peers: 900,
            ..Default::default()
        }))
        .await;
    pair.root
        .say(Said::Report(v1::Report {
            bytes_from_cdn: 900,
            ..Default::default()
        }))
        .await;
    let audience = until(|| async {
        let audience = pair.node.get("news").await.audience.unwrap();
        (audience.bytes_from_peers == 900 && audience.bytes_from_cdn == 900).then_some(audience)
    })
    .await;
    assert_eq!(
        (audience.peers, audience.roots, audience.max_depth),
        (2, 1, 2)
    );
    let node = pair
        .node
        .node_when("news", 2, |node| node.health.is_some())
        .await;
    assert_eq!(node.health.unwrap().bytes_from_peers, 900);
    pair.node.node.shutdown().await;
}

#[tokio::test]
async fn a_watched_topology_follows_the_tree_and_skips_for_slow_readers() {
    let mut pair = pair().await;
    let request = v1::WatchTopologyRequest {
        channel: "channels/news".to_owned(),
    };
    let mut states = pair
        .node
        .topology()
        .watch_topology(request)
        .await
        .unwrap()
        .into_inner();
    let first = within(states.message()).await.unwrap().unwrap();
    assert_eq!(first.nodes.len(), 2);
    pair.child.say(Said::Leave(v1::Leave {})).await;
    assert_eq!(pair.child.end().await.code(), Code::Ok);
    loop {
        let state = within(states.message()).await.unwrap().unwrap();
        if state.nodes.len() == 1 {
            let index = |state: &v1::Topology| state.generation.unwrap().index;
            assert!(index(&state) > index(&first));
            break;
        }
    }
    pair.root.assigned(|it| it.children.is_empty()).await;
    pair.node.node.shutdown().await;
}

#[tokio::test]
async fn unknown_channels_and_names_are_refused_by_every_method() {
    let node = TestNode::dev().await;
    let mut topology = node.topology();
    for (channel, missing) in [("channels/none", true), ("none", false)] {
        let channel = channel.to_owned();
        let get = v1::GetTopologyRequest {
            channel: channel.clone(),
        };
        let watch = v1::WatchTopologyRequest {
            channel: channel.clone(),
        };
        let check = v1::CheckTopologyRequest { channel };
        for refused in [
            topology.get_topology(get).await.unwrap_err(),
            topology.watch_topology(watch).await.map(drop).unwrap_err(),
            topology.check_topology(check).await.unwrap_err(),
        ] {
            if missing {
                assert_refused(&refused, Code::NotFound, "CHANNEL_NOT_FOUND");
            } else {
                assert_invalid(&refused, &["channel"]);
            }
        }
    }
    node.node.shutdown().await;
}

#[tokio::test]
async fn signals_pass_between_linked_peers_and_name_their_sender() {
    let mut pair = pair().await;
    pair.child.say(offer(1, 5)).await;
    let heard = next_signal(&mut pair.root).await;
    assert_eq!((heard.peer.as_str(), heard.attempt), (hex(2).as_str(), 5));
    assert_eq!(heard.kind, Some(signal::Kind::OfferSdp("v=0".to_owned())));
    let answer = signal::Kind::AnswerSdp("v=0 too".to_owned());
    let answer = v1::Signal {
        peer: hex(2),
        attempt: 5,
        kind: Some(answer),
    };
    pair.root.say(Said::Signal(answer)).await;
    let heard = next_signal(&mut pair.child).await;
    assert_eq!((heard.peer, heard.attempt), (hex(1), 5));
    pair.node.node.shutdown().await;
}

#[tokio::test]
async fn signals_to_strangers_come_back_refused() {
    let pair = pair().await;
    let mut stranger = FakePeer::join(
        &pair.node,
        &pair.token,
        v1::Open {
            tracks: vec!["no-such-track".to_owned()],
            ..open("news", 9)
        },
    )
    .await
    .unwrap();
    stranger.say(offer(1, 3)).await;
    stranger.say(offer(9, 4)).await;
    // To itself at once; to a stranger once nobody has linked the two for five seconds.
    for (from, attempt) in [(hex(9), 4), (hex(1), 3)] {
        let refused = next_signal(&mut stranger).await;
        assert_eq!((refused.peer, refused.attempt), (from, attempt));
        assert!(matches!(refused.kind, Some(signal::Kind::Refused(_))));
    }
    pair.node.node.shutdown().await;
}

#[tokio::test]
async fn a_signal_waits_for_a_receiver_that_is_between_two_sessions() {
    let mut pair = pair().await;
    let ticket = pair.root.welcome.ticket.clone();
    drop(pair.root);
    pair.node.node_when("news", 1, |node| !node.session).await;
    pair.child.say(offer(1, 6)).await;
    let mut root = FakePeer::join(
        &pair.node,
        &pair.token,
        v1::Open {
            ticket,
            ..open_held(2)
        },
    )
    .await
    .unwrap();
    let heard = next_signal(&mut root).await;
    assert_eq!((heard.peer, heard.attempt), (hex(2), 6));
    assert!(!pair.child.say.is_closed());
    pair.child.say(Said::Leave(v1::Leave {})).await;
    assert_eq!(pair.child.end().await.code(), Code::Ok);
    pair.node.node.shutdown().await;
}

/// The root as it comes back: it still holds its child.
fn open_held(child: u64) -> v1::Open {
    let held = v1::HeldEdge {
        track: "main".to_owned(),
        stripe: 0,
        source: Some(v1::Source {
            kind: Some(v1::source::Kind::Cdn(v1::Cdn {})),
        }),
        standby: None,
        children: vec![hex(child)],
    };
    v1::Open {
        held: vec![held],
        ..open("news", 1)
    }
}

#[tokio::test]
async fn a_peer_that_comes_back_keeps_its_place_and_gets_its_assignment_again() {
    let mut pair = pair().await;
    let before = pair.node.nodes("news").await[&hex(2)].clone();
    let ticket = pair.child.welcome.ticket.clone();
    drop(pair.child);
    pair.node.node_when("news", 2, |node| !node.session).await;
    let mut child = FakePeer::join(
        &pair.node,
        &pair.token,
        v1::Open {
            ticket,
            ..open("news", 2)
        },
    )
    .await
    .unwrap();
    let assignment = child.assigned(|it| !it.tracks.is_empty()).await;
    assert_eq!(
        source_peer(assignment.tracks[0].source.as_ref()),
        Some(hex(1))
    );
    let after = pair.node.node_when("news", 2, |node| node.session).await;
    assert_eq!((before.source, before.depth), (after.source, after.depth));
    pair.root.say(Said::Leave(v1::Leave {})).await;
    assert_eq!(pair.root.end().await.code(), Code::Ok);
    let assignment = child
        .assigned(|it| {
            it.tracks
                .first()
                .is_some_and(|track| is_cdn(track.source.as_ref()))
        })
        .await;
    assert!(assignment.generation.is_some());
    pair.node.node.shutdown().await;
}

#[tokio::test]
async fn a_corrupting_peer_is_named_on_the_channel() {
    let pair = pair().await;
    pair.child
        .say(Said::LinkEvent(v1::LinkEvent {
            neighbour: hex(1),
            state: v1::LinkState::Corrupt.into(),
            detail: "chunk 3".to_owned(),
        }))
        .await;
    let suspect = until(|| async { pair.node.get("news").await.suspects.pop() }).await;
    assert_eq!((suspect.peer, suspect.accusers), (hex(1), 1));
    assert!(
        suspect
            .last_report_time
            .is_some_and(|time| time.seconds > 1_600_000_000)
    );
    pair.node.node.shutdown().await;
}
