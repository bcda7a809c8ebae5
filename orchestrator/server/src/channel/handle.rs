//! How the rest of the node talks to a channel's actor.

use std::sync::Arc;

use actix::dev::SendError;
use actix::{Actor as _, Addr};
use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{Change, StreamKey, ToGateway};
use espalier_orchestrator_core::{ChannelEvent, ChannelId, PeerId, PeerReport, Policy};
use tokio::sync::{oneshot, watch};

use super::actor::{ChannelActor, Check, Hear, Look, Stop, Tell};
use super::arbiters::Arbiters;
use super::log::Log;
use super::view::{ChannelView, CheckReport};

/// What an actor starts with.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// Whose it is.
    pub channel: ChannelId,
    /// The owner's wishes.
    pub policy: Policy,
    /// Of the channel's state.
    pub incarnation: u64,
    /// Of this owner.
    pub term: u64,
    /// How many events may wait.
    pub queue: usize,
}

/// Where an actor's effects go. The calls must not wait: they run on the actor's thread.
pub(crate) trait Outlet: Send + Sync + 'static {
    /// Sends to a gateway, if its stream is open.
    fn send(&self, gateway: NodeId, message: ToGateway);
    /// A decision could not be kept: every channel of the shard has to be taken up anew.
    fn failed(&self);
}

/// What a gateway's stream brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromGateway {
    /// Something changed.
    Change(StreamKey, Change),
    /// The newest counters of some peers.
    Reports(StreamKey, Vec<(PeerId, PeerReport)>),
    /// Every session has been said.
    Synced(StreamKey),
    /// The stream is down.
    Lost(StreamKey),
}

/// Why an actor did not take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    /// Its mailbox is full.
    #[error("the channel has more to do than it can")]
    Busy,
    /// It has ended: the channel was deleted, or the node stops.
    #[error("the channel has ended")]
    Ended,
    /// No actor is here: another node owns the channel, or nobody does for the moment.
    #[error("the channel has no owner at the moment")]
    NoOwner,
}

/// Talks to a channel's actor.
#[derive(Clone)]
pub(crate) struct ChannelHandle {
    address: Addr<ChannelActor>,
    view: watch::Receiver<ChannelView>,
}

impl ChannelHandle {
    /// Starts an actor.
    #[must_use]
    pub(crate) fn start(
        arbiters: &Arbiters,
        start: Start,
        outlet: Arc<dyn Outlet>,
        log: Arc<dyn Log>,
    ) -> Self {
        let (sender, view) = watch::channel(ChannelView::default());
        let address = ChannelActor::start_in_arbiter(arbiters.next(), move |_context| {
            ChannelActor::new(start, outlet, log, sender)
        });
        Self { address, view }
    }

    /// Gives the actor an event, and waits while its mailbox is full.
    ///
    /// # Errors
    /// When the actor has ended.
    pub(crate) async fn tell(&self, event: ChannelEvent) -> Result<(), HandleError> {
        self.address
            .send(Tell(event))
            .await
            .map_err(|_| HandleError::Ended)
    }

    /// Gives the actor what a gateway said, in its order, and waits until it has taken it in.
    ///
    /// # Errors
    /// When the actor has ended.
    pub(crate) async fn hear(&self, said: Vec<FromGateway>) -> Result<(), HandleError> {
        self.address
            .send(Hear(said))
            .await
            .map_err(|_| HandleError::Ended)
    }

    /// Returns the channel's trees and audience as they are now.
    ///
    /// # Errors
    /// When the mailbox is full, or the actor has ended.
    pub(crate) async fn look(&self) -> Result<ChannelView, HandleError> {
        let (sender, answer) = oneshot::channel();
        self.address
            .try_send(Look(sender))
            .map_err(|error| match error {
                SendError::Full(_) => HandleError::Busy,
                SendError::Closed(_) => HandleError::Ended,
            })?;
        answer.await.map_err(|_| HandleError::Ended)
    }

    /// Verifies every invariant on the live state.
    ///
    /// # Errors
    /// When the mailbox is full, or the actor has ended.
    pub(crate) async fn check(&self) -> Result<CheckReport, HandleError> {
        let (sender, answer) = oneshot::channel();
        self.address
            .try_send(Check(sender))
            .map_err(|error| match error {
                SendError::Full(_) => HandleError::Busy,
                SendError::Closed(_) => HandleError::Ended,
            })?;
        answer.await.map_err(|_| HandleError::Ended)
    }

    /// Watches the view: latest wins, at most every 250 ms.
    #[must_use]
    pub(crate) fn watch(&self) -> watch::Receiver<ChannelView> {
        self.view.clone()
    }

    /// Ends the actor, after what is in its mailbox; with `deleted`, the gateways hear of it.
    pub(crate) async fn stop(&self, deleted: bool) {
        // An actor that has ended already needs no ending.
        let _ended_already = self.address.send(Stop { deleted }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Poll;
    use std::time::Duration;

    use espalier_orchestrator_core::state::{ChannelState, Entry};
    use espalier_orchestrator_core::{ChannelConfig, ChannelEngine};
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::super::log::CommitFailed;
    use super::*;

    struct Nobody;

    impl Outlet for Nobody {
        fn send(&self, _gateway: NodeId, _message: ToGateway) {}
        fn failed(&self) {}
    }

    /// Keeps nothing, at once.
    struct NoLog;

    impl Log for NoLog {
        fn engine(
            &self,
            _channel: &ChannelId,
            config: ChannelConfig,
            now: Duration,
        ) -> ChannelEngine {
            ChannelEngine::new(config, now)
        }
        fn state(&self, _channel: &ChannelId) -> Option<ChannelState> {
            None
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
            futures::future::ready(Ok(1)).boxed()
        }
        fn settle(&self, _term: u64) -> BoxFuture<'static, Result<(), CommitFailed>> {
            futures::future::ready(Ok(())).boxed()
        }
    }

    fn start(arbiters: &Arbiters, queue: usize) -> ChannelHandle {
        let start = Start {
            channel: "news".parse().unwrap(),
            policy: Policy::default(),
            incarnation: 1,
            term: 1,
            queue,
        };
        ChannelHandle::start(arbiters, start, Arc::new(Nobody), Arc::new(NoLog))
    }

    #[tokio::test]
    async fn a_full_mailbox_says_so_at_once_and_recovers() {
        let arbiters = Arbiters::start().unwrap();
        let handle = start(&arbiters, 16);
        handle.look().await.unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let held = Arc::clone(&held);
            arbiters.next().spawn_fn(move || {
                let _released = held
                    .lock()
                    .map(|held| held.recv_timeout(Duration::from_secs(20)));
            });
        }
        // Those that wait for an answer fill the mailbox; the one that finds it full hears so at once.
        let mut waiting = Vec::new();
        let refused = loop {
            let mut look = Box::pin(handle.look());
            match futures::poll!(&mut look) {
                Poll::Ready(outcome) => break outcome.err(),
                Poll::Pending => waiting.push(look),
            }
            assert!(waiting.len() < 10_000);
        };
        assert_eq!(refused, Some(HandleError::Busy));
        drop(release);
        handle.tell(ChannelEvent::Tick).await.unwrap();
        handle.look().await.unwrap();
        arbiters.stop();
    }

    #[tokio::test]
    async fn an_ended_actor_says_so() {
        let arbiters = Arbiters::start().unwrap();
        let handle = start(&arbiters, 16);
        handle.stop(false).await;
        assert_eq!(
            handle.tell(ChannelEvent::Tick).await,
            Err(HandleError::Ended)
        );
        let key = StreamKey {
            gateway: NodeId(1),
            stream: 1,
        };
        let heard = handle.hear(vec![FromGateway::Synced(key)]).await;
        assert_eq!(heard, Err(HandleError::Ended));
        assert_eq!(handle.look().await.err(), Some(HandleError::Ended));
        assert_eq!(handle.check().await.err(), Some(HandleError::Ended));
        arbiters.stop();
    }
}
