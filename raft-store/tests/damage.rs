//! Damaged stores: each is refused with an error that says what to do, or nothing of it is missing.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Scratch, append, entry, log_id, options, read, vote};
use espalier_raft_store::{Damage, GroupStore, OpenError, Store, StoreOptions};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const GROUPS: u64 = 3;
const ENTRIES: u64 = 2000;

fn payload(group: u64, index: u64) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(group << 32 | index);
    let length = if index.is_multiple_of(200) {
        40_000
    } else {
        700
    };
    (0..length).map(|_| random.random()).collect()
}

/// A closed store of a few megabytes, some of its logs purged.
async fn build() -> tempfile::TempDir {
    let mut scratch = Scratch::new();
    for id in 1..=GROUPS {
        let mut group = scratch.store().group(id).await.expect("a group");
        group.save_vote(&vote(id)).await.expect("saved");
        for first in (0..ENTRIES).step_by(50) {
            let entries = (first..first + 50).map(|index| entry(1, index, payload(id, index)));
            append(&mut group, entries.collect())
                .await
                .expect("appended");
        }
        group.purge(log_id(1, 99 * id)).await.expect("purged");
    }
    scratch.reopen();
    scratch.store.take().expect("open").close();
    scratch.dir
}

/// Opens a store and checks that all is there.
async fn check(dir: &Path) -> Result<(), OpenError> {
    let store = Store::open(dir, &options())?;
    for id in 1..=GROUPS {
        let mut group: GroupStore<common::Config> = store.group(id).await.expect("a group");
        let mut reader = group.get_log_reader().await;
        assert_eq!(reader.read_vote().await.expect("readable"), Some(vote(id)));
        let entries = read(&mut group, 0..u64::MAX).await;
        assert_eq!(entries.len() as u64, ENTRIES - 99 * id - 1);
        for found in entries {
            assert_eq!(common::body(&found), payload(id, found.log_id.index));
        }
    }
    Ok(())
}

fn copy(from: &Path) -> tempfile::TempDir {
    fn copy_into(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("readable") {
            let entry = entry.expect("readable");
            let target = to.join(entry.file_name());
            if entry.file_type().expect("known").is_dir() {
                copy_into(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).expect("copied");
            }
        }
    }
    let to = tempfile::tempdir().expect("a directory");
    copy_into(from, to.path());
    to
}

fn database(dir: &Path) -> PathBuf {
    dir.join("log").join("db")
}

fn set_length(path: &Path, length: u64) {
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(length))
        .expect("cut");
}

/// Damages a copy and opens it.
async fn with_damage(good: &Path, damage: impl FnOnce(&Path)) -> Result<(), OpenError> {
    let dir = copy(good);
    damage(dir.path());
    check(dir.path()).await
}

fn says_what_to_do(error: &OpenError) {
    let words = error.to_string();
    assert!(words.contains("is damaged"), "{words}");
    assert!(words.contains("Move the directory aside"), "{words}");
    assert!(words.contains("under a new id"), "{words}");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let good = build().await;
    check(good.path()).await.expect("undamaged");
    type Damaging = fn(&Path);
    let table: [(&str, Damaging, &str); 9] = [
        (
            "no database",
            |d| fs::remove_dir_all(d.join("log")).expect("gone"),
            "is missing",
        ),
        (
            "no database file",
            |d| fs::remove_file(database(d)).expect("gone"),
            "is missing",
        ),
        (
            "an empty database file",
            |d| set_length(&database(d), 0),
            "is missing",
        ),
        (
            "no mark",
            |d| fs::remove_file(d.join("acknowledged")).expect("gone"),
            "acknowledged",
        ),
        (
            "an empty mark",
            |d| set_length(&d.join("acknowledged"), 0),
            "acknowledged",
        ),
        (
            "a mark of rubbish",
            |d| fs::write(d.join("acknowledged"), [7; 2000]).expect("x"),
            "ackno",
        ),
        ("half a database file", |d| halve(&database(d)), ""),
        ("a database of zeros", |d| zero(&database(d)), ""),
        (
            "no header of a store",
            |d| foreign_database(d),
            "header is missing",
        ),
    ];
    for (name, damage, word) in table {
        let error = with_damage(good.path(), damage).await.expect_err(name);
        says_what_to_do(&error);
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
}

fn halve(path: &Path) {
    let length = fs::metadata(path).expect("there").len();
    set_length(path, length / 2);
}

fn zero(path: &Path) {
    let length = fs::metadata(path).expect("there").len();
    fs::write(path, vec![0; usize::try_from(length).expect("small")]).expect("written");
}

fn foreign_database(dir: &Path) {
    fs::remove_dir_all(dir.join("log")).expect("gone");
    let db = sled::open(dir.join("log")).expect("opened");
    db.flush().expect("flushed");
}

#[tokio::test]
async fn a_shortened_database_never_opens_with_less_than_was_acknowledged() {
    let good = build().await;
    let length = fs::metadata(database(good.path())).expect("there").len();
    let mut random = SmallRng::seed_from_u64(1);
    let mut refused = 0;
    for round in 0..40 {
        // Some ends near the old one: a torn tail is what sled repairs silently.
        let cut = match round % 2 {
            0 => length - random.random_range(1..=length / 20),
            _ => random.random_range(1..length),
        };
        match with_damage(good.path(), |dir| set_length(&database(dir), cut)).await {
            // `check` has compared everything.
            Ok(()) => {}
            Err(error) => {
                says_what_to_do(&error);
                refused += 1;
            }
        }
    }
    assert!(
        refused >= 20,
        "only {refused} of 40 shortened databases were refused"
    );
}

#[tokio::test]
async fn altered_bytes_never_change_what_was_acknowledged() {
    let good = build().await;
    let length = fs::metadata(database(good.path())).expect("there").len();
    let mut random = SmallRng::seed_from_u64(2);
    let mut refused = 0;
    for round in 0..120 {
        let at = random.random_range(0..length);
        let span = [1, 16, 512, 70_000][round % 4];
        let outcome = with_damage(good.path(), |dir| {
            let file = fs::File::options()
                .write(true)
                .open(database(dir))
                .expect("there");
            let bytes: Vec<u8> = (0..span).map(|_| random.random()).collect();
            file.write_all_at(&bytes, at).expect("written");
        });
        if let Err(error) = outcome.await {
            says_what_to_do(&error);
            refused += 1;
        }
    }
    println!("{refused} of 120 altered databases were refused, the others had lost nothing");
    assert!(
        refused >= 40,
        "only {refused} of 120 altered databases were refused"
    );
}

#[tokio::test]
async fn an_older_database_under_a_newer_mark_is_named_as_lost() {
    let mut scratch = Scratch::new();
    let mut group = scratch.store().group(1).await.expect("a group");
    append(&mut group, vec![entry(1, 0, vec![1])])
        .await
        .expect("appended");
    scratch.reopen();
    scratch.store().close();
    let older = copy(scratch.dir.path());
    scratch.reopen();
    let mut group = scratch.store().group(1).await.expect("a group");
    append(&mut group, vec![entry(1, 1, vec![2])])
        .await
        .expect("appended");
    scratch.store.take().expect("open").close();
    fs::copy(
        scratch.dir.path().join("acknowledged"),
        older.path().join("acknowledged"),
    )
    .expect("copied");
    match Store::open(older.path(), &options()) {
        Err(OpenError::Damaged {
            damage:
                Damage::Lost {
                    acknowledged,
                    found,
                },
            ..
        }) => {
            assert!(found < acknowledged);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_purged_log_without_its_snapshot_is_refused() {
    let good = build().await;
    let strict = StoreOptions {
        snapshots_required: true,
        ..options()
    };
    match Store::open(good.path(), &strict) {
        Err(OpenError::Damaged {
            damage:
                Damage::SnapshotMissing {
                    group: 1,
                    purged: 99,
                    found: None,
                },
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_directory_is_no_new_store_for_a_node_that_had_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let had_one = StoreOptions {
        create: false,
        ..options()
    };
    for path in [dir.path().to_owned(), dir.path().join("gone")] {
        let error = Store::open(&path, &had_one).expect_err("there is none");
        assert!(matches!(error, OpenError::Absent { .. }), "{error}");
        assert!(error.to_string().contains("under a new id"), "{error}");
    }
}

#[test]
fn a_store_in_use_is_not_opened_twice() {
    let scratch = Scratch::new();
    let error = Store::open(scratch.dir.path(), &options()).expect_err("it is open");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
}

#[test]
fn a_store_of_a_newer_version_is_named() {
    let mut scratch = Scratch::new();
    scratch.store.take().expect("open").close();
    let path = scratch.dir.path().join("acknowledged");
    let mut bytes = fs::read(&path).expect("readable");
    for slot in [0, 512] {
        bytes[slot + 11] = 9;
        let checksum = twox_hash::XxHash3_64::oneshot(&bytes[slot..slot + 28]);
        bytes[slot + 28..slot + 36].copy_from_slice(&checksum.to_be_bytes());
    }
    fs::write(&path, bytes).expect("written");
    let error = Store::open(scratch.dir.path(), &options()).expect_err("newer");
    assert!(
        matches!(error, OpenError::NewerFormat { found: 9, .. }),
        "{error}"
    );
}

#[test]
fn an_interrupted_making_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("log.new").join("blobs")).expect("made");
    fs::write(dir.path().join("log.new").join("db"), [1; 100]).expect("written");
    let store = Store::open(dir.path(), &options()).expect("made anew");
    assert!(store.was_created());
}
