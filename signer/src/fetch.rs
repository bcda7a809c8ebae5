//! Reading from the origin over HTTP.
//!
//! Every request names us (`X-Peer-Id: signer`), is bounded in time and in size, and follows at most
//! five redirects. An object is hashed as it comes in and not kept.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use espalier_media::limits::{MAX_OBJECT_LEN, MAX_PLAYLIST_LEN};
use espalier_media::{ByteRange, HashedObject, ObjectHasher};
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, RANGE};
use reqwest::{Client, Response, StatusCode, redirect};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const PLAYLIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a byte for this long, a download has failed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const OBJECT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
const PEER_ID: HeaderName = HeaderName::from_static("x-peer-id");

/// Why something could not be read from the origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// It answered with an error.
    #[error("HTTP {0}")]
    Status(u16),
    /// It is longer than allowed.
    #[error("longer than {0} bytes")]
    TooLong(u64),
    /// The origin sent another part than the one asked for.
    #[error("the origin does not serve the byte range asked for")]
    Range,
}

impl FetchError {
    /// Whether trying again cannot help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::TooLong(_))
    }

    /// Whether the origin says that there is no such thing.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Status(404 | 410))
    }
}

/// A playlist as the origin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PlaylistAnswer {
    /// It is as it was.
    NotModified,
    /// It is this.
    Body {
        text: Bytes,
        /// Where it was read from, after redirects.
        uri: String,
        etag: Option<String>,
    },
}

/// The origin's HTTP client. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OriginClient(Client);

impl OriginClient {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let mut headers = HeaderMap::new();
        headers.insert(PEER_ID, HeaderValue::from_static("signer"));
        let client = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .redirect(redirect::Policy::limited(MAX_REDIRECTS))
            .tcp_nodelay(true)
            .build()?;
        Ok(Self(client))
    }

    /// Reads a playlist; with an `etag`, only if it changed.
    pub(crate) async fn playlist(
        &self,
        uri: &str,
        etag: Option<&str>,
    ) -> Result<PlaylistAnswer, FetchError> {
        let mut request = self.0.get(uri).timeout(PLAYLIST_TIMEOUT);
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(|error| describe(&error))?;
        if response.status() == StatusCode::NOT_MODIFIED && etag.is_some() {
            return Ok(PlaylistAnswer::NotModified);
        }
        let response = expect(response, StatusCode::OK)?;
        let uri = response.url().to_string();
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|etag| etag.to_str().ok());
        let etag = etag.map(str::to_owned);
        let text = body(response, MAX_PLAYLIST_LEN).await?;
        Ok(PlaylistAnswer::Body { text, uri, etag })
    }

    /// Reads an object through the hasher.
    pub(crate) async fn object(
        &self,
        uri: &str,
        byte_range: Option<ByteRange>,
    ) -> Result<HashedObject, FetchError> {
        let mut request = self.0.get(uri).timeout(OBJECT_TIMEOUT);
        if let Some(range) = byte_range {
            request = request.header(RANGE, range.http_value());
        }
        let response = request.send().await.map_err(|error| describe(&error))?;
        match byte_range {
            None => hash(expect(response, StatusCode::OK)?, 0, MAX_OBJECT_LEN, None).await,
            // An origin without ranges sends the whole: the part is cut out here.
            Some(range) if response.status() == StatusCode::OK => {
                hash(response, range.offset, range.length, Some(range.length)).await
            }
            Some(range) => {
                let response = expect(response, StatusCode::PARTIAL_CONTENT)?;
                hash(
                    response,
                    0,
                    range.length.saturating_add(1),
                    Some(range.length),
                )
                .await
            }
        }
    }
}

/// Hashes what lies behind the first `skip` bytes, at most `take` bytes; `expected`: exactly so many.
async fn hash(
    mut response: Response,
    mut skip: u64,
    take: u64,
    expected: Option<u64>,
) -> Result<HashedObject, FetchError> {
    let mut hasher = ObjectHasher::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| describe(&error))? {
        let skipped = skip.min(bytes.len() as u64);
        skip -= skipped;
        let bytes = bytes.slice(usize::try_from(skipped).unwrap_or(bytes.len())..);
        let left = take - hasher.length();
        let kept = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if expected.is_none() && kept < bytes.len() {
            return Err(FetchError::TooLong(MAX_OBJECT_LEN));
        }
        hasher
            .push(&bytes[..kept])
            .map_err(|_| FetchError::TooLong(MAX_OBJECT_LEN))?;
        if expected.is_some() && hasher.length() == take {
            break;
        }
    }
    let object = hasher.finish();
    match expected {
        Some(expected) if expected != object.length => Err(FetchError::Range),
        Some(_) | None => Ok(object),
    }
}

async fn body(mut response: Response, limit: usize) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + bytes.len() > limit {
            return Err(FetchError::TooLong(limit as u64));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body.freeze())
}

fn expect(response: Response, status: StatusCode) -> Result<Response, FetchError> {
    if response.status() == status {
        Ok(response)
    } else {
        Err(FetchError::Status(response.status().as_u16()))
    }
}

/// Says what went wrong without the URI, which may hold a token.
fn describe(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    if error.is_redirect() {
        return FetchError::Connection("too many redirects".to_owned());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else {
        "the connection broke"
    };
    FetchError::Connection(format!("{what}: {cause}"))
}
