//! The bounds on everything that this crate reads, makes or holds.
//!
//! They are part of the protocol: a statement beyond them is refused by every peer, so a signer
//! never makes one.

/// Bytes of a chunk: the unit of hashing, verifying and relaying. An object's last may be shorter.
pub const CHUNK_SIZE: usize = 61_440;

/// The longest object, in bytes.
pub const MAX_OBJECT_LEN: u64 = 64 * 1024 * 1024;

/// The most chunks that an object can have.
pub const MAX_CHUNKS: u32 = 1_093;

/// The longest encoded statement, in bytes.
pub const MAX_STATEMENT_LEN: usize = 128 * 1024;

/// The longest encoded `Signed`, in bytes: a statement, its signature, its key id and their tags.
pub const MAX_SIGNED_LEN: usize = MAX_STATEMENT_LEN + 128;

/// The most tracks of a channel.
pub const MAX_TRACKS: usize = 64;

/// The highest track index.
pub const MAX_TRACK_INDEX: u32 = 65_535;

/// The longest track name, in characters.
pub const MAX_TRACK_NAME_LEN: usize = 32;

/// The longest URI, in bytes.
pub const MAX_URI_LEN: usize = 8 * 1024;

/// The most tag lines of a header or a descriptor.
pub const MAX_LINES: usize = 256;

/// The longest tag line, in bytes.
pub const MAX_LINE_LEN: usize = 16 * 1024;

/// The longest master playlist, in bytes.
pub const MAX_MASTER_LEN: usize = 64 * 1024;

/// The longest media playlist, in bytes.
pub const MAX_PLAYLIST_LEN: usize = 4 * 1024 * 1024;

/// The most segments in a media playlist.
pub const MAX_SEGMENTS: usize = 8_192;

/// The longest segment, in milliseconds: a quarter of an hour.
pub const MAX_SEGMENT_MS: u64 = 900_000;

// The three limits on an object agree.
const _: () = assert!(MAX_OBJECT_LEN.div_ceil(CHUNK_SIZE as u64) == MAX_CHUNKS as u64);
