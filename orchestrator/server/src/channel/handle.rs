//! How the rest of the node talks to a channel's actor.

use std::sync::Arc;

use actix::dev::SendError;
use actix::{Actor as _, Addr};
use espalier_orchestrator_core::{
    Assignment, ChannelEvent, ChannelId, PeerId, Policy, SessionOpened,
};
use tokio::sync::{oneshot, watch};

use super::actor::{ChannelActor, Check, Look, Stop, Tell};
use super::arbiters::Arbiters;
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
    /// There may be peers that hold edges of an earlier owner.
    pub recovering: bool,
    /// How many events may wait.
    pub queue: usize,
}

/// Where an actor's effects go. The calls must not wait: they run on the actor's thread.
pub(crate) trait Outlet: Send + Sync + 'static {
    /// Gives a peer its assignment, if it has a session.
    fn assign(&self, peer: PeerId, assignment: Assignment);
    /// Forgets a peer that is taken for gone.
    fn gone(&self, peer: PeerId);
    /// Returns every open session with what its peer is known to have, for a new engine, and forgets
    /// peers without one.
    fn sessions(&self) -> Vec<SessionOpened>;
    /// Starts a new term, higher than `term`.
    fn next_term(&self, term: u64) -> u64;
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
    pub(crate) fn start(arbiters: &Arbiters, start: Start, outlet: Arc<dyn Outlet>) -> Self {
        let (sender, view) = watch::channel(ChannelView::default());
        let address = ChannelActor::start_in_arbiter(arbiters.next(), move |_context| {
            ChannelActor::new(start, outlet, sender)
        });
        Self { address, view }
    }

    /// Gives the actor an event, or says at once that it cannot.
    ///
    /// # Errors
    /// When the mailbox is full, or the actor has ended.
    pub(crate) fn try_tell(&self, event: ChannelEvent) -> Result<(), HandleError> {
        self.address
            .try_send(Tell(event))
            .map_err(|error| match error {
                SendError::Full(_) => HandleError::Busy,
                SendError::Closed(_) => HandleError::Ended,
            })
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

    /// Ends the actor, after what is in its mailbox.
    pub(crate) async fn stop(&self) {
        // An actor that has ended already needs no ending.
        let _ended_already = self.address.send(Stop).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    struct Nobody;

    impl Outlet for Nobody {
        fn assign(&self, _peer: PeerId, _assignment: Assignment) {}
        fn gone(&self, _peer: PeerId) {}
        fn sessions(&self) -> Vec<SessionOpened> {
            Vec::new()
        }
        fn next_term(&self, term: u64) -> u64 {
            term + 1
        }
    }

    fn start(arbiters: &Arbiters, queue: usize) -> ChannelHandle {
        let start = Start {
            channel: "news".parse().unwrap(),
            policy: Policy::default(),
            incarnation: 1,
            term: 1,
            recovering: false,
            queue,
        };
        ChannelHandle::start(arbiters, start, Arc::new(Nobody))
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
        let refused = (0..10_000).find_map(|_| handle.try_tell(ChannelEvent::Tick).err());
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
        handle.stop().await;
        assert_eq!(
            handle.tell(ChannelEvent::Tick).await,
            Err(HandleError::Ended)
        );
        assert_eq!(handle.try_tell(ChannelEvent::Tick), Err(HandleError::Ended));
        assert_eq!(handle.look().await.err(), Some(HandleError::Ended));
        assert_eq!(handle.check().await.err(), Some(HandleError::Ended));
        arbiters.stop();
    }
}
