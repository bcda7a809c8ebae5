//! A track's statements in the order in which they came: what each child is told, one after another.
//!
//! A child is a place in this log, as it is a place in the ring. The log is bounded: what falls out at
//! the front is so old that a child that missed it gets it from the feed, or needs it no more.

use std::collections::VecDeque;

use espalier_media::{ObjectKey, SignedStatement};

/// The most statements that are kept.
const MAX_ENTRIES: usize = 2_048;

/// The statements of one track.
#[derive(Debug, Default)]
pub(crate) struct StatementLog {
    entries: VecDeque<SignedStatement>,
    /// The serial number of the first entry.
    first: u64,
}

impl StatementLog {
    pub(crate) fn push(&mut self, statement: SignedStatement) {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(statement);
    }

    /// The entry at a place, or the first one behind it, and the place behind that.
    pub(crate) fn at(&self, serial: u64) -> Option<(&SignedStatement, u64)> {
        let serial = serial.max(self.first);
        let entry = self
            .entries
            .get(usize::try_from(serial - self.first).ok()?)?;
        Some((entry, serial + 1))
    }

    /// Where a child begins that wants everything from an object on; without an object: everything.
    pub(crate) fn place_of(&self, object: Option<&ObjectKey>) -> u64 {
        let Some(object) = object else {
            return self.first;
        };
        let about = |entry: &SignedStatement| {
            entry
                .statement()
                .as_object()
                .is_some_and(|descriptor| descriptor.key >= *object)
        };
        let before = self
            .entries
            .iter()
            .take_while(|entry| !about(entry))
            .count();
        self.first + before as u64
    }
}
