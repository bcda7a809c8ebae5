//! Signals on their way to other gateways.
//!
//! One stream for each node that signals go to, opened when the first goes there. Signals are moments: what
//! is lost with a stream is not sent again, and the peers connect anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use espalier_orchestrator_core::NodeId;
use espalier_proto::cluster::v1::PassedSignal;
use espalier_proto::cluster::v1::gateway_link_service_client::GatewayLinkServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::ownership::Ownership;

/// How many signals may wait for one node.
const MOST_WAITING: usize = 1_024;

/// The streams to other gateways.
pub(crate) struct SignalPosts {
    ownership: Arc<dyn Ownership>,
    posts: Mutex<BTreeMap<NodeId, mpsc::Sender<PassedSignal>>>,
}

impl core::fmt::Debug for SignalPosts {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("SignalPosts")
    }
}

impl SignalPosts {
    pub(crate) fn new(ownership: Arc<dyn Ownership>) -> Self {
        let posts = Mutex::default();
        Self { ownership, posts }
    }

    /// Sends a signal to a node; returns whether it is on its way.
    pub(super) fn send(&self, node: NodeId, signal: PassedSignal) -> bool {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(post) = posts.get(&node).filter(|post| !post.is_closed()) {
            return post.try_send(signal).is_ok();
        }
        let Some(transport) = self.ownership.transport(node) else {
            return false;
        };
        let (post, signals) = mpsc::channel(MOST_WAITING);
        let sent = post.try_send(signal).is_ok();
        posts.insert(node, post);
        tokio::spawn(async move {
            let mut client = GatewayLinkServiceClient::new(transport);
            if let Err(status) = client.signals(ReceiverStream::new(signals)).await {
                tracing::debug!(%node, code = ?status.code(), message = status.message(), "the stream of signals has ended");
            }
        });
        sent
    }
}
