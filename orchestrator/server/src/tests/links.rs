//! Sessions at one node, the owner at another, and what happens when that moves.

use std::time::Duration;

use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::peer_service_client::PeerServiceClient;
use espalier_proto::v1::signal;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::cluster::Cluster;
use super::support::{
    Bearer, FakePeer, TestNode, assert_refused, hex, is_cdn, open, origin, source_peer, until,
    within,
};

fn from_cdn(assignment: &v1::Assignment) -> bool {
    let track = assignment.tracks.first();
    track.is_some_and(|track| is_cdn(track.source.as_ref()))
}

fn under(parent: u64) -> impl Fn(&v1::Assignment) -> bool {
    move |assignment| {
        let track = assignment.tracks.first();
        track.is_some_and(|track| source_peer(track.source.as_ref()) == Some(hex(parent)))
    }
}

/// A root at node 1 and its child at node 2, both with flowing tracks, and the owner's topology.
async fn pair(cluster: &Cluster) -> (FakePeer, FakePeer) {
    let mut root = cluster.join(1, open("news", 1)).await;
    let assignment = root.assigned(from_cdn).await;
    root.flows(&assignment).await;
    let mut child = cluster.join(2, open("news", 2)).await;
    let assignment = child.assigned(under(1)).await;
    child.flows(&assignment).await;
    for node in &cluster.nodes {
        let active = |node: &v1::Node| node.state() == v1::NodeState::Active && node.session;
        node.node_when("news", 2, active).await;
        node.node_when("news", 1, active).await;
    }
    (root, child)
}

/// The edges as a node says that they are: child and parent.
async fn edges(node: &TestNode) -> Vec<(String, Option<String>)> {
    let nodes = node.nodes("news").await;
    let mut edges: Vec<_> = nodes
        .into_values()
        .map(|node| (node.peer, source_peer(node.source.as_ref())))
        .collect();
    edges.sort();
    edges
}

async fn offer(from: &FakePeer, to: u64, attempt: u64) {
    let kind = Some(signal::Kind::OfferSdp("v=0".to_owned()));
    let peer = hex(to);
    let signal = v1::Signal {
        peer,
        attempt,
        kind,
    };
    from.say(Said::Signal(signal)).await;
}

/// Hears until a signal comes.
async fn signal(peer: &mut FakePeer) -> v1::Signal {
    loop {
        if let Kind::Signal(signal) = peer.hear().await.unwrap() {
            return signal;
        }
    }
}

#[tokio::test]
async fn peers_at_two_gateways_are_in_one_tree_and_signal_to_each_other() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(1));
    let (mut root, mut child) = pair(&cluster).await;
    offer(&child, 1, 7).await;
    let heard = signal(&mut root).await;
    assert_eq!((heard.peer, heard.attempt), (hex(2), 7));
    offer(&root, 2, 8).await;
    let heard = signal(&mut child).await;
    assert_eq!((heard.peer, heard.attempt), (hex(1), 8));

    // Strangers do not reach each other, wherever they sit; the sender hears of it.
    let stranger = v1::Open {
        role: v1::PeerRole::Consumer.into(),
        ..open("news", 3)
    };
    let mut stranger = cluster.join(2, stranger).await;
    let assignment = stranger.assigned(|it| !it.tracks.is_empty()).await;
    let parent = source_peer(assignment.tracks[0].source.as_ref());
    let other = if parent == Some(hex(1)) { 2 } else { 1 };
    offer(&stranger, other, 9).await;
    let heard = signal(&mut stranger).await;
    assert_eq!((heard.peer, heard.attempt), (hex(other), 9));
    assert!(matches!(heard.kind, Some(signal::Kind::Refused(_))));

    let welcome = &child.welcome;
    assert_eq!(welcome.endpoints.len(), 2);
    cluster.end().await;
}

#[tokio::test]
async fn sessions_stay_and_edges_stay_when_ownership_moves() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(1));
    let (mut root, mut child) = pair(&cluster).await;
    let before = edges(&cluster.nodes[0]).await;
    for owner in [2, 1, 2] {
        cluster.shared.elect(Some(owner));
        let id = 10 + owner + u64::try_from(before.len()).unwrap();
        let node = usize::try_from(3 - owner).unwrap();
        let at = &cluster.nodes[node - 1];
        // At the gateway that does not own the shard.
        let newcomer = v1::Open {
            role: v1::PeerRole::Consumer.into(),
            ..open("news", id)
        };
        let mut newcomer = cluster.join(node, newcomer).await;
        newcomer.assigned(|it| !it.tracks.is_empty()).await;
        for peer in [1, 2] {
            at.node_when("news", peer, |node| node.session).await;
        }
        newcomer.say(Said::Leave(v1::Leave {})).await;
        assert_eq!(newcomer.end().await.code(), Code::Ok);
        until(|| async { (edges(at).await == before).then_some(()) }).await;
        let check = v1::CheckTopologyRequest {
            channel: "channels/news".to_owned(),
        };
        let check = at.topology().check_topology(check).await.unwrap();
        assert_eq!(check.into_inner().findings, []);
    }
    // Their streams are those that they opened, and still carry what is new.
    offer(&child, 1, 1).await;
    assert_eq!(signal(&mut root).await.peer, hex(2));
    root.say(Said::Leave(v1::Leave {})).await;
    child.assigned(from_cdn).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_peer_that_changes_its_gateway_keeps_its_place() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(1));
    let (mut root, mut child) = pair(&cluster).await;
    let theft = FakePeer::join(&cluster.nodes[0], &cluster.token, open("news", 2)).await;
    let theft = theft.err().expect("an id is its owner's at every node");
    assert_refused(&theft, Code::AlreadyExists, "PEER_ATTACHED");

    let held = v1::HeldEdge {
        track: cluster.nodes[0].nodes("news").await[&hex(2)].track.clone(),
        source: Some(v1::Source {
            kind: Some(v1::source::Kind::Peer(hex(1))),
        }),
        ..v1::HeldEdge::default()
    };
    let back = v1::Open {
        ticket: child.welcome.ticket.clone(),
        held: vec![held],
        attempt: u64::MAX,
        ..open("news", 2)
    };
    let mut moved = cluster.join(1, back).await;
    assert_refused(&child.end().await, Code::Aborted, "SUPERSEDED");
    offer(&root, 2, 5).await;
    assert_eq!(signal(&mut moved).await.peer, hex(1));
    offer(&moved, 1, 6).await;
    assert_eq!(signal(&mut root).await.attempt, 6);
    let node = cluster.nodes[1]
        .nodes("news")
        .await
        .remove(&hex(2))
        .unwrap();
    assert!(node.session && source_peer(node.source.as_ref()) == Some(hex(1)));
    cluster.end().await;
}

#[tokio::test]
async fn without_an_owner_calls_may_be_tried_again_and_newcomers_wait() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(2));
    let (mut root, mut child) = pair(&cluster).await;
    cluster.shared.elect(None);
    let ask = || v1::GetTopologyRequest {
        channel: "channels/news".to_owned(),
    };
    for node in &cluster.nodes {
        let refused = node.topology().get_topology(ask()).await.unwrap_err();
        assert_refused(&refused, Code::Unavailable, "NO_OWNER");
        let after = refused
            .get_error_details()
            .retry_info()
            .unwrap()
            .retry_delay;
        assert!(after.is_some_and(|after| after > Duration::ZERO));
    }
    // Who can show whose its id is is welcomed all the same.
    let back = v1::Open {
        ticket: child.welcome.ticket.clone(),
        ..open("news", 2)
    };
    let mut again = cluster.join(2, back).await;
    assert_refused(&child.end().await, Code::Aborted, "SUPERSEDED");
    let consumer = v1::Open {
        role: v1::PeerRole::Consumer.into(),
        ..open("news", 3)
    };
    let newcomer = cluster.join(1, consumer);
    let elect = async {
        tokio::task::yield_now().await;
        cluster.shared.elect(Some(1));
    };
    let (mut newcomer, ()) = tokio::join!(newcomer, elect);
    newcomer.assigned(|it| !it.tracks.is_empty()).await;
    // What it opened with says that it has nothing any more: its place is made anew.
    again.assigned(|it| !it.tracks.is_empty()).await;
    offer(&again, 1, 3).await;
    assert_eq!(signal(&mut root).await.attempt, 3);
    cluster.end().await;
}

#[tokio::test]
async fn a_decision_that_could_not_be_kept_is_made_again_from_the_records() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(1));
    let (_root, child) = pair(&cluster).await;
    cluster.shared.fail(2);
    let mut newcomer = cluster.join(2, open("news", 3)).await;
    newcomer.assigned(|it| !it.tracks.is_empty()).await;
    assert_eq!(cluster.shared.failures_left(), 0);
    let node = &cluster.nodes[1];
    for peer in [1, 2, 3] {
        node.node_when("news", peer, |node| node.session).await;
    }
    let edges = edges(node).await;
    assert!(edges.contains(&(hex(2), Some(hex(1)))), "{edges:?}");
    assert!(!child.say.is_closed());
    cluster.end().await;
}

#[tokio::test]
async fn policies_change_and_channels_end_at_whichever_node_is_asked() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(1));
    let (_root, mut child) = pair(&cluster).await;
    let policy = v1::Policy {
        max_children: Some(3),
        ..v1::Policy::default()
    };
    let update = v1::UpdateChannelRequest {
        channel: Some(v1::Channel {
            name: "channels/news".to_owned(),
            policy: Some(policy.clone()),
            ..v1::Channel::default()
        }),
        update_mask: None,
    };
    let updated = cluster.nodes[1].channels().update_channel(update).await;
    assert_eq!(updated.unwrap().into_inner().policy, Some(policy.clone()));
    assert_eq!(cluster.nodes[0].get("news").await.policy, Some(policy));
    let delete = v1::DeleteChannelRequest {
        name: "channels/news".to_owned(),
        etag: String::new(),
    };
    cluster.nodes[1]
        .channels()
        .delete_channel(delete)
        .await
        .unwrap();
    // The owner tells every gateway.
    let notice = loop {
        if let Kind::Notice(notice) = child.hear().await.unwrap() {
            break notice;
        }
    };
    let deleted = v1::notice::Kind::ChannelDeleted(v1::ChannelDeleted {});
    assert_eq!(notice.kind, Some(deleted));
    assert_eq!(within(child.end()).await.code(), Code::Ok);
    cluster.end().await;
}

#[tokio::test]
async fn what_an_attached_peer_says_reaches_its_session_from_any_node() {
    let cluster = Cluster::start(&origin().await).await;
    cluster.shared.elect(Some(1));
    let token = cluster.nodes[0].viewer_token("news").await;
    let client = |node: usize| {
        let transport = cluster.nodes[node].transport.clone();
        PeerServiceClient::with_interceptor(transport, Bearer::new(&token))
    };
    let attach = v1::AttachRequest {
        open: Some(open("news", 1)),
    };
    let mut stream = client(0).attach(attach).await.unwrap().into_inner();
    let first = within(stream.message()).await.unwrap().unwrap();
    let Some(Kind::Welcome(welcome)) = first.kind else {
        panic!("the first message is not Welcome")
    };
    let report = |bytes_from_cdn| {
        let report = v1::Report {
            bytes_from_cdn,
            ..v1::Report::default()
        };
        v1::PeerMessage {
            kind: Some(Said::Report(report)),
        }
    };
    for (sequence, node) in (1..).zip([1, 1, 0, 1]) {
        let call = v1::SendRequest {
            session: welcome.session.clone(),
            sequence,
            messages: vec![report(sequence)],
        };
        let answer = client(node).send(call).await.unwrap().into_inner();
        assert_eq!(answer.next_sequence, sequence + 1, "by node {node}");
    }
    let all = |node: &v1::Node| node.health.is_some_and(|it| it.bytes_from_cdn == 4);
    cluster.nodes[1].node_when("news", 1, all).await;
    // Another node's refusals are the session's own.
    let gap = v1::SendRequest {
        session: welcome.session.clone(),
        sequence: 9,
        messages: Vec::new(),
    };
    let refused = client(1).send(gap).await.unwrap_err();
    assert_refused(&refused, Code::OutOfRange, "SEQUENCE_GAP");
    let mut nowhere = welcome.session;
    nowhere[7] = 99;
    let call = v1::SendRequest {
        session: nowhere,
        sequence: 1,
        messages: Vec::new(),
    };
    let refused = client(0).send(call).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "SESSION_ENDED");
    drop(stream);
    cluster.end().await;
}
