//! The master playlist and the media playlists.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use espalier_media::{TrackIndex, hls};
use espalier_peer_core::Event;
use tokio::time::{Instant, timeout_at};

use super::Served;
use crate::store::TrackView;

const TYPE: (HeaderName, &str) = (header::CONTENT_TYPE, "application/vnd.apple.mpegurl");
/// A player may keep a playlist, but must ask whether it still holds.
const REVALIDATE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-cache");

/// `GET /<channel>/master.m3u8`
pub(super) async fn master(
    State(served): State<Arc<Served>>,
    Path(channel): Path<String>,
) -> Response {
    if channel != served.channel {
        return not_found("this peer carries another channel");
    }
    let rendered = || served.store.master(hls::render_master);
    match wait_for(&served, Instant::now() + served.first_wait, rendered).await {
        Some(text) => ([TYPE, REVALIDATE], text).into_response(),
        None => not_yet(),
    }
}

/// `GET /<channel>/<track>/index.m3u8`
pub(super) async fn media(
    State(served): State<Arc<Served>>,
    Path((channel, track)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if channel != served.channel {
        return not_found("this peer carries another channel");
    }
    let until = Instant::now() + served.first_wait;
    let known = || {
        served
            .store
            .master(|master| master.track_named(&track).map(|t| t.index))
    };
    let index = match wait_for(&served, until, known).await {
        Some(Some(index)) => index,
        Some(None) => return not_found("there is no such track"),
        None => return not_yet(),
    };
    if let Some(tracks) = served.demand.asked(&track, Instant::now()) {
        served.engine.tell(Event::TracksWanted { tracks });
    }
    let Some(first) = wait_for(&served, until, || Playlist::of(&served, index)).await else {
        return not_yet();
    };
    let known_tag = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let playlist = match (wanted_sequence(query.as_deref()), known_tag) {
        (Some(msn), _) if msn > first.newest.saturating_add(2) => {
            return (StatusCode::BAD_REQUEST, "that segment is too far ahead\n").into_response();
        }
        (Some(msn), _) => hold(&served, index, first, |playlist| playlist.newest >= msn).await,
        (None, Some(tag)) => {
            let tag = tag.to_owned();
            hold(&served, index, first, move |playlist| playlist.tag != tag).await
        }
        (None, None) => first,
    };
    let tag = (header::ETAG, playlist.tag.clone());
    if known_tag == Some(playlist.tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, [tag]).into_response();
    }
    ([TYPE, REVALIDATE], [tag], playlist.text).into_response()
}

/// The media sequence number that `_HLS_msn` asks to wait for. Other directives are not understood.
fn wanted_sequence(query: Option<&str>) -> Option<u64> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("_HLS_msn="))
        .and_then(|n| n.parse().ok())
}

/// A rendered media playlist.
struct Playlist {
    text: String,
    tag: String,
    newest: u64,
    target_duration: Duration,
}

impl Playlist {
    /// Renders what a track lists now; `None` while it lists nothing.
    fn of(served: &Served, index: TrackIndex) -> Option<Self> {
        let view: TrackView = served.store.track(index)?;
        let (header, newest) = (view.header()?, view.newest()?);
        let descriptors = view.objects.iter().filter_map(|object| object.descriptor());
        let text = hls::render_media_playlist(header, descriptors, |key, ext| key.file_name(ext));
        if !text.contains("#EXTINF:") {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        Some(Self {
            text,
            tag,
            newest,
            target_duration: header.target_duration,
        })
    }
}

/// Waits until the playlist is worth an answer, at most 1.5 target durations.
async fn hold(
    served: &Served,
    index: TrackIndex,
    first: Playlist,
    enough: impl Fn(&Playlist) -> bool,
) -> Playlist {
    let until = Instant::now() + first.target_duration.mul_f64(1.5);
    let newer = || Playlist::of(served, index).filter(|playlist| enough(playlist));
    match wait_for(served, until, newer).await {
        Some(playlist) => playlist,
        None => Playlist::of(served, index).unwrap_or(first),
    }
}

/// Looks again after each change of the store until there is something, or the time is up.
async fn wait_for<T>(served: &Served, until: Instant, look: impl Fn() -> Option<T>) -> Option<T> {
    let mut changes = served.store.changes();
    loop {
        changes.mark_unchanged();
        if let Some(found) = look() {
            return Some(found);
        }
        timeout_at(until, changes.changed()).await.ok()?.ok()?;
    }
}

pub(super) fn not_found(why: &'static str) -> Response {
    (StatusCode::NOT_FOUND, format!("{why}\n")).into_response()
}

/// The channel has not begun here yet.
pub(super) fn not_yet() -> Response {
    let retry = (header::RETRY_AFTER, "2");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [retry],
        "nothing has arrived yet\n",
    )
        .into_response()
}
