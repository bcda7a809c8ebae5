//! Reading and writing frames. The generated protobuf types stay in here.

use bytes::{Buf as _, Bytes};
use espalier_media::limits::{MAX_CHUNKS, MAX_SIGNED_LEN, MAX_TRACK_INDEX};
use espalier_media::{CHUNK_SIZE, ChunkIndex, ObjectKey, ObjectKind, TrackIndex};
use espalier_proto::wire::v1 as wire;
use prost::Message;

use super::{
    ChunkRun, Cursor, DATA_HEADER_LENGTH, DataHeader, Frame, FrameError, FrameKind, Hello,
    MAX_CONTROL_FRAME, MAX_FRAME, MAX_RANGES, MAX_REASON, MAX_STRIPES, OutgoingFrame,
    STATEMENT_HEADER_LENGTH, StatementPart, Subscribe,
};

/// The longest channel id: `[a-z][a-z0-9-]{0,62}`.
const MAX_CHANNEL: usize = 63;

pub(super) fn decode(mut message: Bytes) -> Result<Frame, FrameError> {
    let length = message.len();
    let kind = *message.first().ok_or(FrameError::Empty)?;
    let limit = match kind {
        2 | 3 => MAX_FRAME,
        1 | 4..=10 => MAX_CONTROL_FRAME,
        _ => return Err(FrameError::UnknownKind(kind)),
    };
    if length > limit {
        return Err(FrameError::TooLong(length));
    }
    message.advance(1);
    match kind {
        1 => hello(body(message)?),
        2 => statement(message),
        3 => data(message),
        4 => subscribe(body(message)?),
        5 => unsubscribe(body(message)?),
        6 => cancel(body(message)?),
        7 => request(body(message)?),
        8 => unavailable(body(message)?),
        9 => upstream(body(message)?),
        10 => bye(body(message)?),
        _ => Err(FrameError::UnknownKind(kind)),
    }
}

fn body<M: Message + Default>(bytes: Bytes) -> Result<M, FrameError> {
    M::decode(bytes).map_err(|_| FrameError::Malformed)
}

fn hello(message: wire::Hello) -> Result<Frame, FrameError> {
    if message.min_version == 0 || message.min_version > message.max_version {
        return Err(FrameError::Field("versions"));
    }
    if message.channel.is_empty() || message.channel.len() > MAX_CHANNEL {
        return Err(FrameError::Field("channel"));
    }
    Ok(Frame::Hello(Hello {
        min_version: message.min_version,
        max_version: message.max_version,
        peer: message
            .peer
            .parse()
            .map_err(|_| FrameError::Field("peer"))?,
        channel: message.channel,
    }))
}

fn statement(mut message: Bytes) -> Result<Frame, FrameError> {
    if message.len() < STATEMENT_HEADER_LENGTH {
        return Err(FrameError::Truncated);
    }
    let (offset, total) = (message.get_u32(), message.get_u32());
    let length = u64::try_from(message.len()).map_err(|_| FrameError::Field("length"))?;
    if u64::from(offset) + length > u64::from(total) || total as usize > MAX_SIGNED_LEN {
        return Err(FrameError::Field("length"));
    }
    Ok(Frame::Statement(StatementPart {
        offset,
        total,
        bytes: message,
    }))
}

fn data(mut message: Bytes) -> Result<Frame, FrameError> {
    if message.len() < DATA_HEADER_LENGTH {
        return Err(FrameError::Truncated);
    }
    let kind = i32::from(message.get_u8());
    let stripe = message.get_u8();
    if message.get_u8() != 0 {
        return Err(FrameError::Field("reserved"));
    }
    let key = wire::ObjectKey {
        kind,
        track: message.get_u32(),
        epoch: message.get_u32(),
        sequence: message.get_u64(),
        part: message.get_u32(),
    };
    let chunk = chunk(message.get_u32())?;
    let offset = message.get_u32();
    if stripe >= MAX_STRIPES {
        return Err(FrameError::Field("stripe"));
    }
    let room = CHUNK_SIZE
        .checked_sub(offset as usize)
        .ok_or(FrameError::Field("offset"))?;
    if message.len() > room {
        return Err(FrameError::Field("offset"));
    }
    Ok(Frame::Data(
        DataHeader {
            object: object(Some(key))?,
            chunk,
            offset,
            stripe,
        },
        message,
    ))
}

fn subscribe(message: wire::Subscribe) -> Result<Frame, FrameError> {
    let (stripe, stripes) = (stripe(message.stripe)?, message.stripes);
    let stripes = u8::try_from(stripes).map_err(|_| FrameError::Field("stripes"))?;
    if stripes == 0 || stripes > MAX_STRIPES || stripe >= stripes {
        return Err(FrameError::Field("stripes"));
    }
    let track = track(message.track)?;
    let cursor = message.cursor.map(cursor).transpose()?;
    if cursor.is_some_and(|cursor| cursor.object.track != track) {
        return Err(FrameError::Field("cursor"));
    }
    Ok(Frame::Subscribe(Subscribe {
        track,
        stripe,
        stripes,
        cursor,
    }))
}

fn unsubscribe(message: wire::Unsubscribe) -> Result<Frame, FrameError> {
    Ok(Frame::Unsubscribe {
        track: track(message.track)?,
        stripe: stripe(message.stripe)?,
    })
}

fn cancel(message: wire::Cancel) -> Result<Frame, FrameError> {
    let first = chunk(message.first_chunk)?;
    if message.chunks > MAX_CHUNKS {
        return Err(FrameError::Field("chunks"));
    }
    Ok(Frame::Cancel {
        object: object(message.object)?,
        first,
        count: message.chunks,
    })
}

fn request(message: wire::Request) -> Result<Frame, FrameError> {
    if message.ranges.is_empty() || message.ranges.len() > MAX_RANGES {
        return Err(FrameError::Field("ranges"));
    }
    let run = |range: wire::ChunkRange| {
        let first = chunk(range.first)?;
        let fits = range.count > 0 && range.count <= MAX_CHUNKS - first.0;
        if fits {
            Ok(ChunkRun {
                first,
                count: range.count,
            })
        } else {
            Err(FrameError::Field("ranges"))
        }
    };
    let ranges = message
        .ranges
        .into_iter()
        .map(run)
        .collect::<Result<_, _>>()?;
    Ok(Frame::Request {
        object: object(message.object)?,
        ranges,
    })
}

fn unavailable(message: wire::Unavailable) -> Result<Frame, FrameError> {
    Ok(Frame::Unavailable {
        object: object(message.object)?,
    })
}

fn upstream(message: wire::Upstream) -> Result<Frame, FrameError> {
    let wire::Upstream {
        repairing,
        expected_ms,
        ..
    } = message;
    Ok(Frame::Upstream {
        track: track(message.track)?,
        stripe: stripe(message.stripe)?,
        repairing,
        expected_ms,
    })
}

fn bye(message: wire::Bye) -> Result<Frame, FrameError> {
    if message.reason.len() > MAX_REASON {
        return Err(FrameError::Field("reason"));
    }
    Ok(Frame::Bye {
        reason: message.reason,
    })
}

fn track(index: u32) -> Result<TrackIndex, FrameError> {
    if index <= MAX_TRACK_INDEX {
        Ok(TrackIndex(index))
    } else {
        Err(FrameError::Field("track"))
    }
}

fn stripe(stripe: u32) -> Result<u8, FrameError> {
    let stripe = u8::try_from(stripe).map_err(|_| FrameError::Field("stripe"))?;
    if stripe < MAX_STRIPES {
        Ok(stripe)
    } else {
        Err(FrameError::Field("stripe"))
    }
}

fn chunk(index: u32) -> Result<ChunkIndex, FrameError> {
    if index < MAX_CHUNKS {
        Ok(ChunkIndex(index))
    } else {
        Err(FrameError::Field("chunk"))
    }
}

fn cursor(cursor: wire::Cursor) -> Result<Cursor, FrameError> {
    Ok(Cursor {
        object: object(cursor.object)?,
        chunk: chunk(cursor.chunk)?,
    })
}

fn object(key: Option<wire::ObjectKey>) -> Result<ObjectKey, FrameError> {
    let key = key.ok_or(FrameError::Field("object"))?;
    let kind = match wire::ObjectKind::try_from(key.kind) {
        Ok(wire::ObjectKind::Segment) => ObjectKind::Segment,
        Ok(wire::ObjectKind::Init) => ObjectKind::Init,
        Ok(wire::ObjectKind::Part) => ObjectKind::Part,
        Ok(wire::ObjectKind::Unspecified) | Err(_) => return Err(FrameError::Field("kind")),
    };
    if key.part != 0 && kind != ObjectKind::Part {
        return Err(FrameError::Field("part"));
    }
    let (epoch, sequence, part) = (key.epoch, key.sequence, key.part);
    Ok(ObjectKey {
        track: track(key.track)?,
        epoch,
        kind,
        sequence,
        part,
    })
}

pub(super) fn encode(frame: &Frame) -> OutgoingFrame {
    match frame {
        Frame::Hello(hello) => control(
            FrameKind::Hello,
            &wire::Hello {
                min_version: hello.min_version,
                max_version: hello.max_version,
                peer: hello.peer.to_string(),
                channel: hello.channel.clone(),
            },
        ),
        Frame::Statement(part) => {
            let mut header = [0; STATEMENT_HEADER_LENGTH - 1];
            header[..4].copy_from_slice(&part.offset.to_be_bytes());
            header[4..].copy_from_slice(&part.total.to_be_bytes());
            OutgoingFrame::new(FrameKind::Statement, &header, part.bytes.clone())
        }
        Frame::Data(header, bytes) => {
            OutgoingFrame::new(FrameKind::Data, &data_header(header), bytes.clone())
        }
        Frame::Subscribe(subscribe) => control(
            FrameKind::Subscribe,
            &wire::Subscribe {
                track: subscribe.track.0,
                stripe: u32::from(subscribe.stripe),
                stripes: u32::from(subscribe.stripes),
                cursor: subscribe.cursor.map(|cursor| wire::Cursor {
                    object: Some(wire_key(&cursor.object)),
                    chunk: cursor.chunk.0,
                }),
            },
        ),
        Frame::Unsubscribe { track, stripe } => control(
            FrameKind::Unsubscribe,
            &wire::Unsubscribe {
                track: track.0,
                stripe: u32::from(*stripe),
            },
        ),
        Frame::Cancel {
            object,
            first,
            count,
        } => control(
            FrameKind::Cancel,
            &wire::Cancel {
                object: Some(wire_key(object)),
                first_chunk: first.0,
                chunks: *count,
            },
        ),
        Frame::Request { object, ranges } => control(
            FrameKind::Request,
            &wire::Request {
                object: Some(wire_key(object)),
                ranges: ranges
                    .iter()
                    .map(|run| wire::ChunkRange {
                        first: run.first.0,
                        count: run.count,
                    })
                    .collect(),
            },
        ),
        Frame::Unavailable { object } => control(
            FrameKind::Unavailable,
            &wire::Unavailable {
                object: Some(wire_key(object)),
            },
        ),
        Frame::Upstream {
            track,
            stripe,
            repairing,
            expected_ms,
        } => control(
            FrameKind::Upstream,
            &wire::Upstream {
                track: track.0,
                repairing: *repairing,
                expected_ms: *expected_ms,
                stripe: u32::from(*stripe),
            },
        ),
        Frame::Bye { reason } => control(
            FrameKind::Bye,
            &wire::Bye {
                reason: reason.clone(),
            },
        ),
    }
}

fn control(kind: FrameKind, message: &impl Message) -> OutgoingFrame {
    OutgoingFrame::new(kind, &[], message.encode_to_vec().into())
}

fn data_header(header: &DataHeader) -> [u8; DATA_HEADER_LENGTH - 1] {
    let mut bytes = [0; DATA_HEADER_LENGTH - 1];
    bytes[0] = match header.object.kind {
        ObjectKind::Segment => 1,
        ObjectKind::Init => 2,
        ObjectKind::Part => 3,
    };
    bytes[1] = header.stripe;
    bytes[3..7].copy_from_slice(&header.object.track.0.to_be_bytes());
    bytes[7..11].copy_from_slice(&header.object.epoch.to_be_bytes());
    bytes[11..19].copy_from_slice(&header.object.sequence.to_be_bytes());
    bytes[19..23].copy_from_slice(&header.object.part.to_be_bytes());
    bytes[23..27].copy_from_slice(&header.chunk.0.to_be_bytes());
    bytes[27..31].copy_from_slice(&header.offset.to_be_bytes());
    bytes
}

fn wire_key(key: &ObjectKey) -> wire::ObjectKey {
    let kind = match key.kind {
        ObjectKind::Segment => wire::ObjectKind::Segment,
        ObjectKind::Init => wire::ObjectKind::Init,
        ObjectKind::Part => wire::ObjectKind::Part,
    };
    wire::ObjectKey {
        track: key.track.0,
        epoch: key.epoch,
        kind: kind.into(),
        sequence: key.sequence,
        part: key.part,
    }
}
