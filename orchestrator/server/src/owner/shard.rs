//! One shard at this node: its channels, and their actors while the node leads.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use espalier_orchestrator_core::ChannelId;
use espalier_orchestrator_core::state::ChannelState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::posts::Posts;
use crate::channel::{Arbiters, ChannelHandle, HandleError, Log, Outlet, Start};
use espalier_orchestrator_core::ShardId;

/// How long a shard rests after a decision could not be kept: mostly, this node is about to hear that it
/// leads no more.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// A channel, as its owner needs it.
pub(crate) trait Owned: Send + Sync + 'static {
    /// Which.
    fn id(&self) -> &ChannelId;
    /// What an actor of this term starts with.
    fn start(&self, term: u64) -> Start;
    /// Does what goes on beside an actor, until `ended`.
    fn accompany(&self, actor: ChannelHandle, ended: CancellationToken);
}

/// One shard at this node.
pub(crate) struct ShardOwner {
    shard: ShardId,
    log: Arc<dyn Log>,
    arbiters: Arc<Arbiters>,
    inner: Mutex<Inner>,
    /// One change of the running actors at a time.
    changing: tokio::sync::Mutex<()>,
    /// Where gateways' streams go, once every actor runs.
    open: watch::Sender<Option<Arc<Posts>>>,
}

#[derive(Default)]
struct Inner {
    channels: BTreeMap<ChannelId, Weak<dyn Owned>>,
    running: Option<Running>,
}

struct Running {
    term: u64,
    posts: Arc<Posts>,
    actors: BTreeMap<ChannelId, Actor>,
}

#[derive(Clone)]
struct Actor {
    handle: ChannelHandle,
    ended: CancellationToken,
}

impl ShardOwner {
    pub(crate) fn new(shard: ShardId, log: Arc<dyn Log>, arbiters: Arc<Arbiters>) -> Self {
        Self {
            shard,
            log,
            arbiters,
            inner: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            open: watch::Sender::new(None),
        }
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Runs the shard's actors whenever this node leads, until `stopping`.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut leading: watch::Receiver<Option<u64>>,
        stopping: CancellationToken,
    ) {
        loop {
            let term = *leading.borrow_and_update();
            if self.term() != term {
                self.stand_down().await;
            }
            if let Some(term) = term {
                self.take_up(term).await;
            }
            let posts = self.open.borrow().clone();
            tokio::select! {
                () = stopping.cancelled() => return,
                changed = leading.changed() => if changed.is_err() { return },
                () = failure(posts) => {
                    tracing::warn!(shard = self.shard.0, "a decision could not be kept: the shard is taken up anew");
                    self.stand_down().await;
                    self.settle(&mut leading).await;
                }
            }
        }
    }

    /// Waits until the fate of everything that was proposed is known here, or the leadership has changed:
    /// an engine that is made before that may lack what is still on its way to the log.
    async fn settle(&self, leading: &mut watch::Receiver<Option<u64>>) {
        loop {
            let Some(term) = *leading.borrow() else {
                return;
            };
            tokio::select! {
                changed = leading.changed() => {
                    leading.mark_changed();
                    return drop(changed);
                }
                settled = self.log.settle(term) => if settled.is_ok() { return },
            }
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }

    /// Starts the actors of every channel, then lets gateways in. Does nothing if that has been done.
    pub(crate) async fn take_up(&self, term: u64) {
        let _changing = self.changing.lock().await;
        if self.term().is_some() {
            return;
        }
        let posts = Arc::new(Posts::default());
        let channels: Vec<_> = {
            let mut inner = self.lock();
            inner.running = Some(Running {
                term,
                posts: Arc::clone(&posts),
                actors: BTreeMap::new(),
            });
            inner.channels.values().filter_map(Weak::upgrade).collect()
        };
        for channel in channels {
            self.start(channel.as_ref());
        }
        tracing::info!(shard = self.shard.0, term, "this node owns the shard");
        self.open.send_replace(Some(posts));
    }

    /// Ends every actor and every stream at once; what they decided and was not committed is nobody's.
    pub(crate) async fn stand_down(&self) {
        self.open.send_replace(None);
        let _changing = self.changing.lock().await;
        let Some(running) = self.lock().running.take() else {
            return;
        };
        running.posts.cut_all();
        for actor in running.actors.values() {
            actor.ended.cancel();
        }
        let ends = running
            .actors
            .values()
            .map(|actor| actor.handle.stop(false));
        futures::future::join_all(ends).await;
        tracing::info!(
            shard = self.shard.0,
            term = running.term,
            "this node owns the shard no more"
        );
    }

    /// Adds a channel, and starts its actor if this node leads.
    pub(crate) async fn add(&self, channel: &Arc<dyn Owned>) {
        let _changing = self.changing.lock().await;
        let id = channel.id().clone();
        self.lock().channels.insert(id, Arc::downgrade(channel));
        if self.term().is_some() {
            self.start(channel.as_ref());
        }
    }

    /// Ends a channel's actor and forgets the channel; with `deleted`, every gateway hears of it.
    pub(crate) async fn remove(&self, channel: &ChannelId, deleted: bool) {
        let _changing = self.changing.lock().await;
        let actor = {
            let mut inner = self.lock();
            inner.channels.remove(channel);
            let running = inner.running.as_mut();
            running.and_then(|running| running.actors.remove(channel))
        };
        if let Some(actor) = actor {
            actor.ended.cancel();
            actor.handle.stop(deleted).await;
        }
    }

    /// Returns a channel's records as they are now, if its actor runs here.
    pub(crate) fn records(&self, channel: &ChannelId) -> Option<ChannelState> {
        self.channel(channel)?;
        self.log.state(channel)
    }

    /// Returns a channel's actor, if it runs here.
    pub(crate) fn channel(&self, channel: &ChannelId) -> Option<ChannelHandle> {
        let inner = self.lock();
        let actor = inner.running.as_ref()?.actors.get(channel)?;
        Some(actor.handle.clone())
    }

    /// Returns a channel's actor.
    ///
    /// # Errors
    /// When it does not run here.
    pub(crate) fn actor(&self, channel: &ChannelId) -> Result<ChannelHandle, HandleError> {
        self.channel(channel).ok_or(HandleError::NoOwner)
    }

    pub(super) fn channels(&self) -> Vec<ChannelHandle> {
        let inner = self.lock();
        let running = inner.running.iter();
        running
            .flat_map(|running| running.actors.values())
            .map(|actor| actor.handle.clone())
            .collect()
    }

    /// Waits until every actor of the shard runs here.
    pub(crate) async fn ready(&self) {
        self.taken_up().await;
    }

    /// Waits until gateways' streams can be taken in.
    pub(super) async fn taken_up(&self) -> Arc<Posts> {
        let mut open = self.open.subscribe();
        loop {
            if let Some(posts) = open.borrow_and_update().clone() {
                return posts;
            }
            if open.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn start(&self, channel: &dyn Owned) {
        let Some((term, posts)) = self.running() else {
            return;
        };
        let id = channel.id();
        let start = channel.start(term);
        let outlet: Arc<dyn Outlet> = posts;
        let handle = ChannelHandle::start(&self.arbiters, start, outlet, Arc::clone(&self.log));
        let ended = CancellationToken::new();
        channel.accompany(handle.clone(), ended.clone());
        if let Some(running) = &mut self.lock().running {
            running.actors.insert(id.clone(), Actor { handle, ended });
        }
    }

    fn running(&self) -> Option<(u64, Arc<Posts>)> {
        let inner = self.lock();
        let running = inner.running.as_ref()?;
        Some((running.term, Arc::clone(&running.posts)))
    }

    fn term(&self) -> Option<u64> {
        self.running().map(|(term, _)| term)
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn failure(posts: Option<Arc<Posts>>) {
    match posts {
        Some(posts) => posts.failed().await,
        None => std::future::pending().await,
    }
}
