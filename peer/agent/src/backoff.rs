//! The waiting times between attempts to reach something again.
//!
//! Doubling with jitter, from a first to a longest wait, so that an audience that lost the same node
//! does not return in one wave. It never gives up: who calls decides when to stop.

use std::time::Duration;

use rand::Rng as _;

/// Waits that double from `first` to `longest`; each is drawn from the upper half of its range.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never waits longer than `longest`.
    #[must_use]
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The back-off that the session and the feed use: 100 ms doubling to 5 s.
    #[must_use]
    pub(crate) fn reconnecting() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Begins again with the shortest wait, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait before the next attempt.
    pub(crate) fn wait(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.longest);
        bound.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for bound_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.wait();
            let bound = Duration::from_millis(bound_ms);
            assert!(
                wait <= bound && wait >= bound / 2,
                "{wait:?} is outside of {bound:?}"
            );
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
