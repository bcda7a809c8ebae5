//! Where an actor's decisions are kept before anybody is told of them.

use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};

use espalier_orchestrator_core::state::Entry;
use espalier_orchestrator_core::{ChannelConfig, ChannelEngine, ChannelId, PeerId};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::store::{ChannelStore, StoreError, on_disk};

/// Nobody knows whether the entries are in the log, or it is known that they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decision could not be kept")]
pub(crate) struct CommitFailed;

/// The log of one shard, as the actors of its channels use it.
///
/// Invariants: entries of one channel are in the log in the order in which they were proposed; what was
/// proposed in a term is there in that term or not at all.
pub(crate) trait Log: Send + Sync + 'static {
    /// Begins the ownership of a channel in this node's term of the shard; returns the channel's term.
    fn begin(&self, channel: &ChannelId, term: u64) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// The term of an engine that replaces one of `term`, with nothing of that one's on its way.
    fn next_term(&self, channel: &ChannelId, term: u64) -> u64;

    /// Makes the channel's engine from what is in the log.
    fn engine(&self, channel: &ChannelId, config: ChannelConfig, now: Duration) -> ChannelEngine;

    /// Whether [`Self::engine`] knows the peers that were there before.
    fn remembers(&self) -> bool;

    /// The peers that are in the channel according to the log.
    fn known_peers(&self, channel: &ChannelId) -> Vec<PeerId>;

    /// Keeps entries of one channel; returns the index that they have in the log, all together.
    fn propose(
        &self,
        channel: &ChannelId,
        term: u64,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<u64, CommitFailed>>;
}

/// What one node without a replicated log does: a decision holds as soon as it is made, and what its peers
/// have is what comes back after a restart. Only the terms are kept.
pub(crate) struct AtOnce {
    store: ChannelStore,
    index: AtomicU64,
}

impl AtOnce {
    pub(crate) fn new(store: ChannelStore) -> Self {
        let index = AtomicU64::new(0);
        Self { store, index }
    }
}

impl Log for AtOnce {
    fn begin(
        &self,
        channel: &ChannelId,
        _term: u64,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        let (store, channel) = (self.store.clone(), channel.clone());
        on_disk(move || store.next_term(channel.as_str())).boxed()
    }

    fn next_term(&self, channel: &ChannelId, term: u64) -> u64 {
        self.store
            .next_term(channel.as_str())
            .unwrap_or_else(|error| {
                // The new term is still higher than the old one; only the next restart may repeat it.
                tracing::error!(%channel, %error, "the term could not be kept");
                term + 1
            })
    }

    fn engine(&self, _channel: &ChannelId, config: ChannelConfig, now: Duration) -> ChannelEngine {
        ChannelEngine::new(config, now)
    }

    fn remembers(&self) -> bool {
        false
    }

    fn known_peers(&self, _channel: &ChannelId) -> Vec<PeerId> {
        Vec::new()
    }

    fn propose(
        &self,
        _channel: &ChannelId,
        _term: u64,
        _entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<u64, CommitFailed>> {
        let index = self.index.fetch_add(1, Ordering::Relaxed) + 1;
        futures::future::ready(Ok(index)).boxed()
    }
}
