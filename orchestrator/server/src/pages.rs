//! The pages that the node itself serves: the dashboard and the player, embedded when the node was built.
//!
//! A build without them is a whole node; it answers with how to build them. Nothing here reads the disk while the
//! node runs, and nothing is secret: what the pages show they ask of the API, with the visitor's own token.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};

/// Scripts of the node's own only, calls to the node only, in nobody's frame.
const DASHBOARD_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; \
     style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// The player takes the stream from wherever its channel's CDN is, and plays it from memory.
const PLAYER_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self' blob:; \
     style-src 'self'; img-src 'self' data:; media-src blob: https: http:; \
     connect-src 'self' https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "../../web/dashboard/dist"]
#[allow_missing = true]
struct Dashboard;

#[derive(RustEmbed)]
#[folder = "../../web/player/dist"]
#[allow_missing = true]
struct Player;

/// A set of files, and what its pages may do.
struct Pages {
    name: &'static str,
    /// Where it is built.
    directory: &'static str,
    policy: &'static str,
    file: fn(&str) -> Option<EmbeddedFile>,
}

const DASHBOARD: Pages = Pages {
    name: "dashboard",
    directory: "web/dashboard",
    policy: DASHBOARD_POLICY,
    file: Dashboard::get,
};

const PLAYER: Pages = Pages {
    name: "player",
    directory: "web",
    policy: PLAYER_POLICY,
    file: Player::get,
};

/// `/`, `/watch/{channel}`, and what these pages load.
pub(crate) fn router() -> Router {
    let assets = |pages: &'static Pages| {
        get(
            move |Path(path): Path<String>, headers: HeaderMap| async move {
                pages.asset(&format!("assets/{path}"), &headers)
            },
        )
    };
    Router::new()
        .route(
            "/",
            get(async |headers: HeaderMap| DASHBOARD.page(&headers)),
        )
        .route("/assets/{*path}", assets(&DASHBOARD))
        .route(
            "/watch/{channel}",
            get(async |headers: HeaderMap| PLAYER.page(&headers)),
        )
        .route("/player/assets/{*path}", assets(&PLAYER))
}

impl Pages {
    fn page(&self, headers: &HeaderMap) -> Response {
        match (self.file)("index.html") {
            Some(file) => self.answer("text/html; charset=utf-8", &file, headers),
            None => self.missing(),
        }
    }

    fn asset(&self, path: &str, headers: &HeaderMap) -> Response {
        match (self.file)(path) {
            Some(file) => self.answer(file.metadata.mimetype(), &file, headers),
            None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
        }
    }

    fn answer(&self, kind: &str, file: &EmbeddedFile, headers: &HeaderMap) -> Response {
        let tag: String = file.metadata.sha256_hash()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let tag = format!("\"{tag}\"");
        let known = headers.get(IF_NONE_MATCH);
        if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
            return self.secured(StatusCode::NOT_MODIFIED, kind, &tag, Body::empty());
        }
        let body = Body::from(file.data.clone().into_owned());
        self.secured(StatusCode::OK, kind, &tag, body)
    }

    fn missing(&self) -> Response {
        let Self {
            name, directory, ..
        } = self;
        let body = format!(
            "This node was built without its {name}.\n\n\
             To have it: `npm ci && npm run build` in {directory}, then build the node again.\n"
        );
        let kind = "text/plain; charset=utf-8";
        self.secured(StatusCode::NOT_FOUND, kind, "\"none\"", Body::from(body))
    }

    fn secured(&self, status: StatusCode, kind: &str, tag: &str, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let pairs: [(HeaderName, Option<HeaderValue>); 6] = [
            (CONTENT_TYPE, text(kind)),
            (ETAG, text(tag)),
            // A node of another release may answer the next time.
            (CACHE_CONTROL, text("no-cache")),
            (CONTENT_SECURITY_POLICY, text(self.policy)),
            (X_CONTENT_TYPE_OPTIONS, text("nosniff")),
            (REFERRER_POLICY, text("no-referrer")),
        ];
        let headers = response.headers_mut();
        for (name, value) in pairs {
            headers.extend(value.map(|value| (name, value)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Pages = Pages {
        name: "dashboard",
        directory: "web/dashboard",
        policy: DASHBOARD_POLICY,
        file: |_path| None,
    };

    const SOME: Pages = Pages {
        file: |path| {
            (path == "index.html").then(|| EmbeddedFile {
                data: std::borrow::Cow::Borrowed(b"<!doctype html>"),
                metadata: rust_embed::Metadata::__rust_embed_new([7; 32], None, None, "text/html"),
            })
        },
        ..NONE
    };

    #[test]
    fn a_node_without_pages_says_how_to_get_them() {
        let response = NONE.page(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let file = NONE.asset("assets/main.js", &HeaderMap::new());
        assert_eq!(file.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_page_says_what_it_may_do_and_is_sent_once() {
        let response = SOME.page(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("default-src 'none'"), "{policy}");
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, headers[ETAG].clone());
        assert_eq!(SOME.page(&again).status(), StatusCode::NOT_MODIFIED);
    }
}
