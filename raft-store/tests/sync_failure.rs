//! A disk that refuses to sync: nothing is acknowledged, and the store says that it has failed.
//!
//! `fdatasync` is replaced in this test's program by one that can be told to fail.

mod common;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{append, append_later, entry, options, vote};
use espalier_raft_store::{Health, OpenError, Store, StoreError};
use openraft::storage::RaftLogStorage;

static REFUSE: AtomicBool = AtomicBool::new(false);

#[allow(
    unsafe_code,
    reason = "stands in for the C library's function of this name"
)]
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: libc::c_int) -> libc::c_int {
    // SAFETY: errno is this thread's own; the system call takes any integer.
    unsafe {
        if REFUSE.load(Ordering::SeqCst) {
            *libc::__errno_location() = libc::EIO;
            return -1;
        }
        if libc::syscall(libc::SYS_fdatasync, file) < 0 {
            -1
        } else {
            0
        }
    }
}

// One test, because the switch is the program's.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_store_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), &options()).expect("opened");
    let mut log = store.group(1).await.expect("a group");
    append(&mut log, vec![entry(1, 0, vec![1])])
        .await
        .expect("acknowledged");

    REFUSE.store(true, Ordering::SeqCst);
    let refused = append(&mut log, vec![entry(1, 1, vec![2])]).await;
    assert!(
        refused.is_err(),
        "an append was acknowledged without a sync"
    );
    assert!(
        matches!(store.health(), Health::Failed(_)),
        "{:?}",
        store.health()
    );

    // Once failed it stays so: a later sync says nothing of what the failed one has dropped.
    REFUSE.store(false, Ordering::SeqCst);
    let later = log
        .save_vote(&vote(2))
        .await
        .expect_err("the store has failed");
    let source = io::Error::into_inner(later).expect("has a source");
    assert!(
        matches!(source.downcast_ref(), Some(StoreError::Failed(_))),
        "{source}"
    );
    assert!(
        append_later(&mut log, vec![entry(1, 2, vec![3])])
            .await
            .is_err()
    );
    drop(store);

    REFUSE.store(true, Ordering::SeqCst);
    let elsewhere = tempfile::tempdir().expect("a directory");
    for path in [dir.path(), elsewhere.path()] {
        let error = Store::open(path, &options()).expect_err("syncs are refused");
        assert!(
            matches!(error, OpenError::SyncIneffective { .. }),
            "{error}"
        );
    }
    REFUSE.store(false, Ordering::SeqCst);

    let store = Store::open(dir.path(), &options()).expect("opened");
    let mut log = store.group(1).await.expect("a group");
    let found = common::read(&mut log, 0..10).await;
    assert_eq!(
        found.first(),
        Some(&entry(1, 0, vec![1])),
        "what was acknowledged is there"
    );
}
