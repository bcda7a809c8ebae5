//! What a signer says about a channel.
//!
//! Invariant: nothing of the signer's own (no time, no term) is inside, so two signers that see the
//! same origin make equal bytes.

use std::ops::Range;
use std::time::Duration;

use crate::chunk::{self, ChunkError, ChunkHashes};
use crate::limits::CHUNK_SIZE;
use crate::object::{ByteRange, ChunkIndex, ObjectKey, TrackIndex};

/// Exactly one of the things that a signer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The channel's tracks and its master playlist.
    Master(MasterHeader),
    /// What holds for a whole media playlist.
    Track(TrackHeader),
    /// One object.
    Object(Descriptor),
}

impl Statement {
    /// Returns the track that it is about; `None` for a master header.
    #[must_use]
    pub fn track(&self) -> Option<TrackIndex> {
        match self {
            Self::Master(_) => None,
            Self::Track(header) => Some(header.track),
            Self::Object(descriptor) => Some(descriptor.key.track),
        }
    }

    /// Returns the descriptor, if it is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Descriptor> {
        match self {
            Self::Object(descriptor) => Some(descriptor),
            Self::Master(_) | Self::Track(_) => None,
        }
    }
}

/// The channel's tracks and its master playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterHeader {
    /// Rises with each change; the highest holds.
    pub revision: u32,
    /// The channel's media playlists, in the origin's order: variants first.
    pub tracks: Vec<Track>,
    /// The origin's master playlist with the media playlists' URIs replaced by
    /// `<track name>/index.m3u8`; empty if the origin has only a media playlist.
    pub playlist: String,
}

impl MasterHeader {
    /// Finds a track by its index.
    #[must_use]
    pub fn track(&self, index: TrackIndex) -> Option<&Track> {
        self.tracks.iter().find(|track| track.index == index)
    }

    /// Finds a track by its name.
    #[must_use]
    pub fn track_named(&self, name: &str) -> Option<&Track> {
        self.tracks.iter().find(|track| track.name == name)
    }

    /// Returns the first variant and the renditions that play beside it: what a viewer that named no
    /// tracks watches. In a group, the rendition marked default is taken, else the first.
    #[must_use]
    pub fn default_tracks(&self) -> Vec<&Track> {
        let Some(variant) = self
            .tracks
            .iter()
            .find(|track| track.kind == TrackKind::Variant)
        else {
            return Vec::new();
        };
        let rendition = |group: &String| {
            let members = || {
                self.tracks
                    .iter()
                    .filter(move |track| track.group == *group)
            };
            members()
                .find(|track| track.default_rendition)
                .or_else(|| members().next())
        };
        std::iter::once(variant)
            .chain(variant.plays_with.iter().filter_map(rendition))
            .collect()
    }
}

/// A media playlist of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Its number in everything that is signed or relayed.
    pub index: TrackIndex,
    /// Its name in URLs and in the API: `[a-z0-9-]{1,32}`.
    pub name: String,
    /// The media playlist's URI at the origin, absolute.
    pub uri: String,
    /// The peak bit rate that the origin claims, bit/s; 0 if it claims none.
    pub bandwidth_bps: u64,
    /// What it is.
    pub kind: TrackKind,
    /// The rendition group that it belongs to; empty for a variant.
    pub group: String,
    /// For a variant: the rendition groups that play beside it.
    pub plays_with: Vec<String>,
    /// `DEFAULT=YES`.
    pub default_rendition: bool,
}

/// What a track is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// An `EXT-X-STREAM-INF` variant, or the only playlist.
    Variant,
    /// An audio rendition.
    Audio,
    /// A video rendition.
    Video,
    /// A subtitle rendition.
    Subtitles,
}

/// What holds for a whole media playlist, from one media sequence number on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackHeader {
    /// The track.
    pub track: TrackIndex,
    /// Rises when the origin restarts its numbering.
    pub epoch: u32,
    /// The first media sequence number that this header covers.
    pub from_sequence: u64,
    /// `EXT-X-TARGETDURATION`, in whole milliseconds on the wire.
    pub target_duration: Duration,
    /// The origin's playlist-wide tag lines, verbatim and in order, but for `EXTM3U`, the two
    /// sequence numbers and `EXT-X-ENDLIST`.
    pub lines: Vec<String>,
    /// How many segments the origin lists at once; 0: all of them.
    pub window_segments: u32,
    /// The last sequence number that there will be in this epoch, once the origin said so.
    pub end_sequence: Option<u64>,
}

impl TrackHeader {
    /// Whether this header replaces `other`, which is of the same track.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.order() > other.order()
    }

    fn order(&self) -> (u32, u64, bool) {
        (self.epoch, self.from_sequence, self.end_sequence.is_some())
    }
}

/// The signed statement about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Which object.
    pub key: ObjectKey,
    /// Its bytes, after HTTP content decoding.
    pub length: u64,
    /// SHA-256 of each chunk; as many as the length asks for.
    pub chunk_hashes: ChunkHashes,
    /// `EXTINF`, in whole microseconds on the wire; zero for an init section.
    pub duration: Duration,
    /// When the segment starts, in milliseconds since the Unix epoch, if the origin said so on this
    /// segment or on an earlier one.
    pub program_date_time_ms: Option<i64>,
    /// The origin's tag lines for this segment, verbatim and in order, but for `EXT-X-MAP`,
    /// `EXT-X-KEY` and `EXT-X-BYTERANGE`; none for an init section.
    pub lines: Vec<String>,
    /// The `EXT-X-KEY` lines in force, their URIs absolute. For an init section: those in force at
    /// its `EXT-X-MAP` line.
    pub key_lines: Vec<String>,
    /// The sequence number of the init section that this segment needs.
    pub init_sequence: Option<u64>,
    /// The segment's discontinuity sequence number.
    pub discontinuity_sequence: u64,
    /// Where the CDN has it: absolute, a hint.
    pub uri: String,
    /// Set if the object is a part of the resource at `uri`.
    pub byte_range: Option<ByteRange>,
}

impl Descriptor {
    /// Returns the number of chunks; 0 for an empty object.
    #[must_use]
    pub fn chunk_count(&self) -> u32 {
        self.chunk_hashes.count()
    }

    /// Returns one chunk's length in bytes; `None` if there is no such chunk.
    #[must_use]
    pub fn chunk_len(&self, index: ChunkIndex) -> Option<usize> {
        chunk::chunk_len(self.length, index)
    }

    /// Returns where one chunk lies in the object; `None` if there is no such chunk.
    #[must_use]
    pub fn chunk_range(&self, index: ChunkIndex) -> Option<Range<u64>> {
        let start = u64::from(index.0) * CHUNK_SIZE as u64;
        Some(start..start + self.chunk_len(index)? as u64)
    }

    /// Returns where a run of chunks lies in the resource at `uri`, to ask the CDN for it; `None` if
    /// one of them does not exist.
    #[must_use]
    pub fn resource_range(&self, first: ChunkIndex, count: u32) -> Option<ByteRange> {
        let last = ChunkIndex(first.0.checked_add(count.checked_sub(1)?)?);
        let (start, end) = (self.chunk_range(first)?.start, self.chunk_range(last)?.end);
        let base = self.byte_range.map_or(0, |range| range.offset);
        Some(ByteRange {
            offset: base.checked_add(start)?,
            length: end - start,
        })
    }

    /// Checks bytes against one chunk's hash.
    ///
    /// # Errors
    /// [`ChunkError`] says what does not match.
    pub fn verify_chunk(&self, index: ChunkIndex, bytes: &[u8]) -> Result<(), ChunkError> {
        chunk::verify(self.length, &self.chunk_hashes, index, bytes)
    }

    /// Returns the key of the init section that this segment needs.
    #[must_use]
    pub fn init_key(&self) -> Option<ObjectKey> {
        let sequence = self.init_sequence?;
        Some(ObjectKey::init(self.key.track, self.key.epoch, sequence))
    }

    /// Returns the file name extension that the origin uses for it, lower-case, without the dot:
    /// `ts` or `mp4` (init section: `mp4`) if it has none.
    #[must_use]
    pub fn ext(&self) -> &str {
        let fallback = match (self.init_sequence, self.key.kind) {
            (None, crate::ObjectKind::Segment | crate::ObjectKind::Part) => "ts",
            (Some(_), _) | (None, crate::ObjectKind::Init) => "mp4",
        };
        extension(&self.uri).unwrap_or(fallback)
    }
}

/// Finds a plausible file name extension: 1 to 5 lower-case letters or digits.
fn extension(uri: &str) -> Option<&str> {
    let path = uri.split(['?', '#']).next()?;
    let (_, ext) = path.rsplit('/').next()?.rsplit_once('.')?;
    let plausible = (1..=5).contains(&ext.len())
        && ext
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    plausible.then_some(ext)
}

/// Why a statement is none, though it is signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStatement {
    /// It says nothing that this version knows.
    #[error("the statement says nothing that this version knows")]
    Unknown,
    /// A field that must be there is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field exceeds its limit.
    #[error("{0} exceeds its limit")]
    Exceeds(&'static str),
    /// A field is malformed.
    #[error("{0} is malformed")]
    Malformed(&'static str),
}
