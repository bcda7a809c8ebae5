//! Entries between an engine's decision and its commit, as the production actor keeps them: what arises while
//! proposals are on their way goes together, outcomes are given out in order.

use std::collections::VecDeque;

use espalier_orchestrator_core::state::Entry;

const MOST_FLIGHTS: usize = 4;
const MOST_ENTRIES: usize = 64;

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
    outcome: Option<Option<u64>>,
}

impl Flights {
    pub(super) fn push(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
    }

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

    /// Takes in where a proposal is, or that it failed.
    pub(super) fn land(&mut self, id: u64, outcome: Option<u64>) {
        if let Some(flight) = self.flying.iter_mut().find(|flight| flight.id == id) {
            flight.outcome = Some(outcome);
        }
    }

    /// The oldest proposal's outcome and how many entries it had, once it is there.
    pub(super) fn pop(&mut self) -> Option<(Option<u64>, usize)> {
        let outcome = self.flying.front()?.outcome?;
        let flight = self.flying.pop_front()?;
        Some((outcome, flight.entries))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.flying.clear();
    }
}
