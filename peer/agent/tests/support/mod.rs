//! A small world for whole agents: an origin, a node that does as it is told, and a network in memory.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod peer;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use espalier_media::StatementKey;
use espalier_proto::v1::peer_message::Kind;
use espalier_proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use espalier_proto::v1::{self, node_message};
use espalier_signer::{
    ServiceLimits, Signer, SignerConfig, SignerHandle, SignerState, StatementService,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request as Call, Response as Answer, Status, Streaming};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How often the origin has a new segment.
pub(crate) const RHYTHM: Duration = Duration::from_millis(500);
pub(crate) const CHUNK: usize = 61_440;
/// Some chunks and a bit.
pub(crate) const SEGMENT_LENGTH: usize = CHUNK * crate::SEGMENT_CHUNKS + 1_234;

/// Looks until `look` finds something.
pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "never happened: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bytes of the origin's segment.
pub(crate) fn segment(sequence: u64) -> Vec<u8> {
    (0..SEGMENT_LENGTH as u64)
        .map(|i| (i * 7 + sequence * 13).to_le_bytes()[0])
        .collect()
}

/// The hash of the origin's segment, as `/stats` writes it.
pub(crate) fn segment_hash(sequence: u64) -> String {
    Sha256::digest(segment(sequence))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A request: the path, and the first and last byte of the range if it was for one.
type Asked = (String, Option<(usize, usize)>);

/// A live origin that counts what each peer asks of it.
#[derive(Clone)]
pub(crate) struct Origin {
    started: tokio::time::Instant,
    asked: Arc<Mutex<HashMap<String, Vec<Asked>>>>,
    pub(crate) uri: String,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/live.m3u8", listener.local_addr().unwrap());
        let origin = Self {
            started: tokio::time::Instant::now(),
            asked: Arc::default(),
            uri,
        };
        let router = Router::new()
            .fallback(Self::answer)
            .with_state(origin.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        origin
    }

    /// The segments that this peer took, whole or in part.
    pub(crate) fn segments_taken_by(&self, peer: &str) -> Vec<String> {
        let asked = self.asked_by(peer).into_iter();
        asked.map(|(path, _)| path).collect()
    }

    /// The numbers of the chunks of segments behind this one that a peer asked for.
    pub(crate) fn chunks_taken_by(&self, peer: &str, behind: u64) -> BTreeSet<usize> {
        let asked = self.asked_by(peer).into_iter();
        let asked = asked.filter(|(path, _)| sequence_in(path) > Some(behind));
        let chunks = |(first, last): (usize, usize)| first / CHUNK..=last / CHUNK;
        asked
            .flat_map(|(_, range)| chunks(range.unwrap_or((0, SEGMENT_LENGTH - 1))))
            .collect()
    }

    fn asked_by(&self, peer: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let of_peer = asked.get(peer).cloned().unwrap_or_default();
        of_peer
            .into_iter()
            .filter(|(path, _)| sequence_in(path).is_some())
            .collect()
    }

    fn newest(&self) -> u64 {
        4 + u64::try_from(self.started.elapsed().as_millis() / RHYTHM.as_millis()).unwrap()
    }

    async fn answer(State(origin): State<Self>, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let peer = request
            .headers()
            .get("x-peer-id")
            .expect("every request names its peer");
        let peer = peer.to_str().unwrap().to_owned();
        let range = range_of(&request);
        let asked = (path.clone(), range);
        origin
            .asked
            .lock()
            .unwrap()
            .entry(peer)
            .or_default()
            .push(asked);
        let newest = origin.newest();
        if path == "/live.m3u8" {
            let first = newest.saturating_sub(5);
            let mut text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n".to_owned();
            text += &format!("#EXT-X-MEDIA-SEQUENCE:{first}\n");
            for sequence in first..=newest {
                text += &format!("#EXTINF:{:.3},\ns{sequence}.ts\n", RHYTHM.as_secs_f64());
            }
            return text.into_response();
        }
        match sequence_in(&path) {
            Some(sequence) if sequence <= newest => {
                let body = segment(sequence);
                match range {
                    None => body.into_response(),
                    Some((first, last)) => {
                        let place = format!("bytes {first}-{last}/{}", body.len());
                        let part = body[first..=last].to_vec();
                        let place = [(header::CONTENT_RANGE, place)];
                        (StatusCode::PARTIAL_CONTENT, place, part).into_response()
                    }
                }
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

/// The segment that a path names.
fn sequence_in(path: &str) -> Option<u64> {
    let rest = path.strip_prefix("/s")?.strip_suffix(".ts")?;
    rest.parse().ok()
}

/// The first and the last byte of the range that is asked for.
fn range_of(request: &Request) -> Option<(usize, usize)> {
    let range = request.headers().get(header::RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().unwrap(), last.parse().unwrap()))
}

/// A peer's place in one tree: a source, a standby (none: the CDN), and whether each child holds it in
/// reserve only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) source: Option<String>,
    pub(crate) standby: Option<String>,
    pub(crate) children: Vec<(String, bool)>,
}

/// What the node knows of one peer.
#[derive(Default)]
struct Known {
    to_peer: Option<mpsc::Sender<Result<v1::NodeMessage, Status>>>,
    assignment: Option<v1::Assignment>,
    said: Vec<Kind>,
}

#[derive(Default)]
struct Book {
    peers: Mutex<HashMap<String, Known>>,
    changed: Notify,
}

struct NodeService {
    book: Arc<Book>,
    welcome: v1::Welcome,
}

#[tonic::async_trait]
impl PeerService for NodeService {
    type SessionStream = ReceiverStream<Result<v1::NodeMessage, Status>>;

    async fn session(
        &self,
        call: Call<Streaming<v1::PeerMessage>>,
    ) -> Result<Answer<Self::SessionStream>, Status> {
        let mut from_peer = call.into_inner();
        let first = from_peer.message().await?.and_then(|message| message.kind);
        let Some(Kind::Open(open)) = first else {
            return Err(Status::invalid_argument("the first message is not Open"));
        };
        let (to_peer, stream) = mpsc::channel(64);
        let welcome = node_message::Kind::Welcome(self.welcome.clone());
        drop(to_peer.try_send(Ok(v1::NodeMessage {
            kind: Some(welcome),
        })));
        let (book, peer) = (Arc::clone(&self.book), open.peer.clone());
        {
            let mut peers = book.peers.lock().unwrap();
            let known = peers.entry(peer.clone()).or_default();
            if let Some(assignment) = known.assignment.clone() {
                let kind = Some(node_message::Kind::Assignment(assignment));
                drop(to_peer.try_send(Ok(v1::NodeMessage { kind })));
            }
            known.to_peer = Some(to_peer);
            known.said.push(Kind::Open(open));
        }
        tokio::spawn(async move {
            while let Ok(Some(v1::PeerMessage { kind: Some(kind) })) = from_peer.message().await {
                book.take(&peer, kind);
            }
        });
        Ok(Answer::new(ReceiverStream::new(stream)))
    }

    type AttachStream = Self::SessionStream;

    async fn attach(
        &self,
        _request: Call<v1::AttachRequest>,
    ) -> Result<Answer<Self::AttachStream>, Status> {
        Err(Status::unimplemented("native peers open a Session"))
    }

    async fn send(
        &self,
        _request: Call<v1::SendRequest>,
    ) -> Result<Answer<v1::SendResponse>, Status> {
        Err(Status::unimplemented("native peers open a Session"))
    }
}

impl Book {
    fn take(&self, peer: &str, kind: Kind) {
        let mut peers = self.peers.lock().unwrap();
        if let Kind::Signal(mut signal) = kind {
            let to = std::mem::replace(&mut signal.peer, peer.to_owned());
            if let Some(to_peer) = peers.get(&to).and_then(|known| known.to_peer.as_ref()) {
                let kind = Some(node_message::Kind::Signal(signal));
                drop(to_peer.try_send(Ok(v1::NodeMessage { kind })));
            }
        } else if let Some(known) = peers.get_mut(peer) {
            known.said.push(kind);
        }
        drop(peers);
        self.changed.notify_waiters();
    }
}

/// A node with one channel, whose tree the test decides. Dies with its connections when dropped.
pub(crate) struct Node {
    pub(crate) uri: String,
    book: Arc<Book>,
    index: Mutex<u64>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime of its own: what runs on it dies with it, connections and all.
fn own_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// All signers of an origin hold the same key.
fn signer_of(origin: &Origin) -> SignerHandle {
    Signer::start(SignerConfig {
        origin_uri: origin.uri.clone(),
        key: StatementKey::from_seed(&[7; 32]),
        state: SignerState::default(),
    })
    .unwrap()
}

/// A signer beside the packager. Dies with its connections when dropped.
pub(crate) struct OwnSigner {
    pub(crate) uri: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl OwnSigner {
    pub(crate) async fn start(origin: &Origin) -> Self {
        let runtime = own_runtime();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = runtime
            .spawn(TcpListener::bind(any))
            .await
            .unwrap()
            .unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let origin = origin.clone();
        runtime.spawn(async move {
            let statements = StatementService::new(signer_of(&origin), ServiceLimits::default());
            tonic::transport::Server::builder()
                .add_service(statements.into_server())
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
        });
        Self {
            uri,
            runtime: Some(runtime),
        }
    }
}

impl Drop for OwnSigner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    /// A node that signs itself.
    pub(crate) async fn start(origin: &Origin) -> Self {
        Self::start_with_signers(origin, vec![String::new()]).await
    }

    /// A node that names these signers, in order of preference; the empty URI is itself.
    pub(crate) async fn start_with_signers(origin: &Origin, signer_uris: Vec<String>) -> Self {
        let signer = signer_of(origin);
        let welcome = v1::Welcome {
            incarnation: 1,
            report_interval_ms: 100,
            public_keys: signer
                .public_keys()
                .iter()
                .map(|key| key.to_bytes().to_vec())
                .collect(),
            signer_uris,
            origin_uri: origin.uri.clone(),
            ..v1::Welcome::default()
        };
        let book = Arc::new(Book::default());
        let service = NodeService {
            book: Arc::clone(&book),
            welcome,
        };
        let statements = StatementService::new(signer, ServiceLimits::default());
        let runtime = own_runtime();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = runtime
            .spawn(TcpListener::bind(any))
            .await
            .unwrap()
            .unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(PeerServiceServer::new(service))
                .add_service(statements.into_server())
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self {
            uri,
            book,
            index: Mutex::new(0),
            runtime: Some(runtime),
        }
    }

    /// Gives a peer its place. `source`: a peer's id, or none for the CDN.
    pub(crate) fn assign(&self, peer: &str, source: Option<&str>, children: &[&str]) {
        let place = Place {
            source: source.map(str::to_owned),
            standby: None,
            children: children
                .iter()
                .map(|id| ((*id).to_owned(), false))
                .collect(),
        };
        self.assign_striped(peer, &[place]);
    }

    /// Gives a peer its place in the tree of each stripe.
    pub(crate) fn assign_striped(&self, peer: &str, places: &[Place]) {
        let mut index = self.index.lock().unwrap();
        *index += 1;
        let source = |id: &Option<String>| {
            let cdn = v1::source::Kind::Cdn(v1::Cdn {});
            let kind = id.clone().map_or(cdn, v1::source::Kind::Peer);
            Some(v1::Source { kind: Some(kind) })
        };
        let stripes = u32::try_from(places.len()).unwrap();
        let track = |(stripe, place): (u32, &Place)| v1::TrackAssignment {
            track: "main".to_owned(),
            stripe,
            stripes,
            source: source(&place.source),
            standby: place.source.as_ref().and_then(|_| source(&place.standby)),
            make_before_break: false,
        };
        let child = |(stripe, place): (u32, &Place)| -> Vec<v1::ChildAssignment> {
            let child = |(peer, standby): &(String, bool)| v1::ChildAssignment {
                track: "main".to_owned(),
                stripe,
                peer: peer.clone(),
                standby: *standby,
            };
            place.children.iter().map(child).collect()
        };
        let assignment = v1::Assignment {
            generation: Some(v1::Generation {
                incarnation: 1,
                term: 1,
                index: *index,
            }),
            tracks: (0..).zip(places).map(track).collect(),
            children: (0..).zip(places).flat_map(child).collect(),
            cdn_lease: None,
            upload_bps: 50_000_000,
        };
        let mut peers = self.book.peers.lock().unwrap();
        let known = peers.entry(peer.to_owned()).or_default();
        known.assignment = Some(assignment.clone());
        if let Some(to_peer) = &known.to_peer {
            let kind = Some(node_message::Kind::Assignment(assignment));
            drop(to_peer.try_send(Ok(v1::NodeMessage { kind })));
        }
    }

    /// Waits until a peer has said something that `wanted` accepts.
    pub(crate) async fn hears(&self, peer: &str, what: &str, wanted: impl Fn(&Kind) -> bool) {
        wait_for(what, || async {
            let peers = self.book.peers.lock().unwrap();
            peers
                .get(peer)
                .filter(|known| known.said.iter().any(&wanted))
                .map(|_| ())
        })
        .await;
    }
}
