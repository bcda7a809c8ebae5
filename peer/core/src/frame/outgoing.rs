//! A frame that is ready to be sent: a short header and a shared payload.

use bytes::Bytes;

use super::{DATA_HEADER_LENGTH, FrameKind};

/// A frame to send as one message: [`header`](Self::header), then [`payload`](Self::payload).
///
/// The header lives in the frame itself and the payload is shared with the ring, so that sending one
/// chunk to many children allocates and copies nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingFrame {
    header: [u8; DATA_HEADER_LENGTH],
    header_length: u8,
    payload: Bytes,
}

impl OutgoingFrame {
    /// Joins a header of at most [`DATA_HEADER_LENGTH`] bytes, longer ones being cut, and a payload.
    pub(super) fn new(kind: FrameKind, rest: &[u8], payload: Bytes) -> Self {
        let mut header = [0; DATA_HEADER_LENGTH];
        header[0] = kind as u8;
        let length = rest.len().min(DATA_HEADER_LENGTH - 1);
        header[1..=length].copy_from_slice(&rest[..length]);
        let header_length = u8::try_from(length + 1).unwrap_or(u8::MAX);
        Self {
            header,
            header_length,
            payload,
        }
    }

    /// The first bytes of the message, the kind byte included.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_length)]
    }

    /// The bytes that follow the header.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The message's length.
    #[must_use]
    pub fn length(&self) -> u64 {
        u64::from(self.header_length) + self.payload.len() as u64
    }

    /// The whole message in one buffer: a copy, for tests and for transports that need one.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        [self.header(), &self.payload[..]].concat().into()
    }
}
