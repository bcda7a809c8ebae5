//! One group's log, vote and marks, as openraft wants them.
//!
//! Invariants: an append's callback and a saved vote come after the disk's sync; append, truncate, purge
//! and the committed index only enter the queue; what was entered can be read at once.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::{OptionalSend, RaftTypeConfig};
use serde::de::DeserializeOwned;

use crate::engine::Reader;
use crate::error::StoreError;
use crate::group::codec::{decode, decode_mark, encode, encode_mark};
use crate::group::memory::Memory;
use crate::group::reader::{GroupReader, read_records};
use crate::key::{GroupId, Key, Kind};
use crate::ledger::Op;
use crate::queue::Done;
use crate::store::Store;
use crate::writer::Shared;

pub(super) struct Inner<C: RaftTypeConfig> {
    pub(super) group: GroupId,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) memory: Mutex<Memory<C>>,
    shared: Arc<Shared>,
    epoch: u64,
}

/// One group's handle; at most one of each group works at a time. See the module.
pub struct GroupStore<C: RaftTypeConfig> {
    inner: Arc<Inner<C>>,
}

impl Store {
    /// Opens a group, new or not. A handle that was opened before is cut off: it gets
    /// [`StoreError::Superseded`]. Waits until what that one had entered is written.
    ///
    /// # Errors
    ///
    /// The store failed or is closed, or a record cannot be decoded.
    pub async fn group<C>(&self, group: GroupId) -> Result<GroupStore<C>, StoreError>
    where
        C: RaftTypeConfig,
        C::Entry: Clone,
    {
        let (shared, reader, recent_bytes) = self.parts();
        let epoch = shared.queue.open_lane(group);
        entered(&shared, group, epoch, Op::Barrier).await?;
        let single = |kind| single(&*reader, Key::single(kind, group));
        let vote = single(Kind::Vote)?
            .map(|(key, body)| decode(key, &body))
            .transpose()?;
        let committed = single(Kind::Committed)?
            .map(|(key, body)| decode(key, &body))
            .transpose()?;
        let purged: Option<LogIdOf<C>> = single(Kind::Purged)?
            .map(|(key, body)| decode_mark::<C>(key, &body))
            .transpose()?;
        let first = purged.as_ref().map_or(0, |purged| purged.index + 1);
        let entries = ends::<C>(&*reader, group, first)?;
        let memory = Memory::found(vote, committed, purged, entries, recent_bytes);
        let memory = Mutex::new(memory);
        Ok(GroupStore {
            inner: Arc::new(Inner {
                group,
                reader,
                memory,
                shared,
                epoch,
            }),
        })
    }
}

/// Enters an operation and waits until it is on the disk.
async fn entered(shared: &Shared, group: GroupId, epoch: u64, op: Op) -> Result<(), StoreError> {
    let (told, tell) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        // Whoever waited may have gone; the operation stands all the same.
        told.send(result).ok();
    });
    shared.queue.enter(group, epoch, op, Some(done))?;
    tell.await.unwrap_or(Err(StoreError::Closed))
}

fn single(reader: &dyn Reader, key: Key) -> Result<Option<(Key, Vec<u8>)>, StoreError> {
    let records = read_records(reader, key, key.with_part(u16::MAX), usize::MAX)?;
    Ok(records
        .into_iter()
        .next()
        .map(|record| (record.key, record.body)))
}

/// The index of the first entry that is not purged, and the id of the last.
fn ends<C: RaftTypeConfig>(
    reader: &dyn Reader,
    group: GroupId,
    first: u64,
) -> Result<Option<(u64, LogIdOf<C>)>, StoreError> {
    let from = Key::entry(group, first);
    let end = Key::entry(group, u64::MAX).with_part(u16::MAX);
    let mut found = None;
    reader
        .visit(from, end, &mut |key, _| {
            found = Some(key.index);
            false
        })
        .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    let Some(first) = found else { return Ok(None) };
    let last = reader
        .last(from, end)
        .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    let Some((key, _)) = last else {
        return Ok(None);
    };
    let last = Key::entry(group, key.index);
    let entry: C::Entry = match single(reader, last)? {
        Some((key, body)) => decode(key, &body)?,
        None => return Err(StoreError::Unreadable(format!("{last} is missing"))),
    };
    Ok(Some((first, entry.log_id())))
}

impl<C: RaftTypeConfig> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, Memory<C>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, op: Op, done: Option<Done>) -> Result<(), StoreError> {
        self.shared.queue.enter(self.group, self.epoch, op, done)
    }
}

impl<C> GroupStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Clone,
{
    /// The group's number.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.group
    }

    fn on_disk(&self, append: u64, callback: IOFlushed<C>) -> Done {
        let inner = Arc::downgrade(&self.inner);
        Box::new(move |result| {
            if let (Ok(()), Some(inner)) = (&result, inner.upgrade()) {
                inner.lock().durable(append);
            }
            callback.io_completed(result.map_err(io::Error::from));
        })
    }
}

/// Entries with their sizes, and their bodies.
type Encoded<E> = (Vec<(E, usize)>, Vec<Vec<u8>>);

fn encode_entries<E: RaftEntry + serde::Serialize>(
    entries: impl IntoIterator<Item = E>,
) -> Result<Encoded<E>, StoreError> {
    let mut sized = Vec::new();
    let mut bodies = Vec::new();
    for entry in entries {
        let body = encode(&entry)?;
        sized.push((entry, body.len()));
        bodies.push(body);
    }
    Ok((sized, bodies))
}

impl<C> RaftLogStorage<C> for GroupStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Clone + DeserializeOwned,
{
    type LogReader = GroupReader<C>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let memory = self.inner.lock();
        Ok(LogState {
            last_purged_log_id: memory.purged.clone(),
            last_log_id: memory.last.clone(),
        })
    }

    async fn get_log_reader(&mut self) -> GroupReader<C> {
        GroupReader {
            inner: Arc::clone(&self.inner),
        }
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> Result<(), io::Error> {
        let inner = &self.inner;
        entered(
            &inner.shared,
            inner.group,
            inner.epoch,
            Op::Vote(encode(vote)?),
        )
        .await?;
        inner.lock().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let Some(committed) = committed else {
            return Ok(());
        };
        let inner = &self.inner;
        inner
            .shared
            .queue
            .set_committed(inner.group, inner.epoch, encode(&committed)?)?;
        inner.lock().committed = Some(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<C>>, io::Error> {
        Ok(self.inner.lock().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (entries, bodies) = encode_entries(entries)?;
        let Some((first, _)) = entries.first() else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let first = first.index();
        self.inner.shared.queue.room().await?;
        let append = self.inner.lock().append(entries);
        let done = self.on_disk(append, callback);
        Ok(self.inner.enter(Op::Append { first, bodies }, Some(done))?)
    }

    async fn truncate_after(&mut self, after: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let cut = self.inner.lock().cut(after);
        match cut {
            Some(from) => Ok(self.inner.enter(Op::Truncate { from }, None)?),
            None => Ok(()),
        }
    }

    async fn purge(&mut self, upto: LogIdOf<C>) -> Result<(), io::Error> {
        let mark = encode_mark::<C>(&upto)?;
        let index = upto.index;
        if self.inner.lock().purge(upto) {
            self.inner.enter(Op::Purge { upto: index, mark }, None)?;
        }
        Ok(())
    }
}
