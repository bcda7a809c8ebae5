//! Where an actor's decisions are kept before anybody is told of them.

use core::time::Duration;

use espalier_cluster::ShardGroup;
use espalier_orchestrator_core::state::{
    ChannelState, Entry, Outcome, ShardEntry, ShardOp, ShardState,
};
use espalier_orchestrator_core::{ChannelConfig, ChannelEngine, ChannelId, PeerId};
use futures::FutureExt as _;
use futures::future::BoxFuture;

/// Nobody knows whether the entries are in the log, or it is known that they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decision could not be kept")]
pub(crate) struct CommitFailed;

/// The log of one shard, as the actors of its channels use it.
///
/// Invariants: entries of one channel are in the log in the order in which they were proposed; what was
/// proposed in a term is there in that term or not at all.
pub(crate) trait Log: Send + Sync + 'static {
    /// Makes the channel's engine from what is in the log.
    fn engine(&self, channel: &ChannelId, config: ChannelConfig, now: Duration) -> ChannelEngine;

    /// The channel's records as they are now; `None`: there is no such channel.
    fn state(&self, channel: &ChannelId) -> Option<ChannelState>;

    /// The peers that are in the channel according to the log.
    fn known_peers(&self, channel: &ChannelId) -> Vec<PeerId>;

    /// Keeps entries of one channel; returns the index that they have in the log, all together.
    fn propose(
        &self,
        channel: &ChannelId,
        term: u64,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<u64, CommitFailed>>;

    /// Waits until the fate of everything that was proposed in the term is known here.
    fn settle(&self, term: u64) -> BoxFuture<'static, Result<(), CommitFailed>>;
}

/// A shard's Raft group as the log.
pub(crate) struct GroupLog(ShardGroup);

impl GroupLog {
    pub(crate) fn new(group: ShardGroup) -> Self {
        Self(group)
    }

    fn submit(
        &self,
        term: u64,
        ops: Vec<ShardOp>,
    ) -> BoxFuture<'static, Result<u64, CommitFailed>> {
        let group = self.0.clone();
        async move {
            let entry = ShardEntry::new(term, ops).encode().map_err(|error| {
                tracing::error!(%error, "a decision is too long for the log");
                CommitFailed
            })?;
            let (at, answer) = group.propose(term, entry.into()).await.map_err(|error| {
                tracing::debug!(%error, "a decision was not kept");
                CommitFailed
            })?;
            let outcomes = Outcome::decode_all(&answer).map_err(|_unreadable| CommitFailed)?;
            if let Some(refused) = outcomes.iter().find(|outcome| !outcome.is_applied()) {
                tracing::warn!(?refused, "a decision was refused");
                return Err(CommitFailed);
            }
            Ok(at.index)
        }
        .boxed()
    }
}

impl Log for GroupLog {
    fn engine(&self, channel: &ChannelId, config: ChannelConfig, now: Duration) -> ChannelEngine {
        // Copied out, because a rebuild takes a while and entries are not applied meanwhile.
        let kept = self.0.read(|_, shard: &ShardState| {
            let kept = shard.channel(channel);
            kept.map(|kept| kept.state.clone())
        });
        match kept.filter(|kept| kept.incarnation() == config.incarnation) {
            Some(kept) => ChannelEngine::from_state(&kept, config.term, now),
            // It has just been deleted: the log refuses what this engine decides.
            None => ChannelEngine::new(config, now),
        }
    }

    fn state(&self, channel: &ChannelId) -> Option<ChannelState> {
        self.0
            .read(|_, shard: &ShardState| Some(shard.channel(channel)?.state.clone()))
    }

    fn known_peers(&self, channel: &ChannelId) -> Vec<PeerId> {
        self.0.read(|_, shard: &ShardState| {
            let kept = shard.channel(channel).into_iter();
            kept.flat_map(|kept| kept.state.peers().map(|(peer, _)| peer))
                .collect()
        })
    }

    fn propose(
        &self,
        channel: &ChannelId,
        term: u64,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<u64, CommitFailed>> {
        let decide = |entry| ShardOp::Decide {
            channel: channel.clone(),
            entry,
        };
        self.submit(term, entries.into_iter().map(decide).collect())
    }

    fn settle(&self, term: u64) -> BoxFuture<'static, Result<(), CommitFailed>> {
        // An entry that does nothing: whatever was appended before it is applied before it.
        self.submit(term, Vec::new())
            .map(|kept| kept.map(drop))
            .boxed()
    }
}
