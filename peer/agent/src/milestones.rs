//! The moments of a peer's start that people compare, and whether it is attached.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::watch;

/// First times, counted from the peer's start.
#[derive(Debug, Default)]
pub(crate) struct Milestones {
    session_open: OnceLock<Duration>,
    playable: OnceLock<Duration>,
    attached: watch::Sender<bool>,
}

impl Milestones {
    pub(crate) fn attached(&self, at: Duration) {
        self.session_open.get_or_init(|| at);
        self.attached.send_replace(true);
    }

    pub(crate) fn detached(&self) {
        self.attached.send_replace(false);
    }

    /// A listed segment is here whole.
    pub(crate) fn playable(&self, at: Duration) {
        self.playable.get_or_init(|| at);
    }

    pub(crate) fn is_attached(&self) -> bool {
        *self.attached.borrow()
    }

    /// Follows whether the peer is attached.
    pub(crate) fn watch_attached(&self) -> watch::Receiver<bool> {
        self.attached.subscribe()
    }

    pub(crate) fn session_open(&self) -> Option<Duration> {
        self.session_open.get().copied()
    }

    pub(crate) fn playable_playlist(&self) -> Option<Duration> {
        self.playable.get().copied()
    }
}
