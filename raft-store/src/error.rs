//! What can go wrong with a store, at its opening and later, and what to do then.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::key::GroupId;
use crate::ledger::LedgerError;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {path} is in use by another process; stop that one first")]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// There is no store, and none was to be made.
    #[error(
        "there is no store in {path}, although this node had one; if it is lost, the node must \
         rejoin the cluster under a new id, because an empty store under the old id can undo \
         what the cluster has acknowledged"
    )]
    Absent {
        /// The directory that was looked at.
        path: PathBuf,
    },
    /// The operating system refused, and the data need not be at fault.
    #[error("cannot {what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is too little room to open it.
    #[error(
        "the disk of the store in {path} is full ({free} bytes free, {needed} needed); make room and start again"
    )]
    Full {
        /// The store's directory.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that the store wants free before it writes.
        needed: u64,
    },
    /// What is acknowledged here would not survive a power cut.
    #[error(
        "a flush of the store in {path} does not reach the disk: {reason}. This build of the program \
         must not be used with data that matters"
    )]
    SyncIneffective {
        /// The store's directory.
        path: PathBuf,
        /// What was seen.
        reason: &'static str,
    },
    /// A newer program wrote it.
    #[error(
        "the store in {path} was written by a newer version ({found}, this one reads {known}); start that version"
    )]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format's version.
        found: u32,
        /// The newest version that is known here.
        known: u32,
    },
    /// Something that was acknowledged is lost or altered.
    #[error(
        "the store in {path} is damaged: {damage}. Nothing in it was repaired. Do not start this node with an \
         empty store, or with a part of this one, under its old id: that can undo what the cluster has acknowledged. \
         Move the directory aside, and let the node rejoin the cluster under a new id"
    )]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
}

/// What is wrong with a damaged store.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The database is gone, but the mark of its acknowledgements is there.
    #[error("its database is missing")]
    DatabaseMissing,
    /// The mark of acknowledgements is gone, but the database is there.
    #[error("the file {0:?} is missing, which says up to where the database was acknowledged")]
    MarkMissing(&'static str),
    /// The mark of acknowledgements cannot be read.
    #[error("the file {0:?} cannot be read, which says up to where the database was acknowledged")]
    MarkUnreadable(&'static str),
    /// The engine could not read its files.
    #[error("its database cannot be read ({0})")]
    Unreadable(String),
    /// The database ends before what was acknowledged.
    #[error(
        "its database ends at commit {found}, but commits up to {acknowledged} were acknowledged"
    )]
    Lost {
        /// The last commit that was acknowledged.
        acknowledged: u64,
        /// The last commit in the database.
        found: u64,
    },
    /// Some record is missing, stale or altered.
    #[error(
        "its records are not those that were written (their sum is {found:016x} instead of {sealed:016x})"
    )]
    Altered {
        /// The sum that was sealed with the last commit.
        sealed: u64,
        /// The sum of what is there.
        found: u64,
    },
    /// A record that cannot be read.
    #[error("{0}")]
    Record(String),
    /// A group's log has a hole.
    #[error(transparent)]
    Hole(#[from] LedgerError),
    /// A log was purged, but the snapshot that replaces the purged part is not there.
    #[error("group {group} needs a snapshot up to index {purged}, the newest reaches to {found:?}")]
    SnapshotMissing {
        /// The group.
        group: GroupId,
        /// The log begins after this index.
        purged: u64,
        /// What the newest snapshot covers, if there is one.
        found: Option<u64>,
    },
}

/// Why an open store did not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store failed and acknowledges nothing any more, until it is opened anew.
    #[error("the store has failed: {0}")]
    Failed(Arc<str>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The group was opened anew; this handle is an old one.
    #[error("group {0} was opened anew; this is an old handle")]
    Superseded(GroupId),
    /// An operation that the store's contract forbids.
    #[error(transparent)]
    Refused(#[from] LedgerError),
    /// Stored bytes that are not what was written.
    #[error("{0}")]
    Unreadable(String),
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Closed => io::ErrorKind::NotConnected,
            StoreError::Refused(_) => io::ErrorKind::InvalidInput,
            StoreError::Unreadable(_) => io::ErrorKind::InvalidData,
            StoreError::Failed(_) | StoreError::Superseded(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
