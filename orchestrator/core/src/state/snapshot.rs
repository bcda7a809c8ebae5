//! Snapshots as a stream: a head, frames of records, an end.
//!
//! ```text
//!   "ESPSNAP" kind version  │ length checksum payload │ … │ 0 checksum hash
//! ```
//!
//! Neither side holds more than one frame. Each frame carries the XXH3 of its payload, the end the hash of
//! the whole state, so that what was cut off, garbled or put together wrongly is noticed. Numbers are
//! little-endian. Which records there are is the states' affair.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use twox_hash::XxHash3_64;

use super::codec::{DecodeError, Writer};
use super::hash::StateHash;

const MAGIC: &[u8; 7] = b"ESPSNAP";
const VERSION: u16 = 4;
const WHAT: &str = "a snapshot";
/// A frame is closed when it has as many bytes.
const FRAME_BYTES: usize = 64 << 10;
/// The longest frame that is read: a closed one and the longest record.
const MOST_FRAME_BYTES: usize = 32 << 20;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The stream failed, or ended too early.
    #[error("the snapshot cannot be read")]
    Io(#[from] io::Error),
    /// It is none, or one of another version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// What was read is not what was written.
    #[error("the snapshot is damaged: its checksum is wrong")]
    Checksum,
}

/// Writes a snapshot.
pub(super) struct SnapshotWriter<W> {
    to: W,
    frame: Writer,
}

impl<W: Write> SnapshotWriter<W> {
    pub(super) fn start(mut to: W, kind: u8) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        to.write_all(&[kind])?;
        to.write_all(&VERSION.to_le_bytes())?;
        let frame = Writer::default();
        Ok(Self { to, frame })
    }

    pub(super) fn put<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        self.frame.put(record);
        if self.frame.bytes.len() >= FRAME_BYTES {
            self.close_frame()?;
        }
        Ok(())
    }

    fn close_frame(&mut self) -> io::Result<()> {
        let payload = &self.frame.bytes;
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to
            .write_all(&XxHash3_64::oneshot(payload).to_le_bytes())?;
        self.to.write_all(payload)?;
        self.frame.bytes.clear();
        Ok(())
    }

    pub(super) fn finish(mut self, hash: StateHash) -> io::Result<()> {
        if !self.frame.bytes.is_empty() {
            self.close_frame()?;
        }
        let hash = hash.0.to_le_bytes();
        self.to.write_all(&0_u32.to_le_bytes())?;
        self.to
            .write_all(&XxHash3_64::oneshot(&hash).to_le_bytes())?;
        self.to.write_all(&hash)?;
        self.to.flush()
    }
}

/// Reads a snapshot.
pub(super) struct SnapshotReader<R> {
    from: R,
    frame: Vec<u8>,
    at: usize,
    hash: Option<StateHash>,
}

impl<R: Read> SnapshotReader<R> {
    pub(super) fn start(mut from: R, kind: u8) -> Result<Self, SnapshotError> {
        let magic: [u8; 7] = read_array(&mut from)?;
        let [found] = read_array(&mut from)?;
        if magic != *MAGIC {
            return Err(DecodeError::Damaged { what: WHAT }.into());
        }
        let version = u16::from_le_bytes(read_array(&mut from)?);
        if version != VERSION {
            let what = WHAT;
            return Err(DecodeError::UnknownVersion { what, version }.into());
        }
        if found != kind {
            let (what, kind) = (WHAT, found.into());
            return Err(DecodeError::UnknownKind { what, kind }.into());
        }
        let (frame, at, hash) = (Vec::new(), 0, None);
        Ok(Self {
            from,
            frame,
            at,
            hash,
        })
    }

    /// Reads the next record; `None`: that was all.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, SnapshotError> {
        if self.at == self.frame.len() {
            self.read_frame()?;
        }
        if self.hash.is_some() {
            return Ok(None);
        }
        let rest = &self.frame[self.at..];
        let damaged = |_| DecodeError::Damaged { what: WHAT };
        let (record, left) = postcard::take_from_bytes(rest).map_err(damaged)?;
        self.at = self.frame.len() - left.len();
        Ok(Some(record))
    }

    fn read_frame(&mut self) -> Result<(), SnapshotError> {
        if self.hash.is_some() {
            return Ok(());
        }
        let length = u32::from_le_bytes(read_array(&mut self.from)?) as usize;
        let checksum = u64::from_le_bytes(read_array(&mut self.from)?);
        if length > MOST_FRAME_BYTES {
            let (what, bytes) = (WHAT, length);
            return Err(DecodeError::TooLong { what, bytes }.into());
        }
        self.at = 0;
        self.frame.clear();
        if length == 0 {
            let hash: [u8; 16] = read_array(&mut self.from)?;
            verify(&hash, checksum)?;
            self.hash = Some(StateHash(u128::from_le_bytes(hash)));
            return Ok(());
        }
        let mut payload = (&mut self.from).take(length as u64);
        payload.read_to_end(&mut self.frame)?;
        if self.frame.len() != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        verify(&self.frame, checksum)
    }

    /// Ends the reading: all records are read and make up a state with this hash.
    pub(super) fn finish(self, hash: StateHash) -> Result<(), SnapshotError> {
        if self.hash == Some(hash) {
            Ok(())
        } else {
            Err(SnapshotError::Checksum)
        }
    }
}

fn verify(payload: &[u8], checksum: u64) -> Result<(), SnapshotError> {
    if XxHash3_64::oneshot(payload) == checksum {
        Ok(())
    } else {
        Err(SnapshotError::Checksum)
    }
}

fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
