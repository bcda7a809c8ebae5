//! What one commit writes: a list of puts and deletes, applied all or not at all.

use crate::key::Key;
use crate::record::Record;

/// A commit's sequence number and the sum of all records that stand after it.
///
/// The sum is that of the records' checksums, wrapping. A store that lost, resurrected or altered any
/// record has another sum, so a stale page that passes its own checksum is found all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// Number of commits since the store was made.
    pub sequence: u64,
    /// Sum of the checksums of all records but the header.
    pub sum: u64,
}

impl Seal {
    /// Length of an encoded seal.
    pub const BYTES: usize = 16;

    /// The seal as it is stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_be_bytes());
        bytes
    }

    /// Reads a stored seal.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        Some(Self {
            sequence: u64::from_be_bytes(bytes[..8].try_into().ok()?),
            sum: u64::from_be_bytes(bytes[8..].try_into().ok()?),
        })
    }
}

/// One commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The store's seal after this commit; its record is among the writes.
    pub seal: Seal,
    /// Puts (some) and deletes (none), in order: a later write of a key stands.
    pub writes: Vec<(Key, Option<Vec<u8>>)>,
    /// Bytes of all puts.
    pub bytes: usize,
    /// How many of the writes delete.
    pub deletes: usize,
}

impl Batch {
    pub(crate) fn put(&mut self, key: Key, record: Record) {
        self.bytes += record.bytes();
        for (part, value) in (0_u16..).zip(record.parts) {
            self.writes.push((key.with_part(part), Some(value)));
        }
    }

    pub(crate) fn delete(&mut self, key: Key, parts: u16) {
        self.deletes += usize::from(parts);
        self.writes
            .extend((0..parts).map(|part| (key.with_part(part), None)));
    }
}
