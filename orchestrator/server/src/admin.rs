//! The admin listener: metrics for Prometheus, and probes.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::directory::Directory;
use crate::metrics;
use crate::readiness::Readiness;

/// What the admin listener shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) directory: Arc<Directory>,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: PrometheusHandle,
}

/// The routes of the admin listener.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/ready", get(ready))
        .route("/live", get(async || "live\n"))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    let audiences: Vec<_> = admin
        .directory
        .all()
        .iter()
        // Each node shows the channels that it owns.
        .filter_map(|channel| {
            let actor = channel.actor().ok()?;
            Some((channel.id.to_string(), actor.watch().borrow().audience))
        })
        .collect();
    metrics::observe(&audiences);
    admin.metrics.run_upkeep();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        admin.metrics.render(),
    )
}
