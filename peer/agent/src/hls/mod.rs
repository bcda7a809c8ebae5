//! The local HTTP server: HLS for any player, and what people and scripts want to know.
//!
//! Playlists are rendered from the store; segments stream chunks as they are verified. Nothing here
//! waits without a bound: a first playlist up to [`FIRST_WAIT`], a held one up to 1.5 target
//! durations, a body up to [`BODY_PATIENCE`] for its next chunk.

mod body;
mod demand;
mod objects;
mod playlists;
mod range;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use self::demand::Demand;
use crate::engine_task::EngineHandle;
use crate::stats;
use crate::store::Store;

/// How long a playlist request waits for the first segment.
pub(crate) const FIRST_WAIT: Duration = Duration::from_secs(10);
/// How long a segment's body waits for its next chunk.
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// What every request may need.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) channel: String,
    pub(crate) store: Arc<Store>,
    pub(crate) engine: EngineHandle,
    pub(crate) identity: stats::Identity,
    demand: Demand,
    first_wait: Duration,
}

impl Served {
    pub(crate) fn new(
        channel: String,
        store: Arc<Store>,
        engine: EngineHandle,
        identity: stats::Identity,
    ) -> Self {
        Self {
            channel,
            store,
            engine,
            identity,
            demand: Demand::default(),
            first_wait: FIRST_WAIT,
        }
    }
}

/// The routes: with `player`, HLS and all others; without, only those for people and scripts.
pub(crate) fn router(served: Arc<Served>, player: bool) -> Router {
    let router = Router::new()
        .route("/stats", get(stats::stats))
        .route("/metrics", get(stats::metrics))
        .route("/healthz", get(healthz));
    let router = if player {
        router
            .route("/{channel}/master.m3u8", get(playlists::master))
            .route("/{channel}/{track}/index.m3u8", get(playlists::media))
            .route("/{channel}/{track}/{file}", get(objects::object))
    } else {
        router
    };
    router
        .layer(middleware::from_fn(allow_all_origins))
        .with_state(served)
}

async fn healthz(State(served): State<Arc<Served>>) -> Response {
    match served.engine.snapshot().await {
        Some(_) => "ok\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the engine has ended\n").into_response(),
    }
}

/// Lets a page from anywhere read everything: the server is the viewer's own.
async fn allow_all_origins(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let mut set = |name, value| drop(headers.insert(name, HeaderValue::from_static(value)));
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(header::ACCESS_CONTROL_ALLOW_HEADERS, "*");
    set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS");
    set(header::ACCESS_CONTROL_EXPOSE_HEADERS, "*");
    response
}

/// The media type for a file name extension.
fn content_type(ext: &str) -> &'static str {
    match ext {
        "ts" | "m2ts" | "mts" => "video/mp2t",
        "mp4" | "m4s" | "m4v" | "cmfv" | "m4f" | "mov" => "video/mp4",
        "m4a" | "cmfa" => "audio/mp4",
        "aac" => "audio/aac",
        "mp3" => "audio/mpeg",
        "ac3" => "audio/ac3",
        "ec3" => "audio/eac3",
        "vtt" | "webvtt" => "text/vtt",
        "ttml" | "cmft" => "application/mp4",
        _ => "application/octet-stream",
    }
}
