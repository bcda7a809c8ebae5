//! What peers are and where they are, as others see it; and what another policy would do with them.

use std::net::SocketAddr;

use espalier_orchestrator::{NodeConfig, StunConfig};
use espalier_proto::v1;
use espalier_proto::v1::peer_message::Kind as Said;
use tokio::net::UdpSocket;
use tonic::Code;

use crate::support::{
    FakePeer, TestNode, assert_invalid, create_request, hex, is_cdn, open, origin, parts,
    source_peer, within,
};

fn profile(nat: v1::NatClass) -> v1::Profile {
    v1::Profile {
        device: v1::DeviceClass::Tv.into(),
        metered: true,
        on_battery: false,
        nat: nat.into(),
    }
}

/// Tests come from 127.0.0.1.
fn at_site() -> v1::Policy {
    v1::Policy {
        sites: vec![v1::SiteRule {
            subnet: "127.0.0.0/8".to_owned(),
            site: 7,
            region: "DE".to_owned(),
        }],
        ..v1::Policy::default()
    }
}

#[tokio::test]
async fn what_a_peer_is_and_where_is_known_and_its_address_is_not() {
    let node = TestNode::dev().await;
    let mut request = create_request("news", &origin().await);
    let channel = request.channel.as_mut().unwrap();
    channel.policy = Some(at_site());
    let created = node.channels().create_channel(request).await.unwrap();
    assert_eq!(created.into_inner().policy, Some(at_site()));
    node.tracks("news").await;
    let token = node.viewer_token("news").await;
    let mut peers = Vec::new();
    for id in [1, 2] {
        let open = v1::Open {
            profile: Some(profile(v1::NatClass::Unspecified)),
            ..open("news", id)
        };
        peers.push(FakePeer::join(&node, &token, open).await.unwrap());
    }
    let known = |nat| {
        move |node: &v1::Node| {
            let there = node.locality.as_ref();
            node.profile == Some(profile(nat)) && there.is_some_and(|it| it.site == 7)
        }
    };
    let unknown = known(v1::NatClass::Unspecified);
    let one = node.node_when("news", 1, &unknown).await.locality.unwrap();
    let other = node.node_when("news", 2, &unknown).await.locality.unwrap();
    assert_eq!((one.region.as_str(), one.asn), ("DE", 0));
    assert!(one.lan != 0 && one.lan == other.lan, "one address");
    let symmetric = profile(v1::NatClass::Symmetric);
    peers[0].say(Said::Profile(symmetric)).await;
    let now = node
        .node_when("news", 1, known(v1::NatClass::Symmetric))
        .await;
    assert_eq!(now.locality, Some(one), "it is where it was");
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_node_with_stun_says_where_and_answers_there() {
    let stun = StunConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        second_port: 0,
        host: "127.0.0.1".to_owned(),
    };
    let node = TestNode::start(NodeConfig {
        stun: Some(stun),
        ..NodeConfig::dev()
    })
    .await;
    node.create("news", &origin().await).await;
    let token = node.viewer_token("news").await;
    let peer = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    let (host, ports) = (&peer.welcome.stun_host, &peer.welcome.stun_ports);
    assert_eq!((host.as_str(), ports.len()), ("127.0.0.1", 2));
    assert_ne!(ports[0], ports[1]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for port in ports {
        let request = [
            0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        let to = SocketAddr::from(([127, 0, 0, 1], u16::try_from(*port).unwrap()));
        socket.send_to(&request, to).await.unwrap();
        let mut response = [0; 64];
        let (length, from) = within(socket.recv_from(&mut response)).await.unwrap();
        assert_eq!((from, length), (to, 32));
        assert_eq!(response[..2], [1, 1], "a success");
        let mapped = u16::from_be_bytes([response[26], response[27]]) ^ 0x2112;
        assert_eq!(mapped, socket.local_addr().unwrap().port());
    }
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_plan_says_what_would_be_and_changes_nothing() {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    node.tracks("news").await;
    let token = node.viewer_token("news").await;
    let mut peers = Vec::new();
    for id in 1..=3 {
        let mut peer = FakePeer::join(&node, &token, open("news", id))
            .await
            .unwrap();
        let placed = |it: &v1::Assignment| {
            let source = it.tracks.first().and_then(|track| track.source.as_ref());
            is_cdn(source) && id == 1 || source_peer(source).is_some()
        };
        let assignment = peer.assigned(placed).await;
        peer.flows(&assignment).await;
        let active = |node: &v1::Node| node.state() == v1::NodeState::Active;
        node.node_when("news", id, active).await;
        peers.push(peer);
    }
    let plan = |policy| v1::PlanChannelRequest {
        name: "channels/news".to_owned(),
        policy: Some(policy),
        update_mask: None,
    };
    let before = node.nodes("news").await;
    let two_roots = v1::Policy {
        target_roots: Some(2),
        ..v1::Policy::default()
    };
    let planned = node.channels().plan_channel(plan(two_roots)).await;
    let planned = planned.unwrap().into_inner();
    let (now, then) = (planned.now.unwrap(), planned.then.unwrap());
    assert_eq!((now.peers, now.roots), (3, 1));
    assert_eq!((then.peers, then.roots), (3, 2), "{planned:?}");
    assert!(planned.settled && planned.moves >= 1 && planned.peers_moved >= 1);
    assert!(then.offload < now.offload);
    let after = node.nodes("news").await;
    for id in 1..=3 {
        assert_eq!(before[&hex(id)].source, after[&hex(id)].source, "{id}");
    }
    let unchanged = plan(v1::Policy::default());
    let same = node.channels().plan_channel(unchanged).await.unwrap();
    assert_eq!(same.into_inner().moves, 0);
    let wrong = v1::Policy {
        stripes: Some(9),
        sites: vec![v1::SiteRule::default()],
        ..v1::Policy::default()
    };
    let refused = node.channels().plan_channel(plan(wrong)).await.unwrap_err();
    assert_invalid(&refused, &["policy.sites[0].subnet"]);
    let absent = v1::PlanChannelRequest {
        name: "channels/nothing".to_owned(),
        ..plan(v1::Policy::default())
    };
    let refused = node.channels().plan_channel(absent).await.unwrap_err();
    assert_eq!(parts(&refused).0, Code::NotFound);
    node.node.shutdown().await;
}
