//! What a group's handle knows without reading the database: its marks and its newest entries.
//!
//! Invariants: the recent entries end with the last one and have no hole; an entry leaves them only after it
//! is on the disk, so that whatever was appended can be read; all of it is what the log will be once all that
//! was entered is written.

use std::collections::VecDeque;
use std::ops::Range;

use openraft::entry::RaftEntry;
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::{LogIdOptionExt, RaftTypeConfig};

struct Recent<E> {
    entry: E,
    bytes: usize,
    /// The append that brought it.
    append: u64,
}

pub(super) struct Memory<C: RaftTypeConfig> {
    pub(super) vote: Option<VoteOf<C>>,
    pub(super) committed: Option<LogIdOf<C>>,
    pub(super) purged: Option<LogIdOf<C>>,
    pub(super) last: Option<LogIdOf<C>>,
    /// Index of the first entry that is not purged, or of the next one if there is none.
    pub(super) first: u64,
    recent: VecDeque<Recent<C::Entry>>,
    /// Index of the first recent entry, or of the next entry if there are none.
    recent_first: u64,
    recent_bytes: usize,
    max_recent_bytes: usize,
    appends: u64,
    durable_appends: u64,
    /// How often the log was cut; a read that saw another count may have mixed two logs.
    pub(super) cuts: u64,
}

/// Where the entries of a range lie.
pub(super) struct Plan<E> {
    /// To be read from the database, before the others.
    pub(super) stored: Range<u64>,
    /// Copies of the recent ones.
    pub(super) recent: Vec<E>,
    /// [`Memory::cuts`] when the plan was made.
    pub(super) cuts: u64,
}

impl<C> Memory<C>
where
    C: RaftTypeConfig,
    C::Entry: Clone,
{
    /// What was found in the database: nothing is recent yet.
    pub(super) fn found(
        vote: Option<VoteOf<C>>,
        committed: Option<LogIdOf<C>>,
        purged: Option<LogIdOf<C>>,
        entries: Option<(u64, LogIdOf<C>)>,
        max_recent_bytes: usize,
    ) -> Self {
        let (first, last) = match entries {
            Some((first, last)) => (first, Some(last)),
            None => (purged.next_index(), purged.clone()),
        };
        Self {
            recent_first: last.next_index(),
            vote,
            committed,
            purged,
            last,
            first,
            recent: VecDeque::new(),
            recent_bytes: 0,
            max_recent_bytes,
            appends: 0,
            durable_appends: 0,
            cuts: 0,
        }
    }

    /// Adds entries with their sizes; returns the append's number.
    pub(super) fn append(&mut self, entries: Vec<(C::Entry, usize)>) -> u64 {
        self.appends += 1;
        let append = self.appends;
        for (entry, bytes) in entries {
            let id = entry.log_id();
            if self.last.is_none() {
                // A log may begin anywhere.
                self.first = id.index;
                self.recent_first = id.index;
            }
            self.last = Some(id);
            self.recent_bytes += bytes;
            self.recent.push_back(Recent {
                entry,
                bytes,
                append,
            });
        }
        append
    }

    /// Learns that an append is on the disk, and forgets what is no longer recent.
    pub(super) fn durable(&mut self, append: u64) {
        self.durable_appends = self.durable_appends.max(append);
        while self.recent_bytes > self.max_recent_bytes
            && self
                .recent
                .front()
                .is_some_and(|recent| recent.append <= self.durable_appends)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(recent) = self.recent.pop_front() {
            self.recent_bytes -= recent.bytes;
            self.recent_first += 1;
        }
    }

    /// Cuts the log after an id; returns the first index that goes, or none if nothing does.
    pub(super) fn cut(&mut self, after: Option<LogIdOf<C>>) -> Option<u64> {
        let from = after.next_index().max(self.first);
        if from >= self.last.next_index() {
            return None;
        }
        self.cuts += 1;
        while self.recent_first + self.recent.len() as u64 > from {
            let Some(recent) = self.recent.pop_back() else {
                break;
            };
            self.recent_bytes -= recent.bytes;
        }
        self.recent_first = self.recent_first.min(from);
        self.last = if from == self.first {
            self.purged.clone()
        } else {
            after
        };
        Some(from)
    }

    /// Purges the log up to an id; false if it was already.
    pub(super) fn purge(&mut self, upto: LogIdOf<C>) -> bool {
        if upto.index < self.purged.next_index() {
            return false;
        }
        self.first = upto.index + 1;
        while self.recent_first < self.first && !self.recent.is_empty() {
            self.pop_front();
        }
        self.recent_first = self.recent_first.max(self.first);
        if self.last.next_index() < self.first {
            self.last = Some(upto.clone());
        }
        self.purged = Some(upto);
        true
    }

    /// Says where the entries from `start` up to `end`, exclusive, lie: the part of them that there is.
    pub(super) fn plan(&self, start: u64, end: u64) -> Plan<C::Entry> {
        let start = start.max(self.first);
        let end = end.min(self.last.next_index()).max(start);
        let split = end.min(self.recent_first).max(start);
        let skip = usize::try_from(split.saturating_sub(self.recent_first)).unwrap_or(usize::MAX);
        let take = usize::try_from(end - split).unwrap_or(usize::MAX);
        let recent = self.recent.iter().skip(skip).take(take);
        Plan {
            stored: start..split,
            recent: recent.map(|recent| recent.entry.clone()).collect(),
            cuts: self.cuts,
        }
    }

    /// How many entries from `start` on fit into so many bytes, as far as they are recent; at least one.
    pub(super) fn fitting(&self, start: u64, end: u64, bytes: usize) -> u64 {
        let Some(skip) = start.checked_sub(self.recent_first) else {
            return end;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut sum = 0;
        let mut upto = start;
        for recent in self.recent.iter().skip(skip) {
            sum += recent.bytes;
            if upto >= end || (sum > bytes && upto > start) {
                break;
            }
            upto += 1;
        }
        upto.max(start + 1).min(end)
    }
}
