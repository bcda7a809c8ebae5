//! A node's disk: the log, the vote and the commit index of its group, with writes that a crash can lose.
//!
//! Writes go into an ordered queue and are readable at once; a writer makes them durable together, a while
//! later. A crash keeps a random beginning of the queue, cut through an append if it falls there, and loses
//! the rest. The queue is one for all kinds of writes, as in the production store.
//!
//! Planted: acknowledging before the sync, a vote that is answered before it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use espalier_shards::memory::{MemorySnapshot, MemorySnapshots};
use espalier_shards::{LogId, SnapshotStore, Types, Vote};
use futures::StreamExt as _;
use futures::channel::{mpsc, oneshot};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::alias::EntryOf;
use openraft::{AsyncRuntime, RaftLogReader};

use crate::dice::Dice;
use crate::planted::Bug;
use crate::runtime::{NodeRuntime, now};

type Rt = NodeRuntime;
type Entry = EntryOf<Types<Rt>>;

/// What lies on a disk.
#[derive(Clone, Default)]
struct Content {
    vote: Option<Vote<Rt>>,
    committed: Option<LogId<Rt>>,
    purged: Option<LogId<Rt>>,
    entries: BTreeMap<u64, Entry>,
}

enum Write {
    Vote(Vote<Rt>),
    Committed(Option<LogId<Rt>>),
    Append(Vec<Entry>),
    Truncate(u64),
    Purge(LogId<Rt>),
}

enum Waiter {
    Nobody,
    Log(IOFlushed<Types<Rt>>),
    Vote(oneshot::Sender<()>),
}

/// How fast a disk is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskPace {
    pub(crate) fastest: Duration,
    pub(crate) slowest: Duration,
}

struct State {
    durable: Content,
    /// With what is queued.
    readable: Content,
    queue: VecDeque<(Write, Waiter)>,
    pace: DiskPace,
    stalled_until: Duration,
    dice: Dice,
    bug: Option<Bug>,
}

/// One node's disk. It survives the node.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    snapshots: MemorySnapshots,
}

impl Disk {
    pub(crate) fn new(dice: Dice, pace: DiskPace, bug: Option<Bug>) -> Self {
        let state = State {
            durable: Content::default(),
            readable: Content::default(),
            queue: VecDeque::new(),
            pace,
            stalled_until: Duration::ZERO,
            dice,
            bug,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            snapshots: MemorySnapshots::default(),
        }
    }

    /// The disk as a process of its node has it; call it in a task of that process.
    pub(crate) fn open(&self) -> (SimLog, SimSnapshots) {
        let (wake, woken) = mpsc::channel(1);
        drop(Rt::spawn(write(Arc::clone(&self.state), woken)));
        let log = SimLog {
            state: Arc::clone(&self.state),
            wake,
        };
        let dice = lock(&self.state).dice.stream("snapshots", 0);
        let snapshots = SimSnapshots {
            inner: self.snapshots.clone(),
            dice: Arc::new(Mutex::new(dice)),
        };
        (log, snapshots)
    }

    /// The node is dead: a beginning of what was not durable yet is kept, the rest is lost. Returns how many
    /// writes were lost.
    pub(crate) fn crash(&self, lose_all: bool) -> usize {
        let mut state = lock(&self.state);
        let queued = state.queue.len();
        let kept = match state.dice.below(queued as u64 + 1) {
            _ if lose_all => 0,
            kept => usize::try_from(kept).unwrap_or(0),
        };
        let queue = std::mem::take(&mut state.queue);
        for (place, (write, _)) in queue.into_iter().enumerate() {
            if place < kept {
                state.durable.take(write);
            } else if let (Write::Append(entries), true) = (write, place == kept && !lose_all) {
                let some = state.dice.below(entries.len() as u64 + 1);
                let some = entries
                    .into_iter()
                    .take(usize::try_from(some).unwrap_or(0))
                    .collect();
                state.durable.take(Write::Append(some));
            }
        }
        state.readable = state.durable.clone();
        queued - kept
    }

    /// Nothing becomes durable before this time.
    pub(crate) fn stall(&self, until: Duration) {
        let mut state = lock(&self.state);
        state.stalled_until = state.stalled_until.max(until);
    }
}

impl Content {
    fn take(&mut self, write: Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Committed(committed) => self.committed = committed,
            Write::Append(entries) => {
                for entry in entries {
                    let index = entry.log_id.index();
                    let next = self.next();
                    assert!(
                        next.is_none_or(|next| next == index),
                        "a hole in the log: {next:?} was expected, {index} came"
                    );
                    self.entries.insert(index, entry);
                }
            }
            Write::Truncate(from) => drop(self.entries.split_off(&from)),
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index() + 1));
                self.purged = self.purged.max(Some(upto));
            }
        }
    }

    /// The next index; `None`: any.
    fn next(&self) -> Option<u64> {
        let last = self.entries.keys().next_back().copied();
        last.or(self.purged.map(|id| id.index()))
            .map(|last| last + 1)
    }
}

/// Makes what is queued durable, again and again.
async fn write(state: Arc<Mutex<State>>, mut woken: mpsc::Receiver<()>) {
    while woken.next().await.is_some() {
        loop {
            let (count, wait) = {
                let mut state = lock(&state);
                let DiskPace { fastest, slowest } = state.pace;
                let sync = state.dice.time(fastest, slowest);
                let stalled = state.stalled_until.saturating_sub(now());
                (state.queue.len(), sync + stalled)
            };
            if count == 0 {
                break;
            }
            Rt::sleep(wait).await;
            let done: Vec<Waiter> = {
                let mut state = lock(&state);
                let writes: Vec<_> = state.queue.drain(..count).collect();
                let taken = writes.into_iter().map(|(write, waiter)| {
                    state.durable.take(write);
                    waiter
                });
                taken.collect()
            };
            for waiter in done {
                waiter.tell();
            }
        }
    }
}

impl Waiter {
    fn tell(self) {
        match self {
            Self::Nobody => {}
            Self::Log(done) => done.io_completed(Ok(())),
            // Who waited may have given up.
            Self::Vote(done) => drop(done.send(())),
        }
    }
}

/// The log of one group, as openraft uses it.
#[derive(Clone)]
pub(crate) struct SimLog {
    state: Arc<Mutex<State>>,
    wake: mpsc::Sender<()>,
}

impl SimLog {
    fn enqueue(&mut self, write: Write, waiter: Waiter) {
        {
            let mut state = lock(&self.state);
            match &write {
                Write::Vote(vote) => state.readable.vote = Some(*vote),
                Write::Committed(committed) => state.readable.committed = *committed,
                Write::Append(entries) => state.readable.take(Write::Append(entries.clone())),
                Write::Truncate(from) => state.readable.take(Write::Truncate(*from)),
                Write::Purge(upto) => state.readable.take(Write::Purge(*upto)),
            }
            state.queue.push_back((write, waiter));
        }
        // A writer that has been woken already sees this too.
        drop(self.wake.try_send(()));
    }

    fn has(&self, bug: Bug) -> bool {
        lock(&self.state).bug == Some(bug)
    }
}

impl RaftLogReader<Types<Rt>> for SimLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let state = lock(&self.state);
        let entries = state.readable.entries.range(range);
        Ok(entries.map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote<Rt>>> {
        Ok(lock(&self.state).readable.vote)
    }
}

impl RaftLogStorage<Types<Rt>> for SimLog {
    type LogReader = SimLog;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<Rt>>> {
        let state = lock(&self.state);
        let content = &state.readable;
        let last = content
            .entries
            .values()
            .next_back()
            .map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: content.purged,
            last_log_id: last.or(content.purged),
        })
    }

    async fn get_log_reader(&mut self) -> SimLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<Rt>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.enqueue(Write::Vote(*vote), Waiter::Vote(done));
        if self.has(Bug::UnsyncedVote) {
            return Ok(());
        }
        written
            .await
            .map_err(|_gone| io::Error::other("the writer is gone"))
    }

    async fn save_committed(&mut self, committed: Option<LogId<Rt>>) -> io::Result<()> {
        self.enqueue(Write::Committed(committed), Waiter::Nobody);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId<Rt>>> {
        Ok(lock(&self.state).readable.committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types<Rt>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().collect();
        if self.has(Bug::AckBeforeSync) {
            self.enqueue(Write::Append(entries), Waiter::Nobody);
            done.io_completed(Ok(()));
        } else {
            self.enqueue(Write::Append(entries), Waiter::Log(done));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId<Rt>>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index() + 1);
        self.enqueue(Write::Truncate(from), Waiter::Nobody);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<Rt>) -> io::Result<()> {
        self.enqueue(Write::Purge(upto), Waiter::Nobody);
        Ok(())
    }
}

/// Snapshots that take their time; one that is published survives a crash, another leaves no trace.
#[derive(Clone)]
pub(crate) struct SimSnapshots {
    inner: MemorySnapshots,
    dice: Arc<Mutex<Dice>>,
}

impl SnapshotStore for SimSnapshots {
    type Spool = <MemorySnapshots as SnapshotStore>::Spool;
    type File = MemorySnapshot;

    fn spool(&self, meta: &[u8]) -> io::Result<Self::Spool> {
        self.inner.spool(meta)
    }

    fn seal(&self, spool: Self::Spool) -> io::Result<MemorySnapshot> {
        self.inner.seal(spool)
    }

    fn publish(
        &self,
        meta: &[u8],
        fill: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.inner.publish(meta, fill)
    }

    fn latest(&self) -> io::Result<Option<MemorySnapshot>> {
        self.inner.latest()
    }

    async fn offload<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let wait = lock(&self.dice).time(Duration::ZERO, Duration::from_millis(4));
        Rt::sleep(wait).await;
        work()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
