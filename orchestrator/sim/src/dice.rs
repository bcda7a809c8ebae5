//! Chance from a seed: each part of the world draws from a stream of its own, so that another draw in one of
//! them leaves the others as they were.

use std::time::Duration;

/// A stream of chance (SplitMix64, which is the same on every machine and in every version).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of this name; drawing from it does not touch this one.
    pub(crate) fn stream(&self, name: &str, number: u64) -> Self {
        let named = name.bytes().fold(self.0 ^ number, |state, byte| {
            mix(state.wrapping_add(u64::from(byte) + 0x9e37))
        });
        Self(mix(named))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A time between these two, in microseconds' steps.
    pub(crate) fn time(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.range(micros(low), micros(high)))
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        self.time(Duration::from_millis(low), Duration::from_millis(high))
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(of.len() as u64)).ok()?;
        of.get(at)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2)
}

pub(crate) fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let seed = Dice::new(7);
        let draw = |name, number| seed.stream(name, number).next();
        assert_eq!(draw("net", 1), draw("net", 1));
        assert_ne!(draw("net", 1), draw("net", 2));
        assert_ne!(draw("net", 1), draw("disk", 1));
        assert_ne!(draw("net", 1), Dice::new(8).stream("net", 1).next());
    }

    #[test]
    fn a_chance_in_a_thousand_is_about_that() {
        let mut dice = Dice::new(3);
        let hits = (0..100_000).filter(|_| dice.chance(250)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
    }
}
