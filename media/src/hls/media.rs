//! A media playlist as the origin wrote it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::line::{Base, Line, LineKind, Tag};
use super::{PlaylistError, date};
use crate::chunk::HashedObject;
use crate::limits::{MAX_LINES, MAX_OBJECT_LEN, MAX_SEGMENT_MS, MAX_SEGMENTS};
use crate::object::{ByteRange, ObjectKey, TrackIndex};
use crate::statement::{Descriptor, TrackHeader};

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
    pub key_lines: Arc<[String]>,
    /// The init section in force.
    pub init: Option<Arc<DeclaredInit>>,
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
    /// The `EXT-X-KEY` lines in force at that line, their URIs absolute.
    pub key_lines: Arc<[String]>,
}

impl MediaPlaylist {
    /// Returns the sequence number of the last segment listed.
    #[must_use]
    pub fn last_sequence(&self) -> Option<u64> {
        self.segments.last().map(|segment| segment.sequence)
    }

    /// Makes the track's header out of what holds for the whole playlist.
    #[must_use]
    pub fn header(
        &self,
        track: TrackIndex,
        epoch: u32,
        from_sequence: u64,
        window_segments: u32,
    ) -> TrackHeader {
        TrackHeader {
            track,
            epoch,
            from_sequence,
            target_duration: self.target_duration,
            lines: self.lines.clone(),
            window_segments: if self.lists_all { 0 } else { window_segments },
            end_sequence: if self.ended {
                self.last_sequence()
            } else {
                None
            },
        }
    }
}

impl Segment {
    /// Makes the segment's descriptor, once its bytes were read.
    #[must_use]
    pub fn descriptor(
        &self,
        track: TrackIndex,
        epoch: u32,
        init_sequence: Option<u64>,
        hashed: HashedObject,
    ) -> Descriptor {
        Descriptor {
            key: ObjectKey::segment(track, epoch, self.sequence),
            byte_range: self.byte_range,
            length: hashed.length,
            chunk_hashes: hashed.chunk_hashes,
            duration: self.duration,
            program_date_time_ms: self.program_date_time_ms,
            lines: self.lines.clone(),
            key_lines: self.key_lines.to_vec(),
            init_sequence,
            discontinuity_sequence: self.discontinuity_sequence,
            uri: self.uri.clone(),
        }
    }
}

impl DeclaredInit {
    /// Makes the init section's descriptor, once its bytes were read. `sequence` is that of the first
    /// segment that needs it.
    #[must_use]
    pub fn descriptor(
        &self,
        track: TrackIndex,
        epoch: u32,
        sequence: u64,
        hashed: HashedObject,
    ) -> Descriptor {
        Descriptor {
            key: ObjectKey::init(track, epoch, sequence),
            byte_range: self.byte_range,
            length: hashed.length,
            chunk_hashes: hashed.chunk_hashes,
            duration: Duration::ZERO,
            program_date_time_ms: None,
            lines: Vec::new(),
            key_lines: self.key_lines.to_vec(),
            init_sequence: None,
            discontinuity_sequence: 0,
            uri: self.uri.clone(),
        }
    }
}

/// Reads a media playlist's lines.
pub(super) fn parse(lines: &[Line<'_>], base: &str) -> Result<MediaPlaylist, PlaylistError> {
    let mut parser = Parser::new(Base::new(base)?);
    let header_end = header_end(lines);
    for (index, line) in lines.iter().enumerate() {
        match &line.kind {
            LineKind::Tag(tag) => parser.tag(tag, index < header_end)?,
            LineKind::Comment(text) => parser.keep(text, index < header_end),
            LineKind::Uri(uri) => parser.segment(uri, line.number)?,
        }
    }
    parser.finish()
}

/// Finds where the playlist's head ends: behind the last playlist-wide tag before the first segment.
/// An unknown tag or a comment before that place belongs to the playlist, one behind it to a segment.
fn header_end(lines: &[Line<'_>]) -> usize {
    let first_segment = lines.iter().position(|line| match &line.kind {
        LineKind::Tag(tag) => tag.name == "INF",
        LineKind::Uri(_) => true,
        LineKind::Comment(_) => false,
    });
    let head = &lines[..first_segment.unwrap_or(lines.len())];
    let last = head.iter().rposition(|line| match &line.kind {
        LineKind::Tag(tag) => {
            is_playlist_wide(tag.name)
                || matches!(tag.name, "-X-MEDIA-SEQUENCE" | "-X-DISCONTINUITY-SEQUENCE")
        }
        LineKind::Comment(_) | LineKind::Uri(_) => false,
    });
    last.map_or(0, |last| last + 1)
}

fn is_playlist_wide(name: &str) -> bool {
    matches!(
        name,
        "-X-VERSION"
            | "-X-TARGETDURATION"
            | "-X-PLAYLIST-TYPE"
            | "-X-I-FRAMES-ONLY"
            | "-X-INDEPENDENT-SEGMENTS"
            | "-X-START"
            | "-X-DEFINE"
            | "-X-SERVER-CONTROL"
            | "-X-PART-INF"
            | "-X-ALLOW-CACHE"
            | "-X-IMAGES-ONLY"
    )
}

/// What the lines so far said.
struct Parser {
    base: Base,
    target_duration: Option<Duration>,
    media_sequence: u64,
    discontinuity_sequence: u64,
    lines: Vec<String>,
    lists_all: bool,
    ended: bool,
    segments: Vec<Segment>,
    /// The next segment's own lines so far.
    pending: Pending,
    /// The `EXT-X-KEY` line in force for each key format.
    keys: BTreeMap<String, String>,
    key_lines: Arc<[String]>,
    init: Option<Arc<DeclaredInit>>,
    /// Where the next segment starts in time, if known.
    clock_ms: Option<Clock>,
}

/// A date, and what was played since: kept apart so that rounding does not add up.
#[derive(Clone, Copy)]
struct Clock {
    start_ms: i64,
    since: Duration,
}

#[derive(Default)]
struct Pending {
    lines: Vec<String>,
    duration: Option<Duration>,
    byte_range: Option<(u64, Option<u64>)>,
    gap: bool,
}

impl Parser {
    fn new(base: Base) -> Self {
        Self {
            base,
            target_duration: None,
            media_sequence: 0,
            discontinuity_sequence: 0,
            lines: Vec::new(),
            lists_all: false,
            ended: false,
            segments: Vec::new(),
            pending: Pending::default(),
            keys: BTreeMap::new(),
            key_lines: Arc::from([]),
            init: None,
            clock_ms: None,
        }
    }

    fn tag(&mut self, tag: &Tag<'_>, in_head: bool) -> Result<(), PlaylistError> {
        match tag.name {
            "M3U" => {}
            "-X-MEDIA-SEQUENCE" => self.media_sequence = self.number_before_segments(tag)?,
            "-X-DISCONTINUITY-SEQUENCE" => {
                self.discontinuity_sequence = self.number_before_segments(tag)?;
            }
            "-X-ENDLIST" => self.ended = true,
            "-X-SKIP" => return Err(PlaylistError::Unsupported("a delta update")),
            "-X-PART" | "-X-PRELOAD-HINT" | "-X-RENDITION-REPORT" => {}
            name if is_playlist_wide(name) => self.playlist_tag(tag)?,
            "-X-KEY" => self.key(tag)?,
            "-X-MAP" => self.map(tag)?,
            "-X-BYTERANGE" => self.pending.byte_range = Some(byte_range(tag, tag.value())?),
            _ => self.segment_tag(tag, in_head)?,
        }
        Ok(())
    }

    fn number_before_segments(&self, tag: &Tag<'_>) -> Result<u64, PlaylistError> {
        if self.segments.is_empty() {
            tag.integer()
        } else {
            Err(tag.malformed("it comes after the first segment"))
        }
    }

    fn playlist_tag(&mut self, tag: &Tag<'_>) -> Result<(), PlaylistError> {
        match tag.name {
            "-X-TARGETDURATION" => {
                // It is a whole number of seconds; what is written as less must not become a rhythm.
                self.target_duration = Some(duration(tag)?.max(Duration::from_secs(1)));
            }
            "-X-PLAYLIST-TYPE" => self.lists_all = true,
            _ => {}
        }
        self.lines.push(tag.text.to_owned());
        Ok(())
    }

    fn segment_tag(&mut self, tag: &Tag<'_>, in_head: bool) -> Result<(), PlaylistError> {
        let mut of_segment = true;
        match tag.name {
            "INF" => self.pending.duration = Some(duration(tag)?),
            "-X-DISCONTINUITY" => {
                self.discontinuity_sequence = self
                    .discontinuity_sequence
                    .checked_add(1)
                    .ok_or_else(|| tag.malformed("the discontinuity sequence overflows"))?;
                self.clock_ms = None;
            }
            "-X-PROGRAM-DATE-TIME" => {
                self.clock_ms = date::parse(tag.value()).map(|start_ms| Clock {
                    start_ms,
                    since: Duration::ZERO,
                });
            }
            "-X-GAP" => self.pending.gap = true,
            "-X-DATERANGE" | "-X-BITRATE" => {}
            _ => of_segment = false,
        }
        self.keep(tag.text, in_head && !of_segment);
        Ok(())
    }

    fn keep(&mut self, text: &str, in_head: bool) {
        let lines = if in_head {
            &mut self.lines
        } else {
            &mut self.pending.lines
        };
        lines.push(text.to_owned());
    }

    fn key(&mut self, tag: &Tag<'_>) -> Result<(), PlaylistError> {
        let attributes = tag.attributes()?;
        let method = attributes
            .get("METHOD")
            .ok_or_else(|| tag.malformed("METHOD is missing"))?;
        if method == "NONE" {
            self.keys.clear();
        } else {
            let format = attributes.get("KEYFORMAT").unwrap_or("identity").to_owned();
            self.keys
                .insert(format, tag.with_absolute_uri("URI", &self.base)?);
        }
        if self.keys.len() > MAX_LINES {
            return Err(PlaylistError::Exceeds("the number of key formats"));
        }
        self.key_lines = self.keys.values().cloned().collect();
        Ok(())
    }

    fn map(&mut self, tag: &Tag<'_>) -> Result<(), PlaylistError> {
        let attributes = tag.attributes()?;
        let uri = attributes
            .get("URI")
            .ok_or_else(|| tag.malformed("URI is missing"))?;
        let range = attributes
            .get("BYTERANGE")
            .map(|text| byte_range(tag, text))
            .transpose()?;
        let byte_range = range.map(|(length, offset)| ByteRange {
            offset: offset.unwrap_or(0),
            length,
        });
        let init = DeclaredInit {
            uri: self.base.resolve(uri, tag.number)?,
            byte_range,
            key_lines: Arc::clone(&self.key_lines),
        };
        if self.init.as_deref() != Some(&init) {
            self.init = Some(Arc::new(init));
        }
        Ok(())
    }

    fn segment(&mut self, uri: &str, line: usize) -> Result<(), PlaylistError> {
        let malformed = |what| PlaylistError::Malformed { line, what };
        let pending = std::mem::take(&mut self.pending);
        let duration = pending
            .duration
            .ok_or_else(|| malformed("a URI without EXTINF"))?;
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(PlaylistError::Exceeds("the number of segments"));
        }
        if pending.lines.len() > MAX_LINES {
            return Err(malformed("the segment has too many tags"));
        }
        let uri = self.base.resolve(uri, line)?;
        let byte_range = pending
            .byte_range
            .map(|(length, offset)| self.resolve_range(&uri, length, offset))
            .transpose()
            .map_err(malformed)?;
        let index = self.segments.len() as u64;
        let sequence = self
            .media_sequence
            .checked_add(index)
            .ok_or_else(|| malformed("the sequence overflows"))?;
        let program_date_time_ms = self.advance_clock(duration);
        self.segments.push(Segment {
            sequence,
            discontinuity_sequence: self.discontinuity_sequence,
            duration,
            program_date_time_ms,
            lines: pending.lines,
            key_lines: Arc::clone(&self.key_lines),
            init: self.init.clone(),
            uri,
            byte_range,
            gap: pending.gap,
        });
        Ok(())
    }

    /// Resolves a range without an offset: it continues the segment before, in the same resource.
    fn resolve_range(
        &self,
        uri: &str,
        length: u64,
        offset: Option<u64>,
    ) -> Result<ByteRange, &'static str> {
        let before = || {
            let last = self.segments.last().filter(|last| last.uri == uri)?;
            last.byte_range?.end()
        };
        let offset = offset
            .or_else(before)
            .ok_or("a byte range that continues nothing")?;
        let range = ByteRange { offset, length };
        range.end().map(|_| range).ok_or("the byte range overflows")
    }

    /// Returns when the segment starts, and moves on to the next one's start.
    fn advance_clock(&mut self, duration: Duration) -> Option<i64> {
        let clock = self.clock_ms.as_mut()?;
        let since_ms = i64::try_from((clock.since.as_micros() + 500) / 1000).ok()?;
        clock.since = clock.since.saturating_add(duration);
        clock.start_ms.checked_add(since_ms)
    }

    fn finish(self) -> Result<MediaPlaylist, PlaylistError> {
        if self.lines.len() > MAX_LINES {
            return Err(PlaylistError::Exceeds("the number of playlist tags"));
        }
        Ok(MediaPlaylist {
            target_duration: self
                .target_duration
                .ok_or(PlaylistError::Missing("EXT-X-TARGETDURATION"))?,
            media_sequence: self.media_sequence,
            lines: self.lines,
            lists_all: self.lists_all,
            ended: self.ended,
            segments: self.segments,
            trailing_lines: self.pending.lines,
        })
    }
}

fn duration(tag: &Tag<'_>) -> Result<Duration, PlaylistError> {
    let duration =
        Duration::try_from_secs_f64(tag.seconds()?).map_err(|_| tag.malformed("not a duration"))?;
    if duration > Duration::from_millis(MAX_SEGMENT_MS) {
        return Err(tag.malformed("the duration is too long"));
    }
    // Statements carry whole microseconds; a playlist and its descriptors must agree.
    let micros = u64::try_from((duration.as_nanos() + 500) / 1000).unwrap_or(u64::MAX);
    Ok(Duration::from_micros(micros))
}

/// Reads `<length>[@<offset>]`.
fn byte_range(tag: &Tag<'_>, text: &str) -> Result<(u64, Option<u64>), PlaylistError> {
    let malformed = || tag.malformed("not a byte range");
    let (length, offset) = match text.trim().split_once('@') {
        Some((length, offset)) => (length, Some(offset.parse().map_err(|_| malformed())?)),
        None => (text.trim(), None),
    };
    let length: u64 = length.parse().map_err(|_| malformed())?;
    let end = offset.unwrap_or(0u64).checked_add(length);
    if length == 0 || length > MAX_OBJECT_LEN || end.is_none() {
        return Err(malformed());
    }
    Ok((length, offset))
}
