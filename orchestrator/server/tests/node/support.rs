//! A node, an origin and peers for tests.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use espalier_orchestrator::{Node, NodeConfig};
use espalier_proto::v1;
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::peer_service_client::PeerServiceClient;
use espalier_proto::v1::signer_service_client::SignerServiceClient;
use espalier_proto::v1::topology_service_client::TopologyServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a future, with a deadline.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}

/// Asks again and again until the answer is there, with a deadline.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    within(async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Shows a token with every call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<tonic::metadata::Ascii>>);

impl Bearer {
    pub(crate) fn new(token: &str) -> Self {
        Self(Some(format!("Bearer {token}").parse().unwrap()))
    }

    pub(crate) fn nothing() -> Self {
        Self(None)
    }
}

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Authed = InterceptedService<Channel, Bearer>;

/// A node that ends with the test.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) transport: Channel,
    pub(crate) token: String,
}

impl TestNode {
    pub(crate) async fn dev() -> Self {
        Self::start(NodeConfig::dev()).await
    }

    pub(crate) async fn start(mut config: NodeConfig) -> Self {
        config.listen = ([127, 0, 0, 1], 0).into();
        Self::of(Node::start(config).await.unwrap()).await
    }

    pub(crate) async fn of(node: Node) -> Self {
        let transport = Channel::from_shared(node.endpoint())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let token = node.admin_token().unwrap().to_owned();
        Self {
            node,
            transport,
            token,
        }
    }

    pub(crate) fn channels(&self) -> ChannelServiceClient<Authed> {
        self.channels_as(Bearer::new(&self.token))
    }

    pub(crate) fn channels_as(&self, bearer: Bearer) -> ChannelServiceClient<Authed> {
        ChannelServiceClient::with_interceptor(self.transport.clone(), bearer)
    }

    pub(crate) fn topology(&self) -> TopologyServiceClient<Authed> {
        let bearer = Bearer::new(&self.token);
        TopologyServiceClient::with_interceptor(self.transport.clone(), bearer)
    }

    pub(crate) fn signer_as(&self, bearer: Bearer) -> SignerServiceClient<Authed> {
        SignerServiceClient::with_interceptor(self.transport.clone(), bearer)
    }

    pub(crate) async fn create(&self, id: &str, origin_uri: &str) -> v1::Channel {
        let request = create_request(id, origin_uri);
        self.channels()
            .create_channel(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn get(&self, id: &str) -> v1::Channel {
        let name = format!("channels/{id}");
        self.channels()
            .get_channel(v1::GetChannelRequest { name })
            .await
            .unwrap()
            .into_inner()
    }

    /// Waits until the channel's signer has told which tracks there are.
    pub(crate) async fn tracks(&self, id: &str) -> Vec<v1::TrackStatus> {
        until(|| async {
            let tracks = self.get(id).await.tracks;
            (!tracks.is_empty()).then_some(tracks)
        })
        .await
    }

    pub(crate) async fn viewer_token(&self, id: &str) -> String {
        let request = v1::IssueViewerTokenRequest {
            channel: format!("channels/{id}"),
            ttl: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
        };
        self.channels()
            .issue_viewer_token(request)
            .await
            .unwrap()
            .into_inner()
            .token
    }

    pub(crate) async fn nodes(&self, id: &str) -> HashMap<String, v1::Node> {
        let request = v1::GetTopologyRequest {
            channel: format!("channels/{id}"),
        };
        let topology = self
            .topology()
            .get_topology(request)
            .await
            .unwrap()
            .into_inner();
        topology
            .nodes
            .into_iter()
            .map(|node| (node.peer.clone(), node))
            .collect()
    }

    /// Waits until a peer's place is as wanted.
    pub(crate) async fn node_when(
        &self,
        id: &str,
        peer: u64,
        wanted: impl Fn(&v1::Node) -> bool,
    ) -> v1::Node {
        until(|| async {
            self.nodes(id)
                .await
                .remove(&hex(peer))
                .filter(|node| wanted(node))
        })
        .await
    }
}

pub(crate) fn create_request(id: &str, origin_uri: &str) -> v1::CreateChannelRequest {
    v1::CreateChannelRequest {
        channel_id: id.to_owned(),
        channel: Some(v1::Channel {
            origin_uri: origin_uri.to_owned(),
            ..v1::Channel::default()
        }),
    }
}

pub(crate) fn hex(peer: u64) -> String {
    format!("{peer:016x}")
}

/// What an origin serves: one media playlist of four segments of 100 kbit/s, which never changes.
pub(crate) async fn origin() -> String {
    let playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:10\n\
                    #EXTINF:2.0,\n10.ts\n#EXTINF:2.0,\n11.ts\n#EXTINF:2.0,\n12.ts\n#EXTINF:2.0,\n13.ts\n";
    let segment = |axum::extract::Path(name): axum::extract::Path<String>| async move {
        if name.ends_with(".ts") {
            (StatusCode::OK, vec![0x47_u8; 25_000])
        } else {
            (StatusCode::NOT_FOUND, Vec::new())
        }
    };
    let router = Router::new()
        .route("/live.m3u8", get(move || async move { playlist }))
        .route("/{name}", get(segment));
    format!("http://{}/live.m3u8", serve(router).await)
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// A peer that says what it is told to say.
pub(crate) struct FakePeer {
    pub(crate) say: mpsc::Sender<v1::PeerMessage>,
    pub(crate) hear: Streaming<v1::NodeMessage>,
    pub(crate) welcome: v1::Welcome,
}

pub(crate) fn open(channel: &str, id: u64) -> v1::Open {
    v1::Open {
        peer: hex(id),
        channel: channel.to_owned(),
        role: v1::PeerRole::Contributor.into(),
        upload_bps: 4_000_000,
        min_version: 1,
        max_version: 1,
        agent: "test".to_owned(),
        ..v1::Open::default()
    }
}

/// Opens a session and returns both ends, whatever the node says to it.
pub(crate) async fn session(
    transport: &Channel,
    bearer: Bearer,
    first: Vec<Said>,
) -> Result<(mpsc::Sender<v1::PeerMessage>, Streaming<v1::NodeMessage>), Status> {
    let (say, messages) = mpsc::channel(256);
    for kind in first {
        say.send(v1::PeerMessage { kind: Some(kind) })
            .await
            .unwrap();
    }
    let mut client = PeerServiceClient::with_interceptor(transport.clone(), bearer);
    let hear = within(client.session(ReceiverStream::new(messages)))
        .await?
        .into_inner();
    Ok((say, hear))
}

impl FakePeer {
    pub(crate) async fn join(node: &TestNode, token: &str, open: v1::Open) -> Result<Self, Status> {
        Self::attach(&node.transport, token, open).await
    }

    pub(crate) async fn attach(
        transport: &Channel,
        token: &str,
        open: v1::Open,
    ) -> Result<Self, Status> {
        let (say, mut hear) =
            session(transport, Bearer::new(token), vec![Said::Open(open)]).await?;
        match within(hear.message())
            .await?
            .and_then(|message| message.kind)
        {
            Some(Kind::Welcome(welcome)) => Ok(Self { say, hear, welcome }),
            other => panic!("expected Welcome, got {other:?}"),
        }
    }

    pub(crate) async fn say(&self, kind: Said) {
        within(self.say.send(v1::PeerMessage { kind: Some(kind) }))
            .await
            .unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Result<Kind, Status> {
        let message = within(self.hear.message()).await?;
        Ok(message
            .and_then(|message| message.kind)
            .expect("the stream ended in order"))
    }

    /// Hears until an assignment is as wanted, acknowledges every one.
    pub(crate) async fn assigned(
        &mut self,
        wanted: impl Fn(&v1::Assignment) -> bool,
    ) -> v1::Assignment {
        loop {
            if let Kind::Assignment(assignment) = self.hear().await.unwrap() {
                let generation = assignment.generation;
                self.say(Said::Acknowledge(v1::Acknowledge { generation }))
                    .await;
                if wanted(&assignment) {
                    return assignment;
                }
            }
        }
    }

    /// Says that a track flows from where the assignment says.
    pub(crate) async fn flows(&self, assignment: &v1::Assignment) {
        for track in &assignment.tracks {
            self.say(Said::SourceEvent(v1::SourceEvent {
                track: track.track.clone(),
                stripe: track.stripe,
                source: track.source.clone(),
                state: v1::SourceState::Flowing.into(),
                generation: assignment.generation,
            }))
            .await;
        }
    }

    /// Hears until the stream ends with a status.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match within(self.hear.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the stream ended in order"),
                Err(status) => return status,
            }
        }
    }
}

pub(crate) fn is_cdn(source: Option<&v1::Source>) -> bool {
    source.is_some_and(|source| matches!(source.kind, Some(v1::source::Kind::Cdn(_))))
}

pub(crate) fn source_peer(source: Option<&v1::Source>) -> Option<String> {
    match source?.kind.clone()? {
        v1::source::Kind::Peer(peer) => Some(peer),
        v1::source::Kind::Cdn(_) => None,
    }
}

/// The code, the reason and the violated fields of a status.
pub(crate) fn parts(status: &Status) -> (Code, String, Vec<String>) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| {
        assert_eq!(info.domain, espalier_orchestrator::ERROR_DOMAIN);
        info.reason.clone()
    });
    let fields = details.bad_request().map(|bad| {
        bad.field_violations
            .iter()
            .map(|violation| violation.field.clone())
            .collect()
    });
    (
        status.code(),
        reason.unwrap_or_default(),
        fields.unwrap_or_default(),
    )
}

pub(crate) fn assert_refused(status: &Status, code: Code, reason: &str) {
    let (found_code, found_reason, _) = parts(status);
    assert_eq!(
        (found_code, found_reason.as_str()),
        (code, reason),
        "{status:?}"
    );
}

pub(crate) fn assert_invalid(status: &Status, fields: &[&str]) {
    let (code, _, found) = parts(status);
    assert_eq!(code, Code::InvalidArgument, "{status:?}");
    assert_eq!(found, fields, "{status:?}");
}
