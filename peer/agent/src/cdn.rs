//! Reads from the CDN: objects as byte streams, playlists whole.
//!
//! Each read is a task that streams into one bounded channel, so that a slow engine slows its reads
//! and nothing piles up. At most [`MAX_CONCURRENT`] reads run at once; the others wait for their turn.
//! Redirects, waiting times and lengths are bounded. It retries nothing and chooses nothing: what to
//! read, and what to do after a failure, is the engine's to decide.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{StatusCode, redirect};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// The header by which an origin tells our requests apart.
pub(crate) const PEER_HEADER: &str = "X-Peer-Id";
/// How many reads run at once.
const MAX_CONCURRENT: usize = 8;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a response may stay silent.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one read may take in all.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest body read, bytes: the longest object there may be.
const MAX_BODY: u64 = 64 * 1024 * 1024;
/// The longest playlist read, bytes.
const MAX_PLAYLIST: usize = 4 * 1024 * 1024;

/// Names a read; chosen by the caller, never used twice.
pub(crate) type ReadId = u64;

/// A part of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What to read.
#[derive(Debug, Clone)]
pub(crate) enum Read {
    Object { uri: String, range: Option<ByteRange> },
    Playlist { uri: String },
}

/// How a read goes.
#[derive(Debug)]
pub(crate) enum CdnEvent {
    /// The server answers with the resource from `offset` on.
    Begun { id: ReadId, offset: u64, whole: bool },
    /// The next bytes.
    Bytes { id: ReadId, bytes: Bytes },
    /// The body is complete.
    Ended { id: ReadId },
    /// A playlist, whole; `uri` is where it came from, after redirects.
    Playlist { id: ReadId, uri: String, text: Bytes },
    /// The read failed; nothing follows.
    Failed { id: ReadId, error: CdnError },
}

impl CdnEvent {
    /// Returns the read that the event ends, if it ends one.
    pub(crate) fn ended(&self) -> Option<ReadId> {
        match self {
            Self::Begun { .. } | Self::Bytes { .. } => None,
            Self::Ended { id } | Self::Playlist { id, .. } | Self::Failed { id, .. } => Some(*id),
        }
    }
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdnError {
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server's Content-Range {0:?} does not fit the request")]
    ContentRange(String),
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
    #[error("the request failed")]
    Http(#[from] reqwest::Error),
}

/// Starts, bounds and cancels reads.
#[derive(Debug)]
pub(crate) struct Cdn {
    http: reqwest::Client,
    turns: Arc<Semaphore>,
    events: mpsc::Sender<CdnEvent>,
    running: HashMap<ReadId, AbortHandle>,
}

impl Cdn {
    /// Makes a client that names itself `peer` in every request.
    ///
    /// # Errors
    /// The TLS back end does not start, or `peer` is no header value.
    pub(crate) fn new(peer: &str, events: mpsc::Sender<CdnEvent>) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(PEER_HEADER, peer.parse()?);
        let http = reqwest::Client::builder()
            .user_agent(concat!("espalier-peer/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(redirect::Policy::limited(5))
            .build()?;
        let turns = Arc::new(Semaphore::new(MAX_CONCURRENT));
        Ok(Self { http, turns, events, running: HashMap::new() })
    }

    /// Starts a read; its events follow.
    pub(crate) fn start(&mut self, id: ReadId, read: Read) {
        let (http, turns, events) = (self.http.clone(), self.turns.clone(), self.events.clone());
        let task = tokio::spawn(async move {
            let Ok(_turn) = turns.acquire().await else { return };
            let outcome = match read {
                Read::Object { uri, range } => object(&http, id, &uri, range, &events).await,
                Read::Playlist { uri } => playlist(&http, id, &uri, &events).await,
            };
            if let Err(error) = outcome {
                drop(events.send(CdnEvent::Failed { id, error }).await);
            }
        });
        self.running.insert(id, task.abort_handle());
    }

    /// Stops a read. Events that are already on their way may still arrive.
    pub(crate) fn cancel(&mut self, id: ReadId) {
        if let Some(task) = self.running.remove(&id) {
            task.abort();
        }
    }

    /// Takes note that a read has ended, so that it need not be cancelled any more.
    pub(crate) fn forget(&mut self, id: ReadId) {
        self.running.remove(&id);
    }
}

impl Drop for Cdn {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

async fn object(
    http: &reqwest::Client,
    id: ReadId,
    uri: &str,
    range: Option<ByteRange>,
    events: &mpsc::Sender<CdnEvent>,
) -> Result<(), CdnError> {
    let mut request = http.get(uri);
    if let Some(ByteRange { offset, length }) = range {
        let last = offset.saturating_add(length.saturating_sub(1));
        request = request.header(RANGE, format!("bytes={offset}-{last}"));
    }
    let mut response = request.send().await?;
    let (offset, whole) = placement(response.status(), response.headers(), range)?;
    if response.content_length().is_some_and(|length| length > MAX_BODY) {
        return Err(CdnError::TooLong(MAX_BODY));
    }
    drop(events.send(CdnEvent::Begun { id, offset, whole }).await);
    let mut read: u64 = 0;
    while let Some(bytes) = response.chunk().await? {
        read = read.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if read > MAX_BODY {
            return Err(CdnError::TooLong(MAX_BODY));
        }
        drop(events.send(CdnEvent::Bytes { id, bytes }).await);
    }
    drop(events.send(CdnEvent::Ended { id }).await);
    Ok(())
}

/// Where the body begins within the resource, and whether it is the whole resource.
fn placement(
    status: StatusCode,
    headers: &HeaderMap,
    range: Option<ByteRange>,
) -> Result<(u64, bool), CdnError> {
    match (status, range) {
        (StatusCode::OK, _) => Ok((0, true)),
        (StatusCode::PARTIAL_CONTENT, Some(range)) => {
            let text = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let first = text
                .strip_prefix("bytes ")
                .and_then(|rest| rest.split_once('-'))
                .and_then(|(first, _)| first.trim().parse::<u64>().ok());
            if first == Some(range.offset) {
                Ok((range.offset, false))
            } else {
                Err(CdnError::ContentRange(text.to_owned()))
            }
        }
        (status, _) => Err(CdnError::Status(status)),
    }
}

async fn playlist(
    http: &reqwest::Client,
    id: ReadId,
    uri: &str,
    events: &mpsc::Sender<CdnEvent>,
) -> Result<(), CdnError> {
    let mut response = http.get(uri).timeout(READ_TIMEOUT).send().await?;
    if response.status() != StatusCode::OK {
        return Err(CdnError::Status(response.status()));
    }
    let uri = response.url().to_string();
    let mut text = bytes::BytesMut::new();
    while let Some(bytes) = response.chunk().await? {
        if text.len() + bytes.len() > MAX_PLAYLIST {
            return Err(CdnError::TooLong(MAX_PLAYLIST as u64));
        }
        text.extend_from_slice(&bytes);
    }
    drop(events.send(CdnEvent::Playlist { id, uri, text: text.freeze() }).await);
    Ok(())
}
