//! The HTTP server.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, RANGE,
};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use espalier_process::{Failure, OrFail};
use futures::stream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::byte_range::{Asked, asked};
use super::content::{Content, File};
use super::traffic::Traffic;

/// How much is counted as sent at once.
const PIECE: usize = 64 * 1024;

/// The most digits and letters of an `X-Peer-Id` that are kept: it is a key in a map.
const LONGEST_ID: usize = 64;

/// A running origin; it ends when dropped.
#[derive(Debug)]
pub(crate) struct OriginServer {
    address: SocketAddr,
    traffic: Traffic,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    content: Content,
    traffic: Traffic,
}

impl OriginServer {
    /// Serves on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub(crate) async fn start(content: Content) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .or_fail("the demo's origin cannot listen")?;
        let address = listener
            .local_addr()
            .or_fail("the demo's origin cannot listen")?;
        let traffic = Traffic::default();
        let app = Router::new()
            .route("/{file}", get(serve))
            .with_state(Shared {
                content,
                traffic: traffic.clone(),
            });
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the demo's origin ended");
            }
        });
        Ok(Self {
            address,
            traffic,
            task,
        })
    }

    /// The address of a file.
    pub(crate) fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.address)
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

impl Drop for OriginServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let Some(file) = shared.content.find(&name).await else {
        return answer(StatusCode::NOT_FOUND, &[], Body::from("no such file\n"));
    };
    let who = header(&headers, "x-peer-id").unwrap_or("unknown");
    let counter = Counter {
        traffic: shared.traffic,
        who: who.chars().take(LONGEST_ID).collect(),
        playlist: file.playlist,
    };
    respond(
        file,
        header(&headers, RANGE.as_str()),
        method == Method::HEAD,
        counter,
    )
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn respond(file: File, range: Option<&str>, head: bool, counter: Counter) -> Response<Body> {
    let length = file.body.len();
    let (status, body, content_range) = match asked(range, length) {
        Asked::Whole => (StatusCode::OK, file.body, None),
        Asked::Part(part) => {
            let shown = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            (
                StatusCode::PARTIAL_CONTENT,
                file.body.slice(part),
                Some(shown),
            )
        }
        Asked::Unsatisfiable => {
            let shown = format!("bytes */{length}");
            let fields = [(CONTENT_RANGE.as_str(), shown.as_str())];
            return answer(StatusCode::RANGE_NOT_SATISFIABLE, &fields, Body::empty());
        }
    };
    let length = body.len().to_string();
    let caching = if file.playlist {
        "no-cache"
    } else {
        "max-age=60"
    };
    let mut fields = vec![
        (CONTENT_TYPE.as_str(), file.content_type),
        (CONTENT_LENGTH.as_str(), length.as_str()),
        (ACCEPT_RANGES.as_str(), "bytes"),
        (CACHE_CONTROL.as_str(), caching),
    ];
    if let Some(content_range) = &content_range {
        fields.push((CONTENT_RANGE.as_str(), content_range));
    }
    answer(
        status,
        &fields,
        if head {
            Body::empty()
        } else {
            counted(body, counter)
        },
    )
}

fn answer(status: StatusCode, fields: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::builder()
        .status(status)
        // Players in web pages read the origin too.
        .header(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response
        .body(body)
        .expect("invariant: every header field is made of printable ASCII")
}

/// Counts bytes for one who asks.
struct Counter {
    traffic: Traffic,
    who: String,
    playlist: bool,
}

impl Counter {
    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.playlist {
            self.traffic.count_playlist(bytes);
        } else {
            self.traffic.count_media(&self.who, bytes);
        }
    }
}

/// Counts what is taken, not what was offered: a peer that hangs up early took less.
fn counted(body: Bytes, counter: Counter) -> Body {
    Body::from_stream(stream::unfold(
        (body, counter),
        |(mut rest, counter)| async move {
            if rest.is_empty() {
                return None;
            }
            let piece = rest.split_to(rest.len().min(PIECE));
            counter.count(piece.len());
            Some((Ok::<_, std::convert::Infallible>(piece), (rest, counter)))
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::LoopedSample;
    use time::OffsetDateTime;

    async fn origin() -> OriginServer {
        let sample = LoopedSample::beginning_at(OffsetDateTime::now_utc());
        OriginServer::start(Content::Sample(sample)).await.unwrap()
    }

    /// Whatever proxy the environment names, the origin is on this machine.
    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    #[tokio::test]
    async fn the_stream_can_be_read_from_the_master_down() {
        let origin = origin().await;
        let client = client();
        let master = client.get(origin.url("master.m3u8")).send().await.unwrap();
        assert_eq!(
            master.headers()["content-type"],
            "application/vnd.apple.mpegurl"
        );
        assert!(master.text().await.unwrap().contains("\nindex.m3u8\n"));
        let playlist = client
            .get(origin.url("index.m3u8"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let segment = playlist
            .lines()
            .rfind(|line| line.ends_with(".ts"))
            .unwrap();
        let request = client
            .get(origin.url(segment))
            .header("X-Peer-Id", "00000000000000aa");
        let body = request.send().await.unwrap().bytes().await.unwrap();
        assert_eq!(body[0], 0x47);
        let totals = origin.traffic().totals();
        assert_eq!(
            totals.by_peer["00000000000000aa"],
            u64::try_from(body.len()).unwrap()
        );
        assert_eq!(totals.signer, 0);
        assert!(totals.playlists > 0);
    }

    #[tokio::test]
    async fn every_status_a_cdn_gives() {
        let origin = origin().await;
        let client = client();
        let table = [
            ("loop-0.ts", None, 200, Some("297980"), None),
            (
                "loop-0.ts",
                Some("bytes=0-99"),
                206,
                Some("100"),
                Some("bytes 0-99/297980"),
            ),
            (
                "loop-0.ts",
                Some("bytes=-80"),
                206,
                Some("80"),
                Some("bytes 297900-297979/297980"),
            ),
            (
                "loop-0.ts",
                Some("bytes=297980-"),
                416,
                None,
                Some("bytes */297980"),
            ),
            ("loop-99.ts", None, 404, None, None),
            ("secret.txt", None, 404, None, None),
            ("..%2Fsecret.ts", None, 404, None, None),
        ];
        for (file, range, status, length, content_range) in table {
            for method in [reqwest::Method::HEAD, reqwest::Method::GET] {
                let mut request = client.request(method.clone(), origin.url(file));
                if let Some(range) = range {
                    request = request.header("Range", range);
                }
                let response = request.send().await.unwrap();
                let field = |name| {
                    response
                        .headers()
                        .get(name)
                        .map(|value| value.to_str().unwrap())
                };
                assert_eq!(response.status(), status, "{method} {file} {range:?}");
                assert_eq!(
                    field("content-range"),
                    content_range,
                    "{method} {file} {range:?}"
                );
                if length.is_some() {
                    assert_eq!(field("content-length"), length, "{method} {file} {range:?}");
                }
            }
        }
        let posted = client.post(origin.url("loop-0.ts")).send().await.unwrap();
        assert_eq!(posted.status(), 405);
        // HEAD took nothing; the three GETs took what they were given.
        assert_eq!(origin.traffic().totals().peers, 297_980 + 100 + 80);
    }
}
