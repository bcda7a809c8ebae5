//! How fast peers are sent to other nodes: as a pure engine, with the time as an argument.
//!
//! Invariant: of the peers that are told of in any second, no more than the bound arrive elsewhere in any
//! second, although each goes at a moment of its own choice: the pace leaves room for that.

use core::time::Duration;

/// How long a peer that is told takes at the most.
pub(crate) const WITHIN: Duration = Duration::from_millis(200);
/// Of the bound this much is used, in percent: peers that were told at different moments may arrive together.
const USED: u32 = 80;
/// What was not used is not saved for longer than this.
const BURST: Duration = Duration::from_millis(50);

/// How many peers may be told to go, and when.
#[derive(Debug)]
pub(crate) struct MovePace {
    per_second: f64,
    credit: f64,
    last: Option<Duration>,
}

impl MovePace {
    /// At most this many arrivals in a second.
    pub(crate) fn new(arrivals_per_second: u32) -> Self {
        Self {
            per_second: f64::from(arrivals_per_second) * f64::from(USED) / 100.0,
            credit: 0.0,
            last: None,
        }
    }

    /// How many may be told now.
    pub(crate) fn may_tell(&mut self, now: Duration) -> usize {
        let since = self
            .last
            .replace(now)
            .map_or(BURST, |last| now.saturating_sub(last));
        let earned = self.per_second * since.min(BURST * 2).as_secs_f64();
        let most = (self.per_second * BURST.as_secs_f64()).max(1.0);
        self.credit = (self.credit + earned).min(most);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and a twentieth of a u32"
        )]
        let whole = self.credit as usize;
        whole
    }

    /// So many were told.
    pub(crate) fn told(&mut self, count: usize) {
        self.credit -= f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The most arrivals in any second, when each of the peers that wait goes as late or as early as it may.
    fn worst(bound: u32, ticks_ms: &[u64], waiting: usize, choose: impl Fn(usize) -> u64) -> usize {
        let mut pace = MovePace::new(bound);
        let (mut now, mut left, mut arrivals) = (0, waiting, Vec::new());
        for tick in ticks_ms.iter().cycle().take(4_000) {
            now += tick;
            let count = pace.may_tell(Duration::from_millis(now)).min(left);
            pace.told(count);
            for _ in 0..count {
                arrivals.push(now + choose(arrivals.len()));
            }
            left -= count;
        }
        arrivals.sort_unstable();
        let within = |from: &u64| {
            let to = arrivals.partition_point(|at| *at < from + 1_000);
            to - arrivals.partition_point(|at| at < from)
        };
        arrivals.iter().map(within).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn nobody_is_run_over(
            bound in 5_u32..5_000,
            ticks in proptest::collection::vec(1_u64..400, 1..20),
            seed in any::<usize>(),
        ) {
            let latest = u64::try_from(WITHIN.as_millis()).unwrap() * 3 / 4;
            let moment = |peer: usize| (peer.wrapping_mul(seed | 1) % 1_000) as u64 * latest / 1_000;
            let most = worst(bound, &ticks, 20_000, moment);
            prop_assert!(most <= bound as usize, "{most} in a second, {bound} allowed");
        }
    }

    #[test]
    fn at_a_steady_tick_most_of_the_bound_is_used() {
        let mut pace = MovePace::new(1_000);
        let mut told = 0;
        for tick in 0..200_u64 {
            let count = pace.may_tell(Duration::from_millis(tick * 50));
            pace.told(count);
            told += count;
        }
        assert!((7_900..=8_100).contains(&told), "{told} in ten seconds");
    }

    #[test]
    fn a_small_bound_still_lets_everybody_go() {
        let mut pace = MovePace::new(1);
        let mut told = 0;
        for tick in 0..600_u64 {
            let count = pace.may_tell(Duration::from_millis(tick * 50));
            pace.told(count);
            told += count;
        }
        assert!((20..=30).contains(&told), "{told} in half a minute");
    }
}
