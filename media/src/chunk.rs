//! Cutting objects into chunks, hashing them and checking them.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::limits::{CHUNK_SIZE, MAX_OBJECT_LEN};
use crate::object::ChunkIndex;

const HASH_LEN: usize = 32;

/// Returns how many chunks an object of `length` bytes has, or `None` if it is longer than
/// [`MAX_OBJECT_LEN`].
#[must_use]
pub fn chunk_count(length: u64) -> Option<u32> {
    if length > MAX_OBJECT_LEN {
        return None;
    }
    u32::try_from(length.div_ceil(CHUNK_SIZE as u64)).ok()
}

/// The SHA-256 hashes of an object's chunks, in order. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkHashes(Bytes);

impl ChunkHashes {
    /// Takes concatenated hashes; `None` if the length is not a multiple of 32.
    #[must_use]
    pub fn from_concatenated(bytes: Bytes) -> Option<Self> {
        bytes.len().is_multiple_of(HASH_LEN).then_some(Self(bytes))
    }

    /// Returns the hashes, concatenated.
    #[must_use]
    pub fn concatenated(&self) -> &Bytes {
        &self.0
    }

    /// Returns the number of chunks.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len() / HASH_LEN).unwrap_or(u32::MAX)
    }

    /// Returns one chunk's hash.
    #[must_use]
    pub fn get(&self, index: ChunkIndex) -> Option<&[u8; HASH_LEN]> {
        let start = usize::try_from(index.0).ok()?.checked_mul(HASH_LEN)?;
        self.0
            .get(start..start.checked_add(HASH_LEN)?)?
            .try_into()
            .ok()
    }
}

/// Why bytes are not the chunk that they were said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The object has fewer chunks.
    #[error("chunk {index} of an object that has {count}")]
    NoSuchChunk {
        /// The chunk asked for.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// The bytes are fewer or more than the chunk has.
    #[error("chunk {index} has {expected} bytes, not {actual}")]
    WrongLength {
        /// The chunk.
        index: u32,
        /// What it should have.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// The bytes are others than those signed.
    #[error("chunk {index} does not match its hash")]
    WrongHash {
        /// The chunk.
        index: u32,
    },
}

/// An object was longer than [`MAX_OBJECT_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("longer than {MAX_OBJECT_LEN} bytes")]
pub struct ObjectTooLong;

/// What an [`ObjectHasher`] found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedObject {
    /// The object's bytes.
    pub length: u64,
    /// Its chunks' hashes.
    pub chunk_hashes: ChunkHashes,
}

/// Hashes an object's chunks as its bytes come in. Holds no bytes, only hashes.
#[derive(Debug, Default)]
pub struct ObjectHasher {
    length: u64,
    in_chunk: usize,
    current: Sha256,
    hashes: Vec<u8>,
}

impl ObjectHasher {
    /// Starts an empty object.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ObjectTooLong`] if the object would exceed the limit; nothing was taken then.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), ObjectTooLong> {
        let length = self.length.saturating_add(bytes.len() as u64);
        if length > MAX_OBJECT_LEN {
            return Err(ObjectTooLong);
        }
        self.length = length;
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(CHUNK_SIZE - self.in_chunk));
            self.current.update(head);
            self.in_chunk += head.len();
            if self.in_chunk == CHUNK_SIZE {
                self.close_chunk();
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Returns the bytes taken so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Ends the object.
    #[must_use]
    pub fn finish(mut self) -> HashedObject {
        if self.in_chunk > 0 {
            self.close_chunk();
        }
        HashedObject {
            length: self.length,
            chunk_hashes: ChunkHashes(Bytes::from(self.hashes)),
        }
    }

    fn close_chunk(&mut self) {
        self.hashes
            .extend_from_slice(&self.current.finalize_reset());
        self.in_chunk = 0;
    }
}

/// Checks bytes against one chunk of an object of `length` bytes.
pub(crate) fn verify(
    length: u64,
    hashes: &ChunkHashes,
    index: ChunkIndex,
    bytes: &[u8],
) -> Result<(), ChunkError> {
    let no_such = ChunkError::NoSuchChunk {
        index: index.0,
        count: hashes.count(),
    };
    let expected = chunk_len(length, index).ok_or(no_such)?;
    let hash = hashes.get(index).ok_or(no_such)?;
    if bytes.len() != expected {
        return Err(ChunkError::WrongLength {
            index: index.0,
            expected,
            actual: bytes.len(),
        });
    }
    if Sha256::digest(bytes).as_slice() != hash {
        return Err(ChunkError::WrongHash { index: index.0 });
    }
    Ok(())
}

/// Returns the length of one chunk of an object of `length` bytes.
pub(crate) fn chunk_len(length: u64, index: ChunkIndex) -> Option<usize> {
    let start = u64::from(index.0) * CHUNK_SIZE as u64;
    let rest = length.checked_sub(start).filter(|rest| *rest > 0)?;
    usize::try_from(rest.min(CHUNK_SIZE as u64)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(bytes: &[u8]) -> HashedObject {
        let mut hasher = ObjectHasher::new();
        hasher.push(bytes).expect("short");
        hasher.finish()
    }

    #[test]
    fn chunk_counts() {
        let size = CHUNK_SIZE as u64;
        for (length, count) in [
            (0, Some(0)),
            (1, Some(1)),
            (size, Some(1)),
            (size + 1, Some(2)),
            (MAX_OBJECT_LEN, Some(crate::limits::MAX_CHUNKS)),
            (MAX_OBJECT_LEN + 1, None),
            (u64::MAX, None),
        ] {
            assert_eq!(chunk_count(length), count, "{length}");
        }
    }

    #[test]
    fn wrong_chunks_are_told_apart() {
        let bytes = vec![7u8; CHUNK_SIZE + 10];
        let object = hash(&bytes);
        let check = |index, bytes: &[u8]| {
            verify(
                object.length,
                &object.chunk_hashes,
                ChunkIndex(index),
                bytes,
            )
        };
        assert_eq!(check(0, &bytes[..CHUNK_SIZE]), Ok(()));
        assert_eq!(check(1, &bytes[CHUNK_SIZE..]), Ok(()));
        assert_eq!(
            check(2, &[]),
            Err(ChunkError::NoSuchChunk { index: 2, count: 2 })
        );
        assert_eq!(
            check(1, &bytes[..11]),
            Err(ChunkError::WrongLength {
                index: 1,
                expected: 10,
                actual: 11
            })
        );
        assert_eq!(
            check(1, &[8u8; 10]),
            Err(ChunkError::WrongHash { index: 1 })
        );
        assert!(check(u32::MAX, &[]).is_err());
    }

    #[test]
    fn a_too_long_object_is_refused_before_it_is_hashed() {
        let mut hasher = ObjectHasher {
            length: MAX_OBJECT_LEN,
            ..ObjectHasher::default()
        };
        assert_eq!(hasher.push(&[0]), Err(ObjectTooLong));
        assert_eq!(hasher.length(), MAX_OBJECT_LEN);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However the bytes are cut on the way in, the hashes are those of the chunks.
        #[test]
        fn pieces_do_not_matter(length in 0usize..200_000, pieces in proptest::collection::vec(1usize..70_000, 1..20)) {
            let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).expect("small")).collect();
            let mut hasher = ObjectHasher::new();
            let mut rest = bytes.as_slice();
            for piece in pieces.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at(rest.len().min(*piece));
                hasher.push(head).expect("short");
                rest = tail;
            }
            let model: Vec<u8> = bytes.chunks(CHUNK_SIZE).flat_map(Sha256::digest).collect();
            let object = hasher.finish();
            prop_assert_eq!(object.length, length as u64);
            prop_assert_eq!(object.chunk_hashes.concatenated().as_ref(), model.as_slice());
        }
    }
}
