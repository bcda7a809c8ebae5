//! A peer's `/stats`, as far as the scenarios read it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A peer's view of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Stats {
    /// Its id.
    pub peer: String,
    /// Its tracks.
    pub tracks: Vec<TrackRecord>,
    /// Of the last assignment that it obeyed.
    pub generation: Generation,
    /// Its links.
    pub links: Vec<LinkRecord>,
    /// Since its start.
    pub counters: Counters,
    /// Its virtual playhead.
    pub playout: Playout,
    /// Milliseconds from its start; absent until it happens.
    #[serde(rename = "first_ms")]
    pub first: First,
    /// The last 64 completed objects.
    pub objects: Vec<ObjectRecord>,
}

/// An assignment's generation; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Generation {
    /// The channel's.
    pub incarnation: u64,
    /// The owner's.
    pub term: u64,
    /// Of the entry in the log.
    pub index: u64,
}

/// One track as the peer has it.
#[derive(Clone, Debug, Deserialize)]
pub struct TrackRecord {
    /// The track's name.
    pub track: String,
    /// A peer's id or "cdn".
    pub source: Option<String>,
    /// A peer's id or "cdn".
    pub standby: Option<String>,
    /// flowing, repairing, bypass.
    pub state: String,
}

/// One link.
#[derive(Clone, Debug, Deserialize)]
pub struct LinkRecord {
    /// The neighbour's id.
    pub neighbour: String,
    /// connecting, up, silent.
    pub state: String,
    /// Whether the neighbour is fed over it.
    pub child: bool,
}

/// Bytes and chunks.
#[derive(Clone, Debug, Deserialize)]
pub struct Counters {
    /// Media bytes from the CDN.
    pub bytes_from_cdn: u64,
    /// Media bytes from other peers.
    pub bytes_from_peers: u64,
    /// Of these, from the standby.
    pub bytes_from_standby: u64,
    /// Media bytes to other peers.
    pub bytes_to_peers: u64,
    /// Bytes that were there already.
    pub duplicate_bytes: u64,
    /// Chunks that failed their hash.
    pub corrupt_chunks: u64,
    /// Objects that never came.
    pub objects_missed: u64,
    /// Objects played unverified.
    pub bypassed_objects: u64,
}

/// The virtual playhead.
#[derive(Clone, Debug, Deserialize)]
pub struct Playout {
    /// Media ahead of it.
    pub buffer_ms: u64,
    /// How often it had to stop.
    pub stalls: u64,
    /// For how long.
    pub stall_ms: u64,
}

/// What happened first, in milliseconds from the peer's start.
#[derive(Clone, Debug, Deserialize)]
pub struct First {
    /// The session was opened.
    pub session_open: Option<u64>,
    /// The first byte came from the CDN.
    pub cdn_byte: Option<u64>,
    /// The first byte from the tree was verified.
    pub tree_byte: Option<u64>,
    /// A segment that the playlist lists was there whole.
    pub playable_playlist: Option<u64>,
}

/// One completed object.
#[derive(Clone, Debug, Deserialize)]
pub struct ObjectRecord {
    /// The track's name.
    pub track: String,
    /// The epoch of its numbering.
    pub epoch: u32,
    /// Its media sequence number.
    pub sequence: u64,
    /// segment, init.
    pub kind: String,
    /// Bytes.
    pub length: u64,
    /// In lower-case hexadecimal digits.
    pub sha256: String,
    /// When its first chunk was verified.
    pub first_chunk_unix_ms: i64,
    /// When its last chunk was verified.
    pub completed_unix_ms: i64,
    /// Bytes by where they came from: parent, standby, cdn.
    pub from: BTreeMap<String, u64>,
    /// Whether a descriptor vouches for it.
    pub verified: bool,
}

impl ObjectRecord {
    /// Whether it is a segment.
    #[must_use]
    pub fn is_segment(&self) -> bool {
        self.kind == "segment"
    }
}
