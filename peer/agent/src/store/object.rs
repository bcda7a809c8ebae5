//! One object for the player: its description, and its chunks as they come.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use espalier_media::{CHUNK_SIZE, ChunkIndex, Descriptor, Statement};
use tokio::sync::watch;

/// An object that the playlist lists. Shared: the engine's task fills it, requests read it.
///
/// Chunks arrive in any order and never change. A reader that needs one that is missing waits on
/// [`PlayerObject::progress`].
#[derive(Debug)]
pub(crate) struct PlayerObject {
    statement: Arc<Statement>,
    verified: bool,
    listed_unix_ms: u64,
    length: u64,
    chunk_length: usize,
    chunks: Box<[OnceLock<Bytes>]>,
    progress: watch::Sender<Progress>,
}

/// How far an object is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many chunks are here.
    pub(crate) chunks: u32,
    /// When the first of them came, milliseconds since the Unix epoch.
    pub(crate) first_unix_ms: Option<u64>,
    /// Nothing more will be added to this instance; the store may have another.
    pub(crate) withdrawn: bool,
}

impl PlayerObject {
    /// A listed object of which nothing is here yet. `statement` is its descriptor.
    pub(crate) fn listed(statement: Arc<Statement>, now_unix_ms: u64) -> Option<Self> {
        let descriptor = statement.as_object()?;
        let (length, count) = (
            descriptor.length,
            usize::try_from(descriptor.chunk_count()).ok()?,
        );
        let chunks = (0..count).map(|_| OnceLock::new()).collect();
        Some(Self {
            listed_unix_ms: now_unix_ms,
            length,
            chunk_length: CHUNK_SIZE,
            chunks,
            verified: true,
            statement,
            progress: watch::Sender::new(Progress::default()),
        })
    }

    /// A whole object that no hash vouches for.
    pub(crate) fn unverified(statement: Arc<Statement>, body: Bytes, now_unix_ms: u64) -> Self {
        let progress = Progress {
            chunks: 1,
            first_unix_ms: Some(now_unix_ms),
            withdrawn: false,
        };
        Self {
            listed_unix_ms: now_unix_ms,
            length: u64::try_from(body.len()).unwrap_or(u64::MAX),
            chunk_length: body.len().max(1),
            chunks: Box::new([OnceLock::from(body)]),
            verified: false,
            statement,
            progress: watch::Sender::new(progress),
        }
    }

    /// The same bytes under the description of `statement`, which came after them.
    pub(crate) fn redescribed(&self, statement: Arc<Statement>) -> Self {
        Self {
            statement,
            verified: self.verified,
            listed_unix_ms: self.listed_unix_ms,
            length: self.length,
            chunk_length: self.chunk_length,
            chunks: self.chunks.clone(),
            progress: watch::Sender::new(*self.progress.borrow()),
        }
    }

    /// Adds a chunk; one that is here already is left alone. True: the object was not complete and
    /// now is.
    pub(crate) fn add(&self, index: ChunkIndex, bytes: Bytes, now_unix_ms: u64) -> bool {
        let slot = usize::try_from(index.0)
            .ok()
            .and_then(|index| self.chunks.get(index));
        let Some(slot) = slot else { return false };
        if slot.set(bytes).is_err() {
            return false;
        }
        self.progress.send_modify(|progress| {
            progress.chunks += 1;
            progress.first_unix_ms.get_or_insert(now_unix_ms);
        });
        self.is_complete()
    }

    /// Tells readers that this instance will not grow any more.
    pub(crate) fn withdraw(&self) {
        self.progress
            .send_modify(|progress| progress.withdrawn = true);
    }

    pub(crate) fn descriptor(&self) -> Option<&Descriptor> {
        self.statement.as_object()
    }

    pub(crate) fn statement(&self) -> &Arc<Statement> {
        &self.statement
    }

    /// Whether a signed statement vouches for the bytes.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// How old the segment was at `at_unix_ms`: counted from its program date-time by this machine's
    /// clock, or from its listing here if the origin dates nothing.
    pub(crate) fn age_ms(&self, at_unix_ms: u64) -> u64 {
        let dated = self
            .descriptor()
            .and_then(|descriptor| descriptor.program_date_time_ms);
        let since = dated
            .and_then(|ms| u64::try_from(ms).ok())
            .unwrap_or(self.listed_unix_ms);
        at_unix_ms.saturating_sub(since)
    }

    pub(crate) fn is_complete(&self) -> bool {
        usize::try_from(self.progress.borrow().chunks).is_ok_and(|held| held >= self.chunks.len())
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The bytes from `position` to the end of the chunk that holds it, if that chunk is here.
    pub(crate) fn read(&self, position: u64) -> Option<Bytes> {
        let position = usize::try_from(position).ok()?;
        let chunk = self.chunks.get(position / self.chunk_length)?.get()?;
        let offset = position % self.chunk_length;
        (offset < chunk.len()).then(|| chunk.slice(offset..))
    }

    /// The chunks in order, as far as they are here without a gap.
    pub(crate) fn contiguous(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter().map_while(OnceLock::get)
    }
}
