//! The real program against a node that knows two channels and says what it is told to.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

use std::process::Output;

use espalier_proto::v1::channel_service_server::{ChannelService, ChannelServiceServer};
use espalier_proto::v1::topology_service_server::{TopologyService, TopologyServiceServer};
use espalier_proto::v1::{self, NodeState};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The API token that the node takes.
const TOKEN: &str = "secret";

struct FakeNode;

fn admit<T>(request: &Request<T>) -> Result<(), Status> {
    let given = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if given == Some("Bearer secret") {
        Ok(())
    } else {
        Err(Status::unauthenticated("the API token is missing or wrong"))
    }
}

fn known(name: &str) -> Result<(), Status> {
    match name {
        "channels/news" | "channels/broken" => Ok(()),
        other => Err(Status::not_found(format!("there is no {other}"))),
    }
}

fn channel(id: &str) -> v1::Channel {
    v1::Channel {
        name: format!("channels/{id}"),
        origin_uri: "http://cdn/master.m3u8".into(),
        origin_state: v1::OriginState::Live.into(),
        suspects: vec![v1::Suspect {
            peer: "00000000000000bb".into(),
            accusers: 1,
            reports: 1,
            last_report_time: None,
        }],
        ..v1::Channel::default()
    }
}

#[tonic::async_trait]
impl ChannelService for FakeNode {
    async fn create_channel(
        &self,
        request: Request<v1::CreateChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        admit(&request)?;
        let request = request.into_inner();
        let wanted = request.channel.unwrap_or_default();
        if request.channel_id == "news" {
            return Err(Status::already_exists(
                "channels/news exists with another origin",
            ));
        }
        if wanted.policy.as_ref().and_then(|policy| policy.max_depth) == Some(0) {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation("channel.policy.max_depth", "must be 1 to 64");
            return Err(Status::with_error_details(
                Code::InvalidArgument,
                "a mistake",
                details,
            ));
        }
        if !wanted.signer_uri.is_empty() {
            return Err(Status::unavailable("the signer does not answer"));
        }
        Ok(Response::new(v1::Channel {
            name: format!("channels/{}", request.channel_id),
            ..wanted
        }))
    }

    async fn get_channel(
        &self,
        request: Request<v1::GetChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        admit(&request)?;
        known(&request.get_ref().name)?;
        Ok(Response::new(channel("news")))
    }

    /// Three pages of one channel each.
    async fn list_channels(
        &self,
        request: Request<v1::ListChannelsRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        admit(&request)?;
        let (id, next) = match request.get_ref().page_token.as_str() {
            "" => ("one", "second"),
            "second" => ("two", "third"),
            _ => ("three", ""),
        };
        Ok(Response::new(v1::ListChannelsResponse {
            channels: vec![channel(id)],
            next_page_token: next.into(),
        }))
    }

    async fn update_channel(
        &self,
        _request: Request<v1::UpdateChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        Err(Status::unimplemented("the command never asks for this"))
    }

    async fn delete_channel(
        &self,
        request: Request<v1::DeleteChannelRequest>,
    ) -> Result<Response<()>, Status> {
        admit(&request)?;
        known(&request.get_ref().name)?;
        Ok(Response::new(()))
    }

    type WatchChannelStream = BoxStream<'static, Result<v1::Channel, Status>>;

    async fn watch_channel(
        &self,
        _request: Request<v1::WatchChannelRequest>,
    ) -> Result<Response<Self::WatchChannelStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }

    async fn plan_channel(
        &self,
        request: Request<v1::PlanChannelRequest>,
    ) -> Result<Response<v1::PlanChannelResponse>, Status> {
        admit(&request)?;
        known(&request.get_ref().name)?;
        let policy = request.into_inner().policy.unwrap_or_default();
        let figures = |roots| v1::PlanFigures {
            peers: 9,
            roots,
            ..v1::PlanFigures::default()
        };
        Ok(Response::new(v1::PlanChannelResponse {
            now: Some(figures(1)),
            then: Some(figures(policy.target_roots())),
            moves: 3,
            settled: true,
            ..v1::PlanChannelResponse::default()
        }))
    }

    async fn issue_viewer_token(
        &self,
        request: Request<v1::IssueViewerTokenRequest>,
    ) -> Result<Response<v1::IssueViewerTokenResponse>, Status> {
        admit(&request)?;
        known(&request.get_ref().channel)?;
        let ttl = request.get_ref().ttl.map_or(0, |ttl| ttl.seconds);
        Ok(Response::new(v1::IssueViewerTokenResponse {
            token: format!("token-of-{ttl}-seconds"),
            expire_time: None,
        }))
    }
}

fn node(peer: &str, source: v1::source::Kind, depth: u32, children: &[&str]) -> v1::Node {
    v1::Node {
        peer: peer.into(),
        track: "video".into(),
        source: Some(v1::Source { kind: Some(source) }),
        depth,
        children: children.iter().map(|&child| child.into()).collect(),
        state: NodeState::Active.into(),
        session: true,
        ..v1::Node::default()
    }
}

/// A root, and its child if there is one yet.
fn topology(with_child: bool) -> v1::Topology {
    let root = "00000000000000aa";
    let mut nodes = vec![node(
        root,
        v1::source::Kind::Cdn(v1::Cdn {}),
        1,
        &["00000000000000bb"],
    )];
    if with_child {
        nodes.push(node(
            "00000000000000bb",
            v1::source::Kind::Peer(root.into()),
            2,
            &[],
        ));
    }
    v1::Topology {
        generation: None,
        nodes,
    }
}

#[tonic::async_trait]
impl TopologyService for FakeNode {
    async fn get_topology(
        &self,
        request: Request<v1::GetTopologyRequest>,
    ) -> Result<Response<v1::Topology>, Status> {
        admit(&request)?;
        known(&request.get_ref().channel)?;
        Ok(Response::new(topology(true)))
    }

    type WatchTopologyStream = BoxStream<'static, Result<v1::Topology, Status>>;

    async fn watch_topology(
        &self,
        request: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        admit(&request)?;
        let states = [Ok(topology(false)), Ok(topology(true)), Ok(topology(false))];
        Ok(Response::new(stream::iter(states).boxed()))
    }

    async fn check_topology(
        &self,
        request: Request<v1::CheckTopologyRequest>,
    ) -> Result<Response<v1::CheckTopologyResponse>, Status> {
        admit(&request)?;
        let finding = v1::Finding {
            invariant: "budget".into(),
            peer: "00000000000000aa".into(),
            track: "video".into(),
            detail: "3 children, 2 fit".into(),
        };
        let broken = request.get_ref().channel == "channels/broken";
        Ok(Response::new(v1::CheckTopologyResponse {
            findings: if broken { vec![finding] } else { Vec::new() },
            peers_checked: 2,
        }))
    }
}

/// Runs the program against a node of its own.
async fn run(token: &str, words: &[&str]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(ChannelServiceServer::new(FakeNode))
        .add_service(TopologyServiceServer::new(FakeNode))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let node = tokio::spawn(server);
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_espalier"))
        .args(words)
        .env("ESPALIER_ENDPOINT", endpoint)
        .env("ESPALIER_TOKEN", token)
        .env_remove("ESPALIER_LOG")
        .output()
        .await
        .unwrap();
    node.abort();
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn every_command_ends_with_its_code_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.toml");
    std::fs::write(&policy, "max_depth = 0").unwrap();
    let policy = policy.to_str().unwrap();
    let origin = "http://cdn/";
    let table: [(&[&str], i32, &str); 12] = [
        (&["channel", "create", "sport", "--origin", origin], 0, ""),
        (
            &["channel", "create", "news", "--origin", origin],
            1,
            "another origin",
        ),
        (
            &[
                "channel", "create", "sport", "--origin", origin, "--policy", policy,
            ],
            64,
            "channel.policy.max_depth: must be 1 to 64",
        ),
        (
            &[
                "channel",
                "create",
                "sport",
                "--origin",
                origin,
                "--signer",
                "http://signer:1/",
            ],
            69,
            "the signer does not answer",
        ),
        (&["channel", "get", "news"], 0, ""),
        (&["channel", "get", "nobody"], 1, "espalier channel list"),
        (&["channel", "delete", "news"], 0, ""),
        (
            &["channel", "delete", "nobody"],
            1,
            "there is no channels/nobody",
        ),
        (
            &["channel", "tree", "nobody"],
            1,
            "there is no channels/nobody",
        ),
        (
            &["channel", "watch", "nobody"],
            1,
            "there is no channels/nobody",
        ),
        (&["channel", "check", "news"], 0, ""),
        (&["channel", "check", "broken"], 1, "breaks an invariant"),
    ];
    for (words, code, said) in table {
        let output = run(TOKEN, words).await;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert!(text(&output.stderr).contains(said), "{words:?}: {output:?}");
    }
}

#[tokio::test]
async fn a_wrong_token_is_told_where_to_find_a_right_one() {
    let output = run("guess", &["channel", "list"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("ESPALIER_TOKEN"),
        "{output:?}"
    );
}

#[tokio::test]
async fn lists_have_every_page() {
    let output = run(TOKEN, &["channel", "list", "--format", "json"]).await;
    let names: Vec<serde_json::Value> = json(&output)
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["name"].clone())
        .collect();
    assert_eq!(names, ["one", "two", "three"]);
    let output = run(TOKEN, &["channel", "list"]).await;
    assert_eq!(text(&output.stdout).lines().count(), 4);
}

#[tokio::test]
async fn records_and_trees_are_json_for_scripts() {
    let output = run(TOKEN, &["channel", "get", "news", "--format", "json"]).await;
    assert_eq!(json(&output)["suspects"][0]["peer"], "00000000000000bb");
    let output = run(TOKEN, &["channel", "tree", "news", "--format", "json"]).await;
    let tree = json(&output);
    assert_eq!(tree[1]["source"], "00000000000000aa");
    assert_eq!(tree[0]["children"][0], "00000000000000bb");
    let output = run(TOKEN, &["channel", "check", "broken", "--format", "json"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["findings"][0]["invariant"], "budget");
    let output = run(TOKEN, &["channel", "tree", "news"]).await;
    assert!(
        text(&output.stdout).contains("└─ 00000000000000bb"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_plan_sends_the_policy_and_shows_what_it_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    std::fs::write(&file, "target_roots = 4").unwrap();
    let file = file.to_str().unwrap();
    let words = ["channel", "plan", "news", "--policy", file];
    let output = run(TOKEN, &words).await;
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("3 moves"), "{output:?}");
    let output = run(TOKEN, &[&words[..], &["--format", "json"]].concat()).await;
    assert_eq!(json(&output)["then"]["roots"], 4);
    let output = run(TOKEN, &["channel", "plan", "news", "--policy", "/nowhere"]).await;
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(text(&output.stderr).contains("/nowhere"), "{output:?}");
    let output = run(TOKEN, &["channel", "plan", "news"]).await;
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(text(&output.stderr).contains("--policy"), "{output:?}");
}

#[tokio::test]
async fn a_watch_without_a_terminal_is_a_line_a_change() {
    let output = run(TOKEN, &["channel", "watch", "news"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[0].starts_with("video/00000000000000aa joined"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("video/00000000000000bb joined"),
        "{lines:?}"
    );
    assert_eq!(lines[2], "video/00000000000000bb left");
}

#[tokio::test]
async fn an_issued_token_is_printed_alone() {
    let output = run(
        TOKEN,
        &["token", "issue", "--channel", "news", "--ttl", "1h"],
    )
    .await;
    assert_eq!(text(&output.stdout), "token-of-3600-seconds\n");
}
