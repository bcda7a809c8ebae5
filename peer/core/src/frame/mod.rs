//! The frames that two linked peers exchange, as `proto/WIRE.md` lays down.
//!
//! A frame is one message of the reliable channel: a kind byte and a body. DATA and STATEMENT frames
//! have a fixed binary header, so that neither sending nor receiving a chunk copies or allocates
//! anything; the others carry a protobuf message. A ping is one message of the unordered channel.
//!
//! Invariant: no bytes, from whomever, make [`Frame::decode`] panic, or allocate more than a small
//! multiple of what arrived. It checks shape and limits only; order and sense are the engine's.

mod codec;
mod outgoing;

use bytes::Bytes;
use espalier_media::{ChunkIndex, ObjectKey, TrackIndex};

use crate::ids::PeerId;

pub use outgoing::OutgoingFrame;

/// The protocol versions that this implementation speaks: from, to.
pub const VERSIONS: (u32, u32) = (1, 1);
/// The longest frame: a whole chunk and its header.
pub const MAX_FRAME: usize = 61_440 + DATA_HEADER_LENGTH;
/// The length of a DATA frame's header, the kind byte included.
pub const DATA_HEADER_LENGTH: usize = 32;
/// The length of a STATEMENT frame's header, the kind byte included.
pub const STATEMENT_HEADER_LENGTH: usize = 9;
/// The longest frame of the other kinds.
pub const MAX_CONTROL_FRAME: usize = 4_096;
/// The most ranges in a REQUEST.
pub const MAX_RANGES: usize = 64;
/// The most stripes that a track may be cut into.
pub const MAX_STRIPES: u8 = 16;
/// The longest reason in a BYE, in bytes.
pub const MAX_REASON: usize = 256;
/// The length of a ping and of a pong, the kind byte included.
pub const PING_LENGTH: usize = 9;

/// What a frame's first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// [`Frame::Hello`].
    Hello = 1,
    /// [`Frame::Statement`].
    Statement = 2,
    /// [`Frame::Data`].
    Data = 3,
    /// [`Frame::Subscribe`].
    Subscribe = 4,
    /// [`Frame::Unsubscribe`].
    Unsubscribe = 5,
    /// [`Frame::Cancel`].
    Cancel = 6,
    /// [`Frame::Request`].
    Request = 7,
    /// [`Frame::Unavailable`].
    Unavailable = 8,
    /// [`Frame::Upstream`].
    Upstream = 9,
    /// [`Frame::Bye`].
    Bye = 10,
}

/// A frame, decoded. Byte strings are slices of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first frame in each direction.
    Hello(Hello),
    /// A signed statement, or a part of a long one.
    Statement(StatementPart),
    /// A chunk, or a part of one.
    Data(DataHeader, Bytes),
    /// The child wants a track.
    Subscribe(Subscribe),
    /// The child no longer wants a track.
    Unsubscribe {
        /// The track.
        track: TrackIndex,
        /// Which stripe of it.
        stripe: u8,
    },
    /// The child has these chunks from elsewhere.
    Cancel {
        /// Of which object.
        object: ObjectKey,
        /// The first of them.
        first: ChunkIndex,
        /// How many; 0: to the object's end.
        count: u32,
    },
    /// The child asks for chunks outside a subscription.
    Request {
        /// Of which object.
        object: ObjectKey,
        /// Which chunks.
        ranges: Vec<ChunkRun>,
    },
    /// The parent does not hold this object, and will not.
    Unavailable {
        /// Which.
        object: ObjectKey,
    },
    /// How the parent's own source does.
    Upstream {
        /// Of which track.
        track: TrackIndex,
        /// Of which stripe of it, as the child subscribed to it.
        stripe: u8,
        /// Whether it is being repaired.
        repairing: bool,
        /// How long, from now, that is hoped to take, in milliseconds.
        expected_ms: u32,
    },
    /// The last frame before a planned close.
    Bye {
        /// Why, for people.
        reason: String,
    },
}

/// Who speaks, what, and about which channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version that the sender speaks.
    pub min_version: u32,
    /// The highest.
    pub max_version: u32,
    /// The sender.
    pub peer: PeerId,
    /// The channel's id.
    pub channel: String,
}

/// A signed statement, or a part of one that does not fit into a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementPart {
    /// Where the bytes begin in the encoded `Signed`.
    pub offset: u32,
    /// The length of the encoded `Signed`.
    pub total: u32,
    /// The bytes, at least one.
    pub bytes: Bytes,
}

/// Which bytes a DATA frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// Of which object.
    pub object: ObjectKey,
    /// Of which chunk.
    pub chunk: ChunkIndex,
    /// Where the bytes begin in the chunk.
    pub offset: u32,
    /// The stripe by which it is sent; 0 if the track has only one, and in answers to REQUEST.
    pub stripe: u8,
}

/// From where on a child wants a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe {
    /// Which track.
    pub track: TrackIndex,
    /// Which stripe of it.
    pub stripe: u8,
    /// Into how many stripes it is cut; at least 1.
    pub stripes: u8,
    /// The next chunk that the child wants; absent: the newest object's first.
    pub cursor: Option<Cursor>,
}

/// A place in a track: a chunk of an object that may not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The object.
    pub object: ObjectKey,
    /// The chunk.
    pub chunk: ChunkIndex,
}

/// Adjacent chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRun {
    /// The first.
    pub first: ChunkIndex,
    /// How many; at least 1.
    pub count: u32,
}

/// A message of the unordered channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// Asks for a pong with the same nonce.
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
}

/// Why a message is no frame. The link is to be closed, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It has no first byte.
    #[error("empty frame")]
    Empty,
    /// Its first byte is none of those that version 1 knows.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// It is longer than its kind may be.
    #[error("frame of {0} bytes")]
    TooLong(usize),
    /// It ends before its header does, or has no payload.
    #[error("truncated frame")]
    Truncated,
    /// Its body is not the message that its kind carries.
    #[error("malformed body")]
    Malformed,
    /// A field is missing or out of its range.
    #[error("bad field: {0}")]
    Field(&'static str),
}

impl Frame {
    /// Reads one message of the reliable channel.
    ///
    /// # Errors
    /// [`FrameError`] if it is not a frame of version 1 within its limits.
    pub fn decode(message: Bytes) -> Result<Self, FrameError> {
        codec::decode(message)
    }

    /// Writes the frame, ready to be sent.
    #[must_use]
    pub fn encode(&self) -> OutgoingFrame {
        codec::encode(self)
    }
}

impl Ping {
    /// Reads one message of the unordered channel.
    ///
    /// # Errors
    /// [`FrameError`] if it is neither a ping nor a pong.
    pub fn decode(message: &[u8]) -> Result<Self, FrameError> {
        let (kind, nonce) = message.split_first().ok_or(FrameError::Empty)?;
        let nonce = <[u8; 8]>::try_from(nonce).map_err(|_| FrameError::Malformed)?;
        match *kind {
            PING => Ok(Self::Ping(u64::from_be_bytes(nonce))),
            PONG => Ok(Self::Pong(u64::from_be_bytes(nonce))),
            kind => Err(FrameError::UnknownKind(kind)),
        }
    }

    /// Writes it.
    #[must_use]
    pub fn encode(self) -> [u8; PING_LENGTH] {
        let (kind, nonce) = match self {
            Self::Ping(nonce) => (PING, nonce),
            Self::Pong(nonce) => (PONG, nonce),
        };
        let mut bytes = [kind; PING_LENGTH];
        bytes[1..].copy_from_slice(&nonce.to_be_bytes());
        bytes
    }
}

const PING: u8 = 16;
const PONG: u8 = 17;

#[cfg(test)]
mod tests;
