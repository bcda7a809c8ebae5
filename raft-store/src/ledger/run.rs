//! A stretch of one group's log: what the ledger knows of each of its entries, and of nothing else.
//!
//! Invariant: the entries are contiguous.

use std::collections::{BTreeMap, VecDeque};

use crate::record::Record;

/// What the ledger knows of a record: its share of the sum, and where it takes how much room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) checksum: u64,
    pub(super) bytes: u32,
    pub(super) parts: u16,
}

impl Known {
    pub(super) fn new(checksum: u64, bytes: usize, parts: u16) -> Self {
        Self {
            checksum,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            parts,
        }
    }

    pub(super) fn of(record: &Record) -> Self {
        let parts = u16::try_from(record.parts.len()).unwrap_or(u16::MAX);
        Self::new(record.checksum, record.bytes(), parts)
    }
}

/// Contiguous entries, kept small: a log may have millions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) checksums: VecDeque<u64>,
    pub(super) bytes: VecDeque<u32>,
    /// In how many parts an entry lies, where it is more than one.
    pub(super) long: BTreeMap<u64, u16>,
}

impl Run {
    pub(super) fn next(&self) -> Option<u64> {
        (!self.checksums.is_empty()).then(|| self.first + self.checksums.len() as u64)
    }

    pub(super) fn push(&mut self, index: u64, known: Known) {
        if self.checksums.is_empty() {
            self.first = index;
        }
        if known.parts > 1 {
            self.long.insert(index, known.parts);
        }
        self.checksums.push_back(known.checksum);
        self.bytes.push_back(known.bytes);
    }

    pub(super) fn pop_front(&mut self) -> Option<(u64, Known)> {
        let (checksum, bytes) = (self.checksums.pop_front()?, self.bytes.pop_front()?);
        let index = self.first;
        self.first += 1;
        let parts = self.long.remove(&index).unwrap_or(1);
        Some((
            index,
            Known {
                checksum,
                bytes,
                parts,
            },
        ))
    }

    pub(super) fn pop_back(&mut self) -> Option<(u64, Known)> {
        let (checksum, bytes) = (self.checksums.pop_back()?, self.bytes.pop_back()?);
        let index = self.first + self.checksums.len() as u64;
        let parts = self.long.remove(&index).unwrap_or(1);
        Some((
            index,
            Known {
                checksum,
                bytes,
                parts,
            },
        ))
    }

    /// Splits off the entries up to `upto`, inclusive.
    pub(super) fn split_front(&mut self, upto: u64) -> Self {
        let Some(next) = self.next() else {
            return Self::default();
        };
        let end = upto.saturating_add(1).clamp(self.first, next);
        let count = usize::try_from(end - self.first).unwrap_or(self.checksums.len());
        let rest = Self {
            first: end,
            checksums: self.checksums.split_off(count),
            bytes: self.bytes.split_off(count),
            long: self.long.split_off(&end),
        };
        std::mem::replace(self, rest)
    }
}
