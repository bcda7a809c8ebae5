//! What a host holds of a signer, whether it signs here or mirrors another.

use std::sync::Arc;

use espalier_media::{MasterHeader, PublicKey, TrustedKeys};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::feed::{StatementFeed, Subscription};
use crate::state::SignerState;
use crate::status::SignerStatus;

/// A running signer. Clones share it; it stops at [`shutdown`](Self::shutdown) or when the last clone
/// is dropped.
#[derive(Debug, Clone)]
pub struct SignerHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    feed: Arc<StatementFeed>,
    status: watch::Receiver<SignerStatus>,
    state: watch::Receiver<SignerState>,
    keys: Vec<PublicKey>,
    origin_uri: String,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl SignerHandle {
    pub(crate) fn new(
        feed: Arc<StatementFeed>,
        status: watch::Receiver<SignerStatus>,
        state: watch::Receiver<SignerState>,
        keys: Vec<PublicKey>,
        origin_uri: String,
        cancel: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let shared = Shared {
            feed,
            status,
            state,
            keys,
            origin_uri,
            cancel,
            tasks,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Reads the statements: the current ones first, then each as it is made.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.shared.feed.subscribe()
    }

    /// Returns the feed itself.
    #[must_use]
    pub fn feed(&self) -> &Arc<StatementFeed> {
        &self.shared.feed
    }

    /// Returns the current master header, once there is one.
    #[must_use]
    pub fn master(&self) -> Option<MasterHeader> {
        self.shared.feed.master()
    }

    /// Returns how the origin and the tracks do now.
    #[must_use]
    pub fn status(&self) -> SignerStatus {
        self.shared.status.borrow().clone()
    }

    /// Watches how the origin and the tracks do.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<SignerStatus> {
        self.shared.status.clone()
    }

    /// Watches what must be stored for a restart. A mirror has nothing to store: its never changes.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<SignerState> {
        self.shared.state.clone()
    }

    /// Returns the keys that sign.
    #[must_use]
    pub fn public_keys(&self) -> &[PublicKey] {
        &self.shared.keys
    }

    /// Returns the keys that sign, to verify with.
    #[must_use]
    pub fn trusted_keys(&self) -> TrustedKeys {
        TrustedKeys::new(self.shared.keys.iter().copied())
    }

    /// Returns the origin's playlist URI.
    #[must_use]
    pub fn origin_uri(&self) -> &str {
        &self.shared.origin_uri
    }

    /// Stops, ends every reader, and waits until nothing runs any more.
    pub async fn shutdown(&self) {
        self.shared.cancel.cancel();
        self.shared.feed.close();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.feed.close();
    }
}
