//! The one writer of a store: takes what waits, commits it as one batch, tells those who wait.
//!
//! Invariants: nothing is acknowledged before [`Engine::commit`] returned; batches are committed in order;
//! a batch that found the disk full is committed again, unchanged, until there is room or the store is
//! closed; after any other failure nothing is acknowledged any more.
//!
//! It runs as a thread in a program and as a task in a simulation, and cannot tell which.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::Batch;
use crate::engine::{CommitError, Engine};
use crate::error::StoreError;
use crate::health::{Health, HealthBoard};
use crate::key::GroupId;
use crate::ledger::{Ledger, Op, Progress};
use crate::queue::{Done, Queue, Queued, Taken};

/// What the writer has done since it started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commits: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) doomed: AtomicU64,
    pub(crate) live_bytes: AtomicU64,
}

/// What the writer shares with the store's handles.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) health: HealthBoard,
    pub(crate) tally: Tally,
}

/// See the module.
pub(crate) struct Writer<E> {
    engine: E,
    ledger: Ledger,
    shared: Arc<Shared>,
}

/// A batch on its way, and who waits for it.
#[derive(Default)]
struct Flight {
    batch: Batch,
    waiting: Vec<Done>,
    operations: u64,
    bytes: usize,
}

impl<E: Engine> Writer<E> {
    pub(crate) fn new(engine: E, ledger: Ledger, shared: Arc<Shared>) -> Self {
        Self {
            engine,
            ledger,
            shared,
        }
    }

    /// Runs until the store is closed and everything that had entered is on the disk, or until it fails.
    pub(crate) async fn run(mut self) {
        loop {
            let sweeping = self.ledger.doomed() > 0 && !self.shared.queue.ended();
            let Some(taken) = self.shared.queue.take(sweeping).await else {
                break;
            };
            let flight = self.prepare(taken);
            if let Err(why) = self.commit(&flight.batch).await {
                self.fail(flight, &why);
                break;
            }
            self.acknowledge(flight);
        }
        self.shared.health.set(Health::Closed);
        self.engine.close().await;
    }

    fn prepare(&mut self, taken: Taken) -> Flight {
        let mut flight = Flight::default();
        let mut unfinished: Option<(GroupId, Vec<Queued>)> = None;
        for (group, queued) in taken {
            match &mut unfinished {
                // Later operations of a group wait for the one that was done in part.
                Some((waiting, rest)) if *waiting == group => rest.push(queued),
                _ => {
                    if let Some(queued) = self.enter(group, queued, &mut flight) {
                        self.put_back(unfinished.replace((group, vec![queued])));
                    }
                }
            }
        }
        self.put_back(unfinished);
        // The header is short; a record cannot be too long here.
        let sealed = self.ledger.seal_batch(&mut flight.batch);
        debug_assert!(sealed.is_ok(), "the header is short");
        flight
    }

    /// Adds an operation to the flight; returns it if some of it is left.
    fn enter(&mut self, group: GroupId, queued: Queued, flight: &mut Flight) -> Option<Queued> {
        match self.ledger.apply(group, &queued.op, &mut flight.batch) {
            Ok(Progress::Partly) => Some(queued),
            Ok(Progress::Done) => {
                flight.operations += 1;
                flight.bytes += queued.bytes;
                flight.waiting.extend(queued.done);
                None
            }
            Err(refused) => {
                self.shared.queue.release(queued.bytes);
                if let Some(done) = queued.done {
                    done(Err(refused.into()));
                }
                None
            }
        }
    }

    fn put_back(&self, unfinished: Option<(GroupId, Vec<Queued>)>) {
        let Some((group, rest)) = unfinished else {
            return;
        };
        // Its committed index goes with its last operation; a newer one may wait by now.
        let rest = rest
            .into_iter()
            .filter(|queued| !matches!(queued.op, Op::Committed(_)));
        self.shared.queue.put_back(group, rest.collect());
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), Arc<str>> {
        loop {
            match self.engine.commit(batch).await {
                Ok(()) => {
                    if self.shared.health.get() != Health::Well {
                        tracing::info!("the store's disk has room again");
                        self.shared.health.set(Health::Well);
                    }
                    return Ok(());
                }
                Err(CommitError::Full(what)) => {
                    if self.shared.health.get() == Health::Well {
                        tracing::warn!(%what, "the store's disk is full; nothing is acknowledged");
                    }
                    self.shared.health.set(Health::Full(what.as_str().into()));
                    if self.shared.queue.ended() {
                        return Err(format!("closed while the disk was full ({what})").into());
                    }
                    self.engine.pause().await;
                }
                Err(CommitError::Failed(why)) => return Err(why.into()),
            }
        }
    }

    fn acknowledge(&self, flight: Flight) {
        let tally = &self.shared.tally;
        tally.commits.fetch_add(1, Ordering::Relaxed);
        tally
            .operations
            .fetch_add(flight.operations, Ordering::Relaxed);
        let deletes = flight.batch.deletes;
        tally.records.fetch_add(
            (flight.batch.writes.len() - deletes) as u64,
            Ordering::Relaxed,
        );
        tally.deletes.fetch_add(deletes as u64, Ordering::Relaxed);
        tally
            .bytes
            .fetch_add(flight.batch.bytes as u64, Ordering::Relaxed);
        tally
            .doomed
            .store(self.ledger.doomed() as u64, Ordering::Relaxed);
        tally
            .live_bytes
            .store(self.ledger.live_bytes(), Ordering::Relaxed);
        self.shared.queue.release(flight.bytes);
        flight.waiting.into_iter().for_each(|done| done(Ok(())));
    }

    fn fail(&self, flight: Flight, why: &Arc<str>) {
        tracing::error!(%why, "the store has failed");
        let error = StoreError::Failed(Arc::clone(why));
        self.shared.health.set(Health::Failed(Arc::clone(why)));
        self.shared.queue.end(error.clone());
        flight
            .waiting
            .into_iter()
            .for_each(|done| done(Err(error.clone())));
        let rest = self.shared.queue.drain();
        rest.into_iter()
            .filter_map(|queued| queued.done)
            .for_each(|done| done(Err(error.clone())));
    }
}
