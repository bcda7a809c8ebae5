//! What runs here follows the state of the shards.

use core::time::Duration;
use std::sync::Arc;

use espalier_orchestrator_core::{ChannelEvent, ChannelId, Policy, PolicyError, ShardId};
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Channel, Directory, ShardPart};
use crate::gateway::Switchboard;
use crate::owner::Owned;
use crate::registry::{Changed, ChannelRecord, RecordError, RegistryError};
use crate::signing::{self, SigningError};

/// How far apart two looks at a shard's state are that nobody asked for.
pub(super) const INTERVAL: Duration = Duration::from_millis(20);

/// Why a channel of the cluster's does not run here.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// What is kept of it cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its policy is none.
    #[error("its policy cannot be used")]
    Policy(#[from] PolicyError),
    /// Its signer did not start.
    #[error("its signer did not start")]
    Signing(#[from] SigningError),
    /// What its signer kept cannot be read.
    #[error("what its signer kept cannot be read")]
    SignerState(#[from] RegistryError),
}

impl Directory {
    /// Runs every shard at this node until `stopping`. When this returns, the channels that this node knows
    /// can be found.
    pub(crate) async fn run_shards(self: &Arc<Self>, stopping: &CancellationToken) {
        for (shard, part) in &self.parts {
            self.sync(*shard).await;
            let (leading, gated) = watch::channel(None);
            let following = Arc::clone(self).lead(*shard, leading);
            let stopping = stopping.clone();
            let owner = Arc::clone(&part.owner).run(gated, stopping.clone());
            let gate = Arc::clone(&part.gate);
            let gate = gate.run(Arc::clone(&self.ownership), Arc::clone(&part.owner));
            let follow = Arc::clone(self).follow(*shard);
            tokio::spawn(async move {
                let all = async { tokio::join!(following, follow, gate) };
                stopping.run_until_cancelled(all).await;
            });
            tokio::spawn(owner);
        }
    }

    /// Waits until every shard has an owner, and those that are this node's are taken up.
    pub(crate) async fn settled(&self) {
        for (shard, part) in &self.parts {
            let mut owner = self.ownership.owner(*shard);
            let owned = owner.wait_for(Option::is_some).await.map(|owner| *owner);
            if owned.is_ok_and(|owner| owner == Some(self.ownership.this())) {
                let mut leading = self.ownership.leading(*shard);
                tokio::select! {
                    () = part.owner.ready() => {}
                    // It was not to last.
                    _ = async { leading.wait_for(Option::is_some).await.is_ok()
                        && leading.wait_for(Option::is_none).await.is_ok() } => {}
                }
            }
        }
    }

    /// Says that this node leads the shard once everything that the shard has runs here, and at once when it
    /// leads no more.
    async fn lead(self: Arc<Self>, shard: ShardId, gated: watch::Sender<Option<u64>>) {
        let mut leading = self.ownership.leading(shard);
        loop {
            let term = *leading.borrow_and_update();
            gated.send_if_modified(|known| *known != term && known.take().is_some());
            if term.is_some() {
                self.sync(shard).await;
                if leading.has_changed().unwrap_or(false) {
                    continue;
                }
                gated.send_replace(term);
                let finishing = Arc::clone(&self);
                tokio::spawn(async move { finishing.finish(shard).await });
            }
            if leading.changed().await.is_err() {
                return;
            }
        }
    }

    /// Carries out what is committed, as it is applied here.
    async fn follow(self: Arc<Self>, shard: ShardId) {
        let Some(mut applied) = self.registry.applied(shard) else {
            return;
        };
        while applied.changed().await.is_ok() {
            self.sync(shard).await;
            // Decisions about peers come far more often than channels change.
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Finishes what an earlier owner left half done.
    async fn finish(&self, shard: ShardId) {
        let _changing = self.changing.lock().await;
        if let Err(error) = self.registry.finish(shard).await {
            tracing::debug!(shard = shard.0, %error, "what was left half done stays so");
        }
    }

    /// Has run here what the shard has, as far as this node knows. Goes on to its end when its caller does
    /// not wait for that: a channel must not be left half started.
    pub(super) async fn sync(self: &Arc<Self>, shard: ShardId) {
        let directory = Arc::clone(self);
        let synced = tokio::spawn(async move { directory.carry_out(shard).await });
        if let Err(error) = synced.await {
            tracing::error!(shard = shard.0, %error, "the shard was not looked at to the end");
        }
    }

    async fn carry_out(&self, shard: ShardId) {
        let Some(part) = self.parts.get(&shard) else {
            return;
        };
        let mut known = part.known.lock().await;
        if self.is_stopping() {
            return;
        }
        let differences = self.registry.differences(shard, &known);
        for id in differences.gone {
            known.remove(&id);
            self.take_down(&id).await;
        }
        for changed in differences.changed {
            let Changed { id, mark, record } = changed;
            known.insert(id.clone(), mark);
            let taken_in = match record {
                Ok(record) => self.take_in(record, part).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = taken_in {
                let error = crate::error_chain(&error);
                tracing::error!(channel = %id, error, "the channel does not run here");
            }
        }
    }

    /// Starts a channel, or changes the one that runs.
    async fn take_in(&self, record: ChannelRecord, part: &Arc<ShardPart>) -> Result<(), LoadError> {
        let policy = Policy::validate(&record.policy)?;
        let running = self.read().get(&record.id).cloned();
        if let Some(channel) = running {
            let same = channel.record.borrow().incarnation == record.incarnation;
            if same {
                channel.record.send_replace(record);
                // An actor that is not there yet starts with the record; one that ends needs none.
                if let Ok(actor) = channel.actor() {
                    let _ended = actor.tell(ChannelEvent::PolicyChanged { policy }).await;
                }
                return Ok(());
            }
            self.take_down(&record.id).await;
        }
        let channel = self.start(record, part).await?;
        tracing::info!(channel = %channel.id, "the channel runs");
        Ok(())
    }

    /// Ends a channel that the shard has no more.
    async fn take_down(&self, id: &ChannelId) {
        let Some(channel) = self.write().remove(id) else {
            return;
        };
        channel.board.deleted();
        channel.end(true).await;
        tracing::info!(channel = %id, "the channel has ended");
    }

    /// Starts what belongs to a channel at this node; when this returns, it can be found.
    async fn start(
        &self,
        record: ChannelRecord,
        part: &Arc<ShardPart>,
    ) -> Result<Arc<Channel>, LoadError> {
        let id = record.id.clone();
        let state = self.registry.signer_state(part.owner.shard(), &id)?;
        let signer = signing::start(&record, state)?;
        let board = Switchboard::new(id.clone(), Arc::clone(&part.gate), Arc::clone(&self.posts));
        let board = Arc::new(board);
        part.gate.add(&id, &board);
        let channel = Arc::new(Channel {
            id: id.clone(),
            record: watch::Sender::new(record),
            board,
            signer,
            ended: CancellationToken::new(),
            part: Arc::clone(part),
            queue: self.limits.channel_queue,
            tasks: TaskTracker::new(),
        });
        self.write().insert(id, Arc::clone(&channel));
        channel.spawn_tasks(&self.registry);
        let owned: Arc<dyn Owned> = Arc::<Channel>::clone(&channel);
        part.owner.add(&owned).await;
        Ok(channel)
    }
}
