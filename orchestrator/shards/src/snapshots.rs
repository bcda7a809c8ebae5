//! Where a group's snapshots lie.
//!
//! A snapshot of one's own is written and published in one go: from then on it is the group's latest, it
//! survives a crash, and older ones are gone. One that is received is spooled first, and published only
//! when the group has taken it.
//!
//! Not here: what is in a snapshot, and how it travels.

use std::future::Future;
use std::io;

/// The snapshots of one group on one node.
pub trait SnapshotStore: Clone + Send + Sync + 'static {
    /// A snapshot that is being received.
    type Spool: io::Write + Send + 'static;
    /// A snapshot that is complete.
    type File: SnapshotFile;

    /// Begins to receive a snapshot that `meta` describes. It need not survive a crash.
    ///
    /// # Errors
    ///
    /// As the storage fails.
    fn spool(&self, meta: &[u8]) -> io::Result<Self::Spool>;

    /// Completes what was received, so that it can be read.
    ///
    /// # Errors
    ///
    /// As the storage fails.
    fn seal(&self, spool: Self::Spool) -> io::Result<Self::File>;

    /// Has `fill` write a snapshot that `meta` describes, makes it durable, then the latest, and removes
    /// the older ones. If anything fails, the one before stays.
    ///
    /// # Errors
    ///
    /// As the storage or `fill` fails.
    fn publish(
        &self,
        meta: &[u8],
        fill: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()>;

    /// The latest published snapshot.
    ///
    /// # Errors
    ///
    /// As the storage fails, or when what is there is damaged.
    fn latest(&self) -> io::Result<Option<Self::File>>;

    /// Runs work that computes or waits for a disk for long: a thread pool in production, at once in
    /// a simulation.
    fn offload<T, F>(&self, work: F) -> impl Future<Output = io::Result<T>> + Send
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static;
}

/// A complete snapshot.
pub trait SnapshotFile: Clone + Send + Sync + 'static {
    /// What the store was told of it.
    fn meta(&self) -> &[u8];

    /// Bytes of its content.
    fn size(&self) -> u64;

    /// Opens the content for reading from its beginning.
    ///
    /// # Errors
    ///
    /// As the storage fails.
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>>;
}
