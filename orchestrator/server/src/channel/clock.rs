//! Where an engine's time meets the clock and the calendar.

use core::time::Duration;
use std::time::{Instant, SystemTime};

/// Counts an engine's time from when it was started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    started_at: SystemTime,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }

    pub(super) fn now(self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn time_of_day(self, at: Duration) -> SystemTime {
        self.started_at + at
    }
}
