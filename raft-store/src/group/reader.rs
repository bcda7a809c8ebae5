//! Reading a group's entries: recent ones from memory, the others from the database.

use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, PoisonError};

use futures::{Stream, stream};
use openraft::entry::RaftEntry;
use openraft::storage::RaftLogReader;
use openraft::type_config::alias::VoteOf;
use openraft::{OptionalSend, RaftTypeConfig};

use crate::engine::Reader;
use crate::error::StoreError;
use crate::group::codec::decode;
use crate::group::store::Inner;
use crate::key::{GroupId, Key};
use crate::record::{Decoded, RunReader};

/// Bytes of entries that a limited read returns, about.
const READ_BYTES: usize = 1 << 20;
/// How often a read starts anew because the log was cut meanwhile.
const MAX_TRIES: usize = 64;

/// Reads a group's log; openraft makes one for each task that reads.
pub struct GroupReader<C: RaftTypeConfig> {
    pub(super) inner: Arc<Inner<C>>,
}

impl<C> RaftLogReader<C> for GroupReader<C>
where
    C: RaftTypeConfig,
    C::Entry: Clone,
{
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<C::Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        Ok(self.inner.read(start, end, usize::MAX)?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, io::Error> {
        Ok(self.inner.read(start, end, READ_BYTES)?)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<C::Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        // In pieces: a node that starts applies a log that need not fit into memory twice.
        let (start, end) = bounds(&range);
        let inner = Arc::clone(&self.inner);
        let pieces = stream::unfold(Some(start), move |next| {
            let piece = next.and_then(|next| read_piece(&inner, next, end));
            std::future::ready(piece)
        });
        futures::StreamExt::flat_map(pieces, stream::iter)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<C>>, io::Error> {
        Ok(self
            .inner
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .vote
            .clone())
    }
}

type Piece<E> = (Vec<Result<E, io::Error>>, Option<u64>);

fn read_piece<C>(inner: &Inner<C>, start: u64, end: u64) -> Option<Piece<C::Entry>>
where
    C: RaftTypeConfig,
    C::Entry: Clone,
{
    if start >= end {
        return None;
    }
    match inner.read(start, end, READ_BYTES) {
        Ok(entries) => {
            let next = entries.last()?.index() + 1;
            Some((entries.into_iter().map(Ok).collect(), Some(next)))
        }
        Err(error) => Some((vec![Err(error.into())], None)),
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl<C> Inner<C>
where
    C: RaftTypeConfig,
    C::Entry: Clone,
{
    /// Reads the entries of a range that there are; with a bound, the first of them, at least one.
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<C::Entry>, StoreError> {
        for _ in 0..MAX_TRIES {
            let plan = {
                let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                let end = if max_bytes == usize::MAX {
                    end
                } else {
                    memory.fitting(start, end, max_bytes)
                };
                memory.plan(start, end)
            };
            if plan.stored.is_empty() {
                return Ok(plan.recent);
            }
            let wanted = plan.stored.clone();
            let mut entries = self.read_stored(wanted.clone(), max_bytes)?;
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.cuts != plan.cuts {
                continue;
            }
            let first = memory.first;
            drop(memory);
            // What was purged meanwhile may be missing from the front, and nothing else.
            entries.retain(|entry| entry.index() >= first);
            check_run::<C>(self.group, wanted.start.max(first), &entries)?;
            let read_upto = entries
                .last()
                .map_or(wanted.start.max(first), |last| last.index() + 1);
            if read_upto == wanted.end {
                entries.extend(plan.recent);
            } else if max_bytes == usize::MAX && read_upto < wanted.end {
                return Err(missing(self.group, read_upto));
            }
            return Ok(entries);
        }
        Err(StoreError::Unreadable(format!(
            "the log of group {} was cut {MAX_TRIES} times during one read",
            self.group
        )))
    }

    fn read_stored(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<C::Entry>, StoreError> {
        let from = Key::entry(self.group, range.start);
        let to = Key::entry(self.group, range.end - 1).with_part(u16::MAX);
        read_records(&*self.reader, from, to, max_bytes)?
            .iter()
            .map(|record| decode(record.key, &record.body))
            .collect()
    }
}

fn check_run<C: RaftTypeConfig>(
    group: GroupId,
    first: u64,
    entries: &[C::Entry],
) -> Result<(), StoreError> {
    match (first..)
        .zip(entries)
        .find(|(index, entry)| entry.index() != *index)
    {
        Some((index, _)) => Err(missing(group, index)),
        None => Ok(()),
    }
}

fn missing(group: GroupId, index: u64) -> StoreError {
    StoreError::Unreadable(format!("{} is missing", Key::entry(group, index)))
}

/// Reads whole records from `from` to `to`, until there are so many bytes.
pub(super) fn read_records(
    reader: &dyn Reader,
    from: Key,
    to: Key,
    max_bytes: usize,
) -> Result<Vec<Decoded>, StoreError> {
    let mut run = RunReader::default();
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut wrong = None;
    let mut full = false;
    let visited = reader.visit(from, to, &mut |key, value| {
        match run.push(key, value) {
            Ok(Some(record)) => {
                bytes += record.body.len();
                records.push(record);
                full = bytes >= max_bytes;
            }
            Ok(None) => {}
            Err((key, error)) => wrong = Some(StoreError::Unreadable(format!("{key} {error}"))),
        }
        wrong.is_none() && !full
    });
    visited.map_err(|error| StoreError::Unreadable(error.to_string()))?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if !full {
        let end = run.end();
        let last = end.map_err(|(key, error)| StoreError::Unreadable(format!("{key} {error}")))?;
        records.extend(last);
    }
    Ok(records)
}
