//! Three nodes as three processes: one of them is killed, and nobody but its own peers notices.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use espalier_proto::v1;
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use espalier_proto::v1::topology_service_client::TopologyServiceClient;
use espalier_token::ClusterKey;
use tonic::transport::Channel;

use crate::command_line::http_get;
use crate::support::{
    Bearer, FakePeer, create_request, hex, is_cdn, open, origin, source_peer, until,
};

/// A node of the cluster, killed when it is dropped.
struct Member {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    token: String,
    transport: Channel,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Member {
    fn channels(
        &self,
    ) -> ChannelServiceClient<tonic::service::interceptor::InterceptedService<Channel, Bearer>>
    {
        ChannelServiceClient::with_interceptor(self.transport.clone(), Bearer::new(&self.token))
    }

    /// The channel's tree, if it has an owner: who takes from whom.
    async fn tree(&self) -> Option<Vec<(String, Option<v1::Source>, u32)>> {
        let bearer = Bearer::new(&self.token);
        let mut client = TopologyServiceClient::with_interceptor(self.transport.clone(), bearer);
        let channel = "channels/news".to_owned();
        let topology = client
            .get_topology(v1::GetTopologyRequest { channel })
            .await;
        let nodes = topology.ok()?.into_inner().nodes.into_iter();
        Some(
            nodes
                .map(|node| (node.peer, node.source, node.depth))
                .collect(),
        )
    }

    async fn owns_a_channel(&self) -> bool {
        let page = http_get(&self.admin.to_string(), "/metrics").await;
        page.is_some_and(|page| page.contains("espalier_orchestrator_channels 1"))
    }
}

/// As many addresses that nobody uses. Somebody could take one before we do; nobody else asks for given ports.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners: [_; N] =
        std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

async fn cluster(dir: &Path) -> Vec<Member> {
    let (key, token) = ClusterKey::generate();
    std::fs::write(dir.join("cluster.key"), key.to_text()).unwrap();
    let between = free_addresses::<3>();
    let list: Vec<_> = between
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let mut children = Vec::new();
    for (number, own) in between.iter().enumerate() {
        let [public, admin] = free_addresses::<2>();
        let text = format!(
            "data_dir = \"node-{number}\"\nlisten = \"{public}\"\nadmin_listen = \"{admin}\"\n\
             [cluster]\nkey_file = \"cluster.key\"\nlisten = \"{own}\"\nadvertise = \"{own}\"\n\
             public_uri = \"http://{public}\"\nbetween_nodes = \"plain\"\nbootstrap = [{}]\n",
            list.join(", ")
        );
        let config = dir.join(format!("node-{number}.toml"));
        std::fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_espalier-orchestrator"))
            .args(["--config", config.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        children.push((child, public, admin));
    }
    let mut members = Vec::new();
    for (mut child, public, admin) in children {
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        assert!(line.starts_with("ESPALIER_ENDPOINT="), "{line}");
        let endpoint = format!("http://{public}");
        members.push(Member {
            child,
            public,
            admin,
            token: token.clone(),
            transport: Channel::from_shared(endpoint).unwrap().connect_lazy(),
        });
    }
    members
}

async fn viewer_token(member: &Member) -> String {
    let request = v1::IssueViewerTokenRequest {
        channel: "channels/news".to_owned(),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    let issued = member.channels().issue_viewer_token(request).await;
    issued.unwrap().into_inner().token
}

#[tokio::test]
async fn a_killed_owner_is_replaced_and_the_tree_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path()).await;
    let origin = origin().await;
    let made = members[1]
        .channels()
        .create_channel(create_request("news", &origin))
        .await
        .unwrap()
        .into_inner();
    // Every node knows the channel, its key and its tracks.
    for member in &members {
        until(|| async {
            let name = "channels/news".to_owned();
            let found = member
                .channels()
                .get_channel(v1::GetChannelRequest { name })
                .await;
            let found = found.ok()?.into_inner();
            assert_eq!(
                (&found.etag, &found.public_keys),
                (&made.etag, &made.public_keys)
            );
            let list = v1::ListChannelsRequest::default();
            let list = member.channels().list_channels(list).await.ok()?;
            let there = list.into_inner().channels.len() == 1;
            (there && !found.tracks.is_empty()).then_some(())
        })
        .await;
    }
    // A peer at each gateway; all are told of all the nodes.
    let viewer = viewer_token(&members[0]).await;
    let mut peers = Vec::new();
    for (number, member) in (1_u64..).zip(&members) {
        let mut peer = FakePeer::attach(&member.transport, &viewer, open("news", number))
            .await
            .unwrap();
        let assignment = peer
            .assigned(|it| {
                it.tracks.first().is_some_and(|track| match number {
                    1 => is_cdn(track.source.as_ref()),
                    _ => source_peer(track.source.as_ref()).is_some(),
                })
            })
            .await;
        peer.flows(&assignment).await;
        peers.push(peer);
    }
    let before = members[2].tree().await.unwrap();
    assert_eq!(before.len(), 3);

    let owner = until(|| async {
        for (number, member) in members.iter().enumerate() {
            if member.owns_a_channel().await {
                return Some(number);
            }
        }
        None
    })
    .await;
    drop(members.remove(owner));
    peers.remove(owner);

    let survivor = &members[0];
    let after = until(|| survivor.tree()).await;
    assert_eq!(after, before);
    // The sessions at the other gateways are as they were, and a new peer gets a place.
    let mut joined = FakePeer::attach(&members[1].transport, &viewer, open("news", 9))
        .await
        .unwrap();
    joined.assigned(|it| !it.tracks.is_empty()).await;
    let tree = survivor.tree().await.unwrap();
    assert!(tree.iter().any(|(peer, ..)| *peer == hex(9)), "{tree:?}");
    for member in &members {
        let name = "channels/news".to_owned();
        let request = v1::GetChannelRequest { name };
        let found = member.channels().get_channel(request).await.unwrap();
        assert_eq!(found.into_inner().etag, made.etag, "at {}", member.public);
    }
}
