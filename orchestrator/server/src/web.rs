//! How browsers call: gRPC-Web and CORS round the same services, on the same port.
//!
//! Native gRPC passes unchanged. What a layer refuses on the way is told in the caller's own protocol, so the
//! translation is outside of all of them, and outside of that is what tells the browser whose pages may read it.

use axum::Router;
use core::time::Duration;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, Method};
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::trace::{DefaultOnFailure, TraceLayer};
use tracing::Level;

use crate::config::WebOrigins;
use crate::layers::GateLayer;

/// How long a browser may remember what it was told of CORS.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// The headers that browsers' calls carry beside those that need no leave.
const ASKED: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
];

/// The headers of an answer that pages may read: how a call ended, if it did so before it began.
const SHOWN: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// Services as everybody may call them.
pub(crate) fn public(services: Routes, gate: GateLayer, origins: WebOrigins) -> Router {
    let traced = TraceLayer::new_for_grpc().on_failure(DefaultOnFailure::new().level(Level::DEBUG));
    services
        .into_axum_router()
        .layer(gate)
        .layer(traced)
        .layer(GrpcWebLayer::new())
        .layer(cors(origins))
}

fn cors(origins: WebOrigins) -> CorsLayer {
    let admitted = AllowOrigin::predicate(move |origin, _call| {
        origin.to_str().is_ok_and(|origin| origins.admits(origin))
    });
    CorsLayer::new()
        .allow_origin(admitted)
        .allow_methods([Method::POST])
        .allow_headers(ASKED)
        .expose_headers(SHOWN)
        .max_age(REMEMBERED)
}
