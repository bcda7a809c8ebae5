//! Who must not be paired: for a while after a link failed, for good after corrupt bytes.
//!
//! Bounded: beyond [`MOST`] pairs the one whose time is over first is forgotten.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;

const MOST: usize = 65_536;

/// Two peers, the lower id first.
pub(crate) type Pair = (PeerId, PeerId);

/// What keeping two peers apart has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// The pair and its new end; `None`: it was kept apart for as long already.
    pub(crate) added: Option<(Pair, Duration)>,
    /// The pair and its old end.
    replaced: Option<(Pair, Duration)>,
    /// The pair that was forgotten for it.
    forgotten: Option<(Pair, Duration)>,
}

impl Change {
    /// Returns what is not remembered any more.
    pub(crate) fn removed(&self) -> impl Iterator<Item = (Pair, Duration)> + use<> {
        self.replaced.into_iter().chain(self.forgotten)
    }
}

/// The pairs that must not be planned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    /// `Duration::MAX`: for good.
    until: BTreeMap<Pair, Duration>,
    ends: BTreeSet<(Duration, Pair)>,
}

impl Pairs {
    /// Whether nobody is kept apart.
    pub(crate) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    pub(crate) fn allowed(&self, one: PeerId, other: PeerId) -> bool {
        !self.until.contains_key(&ordered(one, other))
    }

    /// Keeps the two apart until then, or longer if they already are.
    pub(crate) fn part(&mut self, one: PeerId, other: PeerId, until: Duration) -> Change {
        let pair = ordered(one, other);
        let old = self.until.get(&pair).copied();
        if old.is_some_and(|old| old >= until) {
            return Change::default();
        }
        let replaced = old.map(|old| (pair, old));
        old.map(|old| self.ends.remove(&(old, pair)));
        self.until.insert(pair, until);
        self.ends.insert((until, pair));
        let full = self.until.len() > MOST;
        let first = if full { self.ends.pop_first() } else { None };
        if let Some((_, first)) = first {
            self.until.remove(&first);
        }
        Change {
            added: Some((pair, until)),
            replaced,
            forgotten: first.map(|(until, pair)| (pair, until)),
        }
    }

    /// Keeps the two apart for good.
    pub(crate) fn separate(&mut self, one: PeerId, other: PeerId) -> Change {
        self.part(one, other, Duration::MAX)
    }

    /// Whether the two are kept apart for good.
    pub(crate) fn separated(&self, one: PeerId, other: PeerId) -> bool {
        self.until.get(&ordered(one, other)) == Some(&Duration::MAX)
    }

    /// Walks through all pairs and their ends, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Pair, Duration)> + '_ {
        self.until.iter().map(|(pair, until)| (*pair, *until))
    }

    /// Forgets the pairs whose time is over, and returns them with their ends.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(Pair, Duration)> {
        let mut over = Vec::new();
        while let Some((until, pair)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.ends.remove(&(until, pair));
            self.until.remove(&pair);
            over.push((pair, until));
        }
        over
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.ends
            .first()
            .map(|(at, _)| *at)
            .filter(|at| *at != Duration::MAX)
    }
}

fn ordered(one: PeerId, other: PeerId) -> Pair {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_the_same_from_both_sides_and_ends_when_its_time_is_over() {
        let mut pairs = Pairs::default();
        let (a, b) = (PeerId(1), PeerId(2));
        pairs.part(b, a, Duration::from_secs(5));
        assert!(!pairs.allowed(a, b));
        assert_eq!(pairs.expire(Duration::from_secs(4)), []);
        assert_eq!(
            pairs.expire(Duration::from_secs(5)),
            [((a, b), Duration::from_secs(5))]
        );
        assert!(pairs.allowed(b, a));
    }

    #[test]
    fn separation_outlasts_everything() {
        let mut pairs = Pairs::default();
        let (a, b) = (PeerId(1), PeerId(2));
        pairs.separate(a, b);
        pairs.part(a, b, Duration::from_secs(1));
        assert_eq!(pairs.next_timeout(), None);
        assert_eq!(pairs.expire(Duration::from_secs(1_000_000)), []);
        assert!(!pairs.allowed(a, b));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut pairs = Pairs::default();
        for i in 0..=u64::try_from(MOST).unwrap() {
            pairs.part(PeerId(0), PeerId(i + 1), Duration::from_secs(i + 1));
        }
        assert_eq!(pairs.until.len(), MOST);
        assert!(pairs.allowed(PeerId(0), PeerId(1)));
    }
}
