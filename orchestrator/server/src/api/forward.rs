//! Calls that another node has to answer.
//!
//! What depends on a channel's actor is answered where that runs. A call is forwarded once at the most: two
//! nodes that each take the other for the owner would send it to and fro.

use std::sync::Arc;

use espalier_orchestrator_core::ChannelId;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::channel::HandleError;
use crate::ownership::Ownership;

/// Marks a call that another node forwarded.
const FORWARDED: &str = "espalier-forwarded";

/// Where a call is answered.
#[derive(Debug)]
pub(super) enum Place {
    /// At this node.
    Here,
    /// At the node that this leads to.
    There(Channel),
}

/// Finds out where calls are answered.
#[derive(Clone)]
pub(crate) struct Router {
    ownership: Arc<dyn Ownership>,
}

impl Router {
    pub(crate) fn new(ownership: Arc<dyn Ownership>) -> Self {
        Self { ownership }
    }

    /// Where a call about a channel is answered.
    ///
    /// # Errors
    /// UNAVAILABLE with a time to try again when nobody owns the channel, or not who another node thought.
    pub(super) fn place<T>(
        &self,
        channel: &ChannelId,
        request: &Request<T>,
    ) -> Result<Place, Status> {
        let shard = self.ownership.shard_of(channel);
        let owner = *self.ownership.owner(shard).borrow();
        let owner = owner.ok_or(HandleError::NoOwner)?;
        if owner == self.ownership.this() {
            return Ok(Place::Here);
        }
        if is_forwarded(request) {
            return Err(HandleError::NoOwner.into());
        }
        let transport = self.ownership.transport(owner);
        Ok(Place::There(transport.ok_or(HandleError::NoOwner)?))
    }
}

/// Whether another node forwarded a call.
pub(super) fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

/// The same call, for another node. Its token was checked here.
pub(super) fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(FORWARDED, MetadataValue::from_static("1"));
    request
}

/// The answer of another node. Its being gone is no more than the channel's being without an owner.
pub(super) fn answer<T>(answer: Result<T, Status>) -> Result<T, Status> {
    answer.map_err(|status| {
        let lost = matches!(
            status.code(),
            tonic::Code::Unavailable | tonic::Code::Unknown
        );
        if lost && status.details().is_empty() {
            tracing::debug!(message = status.message(), "another node did not answer");
            HandleError::NoOwner.into()
        } else {
            status
        }
    })
}
