//! A full disk: nothing is acknowledged while there is no room, it says so, it goes on by itself when there is
//! room again, and nothing acknowledged is lost.
//!
//! On a real small tmpfs, in a mount namespace of its own: needs `unshare`, and root or user namespaces.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::witness::{Expected, payload};
use common::{GroupStore, append, append_later, entry, options, vote};
use espalier_raft_store::snapshot::{Description, Snapshots};
use espalier_raft_store::{Health, OpenError, Store, StoreOptions};
use libtest_mimic::{Arguments, Failed, Trial};
use openraft::storage::RaftLogStorage;

const CHILD: &str = "--on-a-small-disk";
const MIB: u64 = 1 << 20;
const DISK: u64 = 64 * MIB;
const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, child, dir, reserve] = arguments.as_slice()
        && child == CHILD
    {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(fill_and_make_room(
            Path::new(dir),
            reserve.parse().expect("a number"),
        ));
        return;
    }
    let trials = vec![
        Trial::test("a_full_disk_is_noticed_before_it_is_written_to", || {
            on_a_small_disk(4 * MIB)
        }),
        Trial::test("a_full_disk_that_sled_runs_into_loses_nothing", || {
            on_a_small_disk(0)
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Runs the child on a fresh tmpfs of its own.
fn on_a_small_disk(reserve: u64) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let script = format!(
        "mount -t tmpfs -o size={DISK} tmpfs \"$1\" && exec \"$0\" {CHILD} \"$1\" {reserve}"
    );
    let mut unshare = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let status = unshare
        .args(["--mount", "sh", "-c", &script])
        .arg(std::env::current_exe()?)
        .arg(dir.path())
        .status()
        .map_err(|error| format!("this test needs the program unshare: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "the test on a small disk failed ({status}); if it could not mount a tmpfs, it needs root or user namespaces"
    )
    .into())
}

/// Takes the disk's room, but for so many bytes.
fn take_room(dir: &Path, leave: u64) -> PathBuf {
    let path = dir.join("ballast");
    let free = || {
        let figures = nix::sys::statvfs::statvfs(dir).expect("a disk");
        figures.blocks_available() * figures.fragment_size()
    };
    let mut file = fs::File::create(&path).expect("made");
    while free() > leave {
        let piece = (free() - leave).min(MIB);
        file.write_all(&vec![1; usize::try_from(piece).expect("small")])
            .expect("written");
    }
    path
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen in {DEADLINE:?}"),
    }
}

/// Appends to a group for ever; notes what was acknowledged.
async fn write_on(mut log: GroupStore, group: u64, expected: Arc<Mutex<Expected>>) {
    let mut next = 0;
    loop {
        let entries = (next..next + 20).map(|index| entry(1, index, payload(group, 1, index)));
        append(&mut log, entries.collect())
            .await
            .expect("acknowledged, if late");
        expected
            .lock()
            .expect("unharmed")
            .learn(&format!("have {group} 1 {next} 20"));
        next += 20;
    }
}

async fn fill_and_make_room(dir: &Path, reserve: u64) {
    let home = dir.join("store");
    let options = StoreOptions {
        reserve_bytes: reserve,
        ..options()
    };
    let store = Store::open(&home, &options).expect("opened");
    let ballast = take_room(dir, 10 * MIB);
    let expected = Arc::new(Mutex::new(Expected::default()));
    let mut writers = Vec::new();
    for group in 1..=3 {
        let mut log = store.group(group).await.expect("a group");
        log.save_vote(&vote(1)).await.expect("saved");
        expected
            .lock()
            .expect("unharmed")
            .learn(&format!("vote {group} 1"));
        writers.push(tokio::spawn(write_on(log, group, Arc::clone(&expected))));
    }

    let health = in_time("a full disk", store.health_changed(Health::Well)).await;
    assert!(
        matches!(&health, Health::Full(what) if !what.is_empty()),
        "{health:?}"
    );
    let commits = store.figures().commits;
    // Opening a group waits until what was entered before is on the disk. Several tries of the writer pass.
    let mut late = Box::pin(store.group(4));
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut late).await;
    assert!(waited.is_err(), "nothing is acknowledged on a full disk");
    assert_eq!(
        store.figures().commits,
        commits,
        "nothing is committed on a full disk"
    );
    assert!(matches!(store.health(), Health::Full(_)));
    if reserve > 0 {
        refuses_a_snapshot(&store);
    }

    fs::remove_file(&ballast).expect("removed");
    in_time("room", well(&store)).await;
    let mut log = in_time("the late group", late).await.expect("a group");
    let acknowledged = append_later(&mut log, vec![entry(1, 0, payload(4, 1, 0))]).await;
    in_time("an append", acknowledged.expect("entered"))
        .await
        .expect("acknowledged");
    expected.lock().expect("unharmed").learn("have 4 1 0 1");

    for writer in writers {
        writer.abort();
        let ended = writer.await.expect_err("it writes for ever");
        assert!(ended.is_cancelled(), "a writer panicked: {ended}");
    }
    store.close();
    drop(store);
    let expected = std::mem::take(&mut *expected.lock().expect("unharmed"));
    assert!(
        expected.acknowledged > 1000,
        "only {} entries fitted",
        expected.acknowledged
    );
    expected.check(&home).await.expect("nothing is lost");
    opening_says_that_it_is_full(dir, &home);
}

/// Waits until the store acknowledges again. Why it is full may be said in other words each time.
async fn well(store: &Store) {
    let mut health = store.health();
    while health != Health::Well {
        assert!(matches!(health, Health::Full(_)), "{health:?}");
        health = store.health_changed(health).await;
    }
}

fn refuses_a_snapshot(store: &Store) {
    let files = store.snapshots().expect("files");
    let description = Description {
        group: 1,
        covers: 1,
        meta: Vec::new(),
    };
    let written = files
        .begin(description)
        .and_then(|mut writer| writer.write_all(&[1]));
    assert_eq!(
        written.expect_err("no room").kind(),
        std::io::ErrorKind::StorageFull
    );
}

fn opening_says_that_it_is_full(dir: &Path, home: &Path) {
    let ballast = take_room(dir, MIB);
    let options = StoreOptions {
        reserve_bytes: 4 * MIB,
        ..options()
    };
    let error = Store::open(home, &options).expect_err("no room");
    assert!(matches!(error, OpenError::Full { .. }), "{error}");
    fs::remove_file(ballast).expect("removed");
    Store::open(home, &options)
        .expect("opened when there is room")
        .close();
}
