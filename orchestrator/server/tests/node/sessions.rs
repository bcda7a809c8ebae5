//! `PeerService`: who is let in, who is not, what a session may say and hear.

use std::time::Duration;

use espalier_orchestrator::{Limits, NodeConfig};
use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::signal;
use espalier_token::{Claims, IssuerKey, VerifierKey, issue};
use tonic::{Code, Status};

use crate::support::{
    Bearer, FakePeer, TestNode, assert_invalid, assert_refused, hex, open, origin, session, within,
};

const ORIGIN: &str = "http://127.0.0.1:1/x.m3u8";

async fn refused(node: &TestNode, bearer: Bearer, first: Vec<Said>) -> Status {
    match session(&node.transport, bearer, first).await {
        Err(status) => status,
        Ok((_say, mut hear)) => loop {
            match within(hear.message()).await {
                Ok(Some(message)) => {
                    assert!(
                        !matches!(message.kind, Some(Kind::Welcome(_))),
                        "it was welcomed"
                    );
                }
                Ok(None) => panic!("the stream ended without a reason"),
                Err(status) => break status,
            }
        },
    }
}

#[tokio::test]
async fn a_session_is_welcomed_with_all_that_a_peer_needs() {
    let config = NodeConfig {
        stun_uris: vec!["stun:192.0.2.1:3478".to_owned()],
        ..NodeConfig::dev()
    };
    let node = TestNode::start(config).await;
    let channel = node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    let peer = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    let welcome = &peer.welcome;
    assert!(
        !welcome.ticket.is_empty() && welcome.incarnation > 0 && welcome.report_interval_ms > 0
    );
    assert_eq!(welcome.public_keys, channel.public_keys);
    assert_eq!(welcome.signer_uris, [""], "this node");
    assert_eq!(welcome.origin_uri, ORIGIN);
    assert_eq!(welcome.stun_uris, ["stun:192.0.2.1:3478"]);
    node.node.shutdown().await;
}

#[tokio::test]
async fn whoever_has_no_right_is_not_let_in() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let issuers = vec![VerifierKey::from_secret(secret).unwrap()];
    let node = TestNode::start(NodeConfig {
        issuers,
        ..NodeConfig::dev()
    })
    .await;
    node.create("news", ORIGIN).await;
    node.create("sport", ORIGIN).await;
    let first = || vec![Said::Open(open("news", 1))];
    let signed = |claims: &Claims| issue(&IssuerKey::from_secret(secret).unwrap(), claims).unwrap();
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3600);
    let expired = signed(&Claims::new("news", now - 2 * hour, hour));
    let forged = issue(
        &IssuerKey::from_secret(b"another secret of thirty-two bytes").unwrap(),
        &Claims::new("news", now, hour),
    )
    .unwrap();
    let other = node.viewer_token("sport").await;
    for (bearer, code, reason) in [
        (Bearer::nothing(), Code::Unauthenticated, "TOKEN_MISSING"),
        (Bearer::new("x"), Code::Unauthenticated, "TOKEN_INVALID"),
        (
            Bearer::new(&node.token),
            Code::Unauthenticated,
            "TOKEN_INVALID",
        ),
        (
            Bearer::new(&expired),
            Code::Unauthenticated,
            "TOKEN_EXPIRED",
        ),
        (Bearer::new(&forged), Code::Unauthenticated, "TOKEN_INVALID"),
        (
            Bearer::new(&other),
            Code::PermissionDenied,
            "TOKEN_OF_OTHER_CHANNEL",
        ),
    ] {
        assert_refused(&refused(&node, bearer, first()).await, code, reason);
    }
    let theirs = signed(&Claims::new("news", now, hour));
    FakePeer::join(&node, &theirs, open("news", 1))
        .await
        .unwrap();
    let nowhere = signed(&Claims::new("none", now, hour));
    let missing = refused(
        &node,
        Bearer::new(&nowhere),
        vec![Said::Open(open("none", 1))],
    )
    .await;
    assert_refused(&missing, Code::NotFound, "CHANNEL_NOT_FOUND");
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_token_may_pin_keys() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let issuers = vec![VerifierKey::from_secret(secret).unwrap()];
    let node = TestNode::start(NodeConfig {
        issuers,
        ..NodeConfig::dev()
    })
    .await;
    node.create("news", ORIGIN).await;
    let mut claims = Claims::new(
        "news",
        std::time::SystemTime::now(),
        Duration::from_secs(60),
    );
    claims.keys = vec!["ab".repeat(32)];
    let token = issue(&IssuerKey::from_secret(secret).unwrap(), &claims).unwrap();
    let peer = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    assert!(
        peer.welcome.public_keys.is_empty(),
        "the channel's key is not the pinned one"
    );
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_bad_first_message_is_refused_with_details() {
    let node = TestNode::dev().await;
    node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    let bearer = || Bearer::new(&token);
    let with = |change: fn(&mut v1::Open)| {
        let mut open = open("news", 1);
        change(&mut open);
        vec![Said::Open(open)]
    };
    let bad = with(|open| {
        open.peer = "peer".to_owned();
        open.role = 0;
        open.upload_bps = u64::MAX;
    });
    let status = refused(&node, bearer(), bad).await;
    assert_invalid(&status, &["open.peer", "open.role", "open.upload_bps"]);
    let status = refused(
        &node,
        bearer(),
        with(|open| open.channel = "NEWS".to_owned()),
    )
    .await;
    assert_invalid(&status, &["open.channel"]);
    let newer = with(|open| (open.min_version, open.max_version) = (7, 9));
    let status = refused(&node, bearer(), newer).await;
    assert_refused(&status, Code::FailedPrecondition, "VERSION_UNSUPPORTED");
    let status = refused(&node, bearer(), vec![Said::Leave(v1::Leave {})]).await;
    assert_refused(&status, Code::InvalidArgument, "OUT_OF_ORDER");
    node.node.shutdown().await;
}

#[tokio::test]
async fn bad_messages_end_the_session_with_details() {
    let node = TestNode::dev().await;
    node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    // The third message of the table is peer 102's.
    let itself = hex(102);
    let table: Vec<(Said, &[&str])> = vec![
        (
            Said::Acknowledge(v1::Acknowledge { generation: None }),
            &["acknowledge.generation"],
        ),
        (
            Said::LinkEvent(v1::LinkEvent {
                neighbour: "x".to_owned(),
                ..Default::default()
            }),
            &["link_event.neighbour", "link_event.state"],
        ),
        (
            Said::LinkEvent(v1::LinkEvent {
                neighbour: itself,
                state: 1,
                ..Default::default()
            }),
            &["link_event.neighbour"],
        ),
        (
            Said::SourceEvent(v1::SourceEvent {
                state: 77,
                stripe: 8,
                ..Default::default()
            }),
            &[
                "source_event.track",
                "source_event.stripe",
                "source_event.source",
                "source_event.state",
            ],
        ),
        (
            Said::WantTracks(v1::WantTracks {
                tracks: vec!["a/b".to_owned()],
            }),
            &["want_tracks.tracks[0]"],
        ),
        (
            Said::Signal(v1::Signal {
                peer: "you".to_owned(),
                attempt: 1,
                kind: None,
            }),
            &["signal.peer", "signal.kind"],
        ),
        (
            Said::Signal(v1::Signal {
                peer: hex(2),
                attempt: 1,
                kind: Some(signal::Kind::OfferSdp("x".repeat(70_000))),
            }),
            &["signal.offer_sdp"],
        ),
    ];
    for (index, (message, fields)) in (100..).zip(table) {
        let mut peer = FakePeer::join(&node, &token, open("news", index))
            .await
            .unwrap();
        peer.say(message).await;
        assert_invalid(&peer.end().await, fields);
    }
    let mut peer = FakePeer::join(&node, &token, open("news", 50))
        .await
        .unwrap();
    peer.say(Said::Open(open("news", 50))).await;
    assert_refused(&peer.end().await, Code::InvalidArgument, "OUT_OF_ORDER");
    node.node.shutdown().await;
}

#[tokio::test]
async fn an_id_is_taken_over_only_with_its_ticket() {
    let node = TestNode::dev().await;
    node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    let mut first = FakePeer::join(&node, &token, open("news", 7))
        .await
        .unwrap();
    let other = FakePeer::join(&node, &token, open("news", 8))
        .await
        .unwrap();

    let with = |ticket: &[u8]| v1::Open {
        ticket: ticket.to_vec(),
        ..open("news", 7)
    };
    for ticket in [&[][..], b"guess", &other.welcome.ticket[..]] {
        let theft = refused(&node, Bearer::new(&token), vec![Said::Open(with(ticket))]).await;
        assert_refused(&theft, Code::AlreadyExists, "PEER_ATTACHED");
    }
    let again = FakePeer::join(&node, &token, with(&first.welcome.ticket))
        .await
        .unwrap();
    assert_refused(&first.end().await, Code::Aborted, "SUPERSEDED");

    // A session that was lost keeps its id; one that left gives it back.
    drop(again);
    let theft = refused(
        &node,
        Bearer::new(&token),
        vec![Said::Open(open("news", 7))],
    )
    .await;
    assert_refused(&theft, Code::AlreadyExists, "PEER_ATTACHED");
    let mut back = FakePeer::join(&node, &token, with(&first.welcome.ticket))
        .await
        .unwrap();
    back.say(Said::Leave(v1::Leave {})).await;
    assert_eq!(back.end().await.code(), Code::Ok);
    FakePeer::join(&node, &token, open("news", 7))
        .await
        .unwrap();
    node.node.shutdown().await;
}

#[tokio::test]
async fn the_number_of_sessions_is_limited() {
    let limits = Limits {
        max_sessions: 1,
        ..Limits::default()
    };
    let node = TestNode::start(NodeConfig {
        limits,
        ..NodeConfig::dev()
    })
    .await;
    node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    let _first = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    let second = refused(
        &node,
        Bearer::new(&token),
        vec![Said::Open(open("news", 2))],
    )
    .await;
    assert_refused(&second, Code::ResourceExhausted, "LIMIT");
    node.node.shutdown().await;
}

#[tokio::test]
async fn deleting_a_channel_tells_its_peers_and_ends_their_sessions() {
    let node = TestNode::dev().await;
    node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    let mut peer = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    let delete = v1::DeleteChannelRequest {
        name: "channels/news".to_owned(),
        etag: String::new(),
    };
    node.channels().delete_channel(delete).await.unwrap();
    let notice = loop {
        if let Kind::Notice(notice) = peer.hear().await.unwrap() {
            break notice;
        }
    };
    assert!(matches!(
        notice.kind,
        Some(v1::notice::Kind::ChannelDeleted(_))
    ));
    assert_eq!(peer.end().await.code(), Code::Ok);
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_node_that_stops_says_so_first() {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    let token = node.viewer_token("news").await;
    let mut peer = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    let transport = node.transport.clone();
    let stopping = tokio::spawn(node.node.shutdown());
    let notice = loop {
        if let Kind::Notice(notice) = peer.hear().await.unwrap() {
            break notice;
        }
    };
    assert!(matches!(notice.kind, Some(v1::notice::Kind::Drain(_))));
    // A peer that comes back at once must not hear that there is no such channel.
    let again = session(
        &transport,
        Bearer::new(&token),
        vec![Said::Open(open("news", 2))],
    )
    .await;
    let refused = match again {
        Err(status) => status,
        Ok((_say, mut hear)) => within(hear.message()).await.unwrap_err(),
    };
    assert_ne!(refused.code(), Code::NotFound, "{refused:?}");
    within(stopping).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_dropped_and_the_others_are_not() {
    let limits = Limits {
        session_queue: 4,
        messages_per_second_per_session: 100_000,
        ..Limits::default()
    };
    let node = TestNode::start(NodeConfig {
        limits,
        ..NodeConfig::dev()
    })
    .await;
    node.create("news", ORIGIN).await;
    let token = node.viewer_token("news").await;
    // Each holds the other, so they may signal from the start.
    let held = |neighbour: u64| v1::HeldEdge {
        track: "v".to_owned(),
        source: Some(v1::Source {
            kind: Some(v1::source::Kind::Peer(hex(neighbour))),
        }),
        ..v1::HeldEdge::default()
    };
    let mut deaf = FakePeer::join(
        &node,
        &token,
        v1::Open {
            held: vec![held(2)],
            ..open("news", 1)
        },
    )
    .await
    .unwrap();
    let noisy = FakePeer::join(&node, &token, open("news", 2))
        .await
        .unwrap();
    // More than the flow-control windows and the queue take together.
    let sdp = "x".repeat(60_000);
    for attempt in 0..60 {
        let kind = Some(signal::Kind::OfferSdp(sdp.clone()));
        let signal = v1::Signal {
            peer: hex(1),
            attempt,
            kind,
        };
        noisy.say(Said::Signal(signal)).await;
    }
    assert_refused(&deaf.end().await, Code::ResourceExhausted, "LAGGARD");
    let ticket = deaf.welcome.ticket.clone();
    FakePeer::join(
        &node,
        &token,
        v1::Open {
            ticket,
            ..open("news", 1)
        },
    )
    .await
    .unwrap();
    noisy.say(Said::Report(v1::Report::default())).await;
    assert!(!noisy.say.is_closed());
    node.node.shutdown().await;
}
