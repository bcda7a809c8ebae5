//! The last completed objects, with the hash of what this peer would serve of each.
//!
//! The hash is taken from the bytes in the store, after everything else, by a task of its own: it is
//! evidence for people and tests, and holds nobody up. When that task lags, objects go unrecorded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use espalier_media::ObjectKey;
use espalier_peer_core::Provenance;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::PlayerObject;

/// How many objects are remembered.
const REMEMBERED: usize = 64;
/// How many may wait to be hashed.
const WAITING: usize = 64;

/// One completed object.
#[derive(Debug, Clone)]
pub(crate) struct LedgerEntry {
    pub(crate) key: ObjectKey,
    pub(crate) length: u64,
    pub(crate) uri: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) first_chunk_unix_ms: u64,
    pub(crate) completed_unix_ms: u64,
    pub(crate) from: Provenance,
    pub(crate) verified: bool,
}

#[derive(Debug)]
struct Completed {
    key: ObjectKey,
    object: Arc<PlayerObject>,
    from: Provenance,
    at_unix_ms: u64,
}

/// Records what was completed; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    entries: Arc<Mutex<VecDeque<LedgerEntry>>>,
    waiting: mpsc::Sender<Completed>,
}

impl Ledger {
    /// Starts the hashing task, which ends with the last clone.
    pub(crate) fn start() -> Self {
        let entries = Arc::new(Mutex::new(VecDeque::with_capacity(REMEMBERED)));
        let (waiting, completed) = mpsc::channel(WAITING);
        tokio::spawn(hash_all(completed, Arc::clone(&entries)));
        Self { entries, waiting }
    }

    pub(super) fn record(
        &self,
        key: ObjectKey,
        object: Arc<PlayerObject>,
        from: Provenance,
        at_unix_ms: u64,
    ) {
        let completed = Completed {
            key,
            object,
            from,
            at_unix_ms,
        };
        if self.waiting.try_send(completed).is_err() {
            tracing::debug!(%key, "too many objects wait to be hashed, one is not recorded");
        }
    }

    /// The remembered objects, oldest first.
    pub(crate) fn entries(&self) -> Vec<LedgerEntry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().cloned().collect()
    }
}

async fn hash_all(
    mut completed: mpsc::Receiver<Completed>,
    entries: Arc<Mutex<VecDeque<LedgerEntry>>>,
) {
    while let Some(Completed {
        key,
        object,
        from,
        at_unix_ms,
    }) = completed.recv().await
    {
        let mut hasher = Sha256::new();
        for chunk in object.contiguous() {
            hasher.update(chunk);
            // A long object must not hold up the other tasks of this thread.
            tokio::task::yield_now().await;
        }
        let entry = LedgerEntry {
            key,
            length: object.length(),
            uri: object
                .descriptor()
                .map(|descriptor| descriptor.uri.clone())
                .unwrap_or_default(),
            sha256: hasher.finalize().into(),
            first_chunk_unix_ms: object
                .progress()
                .borrow()
                .first_unix_ms
                .unwrap_or(at_unix_ms),
            completed_unix_ms: at_unix_ms,
            from,
            verified: object.is_verified(),
        };
        let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= REMEMBERED {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
}
