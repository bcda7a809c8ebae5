//! A live HLS origin for tests: it lists what it is told to, when it is told to, and keeps a log.
//!
//! Nothing happens here by itself: a test publishes segments one by one, so no test depends on a
//! machine's speed.

#![allow(dead_code, reason = "each test uses its part of it")]
#![allow(unreachable_pub, reason = "included in several test programs")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use espalier_media::{Descriptor, SignedStatement, Statement};
use espalier_signer::{FeedEvent, SignerHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a test waits for a condition.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What the origin answers for a path.
#[derive(Clone)]
pub enum Resource {
    /// These bytes; parts of them if asked for.
    Bytes(Bytes),
    /// These bytes, always the whole.
    Whole(Bytes),
    /// Another place.
    Redirect(String),
    /// An answer of this status.
    Status(u16),
    /// More bytes than an object may have.
    Endless,
    /// These bytes, once the gate is opened.
    Gated(Bytes, Arc<Semaphore>),
}

/// One request.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The path.
    pub path: String,
    /// The `X-Peer-Id` header.
    pub peer: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether it was conditional.
    pub conditional: bool,
    /// When it came.
    pub at: Instant,
    /// How it was answered.
    pub status: u16,
}

/// The origin.
#[derive(Clone)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    resources: Mutex<BTreeMap<String, Resource>>,
    log: Mutex<Vec<Hit>>,
}

impl Origin {
    /// Starts an empty origin.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the origin");
        });
        Self { address, shared }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers a path with this from now on.
    pub fn put(&self, path: &str, resource: Resource) {
        self.resources().insert(path.to_owned(), resource);
    }

    /// Answers a path with this text from now on.
    pub fn put_text(&self, path: &str, text: &str) {
        self.put(
            path,
            Resource::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        );
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Hit> {
        self.shared.log.lock().expect("the log").clone()
    }

    /// How often a path was asked for.
    pub fn hits(&self, path: &str) -> usize {
        self.log().iter().filter(|hit| hit.path == path).count()
    }

    fn resources(&self) -> MutexGuard<'_, BTreeMap<String, Resource>> {
        self.shared.resources.lock().expect("the resources")
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let resource = shared
        .resources
        .lock()
        .expect("the resources")
        .get(&path)
        .cloned();
    let response = respond(resource, request.headers()).await;
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let hit = Hit {
        path,
        peer: text("x-peer-id").unwrap_or_default(),
        range: text("range"),
        conditional: text("if-none-match").is_some(),
        at: Instant::now(),
        status: response.status().as_u16(),
    };
    shared.log.lock().expect("the log").push(hit);
    response
}

async fn respond(resource: Option<Resource>, headers: &HeaderMap) -> Response {
    match resource {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Resource::Status(status)) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        Some(Resource::Redirect(to)) => {
            (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
        }
        Some(Resource::Bytes(bytes)) => part(bytes, headers),
        Some(Resource::Whole(bytes)) => bytes.into_response(),
        Some(Resource::Gated(bytes, gate)) => {
            let _open = gate.acquire().await.expect("a gate");
            bytes.into_response()
        }
        Some(Resource::Endless) => {
            let chunk = Bytes::from(vec![0u8; 1 << 20]);
            let stream =
                futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            Body::from_stream(stream).into_response()
        }
    }
}

fn part(bytes: Bytes, headers: &HeaderMap) -> Response {
    let etag = format!(
        "\"{:x}\"",
        bytes
            .iter()
            .fold(7u64, |h, b| h.wrapping_mul(31) ^ u64::from(*b))
    );
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|asked| asked == etag.as_str())
    {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return ([(header::ETAG, etag)], bytes).into_response();
    };
    let (first, last) = range.split_once('-').expect("a range");
    let (first, last): (usize, usize) =
        (first.parse().expect("first"), last.parse().expect("last"));
    let part = bytes.slice(first..(last + 1).min(bytes.len()));
    (StatusCode::PARTIAL_CONTENT, part).into_response()
}

/// A live media playlist.
#[derive(Clone)]
pub struct Live {
    origin: Origin,
    /// The folder of its files, with a slash at its end.
    pub folder: String,
    /// What segments' names begin with.
    pub prefix: String,
    /// How long segments are said to be.
    pub period: Duration,
    /// How many segments it lists.
    pub window: usize,
    /// Lines at the top, behind `EXTM3U`.
    pub head: String,
    /// The segments listed: number, and the lines before the URI.
    pub listed: Vec<(u64, String)>,
    /// Whether it has ended.
    pub ended: bool,
}

impl Live {
    /// Makes a playlist of 1 s segments that lists nothing yet.
    pub fn new(origin: &Origin, folder: &str) -> Self {
        Self {
            origin: origin.clone(),
            folder: folder.to_owned(),
            prefix: "seg".to_owned(),
            period: Duration::from_secs(1),
            window: 6,
            head: "#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n".to_owned(),
            listed: Vec::new(),
            ended: false,
        }
    }

    /// The playlist's URL.
    pub fn url(&self) -> String {
        self.origin.url(&self.path())
    }

    /// The playlist's path.
    pub fn path(&self) -> String {
        format!("{}index.m3u8", self.folder)
    }

    /// The path of a segment.
    pub fn segment_path(&self, number: u64) -> String {
        format!("{}{}{number}.ts", self.folder, self.prefix)
    }

    /// The bytes of a segment: more than one chunk, all different.
    pub fn segment_bytes(&self, number: u64) -> Bytes {
        let seed = self.segment_path(number);
        let length = 70_000 + usize::try_from(number % 7).expect("small") * 1_000;
        Bytes::from(
            seed.bytes()
                .cycle()
                .zip(0..length)
                .map(|(b, i)| b ^ u8::try_from(i % 253).expect("small"))
                .collect::<Vec<_>>(),
        )
    }

    /// Lists this segment, with these lines before its `EXTINF`.
    pub fn publish_with(&mut self, number: u64, lines: &str) {
        let path = self.segment_path(number);
        self.origin
            .put(&path, Resource::Bytes(self.segment_bytes(number)));
        self.list(number, lines);
    }

    /// Lists this segment without providing it.
    pub fn list(&mut self, number: u64, lines: &str) {
        self.listed.push((number, lines.to_owned()));
        let surplus = self.listed.len().saturating_sub(self.window);
        self.listed.drain(..surplus);
        self.write();
    }

    /// Lists the segments with these numbers.
    pub fn publish(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.publish_with(number, "");
        }
    }

    /// Starts another numbering.
    pub fn renumber(&mut self) {
        self.listed.clear();
    }

    /// Writes the end.
    pub fn end(&mut self) {
        self.ended = true;
        self.write();
    }

    /// The playlist's text.
    pub fn text(&self) -> String {
        let first = self.listed.first().map_or(0, |(number, _)| *number);
        let mut text = format!("#EXTM3U\n{}#EXT-X-MEDIA-SEQUENCE:{first}\n", self.head);
        for (number, lines) in &self.listed {
            let seconds = self.period.as_secs_f64();
            text += &format!("{lines}#EXTINF:{seconds:.3},\n{}{number}.ts\n", self.prefix);
        }
        text + if self.ended { "#EXT-X-ENDLIST\n" } else { "" }
    }

    /// Answers with the playlist as it is now.
    pub fn write(&self) {
        self.origin.put_text(&self.path(), &self.text());
    }
}

/// Reads a signer's feed until a condition holds.
pub struct Reader {
    subscription: espalier_signer::Subscription,
    /// Everything read.
    pub events: Vec<FeedEvent>,
}

impl Reader {
    /// Subscribes.
    pub fn new(signer: &SignerHandle) -> Self {
        Self {
            subscription: signer.subscribe(),
            events: Vec::new(),
        }
    }

    /// Reads on until the condition holds.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&[FeedEvent]) -> bool) {
        let reading = async {
            while !condition(&self.events) {
                self.events
                    .push(self.subscription.next().await.expect("the feed goes on"));
            }
        };
        let read = tokio::time::timeout(DEADLINE, reading).await;
        assert!(
            read.is_ok(),
            "not in time: {what}; events: {:#?}",
            self.events
        );
    }

    /// Reads on until the segment with this number was described.
    pub async fn until_segment(&mut self, epoch: u32, sequence: u64) {
        self.until(&format!("segment {epoch}-{sequence}"), |events| {
            segments(events).any(|d| (d.key.epoch, d.key.sequence) == (epoch, sequence))
        })
        .await;
    }

    /// The statements read.
    pub fn statements(&self) -> impl Iterator<Item = &SignedStatement> {
        statements(&self.events)
    }

    /// The segments described, in the order in which they came.
    pub fn segment_numbers(&self, epoch: u32) -> Vec<u64> {
        segments(&self.events)
            .filter(|descriptor| descriptor.key.epoch == epoch)
            .map(|descriptor| descriptor.key.sequence)
            .collect()
    }
}

/// The statements among events.
pub fn statements(events: &[FeedEvent]) -> impl Iterator<Item = &SignedStatement> {
    events.iter().filter_map(|event| match event {
        FeedEvent::Statement(statement) => Some(statement),
        FeedEvent::Announce(_) | FeedEvent::CaughtUp | FeedEvent::Origin(_) => None,
    })
}

/// The descriptors among events.
pub fn descriptors(events: &[FeedEvent]) -> impl Iterator<Item = &Descriptor> {
    statements(events).filter_map(|statement| statement.statement().as_object())
}

/// The segments among events.
pub fn segments(events: &[FeedEvent]) -> impl Iterator<Item = &Descriptor> {
    descriptors(events).filter(|d| d.key.kind == espalier_media::ObjectKind::Segment)
}

/// The track headers among events.
pub fn headers(events: &[FeedEvent]) -> impl Iterator<Item = &espalier_media::TrackHeader> {
    statements(events).filter_map(|statement| match statement.statement() {
        Statement::Track(header) => Some(header),
        Statement::Master(_) | Statement::Object(_) => None,
    })
}

/// Waits until a condition holds.
pub async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
