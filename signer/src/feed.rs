//! A channel's statements as they are made, and what a new reader must be given first.
//!
//! Invariant: a reader gets every event after its snapshot, or an error: none is left out silently.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use espalier_media::{SignedStatement, Statement};
use tokio::sync::broadcast;

use crate::status::{Announcement, OriginStatus};
use crate::window::{Inserted, StatementWindow};

/// How many events a reader may fall behind.
const CAPACITY: usize = 1_024;

/// What a feed tells.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// The origin lists an object.
    Announce(Announcement),
    /// A statement was made.
    Statement(SignedStatement),
    /// The current statements have been told; what follows is new.
    CaughtUp,
    /// How the origin does changed, or, right after [`FeedEvent::CaughtUp`], how it does.
    Origin(OriginStatus),
}

/// Why a reader was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// It fell 1,024 events behind: subscribe again.
    #[error("the reader fell {0} events behind")]
    Lagged(u64),
    /// The feed ended.
    #[error("the feed ended")]
    Closed,
}

/// A channel's statements.
#[derive(Debug)]
pub struct StatementFeed {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    window: StatementWindow,
    origin: OriginStatus,
    /// `None` once the feed is closed.
    live: Option<broadcast::Sender<FeedEvent>>,
}

impl Default for StatementFeed {
    fn default() -> Self {
        Self::new()
    }
}

impl StatementFeed {
    /// Makes an empty feed.
    #[must_use]
    pub fn new() -> Self {
        let (live, _) = broadcast::channel(CAPACITY);
        let inner = Inner {
            window: StatementWindow::default(),
            origin: OriginStatus::default(),
            live: Some(live),
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// Tells a statement, unless it was told before or is too old.
    pub fn statement(&self, statement: SignedStatement) -> Inserted {
        let mut inner = self.lock();
        let inserted = inner.window.insert(statement.clone());
        if inserted == Inserted::New {
            inner.send(FeedEvent::Statement(statement));
        }
        inserted
    }

    /// Tells that the origin lists an object.
    pub fn announce(&self, announcement: Announcement) {
        self.lock().send(FeedEvent::Announce(announcement));
    }

    /// Tells how the origin does, if that changed.
    pub fn origin(&self, status: OriginStatus) {
        let mut inner = self.lock();
        if inner.origin != status {
            inner.origin = status.clone();
            inner.send(FeedEvent::Origin(status));
        }
    }

    /// Starts to read: the current statements first, then everything new.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let inner = self.lock();
        let statements = inner
            .window
            .snapshot()
            .into_iter()
            .map(FeedEvent::Statement);
        let first =
            statements.chain([FeedEvent::CaughtUp, FeedEvent::Origin(inner.origin.clone())]);
        let live = inner.live.as_ref().map(broadcast::Sender::subscribe);
        Subscription {
            first: first.collect(),
            live,
        }
    }

    /// Returns the current statements, oldest first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<SignedStatement> {
        self.lock().window.snapshot()
    }

    /// Returns the current master header.
    #[must_use]
    pub fn master(&self) -> Option<espalier_media::MasterHeader> {
        match self.lock().window.master()?.statement() {
            Statement::Master(master) => Some(master.clone()),
            Statement::Track(_) | Statement::Object(_) => None,
        }
    }

    /// Ends every reader.
    pub fn close(&self) {
        self.lock().live = None;
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn send(&self, event: FeedEvent) {
        if let Some(live) = &self.live {
            // An error only says that nobody reads now.
            let _nobody = live.send(event);
        }
    }
}

/// A reader of a [`StatementFeed`].
#[derive(Debug)]
pub struct Subscription {
    first: VecDeque<FeedEvent>,
    live: Option<broadcast::Receiver<FeedEvent>>,
}

impl Subscription {
    /// Waits for the next event. Cancel-safe.
    ///
    /// # Errors
    /// [`FeedError`] says why there will be none.
    pub async fn next(&mut self) -> Result<FeedEvent, FeedError> {
        if let Some(event) = self.first.pop_front() {
            return Ok(event);
        }
        let live = self.live.as_mut().ok_or(FeedError::Closed)?;
        live.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(missed) => FeedError::Lagged(missed),
            broadcast::error::RecvError::Closed => FeedError::Closed,
        })
    }
}
