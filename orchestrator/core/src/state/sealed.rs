//! Bytes that the state keeps and does not look into: sealed secrets, a signer's state.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most bytes that one [`Sealed`] may hold.
pub const MOST_SEALED_BYTES: usize = 4 << 20;

/// Bytes that only others understand. Debug output shows how many there are and nothing else.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sealed(Arc<Vec<u8>>);

impl Sealed {
    /// Takes bytes as they are.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    /// Returns the bytes as they were given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.0.len() > MOST_SEALED_BYTES
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Sealed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Sealed, E> {
                Ok(Sealed::new(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}
