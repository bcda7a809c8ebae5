//! A record's bytes: version, checksum, length, body; long bodies in several parts.
//!
//! Part 0 is `version (1) | checksum (8) | length of the body (4) | body…`, the other parts go on with the
//! body. The checksum covers the key as well, so that a record at another record's place is found out.
//!
//! Invariant: what decodes is what was encoded under this key.
//!
//! Parts exist because sled keeps up to 17 values in one page and moves a page of more than 128 KiB into
//! a file of its own, which costs a file's syncs; 17 parts stay below that.

use twox_hash::XxHash3_64;

use crate::key::{Key, Kind};

/// The version that is written.
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 13;
/// Most bytes of one part.
const PART_BYTES: usize = 7 * 1024;
/// Most bytes of a body: what all parts hold, and what a length field may promise.
pub const MAX_BODY_BYTES: usize = PART_BYTES * (u16::MAX as usize) - HEAD_BYTES;

/// An encoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its checksum, which is also its share of the store's sum.
    pub checksum: u64,
    /// The values of its parts, in order; never empty.
    pub parts: Vec<Vec<u8>>,
}

/// Why stored bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than a record has at least, or than this one promised.
    #[error("is cut short")]
    Short,
    /// More bytes than the record promised.
    #[error("has bytes past its end")]
    Long,
    /// Written by a version that this one does not know.
    #[error("has format version {0}, which this version cannot read")]
    Version(u8),
    /// The bytes are not those that were written.
    #[error("fails its checksum")]
    Checksum,
}

/// A body longer than any record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {bytes} bytes is longer than {MAX_BODY_BYTES}")]
pub struct TooLong {
    /// Length of the body.
    pub bytes: usize,
}

impl Record {
    /// Encodes a body for its place.
    ///
    /// # Errors
    ///
    /// The body is longer than [`MAX_BODY_BYTES`].
    pub fn encode(key: Key, body: &[u8]) -> Result<Self, TooLong> {
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= MAX_BODY_BYTES)
            .ok_or(TooLong { bytes: body.len() })?;
        let checksum = checksum(key, body);
        let split = body.len().min(PART_BYTES - HEAD_BYTES);
        let mut first = Vec::with_capacity(HEAD_BYTES + split);
        first.push(VERSION);
        first.extend_from_slice(&checksum.to_be_bytes());
        first.extend_from_slice(&length.to_be_bytes());
        first.extend_from_slice(&body[..split]);
        let mut parts = vec![first];
        parts.extend(body[split..].chunks(PART_BYTES).map(<[u8]>::to_vec));
        Ok(Self { checksum, parts })
    }

    /// Bytes of all parts, without keys.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// Puts a record together from its parts.
#[derive(Debug)]
pub struct Assembly {
    key: Key,
    checksum: u64,
    length: usize,
    body: Vec<u8>,
    parts: u16,
}

impl Assembly {
    /// Starts with the first part.
    ///
    /// # Errors
    ///
    /// It is no record's first part.
    pub fn start(key: Key, first: &[u8]) -> Result<Self, RecordError> {
        let (head, body) = first
            .split_at_checked(HEAD_BYTES)
            .ok_or(RecordError::Short)?;
        if head[0] != VERSION {
            return Err(RecordError::Version(head[0]));
        }
        let checksum = u64::from_be_bytes(head[1..9].try_into().map_err(|_| RecordError::Short)?);
        let length = u32::from_be_bytes(head[9..].try_into().map_err(|_| RecordError::Short)?);
        let this = Self {
            key: Key { part: 0, ..key },
            checksum,
            length: length as usize,
            body: body.to_vec(),
            parts: 1,
        };
        if this.body.len() > this.length {
            Err(RecordError::Long)
        } else {
            Ok(this)
        }
    }

    /// Whether all of the body is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.body.len() == self.length
    }

    /// Adds the next part.
    ///
    /// # Errors
    ///
    /// It is another record's, out of order, or too long.
    pub fn add(&mut self, key: Key, part: &[u8]) -> Result<(), RecordError> {
        if key != self.key.with_part(self.parts) {
            return Err(RecordError::Short);
        }
        if self.body.len() + part.len() > self.length || part.is_empty() {
            return Err(RecordError::Long);
        }
        self.body.extend_from_slice(part);
        self.parts += 1;
        Ok(())
    }

    /// Ends the record: its key, checksum, body and number of parts.
    ///
    /// # Errors
    ///
    /// Bytes are missing, or they are not those that were written.
    pub fn finish(self) -> Result<Decoded, RecordError> {
        if !self.is_whole() {
            return Err(RecordError::Short);
        }
        if checksum(self.key, &self.body) != self.checksum {
            return Err(RecordError::Checksum);
        }
        Ok(Decoded {
            key: self.key,
            checksum: self.checksum,
            body: self.body,
            parts: self.parts,
        })
    }
}

/// A record as it was encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its place.
    pub key: Key,
    /// Its checksum.
    pub checksum: u64,
    /// Its body.
    pub body: Vec<u8>,
    /// In how many parts it is stored.
    pub parts: u16,
}

impl Decoded {
    /// Bytes of its parts, without keys.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }
}

/// The checksum of a body at its place.
fn checksum(key: Key, body: &[u8]) -> u64 {
    // The place is the seed: cheaper than hashing a copy of key and body. Kind and group share few
    // low bits, so they are spread by odd multipliers first.
    let place = (key.kind as u64)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(key.group.wrapping_mul(0xC2B2_AE3D_27D4_EB4F))
        .wrapping_add(key.index.wrapping_mul(0x1656_67B1_9E37_79F9));
    XxHash3_64::oneshot_with_seed(place, body)
}

/// Reads the records of a run of stored parts, in order.
///
/// # Errors
///
/// The key of the record that is none, and why.
pub fn decode_all<'a>(
    parts: impl IntoIterator<Item = (Key, &'a [u8])>,
) -> Result<Vec<Decoded>, (Key, RecordError)> {
    let mut records = Vec::new();
    let mut reader = RunReader::default();
    for (key, value) in parts {
        records.extend(reader.push(key, value)?);
    }
    records.extend(reader.end()?);
    Ok(records)
}

/// Takes parts one by one and returns each record when the next begins.
#[derive(Debug, Default)]
pub struct RunReader {
    open: Option<Assembly>,
}

impl RunReader {
    /// Takes the next part; returns the record that it ends, if any.
    ///
    /// # Errors
    ///
    /// The key of the record that is none, and why.
    pub fn push(&mut self, key: Key, value: &[u8]) -> Result<Option<Decoded>, (Key, RecordError)> {
        if key.part > 0 && key.kind == Kind::Entry {
            let open = self.open.as_mut().ok_or((key, RecordError::Short))?;
            open.add(key, value).map_err(|error| (key, error))?;
            return Ok(None);
        }
        let done = self.end()?;
        self.open = Some(Assembly::start(key, value).map_err(|error| (key, error))?);
        Ok(done)
    }

    /// Ends the run; returns the last record.
    ///
    /// # Errors
    ///
    /// The key of the record that is none, and why.
    pub fn end(&mut self) -> Result<Option<Decoded>, (Key, RecordError)> {
        let Some(open) = self.open.take() else {
            return Ok(None);
        };
        let key = open.key;
        open.finish().map(Some).map_err(|error| (key, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: Key, record: &Record) -> Vec<(Key, Vec<u8>)> {
        let numbered = (0_u16..).zip(&record.parts);
        numbered
            .map(|(part, value)| (key.with_part(part), value.clone()))
            .collect()
    }

    fn read(parts: &[(Key, Vec<u8>)]) -> Result<Vec<Decoded>, RecordError> {
        decode_all(parts.iter().map(|(k, v)| (*k, v.as_slice()))).map_err(|(_, error)| error)
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let key = Key::entry(7, 9);
        for body_bytes in [0, 1, 100, PART_BYTES, 2 * PART_BYTES] {
            let body: Vec<u8> = (0_u8..251).cycle().take(body_bytes).collect();
            let parts = stored(key, &Record::encode(key, &body).expect("short enough"));
            assert_eq!(read(&parts).expect("whole")[0].body, body);
            for part in 0..parts.len() {
                for at in [0, 1, 5, 9, 12, parts[part].1.len() - 1] {
                    let mut bad = parts.clone();
                    let at = at.min(bad[part].1.len() - 1);
                    bad[part].1[at] ^= 4;
                    assert!(read(&bad).is_err(), "bit flipped at {at} of part {part}");
                }
                let mut cut = parts.clone();
                cut[part].1.pop();
                assert!(read(&cut).is_err(), "part {part} cut");
                let mut long = parts.clone();
                long[part].1.push(0);
                assert!(read(&long).is_err(), "part {part} lengthened");
                let mut gone = parts.clone();
                gone.remove(part);
                assert!(gone.is_empty() || read(&gone).is_err(), "part {part} gone");
            }
        }
    }

    #[test]
    fn a_record_at_anothers_place_is_found() {
        let record = Record::encode(Key::entry(1, 5), b"five").expect("short enough");
        for elsewhere in [
            Key::entry(1, 6),
            Key::entry(2, 5),
            Key::single(Kind::Vote, 1),
            Key::HEADER,
        ] {
            let parts = [(elsewhere, record.parts[0].clone())];
            assert_eq!(read(&parts), Err(RecordError::Checksum), "at {elsewhere}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let key = Key::entry(1, 1);
        let mut parts = stored(key, &Record::encode(key, b"x").expect("short enough"));
        parts[0].1[0] = 2;
        assert_eq!(read(&parts), Err(RecordError::Version(2)));
    }
}
