//! A media playlist as the origin wrote it.

use std::time::Duration;

use crate::object::ByteRange;

/// A media playlist: what holds for all of it, and its segments in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// `EXT-X-TARGETDURATION`.
    pub target_duration: Duration,
    /// `EXT-X-MEDIA-SEQUENCE`: the first segment's sequence number.
    pub media_sequence: u64,
    /// The playlist-wide tag lines, verbatim and in order, as in
    /// [`TrackHeader::lines`](crate::TrackHeader::lines).
    pub lines: Vec<String>,
    /// Whether the origin never removes a segment (`EXT-X-PLAYLIST-TYPE`).
    pub lists_all: bool,
    /// `EXT-X-ENDLIST`.
    pub ended: bool,
    /// The segments.
    pub segments: Vec<Segment>,
    /// Tag lines behind the last segment: they belong to the next, or, after the end, to none.
    pub trailing_lines: Vec<String>,
}

/// A segment as a playlist lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its media sequence number.
    pub sequence: u64,
    /// Its discontinuity sequence number.
    pub discontinuity_sequence: u64,
    /// `EXTINF`.
    pub duration: Duration,
    /// When it starts, milliseconds since the Unix epoch: given, or derived from an earlier one.
    pub program_date_time_ms: Option<i64>,
    /// The tag lines, as in [`Descriptor::lines`](crate::Descriptor::lines).
    pub lines: Vec<String>,
    /// The `EXT-X-KEY` lines in force, their URIs absolute.
    pub key_lines: Vec<String>,
    /// The init section in force.
    pub init: Option<DeclaredInit>,
    /// Absolute.
    pub uri: String,
    /// Resolved: the offset is never left to the reader.
    pub byte_range: Option<ByteRange>,
    /// `EXT-X-GAP`: there is nothing to fetch.
    pub gap: bool,
}

/// An init section as an `EXT-X-MAP` line declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredInit {
    /// Absolute.
    pub uri: String,
    /// The part of the resource, if not all of it.
    pub byte_range: Option<ByteRange>,
    /// The `EXT-X-MAP` line, verbatim.
    pub line: String,
    /// The `EXT-X-KEY` lines in force at that line, their URIs absolute.
    pub key_lines: Vec<String>,
}

/// Why a text is no playlist that can be relayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaylistError {
    /// It exceeds a limit.
    #[error("{0} exceeds its limit")]
    Exceeds(&'static str),
}
