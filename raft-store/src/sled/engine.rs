//! sled as the engine.
//!
//! Invariants: a commit returns after `fdatasync` of sled's file (see `crate::sync`); a panic of sled is an
//! error; a full disk costs nothing that was acknowledged: room is asked for before each commit, and if
//! sled runs out of it all the same, the database is opened anew and looked at before the batch is repeated.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::batch::{Batch, Seal};
use crate::engine::{CommitError, Engine, ReadError, Reader, Stored};
use crate::key::Key;
use crate::load::load;
use crate::sled::mark::Mark;
use crate::sync;

/// How long a writer waits before it looks for room again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often, and how far apart, an open is repeated while sled's own threads still hold its lock.
const LOCK_TRIES: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The open database, which may be absent for a moment while it is opened anew.
type Slot = Arc<RwLock<Option<sled::Db>>>;

/// See the module.
pub(crate) struct SledEngine {
    dir: PathBuf,
    database: PathBuf,
    cache_bytes: u64,
    reserve_bytes: u64,
    slot: Slot,
    mark: Mark,
    /// The last seal that is known to stand.
    standing: Seal,
}

/// What sled said when it was opened.
#[derive(Debug)]
pub(crate) enum SledOpenError {
    /// The disk is full.
    Full(String),
    /// The operating system refused for a reason that is not in the data.
    Io(std::io::Error),
    /// The data cannot be read.
    Unreadable(String),
}

impl SledEngine {
    pub(crate) fn new(
        dir: &Path,
        database: &Path,
        cache_bytes: u64,
        reserve_bytes: u64,
        db: sled::Db,
        mark: Mark,
        standing: Seal,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            database: database.to_owned(),
            cache_bytes,
            reserve_bytes,
            slot: Arc::new(RwLock::new(Some(db))),
            mark,
            standing,
        }
    }

    fn commit_now(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.ask_for_room(batch)?;
        self.ensure_open(batch)?;
        if self.standing == batch.seal {
            return Ok(());
        }
        let before = sync::count();
        match self.write(batch) {
            Ok(()) if !sync::OVERRIDDEN || sync::count().calls > before.calls => {
                self.stands(batch.seal)
            }
            Ok(()) => Err(CommitError::Failed(
                "sled's flush did not sync its file".into(),
            )),
            Err(error) if is_full(&error) && sync::count().failed == before.failed => {
                self.drop_database();
                // At once, if that is possible, so that readers hardly notice.
                self.ensure_open(batch)?;
                if self.standing == batch.seal {
                    return Ok(());
                }
                Err(CommitError::Full(error.to_string()))
            }
            // After a failed sync the page cache no longer tells what is on the disk.
            Err(error) => Err(CommitError::Failed(error.to_string())),
        }
    }

    fn ask_for_room(&self, batch: &Batch) -> Result<(), CommitError> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        // sled rewrites a page now and then with each of its values, hence the factor.
        let needed = self.reserve_bytes + 4 * batch.bytes as u64;
        match free_bytes(&self.dir) {
            Ok(free) if free < needed => Err(CommitError::Full(format!(
                "{free} bytes are free and {needed} are wanted before a write"
            ))),
            Ok(_) => Ok(()),
            Err(error) => Err(CommitError::Failed(format!(
                "cannot ask for free space: {error}"
            ))),
        }
    }

    /// Opens the database again if it was dropped, and finds out whether the batch stands.
    fn ensure_open(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Ok(());
        }
        let db = open_sled(&self.database, self.cache_bytes).map_err(|error| match error {
            SledOpenError::Full(what) => CommitError::Full(what),
            SledOpenError::Io(error) => CommitError::Failed(error.to_string()),
            SledOpenError::Unreadable(what) => CommitError::Failed(what),
        })?;
        let loaded =
            load(&*reader_of(&db)).map_err(|damage| CommitError::Failed(damage.to_string()))?;
        let found = loaded.ledger.seal();
        if found != self.standing && found != batch.seal {
            return Err(CommitError::Failed(format!(
                "after a full disk the database stands at commit {} instead of {}",
                found.sequence, self.standing.sequence
            )));
        }
        // What was found may have been read from the page cache.
        std::fs::File::open(self.database.join("db"))
            .and_then(|file| file.sync_all())
            .map_err(|error| CommitError::Failed(format!("cannot sync the database: {error}")))?;
        *slot = Some(db);
        drop(slot);
        self.stands(found)
    }

    fn write(&self, batch: &Batch) -> Result<(), sled::Error> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = slot.as_ref() else {
            return Err(sled::Error::ReportableBug(
                "the database is not open".into(),
            ));
        };
        guarded(|| {
            db.apply_batch(to_sled(batch))?;
            db.flush().map(|_| ())
        })
        .unwrap_or_else(|panic| Err(sled::Error::ReportableBug(panic)))
    }

    fn stands(&mut self, seal: Seal) -> Result<(), CommitError> {
        self.standing = seal;
        self.mark.write(seal).map_err(|error| {
            CommitError::Failed(format!(
                "cannot write {}: {error}",
                self.mark.path().display()
            ))
        })
    }

    fn drop_database(&self) {
        let db = self
            .slot
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Err(panic) = guarded(|| drop(db)) {
            tracing::warn!(%panic, "sled panicked while it was closed");
        }
    }
}

impl Engine for SledEngine {
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send {
        std::future::ready(self.commit_now(batch))
    }

    fn pause(&mut self) -> impl Future<Output = ()> + Send {
        std::thread::sleep(PAUSE);
        std::future::ready(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(SledReader {
            slot: Arc::clone(&self.slot),
        })
    }

    fn close(&mut self) -> impl Future<Output = ()> + Send {
        self.drop_database();
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "the mark of acknowledgements was not synced at the end");
        }
        std::future::ready(())
    }
}

/// Reads beside the writer.
struct SledReader {
    slot: Slot,
}

impl SledReader {
    fn with<T>(
        &self,
        read: impl FnOnce(&sled::Db) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        let db = slot
            .as_ref()
            .ok_or_else(|| ReadError::Engine("it is not open".into()))?;
        guarded(|| read(db)).unwrap_or_else(|panic| Err(ReadError::Engine(panic)))
    }
}

impl Reader for SledReader {
    fn visit(
        &self,
        from: Key,
        to: Key,
        visit: &mut dyn FnMut(Key, &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        self.with(|db| visit_sled(db, from, to, visit))
    }

    fn last(&self, from: Key, to: Key) -> Result<Option<Stored>, ReadError> {
        self.with(|db| {
            let last = db.range(from.to_bytes()..=to.to_bytes()).next_back();
            let Some((key, value)) = last.transpose().map_err(in_words)? else {
                return Ok(None);
            };
            let key = Key::from_bytes(&key).ok_or_else(|| ReadError::Key(key.to_vec()))?;
            Ok(Some((key, value.to_vec())))
        })
    }
}

fn visit_sled(
    db: &sled::Db,
    from: Key,
    to: Key,
    visit: &mut dyn FnMut(Key, &[u8]) -> bool,
) -> Result<(), ReadError> {
    for stored in db.range(from.to_bytes()..=to.to_bytes()) {
        let (key, value) = stored.map_err(in_words)?;
        let key = Key::from_bytes(&key).ok_or_else(|| ReadError::Key(key.to_vec()))?;
        if !visit(key, &value) {
            break;
        }
    }
    Ok(())
}

fn in_words(error: sled::Error) -> ReadError {
    ReadError::Engine(error.to_string())
}

fn to_sled(batch: &Batch) -> sled::Batch {
    let mut out = sled::Batch::default();
    for (key, value) in &batch.writes {
        match value {
            Some(value) => out.insert(&key.to_bytes(), value.as_slice()),
            None => out.remove(&key.to_bytes()),
        }
    }
    out
}

/// Commits a batch to a database that is not in use yet.
pub(crate) fn commit_first(db: &sled::Db, batch: &Batch) -> Result<(), SledOpenError> {
    let committed = guarded(|| {
        db.apply_batch(to_sled(batch))?;
        db.flush().map(|_| ())
    });
    committed.map_err(SledOpenError::Unreadable)?.map_err(sort)
}

/// A reader of a database that is not in use yet.
pub(crate) fn reader_of(db: &sled::Db) -> Arc<dyn Reader> {
    Arc::new(SledReader {
        slot: Arc::new(RwLock::new(Some(db.clone()))),
    })
}

/// Opens sled's directory.
pub(crate) fn open_sled(database: &Path, cache_bytes: u64) -> Result<sled::Db, SledOpenError> {
    remove_unfinished_snapshots(database).map_err(SledOpenError::Io)?;
    let config = sled::Config::new()
        .path(database)
        .cache_capacity(cache_bytes)
        .flush_every_ms(None);
    let mut tries = 0;
    loop {
        let error = match guarded(|| config.open()) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(error)) => error,
            Err(panic) => return Err(SledOpenError::Unreadable(panic)),
        };
        // The store holds a lock of its own, so this is sled's own lock, which its threads give back a
        // little after the database was dropped.
        if !error.to_string().contains("could not acquire lock") {
            return Err(sort(error));
        }
        tries += 1;
        if tries >= LOCK_TRIES {
            let held = std::io::Error::new(std::io::ErrorKind::WouldBlock, error.to_string());
            return Err(SledOpenError::Io(held));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

fn sort(error: sled::Error) -> SledOpenError {
    use std::io::ErrorKind;
    if is_full(&error) {
        return SledOpenError::Full(error.to_string());
    }
    match error {
        sled::Error::Io(error) => {
            let refused = matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::WouldBlock
            );
            if refused {
                SledOpenError::Io(error)
            } else {
                SledOpenError::Unreadable(error.to_string())
            }
        }
        error @ (sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. }) => SledOpenError::Unreadable(error.to_string()),
    }
}

/// sled reads the newest file `snap.*`, and takes one that a crash left unfinished for damage.
fn remove_unfinished_snapshots(database: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(database)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "generating")
        {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_full(error: &sled::Error) -> bool {
    let sled::Error::Io(error) = error else {
        return false;
    };
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

/// Bytes that the disk of a directory has left.
pub(crate) fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let figures = nix::sys::statvfs::statvfs(dir)?;
    Ok(figures.blocks_available() * figures.fragment_size())
}

/// Runs what may panic inside sled; returns the panic's words.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        format!(
            "sled panicked: {}",
            words.unwrap_or_else(|| "without words".into())
        )
    })
}
