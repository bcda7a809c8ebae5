//! The gRPC service that serves signers' statements.
//!
//! Who may read is not decided here: a host wraps the service in its own checks.

use std::pin::Pin;
use std::sync::Arc;

use espalier_proto::v1::signer_service_server::{SignerService, SignerServiceServer};
use espalier_proto::v1::{FeedMessage, GetSignerRequest, Signer, WatchStatementsRequest};
use futures::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use crate::convert;
use crate::feed::{FeedError, Subscription};
use crate::handle::SignerHandle;

/// Finds the signer of a channel.
pub trait SignerLookup: Send + Sync + 'static {
    /// Returns the signer of the channel with this id.
    fn signer(&self, channel: &str) -> Option<SignerHandle>;
}

/// A signer that has one channel serves it whatever its reader calls it.
impl SignerLookup for SignerHandle {
    fn signer(&self, _channel: &str) -> Option<SignerHandle> {
        Some(self.clone())
    }
}

impl<L: SignerLookup> SignerLookup for Arc<L> {
    fn signer(&self, channel: &str) -> Option<SignerHandle> {
        self.as_ref().signer(channel)
    }
}

/// What a [`StatementService`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Open feeds at once, over all channels.
    pub max_streams: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self { max_streams: 4_096 }
    }
}

/// Serves `espalier.v1.SignerService`.
#[derive(Debug)]
pub struct StatementService<L> {
    lookup: L,
    streams: Arc<Semaphore>,
}

impl<L: SignerLookup> StatementService<L> {
    /// Makes the service.
    pub fn new(lookup: L, limits: ServiceLimits) -> Self {
        Self {
            lookup,
            streams: Arc::new(Semaphore::new(limits.max_streams)),
        }
    }

    /// Wraps it for a tonic router.
    pub fn into_server(self) -> SignerServiceServer<Self> {
        SignerServiceServer::new(self)
    }

    fn find(&self, channel: &str) -> Result<SignerHandle, Status> {
        self.lookup
            .signer(channel)
            .ok_or_else(|| Status::not_found(format!("no signer for channel {channel:?} here")))
    }
}

#[tonic::async_trait]
impl<L: SignerLookup> SignerService for StatementService<L> {
    async fn get_signer(
        &self,
        request: Request<GetSignerRequest>,
    ) -> Result<Response<Signer>, Status> {
        let signer = self.find(&request.get_ref().channel)?;
        Ok(Response::new(Signer {
            public_keys: signer
                .public_keys()
                .iter()
                .map(|key| key.to_bytes().to_vec())
                .collect(),
            origin_uri: signer.origin_uri().to_owned(),
        }))
    }

    type WatchStatementsStream = Pin<Box<dyn Stream<Item = Result<FeedMessage, Status>> + Send>>;

    async fn watch_statements(
        &self,
        request: Request<WatchStatementsRequest>,
    ) -> Result<Response<Self::WatchStatementsStream>, Status> {
        let signer = self.find(&request.get_ref().channel)?;
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many open feeds: try again later"))?;
        let open = OpenFeed {
            subscription: signer.subscribe(),
            _permit: permit,
        };
        // The stream does not hold the handle: a signer that is dropped by its host stops.
        Ok(Response::new(Box::pin(stream::try_unfold(
            Some(open),
            next_message,
        ))))
    }
}

struct OpenFeed {
    subscription: Subscription,
    /// Given back when the reader is gone.
    _permit: OwnedSemaphorePermit,
}

async fn next_message(
    open: Option<OpenFeed>,
) -> Result<Option<(FeedMessage, Option<OpenFeed>)>, Status> {
    let Some(mut open) = open else {
        return Ok(None);
    };
    match open.subscription.next().await {
        Ok(event) => Ok(Some((convert::to_message(&event), Some(open)))),
        Err(lagged @ FeedError::Lagged(_)) => {
            Err(Status::resource_exhausted(format!("{lagged}: open again")))
        }
        Err(FeedError::Closed) => Err(Status::unavailable("the signer stopped")),
    }
}
