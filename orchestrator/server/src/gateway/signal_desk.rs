//! Signals that have outrun the notice that they belong to.
//!
//! A child may offer to its parent before the parent has heard of the child, or while the parent's session
//! is between two attachments. Such a signal waits, for at most [`PATIENCE`], until the pair is linked and
//! the receiver is there; then it is delivered in the order in which it came. Pure: time is an argument.

use core::time::Duration;
use std::collections::VecDeque;

use espalier_orchestrator_core::PeerId;

/// How long a signal waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How many signals of one sender may wait.
const MAX_PER_SENDER: usize = 64;
/// How many signals of a channel may wait.
const MAX_WAITING: usize = 8_192;

/// A signal that waits, or is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting<T> {
    pub(super) from: PeerId,
    pub(super) to: PeerId,
    pub(super) signal: T,
    until: Duration,
}

/// The signals that wait, oldest first.
#[derive(Debug)]
pub(super) struct SignalDesk<T> {
    waiting: VecDeque<Waiting<T>>,
}

impl<T> Default for SignalDesk<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<T> SignalDesk<T> {
    /// Keeps a signal for later; gives it back when too many wait.
    pub(super) fn hold(
        &mut self,
        from: PeerId,
        to: PeerId,
        signal: T,
        now: Duration,
    ) -> Result<(), T> {
        let of_sender = self
            .waiting
            .iter()
            .filter(|waiting| waiting.from == from)
            .count();
        if self.waiting.len() >= MAX_WAITING || of_sender >= MAX_PER_SENDER {
            return Err(signal);
        }
        self.waiting.push_back(Waiting {
            from,
            to,
            signal,
            until: now + PATIENCE,
        });
        Ok(())
    }

    /// Returns whether a signal of this pair waits: later ones must not overtake it.
    pub(super) fn holds(&self, from: PeerId, to: PeerId) -> bool {
        self.waiting
            .iter()
            .any(|waiting| waiting.from == from && waiting.to == to)
    }

    /// Takes out every signal from or to `peer`, oldest first.
    pub(super) fn take_of(&mut self, peer: PeerId) -> Vec<Waiting<T>> {
        self.take(|waiting| waiting.from == peer || waiting.to == peer)
    }

    /// Keeps a signal on that was taken out and could not be delivered.
    pub(super) fn put_back(&mut self, waiting: Waiting<T>) {
        // Those that wait are in the order of their ends, and so are those that are put back.
        let at = self.waiting.partition_point(|w| w.until <= waiting.until);
        self.waiting.insert(at, waiting);
    }

    /// Takes out every signal that has waited long enough.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting<T>> {
        self.take(|waiting| waiting.until <= now)
    }

    /// Returns when [`Self::expire`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        // All wait equally long, so the oldest is the first.
        self.waiting.front().map(|waiting| waiting.until)
    }

    fn take(&mut self, chosen: impl Fn(&Waiting<T>) -> bool) -> Vec<Waiting<T>> {
        if !self.waiting.iter().any(&chosen) {
            return Vec::new();
        }
        let (taken, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(chosen);
        self.waiting = kept;
        taken.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);
    const C: PeerId = PeerId(3);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn signals_come_out_in_order_once_their_pair_is_ready() {
        let mut desk = SignalDesk::default();
        for (from, to, signal) in [(A, B, 1), (A, C, 2), (A, B, 3), (B, A, 4)] {
            desk.hold(from, to, signal, at(0)).unwrap();
        }
        assert!(desk.holds(A, B) && !desk.holds(C, A));
        for taken in desk.take_of(C) {
            desk.put_back(taken);
        }
        assert!(desk.holds(A, C));
        let signals: Vec<_> = desk
            .take_of(B)
            .into_iter()
            .map(|waiting| waiting.signal)
            .collect();
        assert_eq!(signals, [1, 3, 4]);
        assert!(!desk.holds(A, B) && desk.holds(A, C));
    }

    #[test]
    fn nothing_waits_longer_than_its_patience() {
        let mut desk = SignalDesk::default();
        assert_eq!(desk.poll_timeout(), None);
        desk.hold(A, B, 1, at(10)).unwrap();
        desk.hold(A, B, 2, at(11)).unwrap();
        assert_eq!(desk.poll_timeout(), Some(at(15)));
        assert!(desk.expire(at(14)).is_empty());
        assert_eq!(desk.expire(at(15)).len(), 1);
        assert_eq!(desk.poll_timeout(), Some(at(16)));
        assert_eq!(desk.expire(at(20)).len(), 1);
        assert_eq!(desk.poll_timeout(), None);
    }

    #[test]
    fn one_sender_cannot_fill_the_desk() {
        let mut desk = SignalDesk::default();
        for signal in 0..MAX_PER_SENDER {
            desk.hold(A, B, signal, at(0)).unwrap();
        }
        assert_eq!(desk.hold(A, C, 7, at(0)), Err(7));
        desk.hold(B, A, 7, at(0)).unwrap();
    }
}
