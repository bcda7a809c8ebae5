//! What a signer must remember over a restart, so that it goes on with equal bytes.

use serde::{Deserialize, Serialize};

/// Everything that a restart needs. Small; the host stores it as a whole, for example as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SignerState {
    /// The last master header.
    pub master: Option<MasterState>,
    /// Every track that there ever was, by index: an index is never used again.
    pub tracks: Vec<TrackState>,
}

/// The last master header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterState {
    /// Its revision.
    pub revision: u32,
    /// What it said, but for the revision: a digest in hexadecimal digits.
    pub digest: String,
}

/// One track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackState {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is known by at the origin: its URI without the query.
    pub identity: String,
    /// The current epoch.
    pub epoch: u32,
    /// The last segments, oldest first: how a restarted numbering is noticed.
    pub segments: Vec<SegmentState>,
    /// The init sections of this epoch, oldest first, and the sequence numbers that name them.
    pub inits: Vec<InitState>,
}

/// What a segment is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// Its media sequence number.
    pub sequence: u64,
    /// A digest of its file name, byte range and duration.
    pub digest: u64,
    /// When it starts, milliseconds since the Unix epoch, if the origin says.
    pub program_date_time_ms: Option<i64>,
}

/// An init section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitState {
    /// The sequence number of the first segment that needed it.
    pub sequence: u64,
    /// Its URI without the query.
    pub identity: String,
    /// Its byte range: offset and length.
    pub byte_range: Option<(u64, u64)>,
}
