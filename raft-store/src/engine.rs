//! The storage engine behind the store: what sled must do, and what another engine could do instead.
//!
//! An engine keeps keys and values and commits batches. It knows neither groups nor Raft. The writer
//! calls it from one place at a time; readers read beside it.

use std::future::Future;
use std::sync::Arc;

use crate::batch::Batch;
use crate::key::Key;

/// A stored key and its value.
pub type Stored = (Key, Vec<u8>);

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no room on the disk. Nothing of the batch stands; the same batch may be committed later.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The engine cannot go on. Whether the batch stands is unknown until the store is opened anew.
    #[error("{0}")]
    Failed(String),
}

/// Keeps keys and values, durably.
pub trait Engine: Send + 'static {
    /// Commits a batch, all of it or nothing. When it returns, the bytes are on the disk.
    ///
    /// # Errors
    ///
    /// The batch is not acknowledged; [`CommitError`] says whether it may be tried again.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Waits for a moment before a batch that found the disk full is tried again.
    fn pause(&mut self) -> impl Future<Output = ()> + Send;

    /// A reader of what is committed.
    fn reader(&self) -> Arc<dyn Reader>;

    /// Ends the engine; all that was committed stands.
    fn close(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Reads what is committed. Reads may see a batch shortly before its commit returns.
pub trait Reader: Send + Sync + 'static {
    /// Visits all parts from `from` to `to`, inclusive, in the order of their keys, until `visit` refuses.
    ///
    /// # Errors
    ///
    /// What the engine could not read, in words.
    fn visit(
        &self,
        from: Key,
        to: Key,
        visit: &mut dyn FnMut(Key, &[u8]) -> bool,
    ) -> Result<(), ReadError>;

    /// The last part from `from` to `to`, inclusive.
    ///
    /// # Errors
    ///
    /// What the engine could not read, in words.
    fn last(&self, from: Key, to: Key) -> Result<Option<Stored>, ReadError>;
}

/// Why the engine could not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed to answer.
    #[error("the database cannot be read: {0}")]
    Engine(String),
    /// There is a key that is none of this store's.
    #[error("the database holds a key that is none of this store's: {0:02x?}")]
    Key(Vec<u8>),
}
