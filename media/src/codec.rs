//! Between the statements of this crate and their wire form: the only place that knows the
//! generated types.
//!
//! Invariant: what decodes is within every limit and consistent with itself, so nothing behind this
//! module checks again.

use std::time::Duration;

use bytes::Bytes;
use espalier_proto::wire::v1 as wire;
use prost::Message as _;

use crate::chunk::{ChunkHashes, chunk_count};
use crate::key::KeyId;
use crate::limits::{
    MAX_LINE_LEN, MAX_LINES, MAX_MASTER_LEN, MAX_SEGMENT_MS, MAX_TRACK_INDEX, MAX_TRACK_NAME_LEN,
    MAX_TRACKS, MAX_URI_LEN,
};
use crate::object::{ByteRange, ObjectKey, ObjectKind, TrackIndex};
use crate::statement::{
    Descriptor, InvalidStatement, MasterHeader, Statement, Track, TrackHeader, TrackKind,
};

use InvalidStatement::{Exceeds, Malformed, Missing, Unknown};

/// Why bytes are no statement.
#[derive(Debug, PartialEq)]
pub(crate) enum DecodeError {
    /// Not the encoding of one.
    Encoding,
    /// The encoding of one, but not a valid one.
    Invalid(InvalidStatement),
}

pub(crate) fn encode_statement(statement: &Statement) -> Bytes {
    let kind = match statement {
        Statement::Master(master) => wire::statement::Kind::Master(master_to_wire(master)),
        Statement::Track(header) => wire::statement::Kind::Track(track_header_to_wire(header)),
        Statement::Object(object) => wire::statement::Kind::Object(descriptor_to_wire(object)),
    };
    wire::Statement { kind: Some(kind) }.encode_to_vec().into()
}

pub(crate) fn decode_statement(payload: Bytes) -> Result<Statement, DecodeError> {
    let statement = wire::Statement::decode(payload).map_err(|_| DecodeError::Encoding)?;
    statement_from_wire(statement).map_err(DecodeError::Invalid)
}

pub(crate) fn encode_signed(payload: &Bytes, signature: &[u8; 64], key_id: KeyId) -> Bytes {
    let signed = wire::Signed {
        payload: payload.clone(),
        signature: Bytes::copy_from_slice(signature),
        key_id: Bytes::copy_from_slice(&key_id.0),
    };
    signed.encode_to_vec().into()
}

/// Returns payload, signature and key id.
pub(crate) fn decode_signed(encoded: Bytes) -> Option<(Bytes, Bytes, Bytes)> {
    let signed = wire::Signed::decode(encoded).ok()?;
    Some((signed.payload, signed.signature, signed.key_id))
}

fn statement_from_wire(statement: wire::Statement) -> Result<Statement, InvalidStatement> {
    Ok(match statement.kind.ok_or(Unknown)? {
        wire::statement::Kind::Master(master) => Statement::Master(master_from_wire(master)?),
        wire::statement::Kind::Track(header) => Statement::Track(track_header_from_wire(header)?),
        wire::statement::Kind::Object(object) => Statement::Object(descriptor_from_wire(object)?),
    })
}

fn master_to_wire(master: &MasterHeader) -> wire::MasterHeader {
    wire::MasterHeader {
        revision: master.revision,
        tracks: master.tracks.iter().map(track_to_wire).collect(),
        playlist: master.playlist.clone(),
    }
}

fn master_from_wire(master: wire::MasterHeader) -> Result<MasterHeader, InvalidStatement> {
    within(master.tracks.len(), MAX_TRACKS, "tracks")?;
    within(master.playlist.len(), MAX_MASTER_LEN, "the master playlist")?;
    if master.tracks.is_empty() {
        return Err(Missing("tracks"));
    }
    let tracks = master
        .tracks
        .into_iter()
        .map(track_from_wire)
        .collect::<Result<Vec<Track>, _>>()?;
    let mut names: Vec<&str> = tracks.iter().map(|track| track.name.as_str()).collect();
    let mut indices: Vec<TrackIndex> = tracks.iter().map(|track| track.index).collect();
    names.sort_unstable();
    indices.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1])
        || indices.windows(2).any(|pair| pair[0] == pair[1])
    {
        return Err(Malformed("tracks (two alike)"));
    }
    Ok(MasterHeader {
        revision: master.revision,
        tracks,
        playlist: master.playlist,
    })
}

fn track_to_wire(track: &Track) -> wire::Track {
    let kind = match track.kind {
        TrackKind::Variant => wire::TrackKind::Variant,
        TrackKind::Audio => wire::TrackKind::Audio,
        TrackKind::Video => wire::TrackKind::Video,
        TrackKind::Subtitles => wire::TrackKind::Subtitles,
    };
    wire::Track {
        index: track.index.0,
        name: track.name.clone(),
        uri: track.uri.clone(),
        bandwidth_bps: track.bandwidth_bps,
        kind: kind.into(),
        group: track.group.clone(),
        plays_with: track.plays_with.clone(),
        default_rendition: track.default_rendition,
    }
}

fn track_from_wire(track: wire::Track) -> Result<Track, InvalidStatement> {
    let kind = match track.kind() {
        wire::TrackKind::Unspecified => return Err(Missing("track kind")),
        wire::TrackKind::Variant => TrackKind::Variant,
        wire::TrackKind::Audio => TrackKind::Audio,
        wire::TrackKind::Video => TrackKind::Video,
        wire::TrackKind::Subtitles => TrackKind::Subtitles,
    };
    let name_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if track.name.is_empty() || !track.name.bytes().all(name_byte) {
        return Err(Malformed("track name"));
    }
    within(track.name.len(), MAX_TRACK_NAME_LEN, "track name")?;
    within(track.group.len(), MAX_LINE_LEN, "group")?;
    within(track.plays_with.len(), MAX_TRACKS, "plays_with")?;
    track
        .plays_with
        .iter()
        .try_for_each(|group| within(group.len(), MAX_LINE_LEN, "plays_with"))?;
    Ok(Track {
        index: track_index(track.index)?,
        name: track.name,
        uri: uri(track.uri)?,
        bandwidth_bps: track.bandwidth_bps,
        kind,
        group: track.group,
        plays_with: track.plays_with,
        default_rendition: track.default_rendition,
    })
}

fn track_header_to_wire(header: &TrackHeader) -> wire::TrackHeader {
    wire::TrackHeader {
        track: header.track.0,
        epoch: header.epoch,
        from_sequence: header.from_sequence,
        target_duration_ms: u32::try_from(header.target_duration.as_millis()).unwrap_or(u32::MAX),
        lines: header.lines.clone(),
        window_segments: header.window_segments,
        end_sequence: header.end_sequence,
    }
}

fn track_header_from_wire(header: wire::TrackHeader) -> Result<TrackHeader, InvalidStatement> {
    if header.target_duration_ms == 0 {
        return Err(Missing("target duration"));
    }
    if u64::from(header.target_duration_ms) > MAX_SEGMENT_MS {
        return Err(Exceeds("target duration"));
    }
    Ok(TrackHeader {
        track: track_index(header.track)?,
        epoch: header.epoch,
        from_sequence: header.from_sequence,
        target_duration: Duration::from_millis(header.target_duration_ms.into()),
        lines: lines(header.lines, "lines")?,
        window_segments: header.window_segments,
        end_sequence: header.end_sequence,
    })
}

fn descriptor_to_wire(descriptor: &Descriptor) -> wire::Descriptor {
    wire::Descriptor {
        key: Some(key_to_wire(&descriptor.key)),
        length: descriptor.length,
        chunk_hashes: descriptor.chunk_hashes.concatenated().clone(),
        duration_us: u64::try_from(descriptor.duration.as_micros()).unwrap_or(u64::MAX),
        program_date_time_ms: descriptor.program_date_time_ms,
        lines: descriptor.lines.clone(),
        key_lines: descriptor.key_lines.clone(),
        init_sequence: descriptor.init_sequence,
        discontinuity_sequence: descriptor.discontinuity_sequence,
        uri: descriptor.uri.clone(),
        byte_range: descriptor.byte_range.map(|range| wire::ByteRange {
            offset: range.offset,
            length: range.length,
        }),
    }
}

fn descriptor_from_wire(object: wire::Descriptor) -> Result<Descriptor, InvalidStatement> {
    let chunks = chunk_count(object.length).ok_or(Exceeds("length"))?;
    let chunk_hashes = ChunkHashes::from_concatenated(object.chunk_hashes)
        .filter(|hashes| hashes.count() == chunks)
        .ok_or(Malformed("chunk hashes"))?;
    if object.duration_us > MAX_SEGMENT_MS * 1000 {
        return Err(Exceeds("duration"));
    }
    Ok(Descriptor {
        key: key_from_wire(object.key.ok_or(Missing("key"))?)?,
        length: object.length,
        chunk_hashes,
        duration: Duration::from_micros(object.duration_us),
        program_date_time_ms: object.program_date_time_ms,
        lines: lines(object.lines, "lines")?,
        key_lines: lines(object.key_lines, "key lines")?,
        init_sequence: object.init_sequence,
        discontinuity_sequence: object.discontinuity_sequence,
        uri: uri(object.uri)?,
        byte_range: object
            .byte_range
            .map(|r| byte_range(&r, object.length))
            .transpose()?,
    })
}

fn key_to_wire(key: &ObjectKey) -> wire::ObjectKey {
    let kind = match key.kind {
        ObjectKind::Init => wire::ObjectKind::Init,
        ObjectKind::Part => wire::ObjectKind::Part,
        ObjectKind::Segment => wire::ObjectKind::Segment,
    };
    wire::ObjectKey {
        track: key.track.0,
        epoch: key.epoch,
        kind: kind.into(),
        sequence: key.sequence,
        part: key.part,
    }
}

fn key_from_wire(key: wire::ObjectKey) -> Result<ObjectKey, InvalidStatement> {
    let kind = match key.kind() {
        wire::ObjectKind::Unspecified => return Err(Missing("object kind")),
        wire::ObjectKind::Init => ObjectKind::Init,
        wire::ObjectKind::Part => ObjectKind::Part,
        wire::ObjectKind::Segment => ObjectKind::Segment,
    };
    if kind != ObjectKind::Part && key.part != 0 {
        return Err(Malformed("part"));
    }
    Ok(ObjectKey {
        track: track_index(key.track)?,
        epoch: key.epoch,
        kind,
        sequence: key.sequence,
        part: key.part,
    })
}

fn byte_range(range: &wire::ByteRange, length: u64) -> Result<ByteRange, InvalidStatement> {
    let range = ByteRange {
        offset: range.offset,
        length: range.length,
    };
    if range.length != length || range.end().is_none() {
        return Err(Malformed("byte range"));
    }
    Ok(range)
}

fn track_index(index: u32) -> Result<TrackIndex, InvalidStatement> {
    if index > MAX_TRACK_INDEX {
        Err(Exceeds("track index"))
    } else {
        Ok(TrackIndex(index))
    }
}

fn uri(uri: String) -> Result<String, InvalidStatement> {
    within(uri.len(), MAX_URI_LEN, "URI")?;
    if uri.is_empty() {
        Err(Missing("URI"))
    } else {
        Ok(uri)
    }
}

/// Takes tag lines; one that is no tag could smuggle a URI into a rendered playlist.
fn lines(lines: Vec<String>, name: &'static str) -> Result<Vec<String>, InvalidStatement> {
    within(lines.len(), MAX_LINES, name)?;
    for line in &lines {
        within(line.len(), MAX_LINE_LEN, name)?;
        if !line.starts_with('#') || line.contains(['\n', '\r']) {
            return Err(Malformed(name));
        }
    }
    Ok(lines)
}

fn within(length: usize, limit: usize, name: &'static str) -> Result<(), InvalidStatement> {
    if length > limit {
        Err(Exceeds(name))
    } else {
        Ok(())
    }
}
