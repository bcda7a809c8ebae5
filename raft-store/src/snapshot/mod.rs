//! Snapshots: what a state machine writes when its log gets long, and reads when it starts.
//!
//! The store knows three things of a snapshot: whose it is, up to which log index it reaches, and some bytes
//! that the state machine wants back first (openraft's metadata). All else is a stream of bytes.
//!
//! Invariant: a snapshot is either whole and durable, or not there.

mod files;
mod frame;
mod memory;

use std::io::{self, Read, Seek, Write};

pub use files::{FileReader, FileWriter, SnapshotFiles};
pub use memory::{MemoryReader, MemorySnapshots, MemoryWriter};

use crate::key::GroupId;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub group: GroupId,
    /// The index of the last log entry that it contains.
    pub covers: u64,
    /// The state machine's own bytes, at most 1 MiB.
    pub meta: Vec<u8>,
}

/// A snapshot that can be read.
#[derive(Debug)]
pub struct Snapshot<R> {
    /// The index of the last log entry that it contains.
    pub covers: u64,
    /// The state machine's own bytes.
    pub meta: Vec<u8>,
    /// Length of the body in bytes.
    pub length: u64,
    /// The body. It fails with `InvalidData` where the bytes are not those that were written.
    pub body: R,
}

/// Keeps the newest snapshot of each group.
pub trait Snapshots: Clone + Send + Sync + 'static {
    /// Takes a body.
    type Writer: Write + Send + 'static;
    /// Gives a body.
    type Reader: Read + Seek + Send + 'static;

    /// Begins a snapshot. Dropped before [`Snapshots::finish`], it leaves nothing.
    ///
    /// # Errors
    ///
    /// The operating system's, or too little room (`StorageFull`).
    fn begin(&self, description: Description) -> io::Result<Self::Writer>;

    /// Ends a snapshot: it is durable and the group's latest when this returns; older ones are removed, but
    /// who reads one may read on.
    ///
    /// # Errors
    ///
    /// The operating system's; the snapshot is not there then.
    fn finish(&self, writer: Self::Writer) -> io::Result<()>;

    /// Opens a group's latest snapshot.
    ///
    /// # Errors
    ///
    /// The operating system's, or `InvalidData` if it is damaged.
    fn latest(&self, group: GroupId) -> io::Result<Option<Snapshot<Self::Reader>>>;
}
