//! Writes, publishes and reads a group's snapshots.
//!
//! Invariant: a published snapshot is never replaced by an older one: the log behind the newer may be
//! gone already. Snapshots are written off the apply path, and a write that fails (a full disk) is
//! reported and tried again later; it stops nothing.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::AsyncRuntime;

use crate::types::SnapshotMeta;
use crate::{Replica, SnapshotFile, SnapshotStore};

/// The first byte of every snapshot's meta; another form gets another number.
const META_VERSION: u8 = 1;

pub(crate) struct Shelf<S> {
    store: S,
    publishing: Arc<Mutex<()>>,
}

impl<S: Clone> Clone for Shelf<S> {
    fn clone(&self) -> Self {
        Shelf {
            store: self.store.clone(),
            publishing: Arc::clone(&self.publishing),
        }
    }
}

impl<S: SnapshotStore> Shelf<S> {
    pub(crate) fn new(store: S) -> Self {
        Shelf {
            store,
            publishing: Arc::new(Mutex::new(())),
        }
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// Writes and publishes a snapshot of `replica`, which stands where `meta` says.
    pub(crate) async fn write<Rt, R>(&self, meta: SnapshotMeta<Rt>, replica: R) -> io::Result<()>
    where
        Rt: AsyncRuntime,
        R: Replica,
    {
        let shelf = self.clone();
        let work = move || shelf.publish::<Rt>(&meta, &mut |out| replica.write_snapshot(out));
        self.store.offload(work).await
    }

    /// Reads a received snapshot back into a state and publishes it.
    pub(crate) async fn install<Rt, R>(
        &self,
        meta: SnapshotMeta<Rt>,
        file: S::File,
        like: R,
    ) -> io::Result<R>
    where
        Rt: AsyncRuntime,
        R: Replica,
    {
        let shelf = self.clone();
        let work = move || {
            let replica = like.read_snapshot(&mut *file.open()?)?;
            let mut copy =
                |out: &mut dyn io::Write| io::copy(&mut *file.open()?, out).map(|_bytes| ());
            shelf.publish::<Rt>(&meta, &mut copy)?;
            Ok(replica)
        };
        self.store.offload(work).await
    }

    /// The latest published snapshot.
    pub(crate) async fn latest<Rt: AsyncRuntime>(
        &self,
    ) -> io::Result<Option<(SnapshotMeta<Rt>, S::File)>> {
        let store = self.store.clone();
        let work = move || latest::<Rt, S>(&store);
        self.store.offload(work).await
    }

    fn publish<Rt: AsyncRuntime>(
        &self,
        meta: &SnapshotMeta<Rt>,
        fill: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        // Held while the snapshot is written: an older one that is under way must not end last.
        let _one_at_a_time = lock(&self.publishing);
        let newest = latest::<Rt, S>(&self.store)?;
        if newest.is_some_and(|(newest, _)| newest.last_log_id >= meta.last_log_id) {
            return Ok(());
        }
        self.store.publish(&encode_meta::<Rt>(meta)?, fill)
    }
}

fn latest<Rt: AsyncRuntime, S: SnapshotStore>(
    store: &S,
) -> io::Result<Option<(SnapshotMeta<Rt>, S::File)>> {
    let Some(file) = store.latest()? else {
        return Ok(None);
    };
    Ok(Some((decode_meta::<Rt>(file.meta())?, file)))
}

/// The bytes that stand for a snapshot's meta, in files and on the wire.
///
/// # Errors
///
/// Never for a meta that openraft made.
pub fn encode_meta<Rt: AsyncRuntime>(meta: &SnapshotMeta<Rt>) -> io::Result<Vec<u8>> {
    postcard::to_extend(meta, vec![META_VERSION]).map_err(io::Error::other)
}

/// Reads what [`encode_meta`] wrote.
///
/// # Errors
///
/// `InvalidData` for another version and for anything else.
pub fn decode_meta<Rt: AsyncRuntime>(bytes: &[u8]) -> io::Result<SnapshotMeta<Rt>> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    match bytes.split_first() {
        Some((&META_VERSION, body)) => postcard::from_bytes(body)
            .map_err(|error| invalid(format!("a snapshot's meta: {error}"))),
        Some((version, _)) => Err(invalid(format!("a snapshot's meta has version {version}"))),
        None => Err(invalid("a snapshot's meta is empty".into())),
    }
}

/// Locks a mutex whose holders never leave it half written.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
