//! A node's own clock: it starts anywhere and runs a little too fast or too slow.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Duration,
    offset: Duration,
    /// Nanoseconds that it counts in a million.
    rate: u64,
}

impl Clock {
    pub(crate) fn new(started: Duration, offset: Duration, rate: u64) -> Self {
        Self {
            started,
            offset,
            rate,
        }
    }

    /// What it shows.
    pub(crate) fn at(self, now: Duration) -> Duration {
        let real = u64::try_from((now - self.started).as_nanos()).unwrap_or(0);
        self.offset + Duration::from_nanos(real / 1_000 * self.rate / 1_000)
    }

    /// When it will show at least this.
    pub(crate) fn when(self, shown: Duration) -> Duration {
        let counted = shown.saturating_sub(self.offset);
        let counted = u64::try_from(counted.as_micros()).unwrap_or(u64::MAX / 4_000_000);
        // What the divisions cut off, and the nanoseconds that are not counted.
        self.started + Duration::from_micros(counted * 1_000_000 / self.rate + 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_when_the_clock_shows_its_time_and_not_long_before() {
        for rate in [900_000, 1_000_000, 1_100_000] {
            let clock = Clock::new(Duration::from_secs(3), Duration::from_secs(77), rate);
            for millis in [1, 10, 999, 60_000] {
                let shown =
                    Duration::from_secs(77) + Duration::new(0, 987) + Duration::from_millis(millis);
                let due = clock.when(shown);
                assert!(clock.at(due) >= shown, "{rate} {millis}");
                let before = due - Duration::from_micros(20).min(due - Duration::from_secs(3));
                assert!(clock.at(before) < shown, "{rate} {millis}");
            }
        }
    }
}
