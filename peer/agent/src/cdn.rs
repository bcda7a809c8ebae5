//! Reads from the CDN: objects as byte streams, playlists whole.
//!
//! Each read is a task that streams into one bounded channel, so that a slow engine slows its reads
//! and nothing piles up. At most [`MAX_CONCURRENT`] reads run at once; the others wait for their turn.
//! Redirects, waiting times and lengths are bounded. It retries nothing and chooses nothing: what to
//! read, and what to do after a failure, is the engine's to decide. It verifies nothing either.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_media::ByteRange;
use espalier_media::hls::{MediaPlaylist, PlaylistError, parse_media_playlist};
use espalier_media::limits::{MAX_OBJECT_LEN, MAX_PLAYLIST_LEN};
use espalier_peer_core::{Event, FetchId, FetchRequest, FetchUpdate, TrackName};
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{StatusCode, redirect};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::error_chain;

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
const MAX_BODY: u64 = MAX_OBJECT_LEN;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdnError {
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server's Content-Range {0:?} does not fit the request")]
    ContentRange(String),
    #[error("the body is longer than {0} bytes")]
    TooLong(u64),
    #[error("the playlist is none")]
    NoPlaylist(#[from] PlaylistError),
    #[error("the request failed")]
    Http(#[from] reqwest::Error),
}

impl CdnError {
    fn into_update(self) -> FetchUpdate {
        let status = match &self {
            Self::Status(status) => Some(status.as_u16()),
            Self::ContentRange(_) | Self::TooLong(_) | Self::NoPlaylist(_) | Self::Http(_) => None,
        };
        FetchUpdate::Failed {
            status,
            reason: error_chain(&self),
        }
    }
}

/// Starts, bounds and cancels reads.
#[derive(Debug)]
pub(crate) struct Cdn {
    reader: Reader,
    running: HashMap<FetchId, AbortHandle>,
}

/// What every read shares.
#[derive(Debug, Clone)]
struct Reader {
    http: reqwest::Client,
    turns: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
}

impl Cdn {
    /// Makes a client that names itself `peer` in every request and puts what it reads into `events`.
    ///
    /// # Errors
    /// The TLS back end does not start, or `peer` is no header value.
    pub(crate) fn new(peer: &str, events: mpsc::Sender<Event>) -> anyhow::Result<Self> {
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
        let reader = Reader {
            http,
            turns: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            events,
        };
        Ok(Self {
            reader,
            running: HashMap::new(),
        })
    }

    /// Starts a read of an object; [`Event::Fetch`] follows.
    pub(crate) fn fetch(&mut self, request: FetchRequest) {
        let (id, reader) = (request.id, self.reader.clone());
        let task = tokio::spawn(async move {
            let outcome = reader.object(&request).await;
            let update = match outcome {
                Ok(()) => FetchUpdate::End,
                Err(error) => error.into_update(),
            };
            drop(reader.events.send(Event::Fetch { id, update }).await);
        });
        self.running.insert(id, task.abort_handle());
    }

    /// Starts a read of a media playlist; one [`Event::PlaylistFetched`] follows.
    pub(crate) fn fetch_playlist(&mut self, track: TrackName, uri: String) {
        let reader = self.reader.clone();
        tokio::spawn(async move {
            let playlist = match reader.playlist(&uri).await {
                Ok(playlist) => Some(Box::new(playlist)),
                Err(error) => {
                    tracing::debug!(%track, error = &error as &dyn std::error::Error, "no playlist");
                    None
                }
            };
            drop(
                reader
                    .events
                    .send(Event::PlaylistFetched { track, playlist })
                    .await,
            );
        });
    }

    /// Stops a read. Events that are already on their way may still arrive.
    pub(crate) fn cancel(&mut self, id: FetchId) {
        if let Some(task) = self.running.remove(&id) {
            task.abort();
        }
    }

    /// Returns whether an event belongs to a read that was not cancelled, and takes note of its end.
    pub(crate) fn expects(&mut self, id: FetchId, update: &FetchUpdate) -> bool {
        match update {
            FetchUpdate::Started { .. } | FetchUpdate::Body(_) => self.running.contains_key(&id),
            FetchUpdate::End | FetchUpdate::Failed { .. } => self.running.remove(&id).is_some(),
        }
    }
}

impl Drop for Cdn {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

impl Reader {
    async fn object(&self, request: &FetchRequest) -> Result<(), CdnError> {
        let Ok(_turn) = self.turns.acquire().await else {
            return Ok(());
        };
        let mut get = self.http.get(&request.uri);
        if let Some(range) = request.range {
            get = get.header(RANGE, range.http_value());
        }
        let mut response = get.send().await?;
        let partial = is_partial(response.status(), response.headers(), request.range)?;
        let length = response.content_length();
        if length.is_some_and(|length| length > MAX_BODY) {
            return Err(CdnError::TooLong(MAX_BODY));
        }
        self.tell(request.id, FetchUpdate::Started { partial, length })
            .await;
        let mut read: u64 = 0;
        while let Some(bytes) = response.chunk().await? {
            read = read.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if read > MAX_BODY {
                return Err(CdnError::TooLong(MAX_BODY));
            }
            self.tell(request.id, FetchUpdate::Body(bytes)).await;
        }
        Ok(())
    }

    async fn playlist(&self, uri: &str) -> Result<MediaPlaylist, CdnError> {
        let mut response = self.http.get(uri).timeout(READ_TIMEOUT).send().await?;
        if response.status() != StatusCode::OK {
            return Err(CdnError::Status(response.status()));
        }
        let base = response.url().to_string();
        let mut text = Vec::new();
        while let Some(bytes) = response.chunk().await? {
            if text.len() + bytes.len() > MAX_PLAYLIST_LEN {
                return Err(CdnError::TooLong(MAX_BODY));
            }
            text.extend_from_slice(&bytes);
        }
        Ok(parse_media_playlist(&text, &base)?)
    }

    async fn tell(&self, id: FetchId, update: FetchUpdate) {
        // Without a receiver the peer is ending, and this task with it.
        drop(self.events.send(Event::Fetch { id, update }).await);
    }
}

/// Tells a part (206) from the whole (200); a part must be the one that was asked for.
fn is_partial(
    status: StatusCode,
    headers: &HeaderMap,
    range: Option<ByteRange>,
) -> Result<bool, CdnError> {
    match (status, range) {
        (StatusCode::OK, _) => Ok(false),
        (StatusCode::PARTIAL_CONTENT, Some(range)) => {
            let text = headers
                .get(CONTENT_RANGE)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            let first = text
                .strip_prefix("bytes ")
                .and_then(|rest| rest.split_once('-'))
                .and_then(|(first, _)| first.trim().parse::<u64>().ok());
            if first == Some(range.offset) {
                Ok(true)
            } else {
                Err(CdnError::ContentRange(text.to_owned()))
            }
        }
        (status, _) => Err(CdnError::Status(status)),
    }
}
