//! openraft's own tests of a log store, on sled and on the simulated disk.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Config, Counter, GroupStore, Scratch};
use espalier_raft_store::memory::MemoryDisk;
use espalier_raft_store::snapshot::Snapshots;
use espalier_raft_store::{QueueLimits, Store};
use openraft::StorageError;
use openraft::impls::TokioRuntime;
use openraft::testing::log::{StoreBuilder, Suite};

struct OnSled;

impl StoreBuilder<Config, GroupStore, Counter, Scratch> for OnSled {
    async fn build(&self) -> Result<(Scratch, GroupStore, Counter), StorageError<Config>> {
        let scratch = Scratch::new();
        let group = scratch.store().group(7).await.expect("a new group");
        let files = scratch.store().snapshots().expect("files").clone();
        Ok((scratch, group, Counter::new(7, files)))
    }
}

/// All groups of one store: what one does must not be seen by another.
struct OnOneSled {
    scratch: Scratch,
    next: AtomicU64,
}

impl StoreBuilder<Config, GroupStore, Counter, ()> for OnOneSled {
    async fn build(&self) -> Result<((), GroupStore, Counter), StorageError<Config>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let group = self.scratch.store().group(id).await.expect("a new group");
        let files = self.scratch.store().snapshots().expect("files").clone();
        Ok(((), group, Counter::new(id, files)))
    }
}

struct OnMemory;

impl StoreBuilder<Config, GroupStore, Counter, (Store, tempfile::TempDir)> for OnMemory {
    async fn build(
        &self,
    ) -> Result<((Store, tempfile::TempDir), GroupStore, Counter), StorageError<Config>> {
        let engine = MemoryDisk::new().engine::<TokioRuntime>(|_| Duration::from_micros(10));
        let (store, writer) =
            Store::with_engine(engine, QueueLimits::default(), 1 << 20).expect("an empty disk");
        tokio::spawn(writer);
        let group = store.group(1).await.expect("a new group");
        let dir = tempfile::tempdir().expect("a directory");
        let files = espalier_raft_store::snapshot::SnapshotFiles::open(dir.path(), 0);
        let files = files.expect("a directory for snapshots");
        assert!(files.latest(1).expect("readable").is_none());
        Ok(((store, dir), group, Counter::new(1, files)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_on_sled() {
    Suite::test_all(OnSled).await.expect("the suite");
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_with_all_groups_in_one_store() {
    let builder = OnOneSled {
        scratch: Scratch::new(),
        next: AtomicU64::new(1),
    };
    Suite::test_all(builder).await.expect("the suite");
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_on_the_simulated_disk() {
    Suite::test_all(OnMemory).await.expect("the suite");
}
