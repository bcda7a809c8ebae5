//! A token bucket: how many bytes may go out now, and when the next may.
//!
//! It paces a peer's uplink (all children together) and, with another rate, what the peer takes from
//! the CDN. A send may overdraw the bucket by itself: the debt is worked off before the next one, so
//! the long-run rate holds whatever the size of the messages. It does not know what is sent, or to whom.

use core::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// Bits in a byte times nanoseconds in a second: one byte in the bucket's fine unit.
const BYTE: i128 = 8 * 1_000_000_000;

/// A token bucket over bytes, fed at a rate in bit/s.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate_bps: u64,
    burst_bytes: u64,
    /// In bit-nanoseconds, so that no rounding is ever lost.
    level: i128,
    updated: Duration,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate_bps: u64, burst_bytes: u64, now: Duration) -> Self {
        Self {
            rate_bps,
            burst_bytes,
            level: i128::from(burst_bytes) * BYTE,
            updated: now,
        }
    }

    /// Changes rate and depth; what is in the bucket (or owed) stays, up to the new depth.
    pub fn configure(&mut self, rate_bps: u64, burst_bytes: u64, now: Duration) {
        self.refill(now);
        self.rate_bps = rate_bps;
        self.burst_bytes = burst_bytes;
        self.level = self.level.min(i128::from(burst_bytes) * BYTE);
    }

    /// The rate, bit/s.
    #[must_use]
    pub fn rate_bps(&self) -> u64 {
        self.rate_bps
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.updated).as_nanos();
        let gained = i128::try_from(elapsed.saturating_mul(u128::from(self.rate_bps)));
        let full = i128::from(self.burst_bytes) * BYTE;
        self.level = self
            .level
            .saturating_add(gained.unwrap_or(i128::MAX))
            .min(full);
        self.updated = self.updated.max(now);
    }

    /// Whether something may be sent now: nothing is owed.
    pub fn is_ready(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.level > 0
    }

    /// Takes `bytes` out, into debt if there are not as many.
    pub fn take(&mut self, bytes: u64, now: Duration) {
        self.refill(now);
        self.level -= i128::from(bytes) * BYTE;
    }

    /// Takes `bytes` only if they are there (or the bucket is full); says whether it did.
    pub fn try_take(&mut self, bytes: u64, now: Duration) -> bool {
        self.refill(now);
        let wanted = i128::from(bytes.min(self.burst_bytes)) * BYTE;
        let enough = self.level >= wanted && self.rate_bps > 0;
        if enough {
            self.level -= i128::from(bytes) * BYTE;
        }
        enough
    }

    /// When [`Self::is_ready`] turns true if nothing is taken before; `None`: never, at a rate of zero.
    #[must_use]
    pub fn ready_at(&self) -> Option<Duration> {
        if self.level > 0 {
            return Some(self.updated);
        }
        if self.rate_bps == 0 {
            return None;
        }
        let owed = self.level.unsigned_abs() + 1;
        let nanos = owed.div_ceil(u128::from(self.rate_bps));
        let seconds = u64::try_from(nanos / NANOS_PER_SECOND).ok()?;
        let rest = u32::try_from(nanos % NANOS_PER_SECOND).ok()?;
        self.updated.checked_add(Duration::new(seconds, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_debt_is_worked_off_before_the_next_send() {
        let mut bucket = TokenBucket::new(8_000, 500, Duration::ZERO);
        assert!(bucket.is_ready(Duration::ZERO));
        bucket.take(1_500, Duration::ZERO);
        assert!(!bucket.is_ready(Duration::from_millis(999)));
        let ready = bucket.ready_at().expect("a positive rate");
        assert!(
            ready > SECOND && ready <= SECOND + Duration::from_micros(1),
            "{ready:?}"
        );
        assert!(bucket.is_ready(ready));
    }

    #[test]
    fn a_rate_of_zero_never_becomes_ready() {
        let mut bucket = TokenBucket::new(0, 10, Duration::ZERO);
        bucket.take(10, Duration::ZERO);
        assert_eq!(bucket.ready_at(), None);
        assert!(!bucket.is_ready(SECOND * 1_000_000));
        assert!(!bucket.try_take(0, SECOND));
    }

    #[test]
    fn more_than_the_burst_is_given_only_from_a_full_bucket() {
        let mut bucket = TokenBucket::new(8_000, 1_000, Duration::ZERO);
        assert!(bucket.try_take(5_000, Duration::ZERO));
        assert!(!bucket.try_take(1, SECOND * 4));
        assert!(bucket.try_take(1, SECOND * 5 - Duration::from_millis(990)));
    }

    proptest! {
        #[test]
        fn never_more_than_rate_times_time_plus_burst_plus_one_send(
            rate in 1_000_u64..100_000_000,
            sends in prop::collection::vec((1_u64..70_000, 0_u64..200), 1..200),
        ) {
            let burst = 65_536;
            let mut bucket = TokenBucket::new(rate, burst, Duration::ZERO);
            let (mut now, mut sent) = (Duration::ZERO, 0_u64);
            for (bytes, gap_ms) in sends {
                now += Duration::from_millis(gap_ms);
                if bucket.is_ready(now) {
                    bucket.take(bytes, now);
                    sent += bytes;
                }
                let limit = u128::from(burst) + 70_000 + u128::from(rate) * now.as_nanos() / 8_000_000_000;
                prop_assert!(u128::from(sent) <= limit);
            }
        }
    }
}
