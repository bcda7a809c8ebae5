//! One channel at this node.

use core::time::Duration;
use std::sync::Arc;

use espalier_orchestrator_core::state::ChannelState;
use espalier_orchestrator_core::{ChannelId, Policy};
use espalier_signer::SignerHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ShardPart;
use crate::channel::{ChannelHandle, HandleError, Start};
use crate::gateway::Switchboard;
use crate::owner::Owned;
use crate::registry::{ChannelRecord, Registry};
use crate::signing;

/// How long the end of a channel's tasks is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A channel that runs: its sessions here, its signer, and its actor if this node owns it.
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) record: watch::Sender<ChannelRecord>,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) signer: SignerHandle,
    /// Cancelled when the channel ends.
    pub(crate) ended: CancellationToken,
    pub(super) part: Arc<ShardPart>,
    pub(super) queue: usize,
    pub(super) tasks: TaskTracker,
}

impl Channel {
    /// The public keys whose statements peers accept: the channel's, or those of them that a token pins.
    pub(crate) fn public_keys(&self, pinned: &[String]) -> Vec<Vec<u8>> {
        let keys = self.signer.public_keys().iter().map(|key| key.to_bytes());
        keys.filter(|key| pinned.is_empty() || pinned.contains(&thumbprint(key)))
            .map(Vec::from)
            .collect()
    }

    /// Runs a future until the channel ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = task => {}
            }
        });
    }

    pub(super) fn spawn_tasks(&self, registry: &Arc<Registry>) {
        let board = Arc::clone(&self.board);
        self.spawn(async move { board.expire_signals().await });
        let incarnation = self.record.borrow().incarnation;
        let kept = signing::Kept {
            registry: Arc::clone(registry),
            shard: self.part.owner.shard(),
            channel: self.id.clone(),
            incarnation,
        };
        self.spawn(signing::keep_state(self.signer.clone(), kept));
    }

    /// The channel's actor.
    ///
    /// # Errors
    /// When this node does not own the channel.
    pub(crate) fn actor(&self) -> Result<ChannelHandle, HandleError> {
        self.part.owner.actor(&self.id)
    }

    /// Returns the channel's records as they are now; `None`: this node does not own it.
    pub(crate) fn records(&self) -> Option<ChannelState> {
        self.part.owner.records(&self.id)
    }

    pub(super) async fn end(&self, deleted: bool) {
        self.board.end();
        self.ended.cancel();
        self.tasks.close();
        let ending = async {
            self.signer.shutdown().await;
            self.tasks.wait().await;
            self.part.owner.remove(&self.id, deleted).await;
            self.part.gate.remove(&self.id);
        };
        if tokio::time::timeout(PATIENCE, ending).await.is_err() {
            tracing::warn!(channel = %self.id, "the channel took too long to end");
        }
    }
}

impl Owned for Channel {
    fn id(&self) -> &ChannelId {
        &self.id
    }

    fn start(&self, term: u64) -> Start {
        let record = self.record.borrow();
        let policy = Policy::validate(&record.policy);
        let policy = policy.expect("invariant: only channels with a policy are started");
        Start {
            channel: self.id.clone(),
            policy,
            incarnation: record.incarnation,
            term,
            queue: self.queue,
        }
    }

    fn accompany(&self, actor: ChannelHandle, ended: CancellationToken) {
        let feed = signing::feed_engine(self.signer.clone(), actor);
        self.spawn(async move {
            // What the actor was not told before it ended, the next one is.
            let _ended = ended.run_until_cancelled(feed).await;
        });
    }
}

fn thumbprint(key: &[u8; 32]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
