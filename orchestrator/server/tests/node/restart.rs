//! What survives the end of a process, orderly or not.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use espalier_orchestrator::{Limits, Node, NodeConfig, StartError};
use espalier_proto::v1;
use tonic::transport::Channel;

use crate::support::{
    Bearer, FakePeer, TestNode, create_request, hex, is_cdn, open, origin, source_peer, until,
    within,
};

fn kept(path: &Path) -> NodeConfig {
    NodeConfig {
        data_dir: Some(path.to_owned()),
        limits: Limits::default(),
        ..NodeConfig::dev()
    }
}

/// A real process, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) endpoint: String,
    pub(crate) token: String,
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(&std::env::temp_dir(), arguments)
    }

    /// Starts it with a place of its own for temporary files.
    pub(crate) fn start_in(temporary: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_espalier-orchestrator"))
            .args(arguments)
            .env("TMPDIR", temporary)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut value = |key: &str| {
            let line = lines.next().expect("a line").unwrap();
            line.strip_prefix(key)
                .unwrap_or_else(|| panic!("{key} expected: {line}"))
                .to_owned()
        };
        let endpoint = value("ESPALIER_ENDPOINT=");
        let token = value("ESPALIER_TOKEN=");
        Self {
            child,
            endpoint,
            token,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[tokio::test]
async fn after_kill_9_channels_keys_tokens_and_tickets_are_there_and_the_tree_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("node.toml");
    let text = "data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
    std::fs::write(&config, text).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];

    let before = Process::start(&arguments);
    let transport = connect(&before.endpoint).await;
    let mut channels = channels(&transport, &before.token);
    let origin = origin().await;
    let channel = channels
        .create_channel(create_request("news", &origin))
        .await
        .unwrap()
        .into_inner();
    let viewer = viewer_token(&mut channels).await;
    until(|| async { track(&transport, &before.token).await }).await;
    let mut root = FakePeer::attach(&transport, &viewer, open("news", 1))
        .await
        .unwrap();
    let assignment = root
        .assigned(|it| {
            it.tracks
                .first()
                .is_some_and(|track| is_cdn(track.source.as_ref()))
        })
        .await;
    root.flows(&assignment).await;
    let track_name = assignment.tracks[0].track.clone();
    let mut child = FakePeer::attach(&transport, &viewer, open("news", 2))
        .await
        .unwrap();
    let held = child
        .assigned(|it| {
            it.tracks
                .first()
                .is_some_and(|track| source_peer(track.source.as_ref()) == Some(hex(1)))
        })
        .await;
    let planned = topology(&transport, &before.token).await;
    assert_eq!(planned.nodes.len(), 2);
    drop(before);

    let after = Process::start(&arguments);
    assert!(!after.token.is_empty());
    let transport = connect(&after.endpoint).await;
    let mut channels = self::channels(&transport, &after.token);
    let found = channels
        .get_channel(v1::GetChannelRequest {
            name: "channels/news".to_owned(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (found.public_keys, found.etag),
        (channel.public_keys, channel.etag)
    );

    // The tree is there before any peer is.
    let parents = |topology: &v1::Topology| -> Vec<_> {
        let nodes = topology.nodes.iter();
        nodes
            .map(|node| (node.peer.clone(), node.depth, node.source.clone()))
            .collect()
    };
    let kept = topology(&transport, &after.token).await;
    assert_eq!(parents(&kept), parents(&planned));

    // The old viewer token and the old tickets open the old places.
    let back = |id: u64, ticket: &[u8], source: v1::source::Kind, children: Vec<String>| v1::Open {
        ticket: ticket.to_vec(),
        generation: held.generation,
        held: vec![v1::HeldEdge {
            track: track_name.clone(),
            stripe: 0,
            source: Some(v1::Source { kind: Some(source) }),
            standby: None,
            children,
        }],
        ..open("news", id)
    };
    let cdn = v1::source::Kind::Cdn(v1::Cdn {});
    let root_open = back(1, &root.welcome.ticket, cdn, vec![hex(2)]);
    let root_again = FakePeer::attach(&transport, &viewer, root_open.clone())
        .await
        .unwrap();
    assert_eq!(root_again.welcome.incarnation, root.welcome.incarnation);
    let parent = v1::source::Kind::Peer(hex(1));
    let child_open = back(2, &child.welcome.ticket, parent, Vec::new());
    let _child_again = FakePeer::attach(&transport, &viewer, child_open)
        .await
        .unwrap();
    let taken_over = FakePeer::attach(&transport, &viewer, root_open).await;
    assert!(
        taken_over.is_ok(),
        "a ticket from before the restart proves whose the id is"
    );

    let topology = until(|| async {
        let topology = topology(&transport, &after.token).await;
        let placed = topology.nodes.iter().filter(|node| node.depth > 0).count();
        (placed == 2).then_some(topology)
    })
    .await;
    let depth = |peer: u64| {
        topology
            .nodes
            .iter()
            .find(|node| node.peer == hex(peer))
            .unwrap()
            .depth
    };
    assert_eq!((depth(1), depth(2)), (1, 2));
    let (old, new) = (held.generation.unwrap(), topology.generation.unwrap());
    assert_eq!(old.incarnation, new.incarnation);
    assert!(new.term > old.term, "{old:?} {new:?}");
}

async fn connect(endpoint: &str) -> Channel {
    Channel::from_shared(endpoint.to_owned())
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn topology(transport: &Channel, token: &str) -> v1::Topology {
    let bearer = Bearer::new(token);
    let mut client = v1::topology_service_client::TopologyServiceClient::with_interceptor(
        transport.clone(),
        bearer,
    );
    let request = v1::GetTopologyRequest {
        channel: "channels/news".to_owned(),
    };
    client.get_topology(request).await.unwrap().into_inner()
}

type Channels = v1::channel_service_client::ChannelServiceClient<
    tonic::service::interceptor::InterceptedService<Channel, Bearer>,
>;

fn channels(transport: &Channel, token: &str) -> Channels {
    v1::channel_service_client::ChannelServiceClient::with_interceptor(
        transport.clone(),
        Bearer::new(token),
    )
}

async fn viewer_token(channels: &mut Channels) -> String {
    let request = v1::IssueViewerTokenRequest {
        channel: "channels/news".to_owned(),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    channels
        .issue_viewer_token(request)
        .await
        .unwrap()
        .into_inner()
        .token
}

async fn track(transport: &Channel, token: &str) -> Option<v1::TrackStatus> {
    let request = v1::GetChannelRequest {
        name: "channels/news".to_owned(),
    };
    let channel = channels(transport, token)
        .get_channel(request)
        .await
        .unwrap()
        .into_inner();
    channel.tracks.into_iter().next()
}

#[tokio::test]
async fn a_deleted_channel_stays_deleted_and_a_changed_policy_stays_changed() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestNode::start(kept(dir.path())).await;
    first.create("old", "http://127.0.0.1:1/x.m3u8").await;
    first.create("new", "http://127.0.0.1:1/x.m3u8").await;
    let delete = v1::DeleteChannelRequest {
        name: "channels/old".to_owned(),
        etag: String::new(),
    };
    first.channels().delete_channel(delete).await.unwrap();
    let policy = v1::Policy {
        max_children: Some(3),
        ..v1::Policy::default()
    };
    let update = v1::UpdateChannelRequest {
        channel: Some(v1::Channel {
            name: "channels/new".to_owned(),
            policy: Some(policy.clone()),
            ..v1::Channel::default()
        }),
        update_mask: None,
    };
    first.channels().update_channel(update).await.unwrap();
    let token = first.token.clone();
    drop(first.transport);
    first.node.shutdown().await;

    let second = TestNode::start(kept(dir.path())).await;
    assert_eq!(second.token, token);
    let list = v1::ListChannelsRequest::default();
    let list = second
        .channels()
        .list_channels(list)
        .await
        .unwrap()
        .into_inner()
        .channels;
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].policy, Some(policy));
    second.node.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_has_one_node_at_a_time_and_damage_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestNode::start(kept(dir.path())).await;
    first.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let free = NodeConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        ..kept(dir.path())
    };
    let error = within(Node::start(free.clone()))
        .await
        .err()
        .expect("the directory is in use");
    assert!(matches!(error, StartError::Store(_)), "{error}");
    drop(first.transport);
    first.node.shutdown().await;

    let file = database(dir.path());
    let good = std::fs::read(&file).unwrap();
    // The file is made longer than what is in it.
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&file, &good[..used / 2]).unwrap();
    let error = within(Node::start(free))
        .await
        .err()
        .expect("the file is damaged");
    assert!(matches!(error, StartError::Cluster(_)), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("damaged"), "{source}");
    std::fs::write(&file, &good).unwrap();
    let again = TestNode::start(kept(dir.path())).await;
    again.get("news").await;
    again.node.shutdown().await;
}

/// The file that holds the log and the votes.
fn database(dir: &Path) -> std::path::PathBuf {
    let store = dir.join("cluster/raft");
    let mut open = vec![store];
    let mut largest: Option<(u64, std::path::PathBuf)> = None;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                open.push(entry.path());
            } else if entry.file_name() == "db" {
                largest = largest.max(Some((meta.len(), entry.path())));
            }
        }
    }
    largest.expect("a database").1
}
