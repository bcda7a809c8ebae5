//! `ChannelService` and `SignerService`: every method, every kind of bad input.

use std::collections::BTreeSet;

use espalier_media::SignedStatement;
use espalier_media::TrustedKeys;
use espalier_orchestrator::{Limits, NodeConfig};
use espalier_proto::v1;
use espalier_proto::v1::feed_message::Kind as Fed;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    Bearer, TestNode, assert_invalid, assert_refused, create_request, origin, until, within,
};

fn named(id: &str) -> v1::GetChannelRequest {
    v1::GetChannelRequest {
        name: format!("channels/{id}"),
    }
}

#[tokio::test]
async fn a_channel_is_created_found_listed_changed_and_deleted() {
    let node = TestNode::dev().await;
    let origin = origin().await;
    let created = node.create("news", &origin).await;
    assert_eq!(created.name, "channels/news");
    assert_eq!(created.origin_uri, origin);
    assert_eq!(created.public_keys.len(), 1);
    assert_eq!(created.public_keys[0].len(), 32);
    assert!(!created.etag.is_empty() && created.create_time.is_some());

    let mut channels = node.channels();
    let again = channels
        .create_channel(create_request("news", &origin))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.etag, created.etag, "creation is idempotent");
    let other = create_request("news", "http://127.0.0.1:1/other.m3u8");
    let refused = channels.create_channel(other).await.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "CHANNEL_EXISTS");

    let policy = v1::Policy {
        max_depth: Some(5),
        ..v1::Policy::default()
    };
    let update = |etag: &str, path: &str, policy: v1::Policy| v1::UpdateChannelRequest {
        channel: Some(v1::Channel {
            name: "channels/news".to_owned(),
            etag: etag.to_owned(),
            policy: Some(policy),
            ..v1::Channel::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![path.to_owned()],
        }),
    };
    let request = update(&created.etag, "policy.max_depth", policy.clone());
    let updated = channels
        .update_channel(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(updated.policy.unwrap().max_depth, Some(5));
    assert_ne!(updated.etag, created.etag);
    let stale = channels.update_channel(request).await.unwrap_err();
    assert_refused(&stale, Code::Aborted, "ETAG_MISMATCH");
    let wrong = v1::Policy {
        max_depth: Some(0),
        ..v1::Policy::default()
    };
    let refused = channels
        .update_channel(update("", "policy", wrong))
        .await
        .unwrap_err();
    assert_invalid(&refused, &["channel.policy.max_depth"]);
    let refused = channels
        .update_channel(update("", "origin_uri", policy))
        .await
        .unwrap_err();
    assert_invalid(&refused, &["update_mask"]);

    let delete = |etag: &str| v1::DeleteChannelRequest {
        name: "channels/news".to_owned(),
        etag: etag.to_owned(),
    };
    let refused = channels.delete_channel(delete("stale")).await.unwrap_err();
    assert_refused(&refused, Code::Aborted, "ETAG_MISMATCH");
    channels
        .delete_channel(delete(&updated.etag))
        .await
        .unwrap();
    let gone = channels.get_channel(named("news")).await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "CHANNEL_NOT_FOUND");
    let gone = channels.delete_channel(delete("")).await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "CHANNEL_NOT_FOUND");
    node.create("news", &origin).await;
    node.node.shutdown().await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_every_violated_field() {
    let node = TestNode::dev().await;
    let mut channels = node.channels();
    let good = "http://127.0.0.1:1/live.m3u8";
    type Change = fn(&mut v1::CreateChannelRequest);
    let table: [(&[&str], Change); 9] = [
        (&["channel_id"], |request| {
            request.channel_id = "News".to_owned()
        }),
        (&["channel_id"], |request| request.channel_id.clear()),
        (&["channel"], |request| request.channel = None),
        (&["channel.origin_uri"], |request| {
            edit(request).origin_uri.clear()
        }),
        (&["channel.origin_uri"], |request| {
            edit(request).origin_uri = "ftp://x/y".to_owned()
        }),
        (&["channel.signer_uri"], |request| {
            edit(request).signer_uri = "nowhere".to_owned()
        }),
        (&["channel.name"], |request| {
            edit(request).name = "channels/other".to_owned()
        }),
        (
            &[
                "channel.policy.target_roots",
                "channel.policy.overhead_permille",
            ],
            |request| {
                edit(request).policy = Some(v1::Policy {
                    target_roots: Some(0),
                    overhead_permille: Some(1),
                    ..v1::Policy::default()
                });
            },
        ),
        (&["channel_id", "channel.origin_uri"], |request| {
            request.channel_id = "-".to_owned();
            edit(request).origin_uri = "x".repeat(5_000);
        }),
    ];
    for (fields, change) in table {
        let mut request = create_request("news", good);
        change(&mut request);
        assert_invalid(&channels.create_channel(request).await.unwrap_err(), fields);
    }

    for name in ["", "news", "channels/", "channels/NEWS"] {
        let name = name.to_owned();
        let get = v1::GetChannelRequest { name: name.clone() };
        assert_invalid(&channels.get_channel(get).await.unwrap_err(), &["name"]);
        let watch = v1::WatchChannelRequest { name: name.clone() };
        assert_invalid(&channels.watch_channel(watch).await.unwrap_err(), &["name"]);
        let delete = v1::DeleteChannelRequest {
            name,
            etag: String::new(),
        };
        assert_invalid(
            &channels.delete_channel(delete).await.unwrap_err(),
            &["name"],
        );
    }
    let update = v1::UpdateChannelRequest::default();
    assert_invalid(
        &channels.update_channel(update).await.unwrap_err(),
        &["channel"],
    );
    for (page_size, page_token, field) in [(-1, "", "page_size"), (0, "nonsense", "page_token")] {
        let list = v1::ListChannelsRequest {
            page_size,
            page_token: page_token.to_owned(),
        };
        assert_invalid(&channels.list_channels(list).await.unwrap_err(), &[field]);
    }
    let missing = channels.get_channel(named("none")).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "CHANNEL_NOT_FOUND");
    let resource = missing
        .get_error_details()
        .resource_info()
        .unwrap()
        .resource_name
        .clone();
    assert_eq!(resource, "channels/none");

    let unreachable = v1::CreateChannelRequest {
        channel_id: "news".to_owned(),
        channel: Some(v1::Channel {
            origin_uri: good.to_owned(),
            signer_uri: "http://127.0.0.1:1".to_owned(),
            ..v1::Channel::default()
        }),
    };
    let refused = channels.create_channel(unreachable).await.unwrap_err();
    assert_refused(&refused, Code::Unavailable, "SIGNER_UNREACHABLE");
    assert!(refused.get_error_details().retry_info().is_some());
    node.node.shutdown().await;
}

fn edit(request: &mut v1::CreateChannelRequest) -> &mut v1::Channel {
    request.channel.as_mut().unwrap()
}

#[tokio::test]
async fn lists_come_in_pages_and_the_number_of_channels_is_limited() {
    let limits = Limits {
        max_channels: 5,
        ..Limits::default()
    };
    let node = TestNode::start(NodeConfig {
        limits,
        ..NodeConfig::dev()
    })
    .await;
    let mut channels = node.channels();
    for index in 0..5 {
        node.create(&format!("c{index}"), "http://127.0.0.1:1/x.m3u8")
            .await;
    }
    let full = channels
        .create_channel(create_request("c9", "http://127.0.0.1:1/x.m3u8"))
        .await;
    let full = full.unwrap_err();
    assert_refused(&full, Code::ResourceExhausted, "LIMIT");
    assert!(full.get_error_details().quota_failure().is_some());

    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListChannelsRequest {
            page_size: 2,
            page_token: token,
        };
        let page = channels.list_channels(request).await.unwrap().into_inner();
        assert!(page.channels.len() <= 2);
        names.extend(page.channels.into_iter().map(|channel| channel.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expect: Vec<String> = (0..5).map(|index| format!("channels/c{index}")).collect();
    assert_eq!(names, expect);
    node.node.shutdown().await;
}

#[tokio::test]
async fn without_the_right_token_nothing_is_answered() {
    let node = TestNode::dev().await;
    node.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let viewer = node.viewer_token("news").await;
    for (bearer, reason) in [
        (Bearer::nothing(), "TOKEN_MISSING"),
        (Bearer::new("esp_wrong"), "TOKEN_UNKNOWN"),
        (Bearer::new(&viewer), "TOKEN_UNKNOWN"),
    ] {
        let mut channels = node.channels_as(bearer.clone());
        let refused = channels.get_channel(named("news")).await.unwrap_err();
        assert_refused(&refused, Code::Unauthenticated, reason);
        let create = create_request("x", "http://127.0.0.1:1/x.m3u8");
        let refused = channels.create_channel(create).await.unwrap_err();
        assert_refused(&refused, Code::Unauthenticated, reason);
        let mut topology =
            espalier_proto::v1::topology_service_client::TopologyServiceClient::with_interceptor(
                node.transport.clone(),
                bearer,
            );
        let request = v1::GetTopologyRequest {
            channel: "channels/news".to_owned(),
        };
        let refused = topology.get_topology(request).await.unwrap_err();
        assert_refused(&refused, Code::Unauthenticated, reason);
    }
    node.node.shutdown().await;
}

#[tokio::test]
async fn viewer_tokens_are_issued_within_bounds() {
    let node = TestNode::dev().await;
    node.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let mut channels = node.channels();
    let request = |channel: &str, seconds| v1::IssueViewerTokenRequest {
        channel: channel.to_owned(),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let issued = channels
        .issue_viewer_token(request("channels/news", 60))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(issued.token.split('.').count(), 3);
    assert!(issued.expire_time.unwrap().seconds > 0);
    for (channel, seconds, field) in [
        ("channels/news", 0, "ttl"),
        ("channels/news", -5, "ttl"),
        ("channels/news", 31 * 86_400, "ttl"),
        ("news", 60, "channel"),
    ] {
        let refused = channels
            .issue_viewer_token(request(channel, seconds))
            .await
            .unwrap_err();
        assert_invalid(&refused, &[field]);
    }
    let no_ttl = v1::IssueViewerTokenRequest {
        channel: "channels/news".to_owned(),
        ttl: None,
    };
    assert_invalid(
        &channels.issue_viewer_token(no_ttl).await.unwrap_err(),
        &["ttl"],
    );
    let missing = channels
        .issue_viewer_token(request("channels/none", 60))
        .await
        .unwrap_err();
    assert_refused(&missing, Code::NotFound, "CHANNEL_NOT_FOUND");
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_watched_channel_shows_its_origin_and_ends_when_it_is_deleted() {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    let request = v1::WatchChannelRequest {
        name: "channels/news".to_owned(),
    };
    let mut states = node
        .channels()
        .watch_channel(request)
        .await
        .unwrap()
        .into_inner();
    let mut seen = BTreeSet::new();
    loop {
        let state = within(states.message()).await.unwrap().unwrap();
        seen.insert(state.origin_state());
        let newest = state.tracks.first();
        if newest.is_some_and(|track| track.newest_sequence == 13) {
            assert_eq!(newest.unwrap().rate_bps, 100_000, "{newest:?}");
            break;
        }
    }
    assert!(!seen.contains(&v1::OriginState::Unspecified), "{seen:?}");
    let delete = v1::DeleteChannelRequest {
        name: "channels/news".to_owned(),
        etag: String::new(),
    };
    node.channels().delete_channel(delete).await.unwrap();
    let end = loop {
        match within(states.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_refused(&end, Code::NotFound, "CHANNEL_NOT_FOUND");
    node.node.shutdown().await;
}

#[tokio::test]
async fn an_origin_that_is_not_there_shows_as_unreachable() {
    let node = TestNode::dev().await;
    node.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let channel = until(|| async {
        let channel = node.get("news").await;
        (channel.origin_state() == v1::OriginState::Unreachable).then_some(channel)
    })
    .await;
    assert!(!channel.origin_problem.is_empty());
    node.node.shutdown().await;
}

#[tokio::test]
async fn statements_are_served_to_viewers_of_the_channel_and_verify_with_its_keys() {
    let node = TestNode::dev().await;
    let channel = node.create("news", &origin().await).await;
    node.create("sport", "http://127.0.0.1:1/x.m3u8").await;
    let token = node.viewer_token("news").await;
    let request = || v1::WatchStatementsRequest {
        channel: "news".to_owned(),
    };

    let other = node.viewer_token("sport").await;
    for (bearer, code, reason) in [
        (Bearer::nothing(), Code::Unauthenticated, "TOKEN_MISSING"),
        (
            Bearer::new("nonsense"),
            Code::Unauthenticated,
            "TOKEN_INVALID",
        ),
        (
            Bearer::new(&other),
            Code::PermissionDenied,
            "TOKEN_OF_OTHER_CHANNEL",
        ),
    ] {
        let refused = node
            .signer_as(bearer)
            .watch_statements(request())
            .await
            .unwrap_err();
        assert_refused(&refused, code, reason);
    }

    let mut signer = node.signer_as(Bearer::new(&token));
    let described = v1::GetSignerRequest {
        channel: "news".to_owned(),
    };
    let described = signer.get_signer(described).await.unwrap().into_inner();
    assert_eq!(described.public_keys, channel.public_keys);
    let keys = TrustedKeys::from_encoded(channel.public_keys.iter().map(Vec::as_slice)).unwrap();
    let mut feed = signer
        .watch_statements(request())
        .await
        .unwrap()
        .into_inner();
    let mut statements = 0;
    while statements < 6 {
        let message = within(feed.message()).await.unwrap().unwrap();
        if let Some(Fed::Statement(signed)) = message.kind {
            use prost::Message as _;
            SignedStatement::decode(signed.encode_to_vec().into(), &keys).unwrap();
            statements += 1;
        }
    }
    node.node.shutdown().await;
}
