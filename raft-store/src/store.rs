//! An open store: its writer, its groups, its health.
//!
//! In a program [`Store::open`] opens a directory and starts a thread; a simulation gives an engine of its
//! own to [`Store::with_engine`] and runs the same writer as a task.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::engine::{Engine, Reader};
use crate::error::{Damage, OpenError, StoreError};
use crate::health::{Health, HealthBoard};
use crate::key::{GroupId, Key, Kind};
use crate::ledger::Ledger;
use crate::load::load;
use crate::queue::{Queue, QueueLimits};
use crate::sled::engine::SledEngine;
use crate::sled::open::{cannot, damaged, open_database};
use crate::snapshot::{SnapshotFiles, Snapshots};
use crate::sync;
use crate::writer::{Shared, Tally, Writer};

const LOCK_FILE: &str = "lock";
const SNAPSHOTS: &str = "snapshots";

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Make the store if the directory holds none. A node that had one passes false, so that a lost
    /// directory is an error and not an empty store.
    pub create: bool,
    /// Refuse a store in which a log was purged and the snapshot files don't cover the purged part. False
    /// where snapshots are kept elsewhere.
    pub snapshots_required: bool,
    /// Bytes of sled's page cache.
    pub cache_bytes: u64,
    /// Nothing is written while the disk has less free than this. With 0 nobody looks, and a full disk is
    /// noticed only when sled runs into it, which costs an opening of the database.
    pub reserve_bytes: u64,
    /// Bounds of what waits for the disk.
    pub limits: QueueLimits,
    /// Each group keeps about so many bytes of its newest entries in memory.
    pub recent_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            create: true,
            snapshots_required: true,
            cache_bytes: 64 << 20,
            reserve_bytes: 32 << 20,
            limits: QueueLimits::default(),
            recent_bytes: 4 << 20,
        }
    }
}

/// What a store has done since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches committed.
    pub commits: u64,
    /// Operations acknowledged.
    pub operations: u64,
    /// Records written, parts counted apart, headers too.
    pub records: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Records deleted.
    pub deletes: u64,
    /// Entries that are purged and not deleted yet.
    pub doomed: u64,
    /// Bytes of all records that stand, purged and not yet deleted ones too, after the last commit.
    pub live_bytes: u64,
    /// Operations that wait for the writer.
    pub waiting: usize,
    /// Bytes that wait for the disk.
    pub waiting_bytes: usize,
    /// Syncs of this program that went through the override, of all its stores.
    pub syncs: u64,
}

/// An open store. See the module.
///
/// Dropping it closes it: what has entered is written first, which blocks the dropping thread for about
/// one sync.
pub struct Store {
    shared: Arc<Shared>,
    reader: Arc<dyn Reader>,
    recent_bytes: usize,
    created: bool,
    groups: Vec<GroupId>,
    snapshots: Option<SnapshotFiles>,
    thread: Mutex<Option<JoinHandle<()>>>,
    _lock: Option<File>,
}

impl Store {
    /// Opens the store in a directory, checks all of it, and starts its writer. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// The store is not opened; [`OpenError`] says what to do.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        if options.create {
            std::fs::create_dir_all(dir).map_err(|source| cannot("make", dir, source))?;
        } else if !dir.exists() {
            return Err(OpenError::Absent { path: dir.into() });
        }
        let lock = lock(dir)?;
        let opened = open_database(dir, options)?;
        let snapshot_dir = dir.join(SNAPSHOTS);
        let snapshots = SnapshotFiles::open(&snapshot_dir, options.reserve_bytes)
            .map_err(|source| cannot("open", &snapshot_dir, source))?;
        if options.snapshots_required {
            check_covered(dir, &snapshots, &opened.loaded.purged)?;
        }
        let (mut store, writer) = Self::assemble::<SledEngine>(
            opened.engine,
            opened.loaded.ledger,
            options.limits,
            options.recent_bytes,
        );
        let thread = std::thread::Builder::new()
            .name("raft-store".into())
            .spawn(move || futures::executor::block_on(writer.run()))
            .map_err(|source| cannot("start the writer of", dir, source))?;
        store.created = opened.created;
        store.snapshots = Some(snapshots);
        store.thread = Mutex::new(Some(thread));
        store._lock = Some(lock);
        Ok(store)
    }

    /// Makes a store over an engine. The caller runs the returned future; it ends when the store is closed.
    ///
    /// # Errors
    ///
    /// What the engine holds is damaged.
    pub fn with_engine<E: Engine>(
        engine: E,
        limits: QueueLimits,
        recent_bytes: usize,
    ) -> Result<(Self, impl Future<Output = ()> + Send), OpenError> {
        let path = PathBuf::from("the given engine");
        let reader = engine.reader();
        let first = reader.last(
            Key::HEADER,
            Key {
                kind: Kind::Entry,
                ..LAST_KEY
            },
        );
        let ledger = match first {
            Ok(None) => Ledger::default(),
            _ => {
                load(&*reader)
                    .map_err(|damage| damaged(&path, damage))?
                    .ledger
            }
        };
        let (store, writer) = Self::assemble(engine, ledger, limits, recent_bytes);
        Ok((store, writer.run()))
    }

    fn assemble<E: Engine>(
        engine: E,
        ledger: Ledger,
        limits: QueueLimits,
        recent_bytes: usize,
    ) -> (Self, Writer<E>) {
        let shared = Arc::new(Shared {
            queue: Queue::new(limits),
            health: HealthBoard::new(),
            tally: Tally::default(),
        });
        let reader = engine.reader();
        let groups = ledger.groups().collect();
        let writer = Writer::new(engine, ledger, Arc::clone(&shared));
        let store = Self {
            shared,
            reader,
            recent_bytes,
            created: false,
            groups,
            snapshots: None,
            thread: Mutex::new(None),
            _lock: None,
        };
        (store, writer)
    }

    /// Whether opening made the store.
    #[must_use]
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// The groups that had records when the store was opened.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// The store's snapshot files; none over an engine of the caller's.
    #[must_use]
    pub fn snapshots(&self) -> Option<&SnapshotFiles> {
        self.snapshots.as_ref()
    }

    /// How the store is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health.get()
    }

    /// Waits until the health is another than `known`; returns it.
    pub fn health_changed(&self, known: Health) -> impl Future<Output = Health> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move { shared.health.changed(&known).await }
    }

    /// What the store has done.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let tally = &self.shared.tally;
        let (waiting, waiting_bytes) = self.shared.queue.depth();
        Figures {
            commits: tally.commits.load(Ordering::Relaxed),
            operations: tally.operations.load(Ordering::Relaxed),
            records: tally.records.load(Ordering::Relaxed),
            bytes: tally.bytes.load(Ordering::Relaxed),
            deletes: tally.deletes.load(Ordering::Relaxed),
            doomed: tally.doomed.load(Ordering::Relaxed),
            live_bytes: tally.live_bytes.load(Ordering::Relaxed),
            waiting,
            waiting_bytes,
            syncs: sync::count().calls,
        }
    }

    /// Closes the store and waits until all that has entered is written. Handles of groups get
    /// [`StoreError::Closed`] from now on. Over an engine of the caller's it only asks the writer to end.
    pub fn close(&self) {
        self.shared.queue.end(StoreError::Closed);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }

    pub(crate) fn parts(&self) -> (Arc<Shared>, Arc<dyn Reader>, usize) {
        (
            Arc::clone(&self.shared),
            Arc::clone(&self.reader),
            self.recent_bytes,
        )
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

const LAST_KEY: Key = Key {
    kind: Kind::Entry,
    group: u64::MAX,
    index: u64::MAX,
    part: u16::MAX,
};

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| cannot("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.into() }),
        Err(TryLockError::Error(source)) => Err(cannot("lock", &path, source)),
    }
}

/// A purged log without the snapshot that replaces its beginning is a loss.
fn check_covered(
    dir: &Path,
    snapshots: &SnapshotFiles,
    purged: &std::collections::BTreeMap<GroupId, u64>,
) -> Result<(), OpenError> {
    for (group, upto) in purged {
        let found = snapshots
            .latest(*group)
            .map_err(|source| cannot("read the snapshots in", dir, source))?
            .map(|snapshot| snapshot.covers);
        if found.is_none_or(|covers| covers < *upto) {
            let damage = Damage::SnapshotMissing {
                group: *group,
                purged: *upto,
                found,
            };
            return Err(damaged(dir, damage));
        }
    }
    Ok(())
}
