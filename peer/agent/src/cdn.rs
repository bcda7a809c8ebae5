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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header::LOCATION;
    use axum::response::{IntoResponse as _, Response};
    use bytes::Bytes;
    use espalier_media::{ObjectKey, TrackIndex};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);
    const BODY: &[u8] = b"0123456789";

    /// An origin with one resource and many moods.
    async fn mood(request: Request) -> Response {
        let peer = request
            .headers()
            .get(PEER_HEADER)
            .map(|v| v.to_str().unwrap().to_owned());
        let range = request
            .headers()
            .get(RANGE)
            .map(|v| v.to_str().unwrap().to_owned());
        let partial = |range: &'static str, body: &'static [u8]| {
            (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, range)], body).into_response()
        };
        match (request.uri().path(), range.as_deref()) {
            ("/whole", _) => BODY.into_response(),
            ("/parts", Some("bytes=2-4")) => partial("bytes 2-4/10", &BODY[2..5]),
            ("/lies", Some(_)) => partial("bytes 0-2/10", &BODY[..3]),
            ("/unasked", None) => partial("bytes 0-2/10", &BODY[..3]),
            ("/who", _) => peer.unwrap_or_default().into_response(),
            ("/moved", _) => (StatusCode::FOUND, [(LOCATION, "/whole")]).into_response(),
            ("/loop", _) => (StatusCode::FOUND, [(LOCATION, "/loop")]).into_response(),
            ("/cut", _) => {
                let parts = [
                    Ok(Bytes::from_static(b"0123")),
                    Err(std::io::Error::other("cut")),
                ];
                Response::new(Body::from_stream(futures::stream::iter(parts)))
            }
            ("/silent", _) => {
                let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
                Response::new(Body::from_stream(never))
            }
            ("/list.m3u8", _) => "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n\
                 #EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2.0,\nseg7.ts\n"
                .into_response(),
            ("/garbage.m3u8", _) => "<html>".into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    struct Scene {
        base: String,
        cdn: Cdn,
        events: mpsc::Receiver<Event>,
    }

    impl Scene {
        async fn new() -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, Router::new().fallback(mood)).await });
            let (sender, events) = mpsc::channel(64);
            Self {
                base,
                cdn: Cdn::new("00000000000000aa", sender).unwrap(),
                events,
            }
        }

        fn fetch(&mut self, path: &str, range: Option<ByteRange>) {
            let object = ObjectKey::segment(TrackIndex(0), 0, 7);
            let uri = format!("{}{path}", self.base);
            self.cdn.fetch(FetchRequest {
                id: FetchId(1),
                object,
                uri,
                range,
            });
        }

        async fn next(&mut self) -> Event {
            tokio::time::timeout(DEADLINE, self.events.recv())
                .await
                .unwrap()
                .unwrap()
        }

        /// How the answer began, its bytes, and how it ended.
        async fn outcome(&mut self) -> (Option<(bool, Option<u64>)>, Vec<u8>, FetchUpdate) {
            let (mut begun, mut body) = (None, Vec::new());
            loop {
                let Event::Fetch { update, .. } = self.next().await else {
                    panic!("no update")
                };
                match update {
                    FetchUpdate::Started { partial, length } => begun = Some((partial, length)),
                    FetchUpdate::Body(bytes) => body.extend_from_slice(&bytes),
                    end @ (FetchUpdate::End | FetchUpdate::Failed { .. }) => {
                        return (begun, body, end);
                    }
                }
            }
        }
    }

    const PART: Option<ByteRange> = Some(ByteRange {
        offset: 2,
        length: 3,
    });

    #[tokio::test]
    async fn wholes_and_parts_are_told_apart() {
        let mut scene = Scene::new().await;
        let table: [(_, _, _, &[u8]); 5] = [
            ("/whole", None, (false, Some(10)), BODY),
            ("/whole", PART, (false, Some(10)), BODY),
            ("/parts", PART, (true, Some(3)), b"234"),
            ("/moved", None, (false, Some(10)), BODY),
            ("/who", None, (false, Some(16)), b"00000000000000aa"),
        ];
        for (path, range, begun, body) in table {
            scene.fetch(path, range);
            let expected = (Some(begun), body.to_vec(), FetchUpdate::End);
            assert_eq!(scene.outcome().await, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn failures_say_their_status() {
        let mut scene = Scene::new().await;
        let table = [
            ("/none", None, Some(404)),
            ("/lies", PART, None),
            ("/unasked", None, Some(206)),
            ("/loop", None, None),
            ("/cut", None, None),
        ];
        for (path, range, expected) in table {
            scene.fetch(path, range);
            let (_, _, end) = scene.outcome().await;
            assert!(
                matches!(end, FetchUpdate::Failed { status, .. } if status == expected),
                "{path}: {end:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_cancelled_read_is_not_expected_any_more() {
        let mut scene = Scene::new().await;
        scene.fetch("/silent", None);
        let Event::Fetch { id, update } = scene.next().await else {
            panic!("no update")
        };
        assert!(scene.cdn.expects(id, &update));
        scene.cdn.cancel(id);
        assert!(!scene.cdn.expects(id, &update));
        assert!(!scene.cdn.expects(id, &FetchUpdate::End));
    }

    #[tokio::test]
    async fn playlists_are_parsed_and_what_is_none_is_told_as_none() {
        let mut scene = Scene::new().await;
        for (path, newest) in [
            ("/list.m3u8", Some(7)),
            ("/garbage.m3u8", None),
            ("/none", None),
        ] {
            let track = TrackName("v0".to_owned());
            scene
                .cdn
                .fetch_playlist(track.clone(), format!("{}{path}", scene.base));
            let Event::PlaylistFetched {
                track: told,
                playlist,
            } = scene.next().await
            else {
                panic!("another event")
            };
            assert_eq!(told, track);
            assert_eq!(playlist.and_then(|p| p.last_sequence()), newest, "{path}");
        }
    }
}
