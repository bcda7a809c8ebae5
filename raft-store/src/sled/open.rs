//! Opens the database of a store, or makes it, and finds out whether anything acknowledged is missing.
//!
//! Invariant: an empty database appears only where there was none and no mark of one. Nothing is repaired.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::batch::{Batch, Seal};
use crate::error::{Damage, OpenError};
use crate::ledger::Ledger;
use crate::load::{Loaded, load};
use crate::sled::engine::{
    SledEngine, SledOpenError, commit_first, free_bytes, open_sled, reader_of,
};
use crate::sled::mark::{FORMAT, Found, MARK_FILE, Mark};
use crate::store::StoreOptions;
use crate::sync;

const DATABASE: &str = "log";
const NEW_DATABASE: &str = "log.new";

/// An open database, checked, and what lies in it.
pub(crate) struct Opened {
    pub(crate) engine: SledEngine,
    pub(crate) loaded: Loaded,
    pub(crate) created: bool,
}

/// Opens or makes the database under `dir`, which must be locked by the caller.
pub(crate) fn open_database(dir: &Path, options: &StoreOptions) -> Result<Opened, OpenError> {
    let database = dir.join(DATABASE);
    ask_for_room(dir, options.reserve_bytes)?;
    let created = match (database.exists(), dir.join(MARK_FILE).exists()) {
        (false, true) => return Err(damaged(dir, Damage::DatabaseMissing)),
        (false, false) if !options.create => return Err(OpenError::Absent { path: dir.into() }),
        (false, false) => {
            create(dir, options)?;
            true
        }
        (true, _) => false,
    };
    check_not_empty(dir, &database)?;
    let db = open_sled(&database, options.cache_bytes).map_err(|error| say(dir, error))?;
    let mut loaded = load(&*reader_of(&db)).map_err(|damage| damaged(dir, damage))?;
    let mark = compare_with_mark(dir, &loaded.ledger)?;
    let seal = check_sync(dir, &db, &mut loaded.ledger)?;
    mark.write(seal)
        .and_then(|()| mark.sync())
        .map_err(|source| cannot("write", mark.path(), source))?;
    let engine = SledEngine::new(
        dir,
        &database,
        options.cache_bytes,
        options.reserve_bytes,
        db,
        mark,
        seal,
    );
    Ok(Opened {
        engine,
        loaded,
        created,
    })
}

fn ask_for_room(dir: &Path, reserve: u64) -> Result<(), OpenError> {
    let free =
        free_bytes(dir).map_err(|source| cannot("ask for the free space of", dir, source))?;
    // sled writes while it opens: its file's tail, and a file with the state of all pages.
    let needed = reserve / 2;
    if free < needed {
        return Err(OpenError::Full {
            path: dir.into(),
            free,
            needed,
        });
    }
    Ok(())
}

/// Makes an empty database under another name, syncs all of it and then gives it its name, so that one that
/// has the name is whole.
fn create(dir: &Path, options: &StoreOptions) -> Result<(), OpenError> {
    let new = dir.join(NEW_DATABASE);
    match std::fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(cannot("remove", &new, error));
        }
        _ => {}
    }
    std::fs::create_dir(&new).map_err(|source| cannot("make", &new, source))?;
    let db = open_sled(&new, options.cache_bytes).map_err(|error| say(dir, error))?;
    let mut batch = Batch::default();
    Ledger::default()
        .seal_batch(&mut batch)
        .map_err(|error| damaged(dir, Damage::Hole(error)))?;
    commit_synced(dir, &db, &batch)?;
    drop(db);
    sync_tree(&new).map_err(|source| cannot("sync", &new, source))?;
    let database = dir.join(DATABASE);
    std::fs::rename(&new, &database)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|source| cannot("name", &database, source))
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// sled would make a database anew where its file is gone or empty.
fn check_not_empty(dir: &Path, database: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(database.join("db")) {
        Ok(metadata) if metadata.len() > 0 => Ok(()),
        Ok(_) => Err(damaged(dir, Damage::DatabaseMissing)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(damaged(dir, Damage::DatabaseMissing))
        }
        Err(error) => Err(cannot("look at", database, error)),
    }
}

fn compare_with_mark(dir: &Path, ledger: &Ledger) -> Result<Mark, OpenError> {
    let seal = ledger.seal();
    let (mark, found) = match Mark::open(dir) {
        Ok(opened) => opened,
        // Its making was interrupted before anything could be acknowledged.
        Err(error) if error.kind() == io::ErrorKind::NotFound && seal.sequence == 1 => {
            return Mark::create(dir, seal)
                .map_err(|source| cannot("make", &dir.join(MARK_FILE), source));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(dir, Damage::MarkMissing(MARK_FILE)));
        }
        Err(error) => return Err(cannot("open", &dir.join(MARK_FILE), error)),
    };
    match found {
        Found::Acknowledged(acknowledged) => {
            compare(acknowledged, seal).map_err(|damage| damaged(dir, damage))?;
            Ok(mark)
        }
        Found::Unreadable => Err(damaged(dir, Damage::MarkUnreadable(MARK_FILE))),
        Found::Newer(found) => Err(OpenError::NewerFormat {
            path: dir.into(),
            found,
            known: FORMAT,
        }),
    }
}

fn compare(acknowledged: Seal, found: Seal) -> Result<(), Damage> {
    if found.sequence < acknowledged.sequence {
        return Err(Damage::Lost {
            acknowledged: acknowledged.sequence,
            found: found.sequence,
        });
    }
    if found.sequence == acknowledged.sequence && found.sum != acknowledged.sum {
        return Err(Damage::Altered {
            sealed: acknowledged.sum,
            found: found.sum,
        });
    }
    Ok(())
}

/// Commits an empty batch and sees whether that reached `fdatasync`.
fn check_sync(dir: &Path, db: &sled::Db, ledger: &mut Ledger) -> Result<Seal, OpenError> {
    let mut batch = Batch::default();
    ledger
        .seal_batch(&mut batch)
        .map_err(|error| damaged(dir, Damage::Hole(error)))?;
    commit_synced(dir, db, &batch)?;
    Ok(batch.seal)
}

/// Commits a batch and sees whether that reached the disk.
fn commit_synced(dir: &Path, db: &sled::Db, batch: &Batch) -> Result<(), OpenError> {
    let ineffective = |reason| OpenError::SyncIneffective {
        path: dir.into(),
        reason,
    };
    let before = sync::count();
    let committed = commit_first(db, batch);
    let after = sync::count();
    if after.failed != before.failed {
        return Err(ineffective("the operating system refuses fdatasync here"));
    }
    committed.map_err(|error| say(dir, error))?;
    if sync::OVERRIDDEN && after.calls == before.calls {
        return Err(ineffective(
            "sled does not use this program's sync_file_range",
        ));
    }
    Ok(())
}

fn say(dir: &Path, error: SledOpenError) -> OpenError {
    match error {
        SledOpenError::Full(_) => OpenError::Full {
            path: dir.into(),
            free: free_bytes(dir).unwrap_or(0),
            needed: 1,
        },
        SledOpenError::Io(source) => cannot("open", &dir.join(DATABASE), source),
        SledOpenError::Unreadable(what) => damaged(dir, Damage::Unreadable(what)),
    }
}

pub(crate) fn damaged(dir: &Path, damage: Damage) -> OpenError {
    OpenError::Damaged {
        path: dir.into(),
        damage,
    }
}

pub(crate) fn cannot(what: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        what,
        path: PathBuf::from(path),
        source,
    }
}
