//! What other nodes are served before this node itself is there.
//!
//! A node's part in the cluster listens first, because the node's secrets are in the cluster; what the rest
//! of the node serves to other nodes comes later, and is refused until then.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::Response;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt as _;

/// Gives the routes to those who were promised them.
pub(crate) struct LateRoutes(Arc<OnceLock<Router>>);

impl LateRoutes {
    /// Makes the promise, and the routes that stand in for it.
    pub(crate) fn new() -> (Self, Routes) {
        let promised = Arc::new(OnceLock::<Router>::new());
        let slot = Arc::clone(&promised);
        let router = Router::new().fallback(move |request: Request| {
            let routes = slot.get().cloned();
            async move { answer(routes, request).await }
        });
        (Self(promised), Routes::from(router))
    }

    /// Keeps it.
    pub(crate) fn serve(&self, routes: Routes) {
        if self.0.set(routes.into_axum_router()).is_err() {
            tracing::error!("the routes for other nodes were given twice");
        }
    }
}

async fn answer(routes: Option<Router>, request: Request) -> Result<Response<Body>, Infallible> {
    match routes {
        Some(routes) => routes.oneshot(request).await,
        None => Ok(Status::unavailable("the node is starting").into_http()),
    }
}
