//! Segments and init sections.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use espalier_media::ObjectKey;

use super::body::Reading;
use super::playlists::{not_found, not_yet};
use super::range::{self, Asked};
use super::{Served, content_type};
use crate::store::PlayerObject;

/// `GET /<channel>/<track>/<epoch>-<sequence>.<ext>`
pub(super) async fn object(
    State(served): State<Arc<Served>>,
    Path((channel, track, file)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if channel != served.channel {
        return not_found("this peer carries another channel");
    }
    let Some((object, ext)) = find(&served, &track, &file) else {
        return not_found("there is no such object, or it has left the playlist");
    };
    let length = object.length();
    let asked = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let (status, range) = match range::asked(asked, length) {
        Asked::Whole => (StatusCode::OK, 0..length),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Unsatisfiable => {
            let all = (header::CONTENT_RANGE, format!("bytes */{length}"));
            return (StatusCode::RANGE_NOT_SATISFIABLE, [all]).into_response();
        }
    };
    let mut response = if method == Method::HEAD {
        Response::new(Body::empty())
    } else {
        let mut reading = Reading::new(Arc::clone(&served), object, range.clone());
        // Until the first bytes are here the answer may still be that there are none.
        if !reading.ready().await {
            return not_yet();
        }
        Response::new(Body::from_stream(reading.into_stream()))
    };
    *response.status_mut() = status;
    let mut set = |name, value: String| {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, content_type(ext).to_owned());
    set(
        header::CONTENT_LENGTH,
        (range.end - range.start).to_string(),
    );
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CACHE_CONTROL, "max-age=3600, immutable".to_owned());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        set(
            header::CONTENT_RANGE,
            format!("bytes {}-{last}/{length}", range.start),
        );
    }
    response
}

/// The listed object that a URL names, and its extension.
fn find<'f>(served: &Served, track: &str, file: &'f str) -> Option<(Arc<PlayerObject>, &'f str)> {
    let index = served
        .store
        .master(|master| master.track_named(track).map(|t| t.index))??;
    let (key, ext) = ObjectKey::from_file_name(index, file)?;
    let object = served.store.object(&key)?;
    (object.descriptor()?.ext() == ext).then_some((object, ext))
}
