//! A disk in memory for simulations: its syncs take virtual time, and a crash loses what was not synced.
//!
//! Invariant: without faults, a commit returns only when its batch would survive any crash. Batches become
//! durable in order; a crash keeps any prefix of those that were not.
//!
//! It keeps no files and runs on any runtime of openraft's.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::AsyncRuntime;

use crate::batch::Batch;
use crate::engine::{CommitError, Engine, ReadError, Reader, Stored};
use crate::key::{Key, Kind};

/// Bugs that a simulation plants to see whether it finds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Commits return before their batch is synced.
    pub acknowledge_before_sync: bool,
    /// Batches that hold a vote return before they are synced.
    pub votes_without_sync: bool,
}

#[derive(Default)]
struct State {
    durable: BTreeMap<Key, Vec<u8>>,
    current: BTreeMap<Key, Vec<u8>>,
    unsynced: VecDeque<Batch>,
    full: bool,
    faults: Faults,
    /// How many engines were made; only the last may write.
    engines: u64,
}

/// The disk: it outlives the engines that write to it, as a disk outlives processes.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An engine on this disk. `sync_time` says how long each batch's sync takes. Engines made before are cut
    /// off: their commits fail.
    pub fn engine<R: AsyncRuntime>(
        &self,
        sync_time: impl FnMut(&Batch) -> Duration + Send + 'static,
    ) -> MemoryEngine<R> {
        let mut state = self.lock();
        state.engines += 1;
        let number = state.engines;
        drop(state);
        MemoryEngine {
            disk: self.clone(),
            number,
            sync_time: Box::new(sync_time),
            runtime: PhantomData,
        }
    }

    /// Batches that a crash now could lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Loses power: the first `keep` of the unsynced batches stay, the others are gone, and the engine in
    /// use is cut off.
    pub fn crash(&self, keep: usize) {
        let mut state = self.lock();
        state.engines += 1;
        state.settle(keep);
        state.unsynced.clear();
        state.current = state.durable.clone();
    }

    /// Makes the disk full, or gives it room.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Plants bugs.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }
}

impl State {
    /// Makes the first `count` unsynced batches durable.
    fn settle(&mut self, count: usize) {
        for batch in self.unsynced.drain(..count.min(self.unsynced.len())) {
            write(&mut self.durable, &batch);
        }
    }
}

fn write(into: &mut BTreeMap<Key, Vec<u8>>, batch: &Batch) {
    for (key, value) in &batch.writes {
        match value {
            Some(value) => into.insert(*key, value.clone()),
            None => into.remove(key),
        };
    }
}

/// An engine on a [`MemoryDisk`].
pub struct MemoryEngine<R> {
    disk: MemoryDisk,
    number: u64,
    sync_time: Box<dyn FnMut(&Batch) -> Duration + Send>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> MemoryEngine<R> {
    /// Puts a batch into the disk's cache; says whether its sync is to be waited for.
    fn start(&self, batch: &Batch) -> Result<bool, CommitError> {
        let mut state = self.disk.lock();
        if state.engines != self.number {
            return Err(CommitError::Failed(
                "the disk belongs to a later engine".into(),
            ));
        }
        if state.full {
            return Err(CommitError::Full("the simulated disk is full".into()));
        }
        let state = &mut *state;
        write(&mut state.current, batch);
        // What lies before this batch was started long ago; a fault delays it by one batch.
        let earlier = state.unsynced.len();
        state.settle(earlier);
        state.unsynced.push_back(batch.clone());
        let vote = batch.writes.iter().any(|(key, _)| key.kind == Kind::Vote);
        let skip =
            state.faults.acknowledge_before_sync || (vote && state.faults.votes_without_sync);
        Ok(!skip)
    }
}

impl MemoryDisk {
    fn end(&self, engine: u64) -> Result<(), CommitError> {
        let mut state = self.lock();
        if state.engines != engine {
            return Err(CommitError::Failed("the power was lost".into()));
        }
        let all = state.unsynced.len();
        state.settle(all);
        Ok(())
    }
}

impl<R: AsyncRuntime> Engine for MemoryEngine<R> {
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        let started = self.start(batch);
        let sleep = matches!(started, Ok(true)).then(|| R::sleep((self.sync_time)(batch)));
        let (disk, number) = (self.disk.clone(), self.number);
        async move {
            if !started? {
                return Ok(());
            }
            if let Some(sleep) = sleep {
                sleep.await;
            }
            disk.end(number)
        }
    }

    fn pause(&mut self) -> impl Future<Output = ()> + Send {
        R::sleep(Duration::from_millis(100))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.disk.clone())
    }
}

impl Reader for MemoryDisk {
    fn visit(
        &self,
        from: Key,
        to: Key,
        visit: &mut dyn FnMut(Key, &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        for (key, value) in self.lock().current.range(from..=to) {
            if !visit(*key, value) {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, from: Key, to: Key) -> Result<Option<Stored>, ReadError> {
        let state = self.lock();
        Ok(state
            .current
            .range(from..=to)
            .next_back()
            .map(|(key, value)| (*key, value.clone())))
    }
}
