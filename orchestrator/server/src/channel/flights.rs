//! The entries between an engine's decision and its commit.
//!
//! Entries that arise while earlier ones are on their way go together, at most [`MOST_ENTRIES`] at once and
//! at most [`MOST_FLIGHTS`] on their way; outcomes are given out in the order of the proposals. Pure.

use std::collections::VecDeque;

use espalier_orchestrator_core::state::Entry;

use super::log::CommitFailed;

/// How many proposals of one channel may be on their way.
const MOST_FLIGHTS: usize = 4;
/// How many entries go into one proposal.
const MOST_ENTRIES: usize = 64;

pub(super) type Outcome = Result<u64, CommitFailed>;

/// What waits for the log, and what it has been given.
#[derive(Debug, Default)]
pub(super) struct Flights {
    waiting: VecDeque<Entry>,
    flying: VecDeque<Flight>,
    last: u64,
}

#[derive(Debug)]
struct Flight {
    id: u64,
    entries: usize,
    outcome: Option<Outcome>,
}

impl Flights {
    pub(super) fn push(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
    }

    /// Takes what goes to the log next, with the number to give back to [`Self::land`].
    pub(super) fn take_off(&mut self) -> Option<(u64, Vec<Entry>)> {
        if self.waiting.is_empty() || self.flying.len() >= MOST_FLIGHTS {
            return None;
        }
        let count = self.waiting.len().min(MOST_ENTRIES);
        let entries: Vec<_> = self.waiting.drain(..count).collect();
        self.last += 1;
        self.flying.push_back(Flight {
            id: self.last,
            entries: entries.len(),
            outcome: None,
        });
        Some((self.last, entries))
    }

    /// Takes in a proposal's outcome. One that was forgotten is no news.
    pub(super) fn land(&mut self, id: u64, outcome: Outcome) {
        if let Some(flight) = self.flying.iter_mut().find(|flight| flight.id == id) {
            flight.outcome = Some(outcome);
        }
    }

    /// Gives out the oldest proposal's outcome and how many entries it had, once it is there.
    pub(super) fn pop(&mut self) -> Option<(Outcome, usize)> {
        let outcome = self.flying.front()?.outcome?;
        let flight = self.flying.pop_front()?;
        Some((outcome, flight.entries))
    }

    /// Whether the fate of some proposal is not known yet.
    pub(super) fn are_open(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Forgets everything: the engine that decided it is gone.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.flying.clear();
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn entry() -> Entry {
        Entry::new(1, Duration::ZERO)
    }

    fn take_off(flights: &mut Flights) -> Option<(u64, usize)> {
        let (id, entries) = flights.take_off()?;
        Some((id, entries.len()))
    }

    #[test]
    fn what_arises_meanwhile_goes_together_and_lands_in_order() {
        let mut flights = Flights::default();
        assert_eq!(take_off(&mut flights), None);
        for count in [1, 2, 100, 1, 1] {
            (0..count).for_each(|_| flights.push(entry()));
            if flights.flying.len() < 3 {
                take_off(&mut flights).unwrap();
            }
        }
        assert_eq!(take_off(&mut flights), Some((4, 38)));
        flights.push(entry());
        assert_eq!(take_off(&mut flights), None, "four are on their way");
        flights.land(2, Ok(8));
        assert_eq!(flights.pop(), None, "the first has not landed");
        flights.land(1, Ok(7));
        assert_eq!(flights.pop(), Some((Ok(7), 1)));
        assert_eq!(flights.pop(), Some((Ok(8), 2)));
        assert_eq!(take_off(&mut flights), Some((5, 1)));
        flights.land(3, Err(CommitFailed));
        assert_eq!(flights.pop(), Some((Err(CommitFailed), 64)));
        flights.forget();
        flights.land(4, Ok(9));
        assert_eq!((flights.pop(), flights.are_open()), (None, false));
    }
}
