//! Bytes of entries: the version first, so that nobody guesses at what it does not know.
//!
//! postcard carries the rest. Changing a serialized type changes the format: that takes a new version.

use core::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest entry that is written or read.
pub const MOST_ENTRY_BYTES: usize = 128 << 20;

/// Why bytes of the log or of a snapshot cannot be used. Whoever meets one in its log must stop: the others
/// may have understood it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A newer program wrote it.
    #[error("{what} has version {version}, which this program does not know")]
    UnknownVersion {
        /// Of what.
        what: &'static str,
        /// Which it has.
        version: u16,
    },
    /// A newer program wrote it.
    #[error("{what} is of kind {kind}, which this program does not know")]
    UnknownKind {
        /// Of what.
        what: &'static str,
        /// Which it is.
        kind: u16,
    },
    /// The bytes are none that any version writes.
    #[error("{what} is damaged")]
    Damaged {
        /// What they should be.
        what: &'static str,
    },
    /// More bytes than [`MOST_ENTRY_BYTES`].
    #[error("{what} has {bytes} bytes, more than any may have")]
    TooLong {
        /// What they should be.
        what: &'static str,
        /// How many there are.
        bytes: usize,
    },
}

/// An entry is longer than [`MOST_ENTRY_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry would have {bytes} bytes, more than any may have")]
pub struct EntryTooLong {
    /// How many.
    pub bytes: usize,
}

/// Writes values one behind the other.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, value: &T) {
        let bytes = core::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(value, bytes)
            .expect("invariant: a growing buffer takes every value of the state");
    }

    /// Writes bytes behind their length.
    pub(super) fn put_nested(&mut self, bytes: &[u8]) {
        self.put(&bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, EntryTooLong> {
        let bytes = self.bytes.len();
        if bytes > MOST_ENTRY_BYTES {
            return Err(EntryTooLong { bytes });
        }
        Ok(self.bytes)
    }
}

/// Reads values one behind the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts to read; `what` names the whole in errors.
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let rest = bytes;
        if bytes.len() > MOST_ENTRY_BYTES {
            let bytes = bytes.len();
            return Err(DecodeError::TooLong { what, bytes });
        }
        Ok(Self { what, rest })
    }

    pub(super) fn damaged(&self) -> DecodeError {
        DecodeError::Damaged { what: self.what }
    }

    /// Reads a version and refuses all but the one that is known.
    pub(super) fn version(&mut self, known: u16) -> Result<u16, DecodeError> {
        let (what, version) = (self.what, self.take()?);
        if version == known {
            Ok(version)
        } else {
            Err(DecodeError::UnknownVersion { what, version })
        }
    }

    pub(super) fn unknown_kind(&self, kind: u16) -> DecodeError {
        let what = self.what;
        DecodeError::UnknownKind { what, kind }
    }

    pub(super) fn take<T: DeserializeOwned>(&mut self) -> Result<T, DecodeError> {
        let taken = postcard::take_from_bytes(self.rest);
        let (value, rest) = taken.map_err(|_| self.damaged())?;
        self.rest = rest;
        Ok(value)
    }

    pub(super) fn take_nested(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.take()?;
        let split = self.rest.split_at_checked(length);
        let (nested, rest) = split.ok_or(self.damaged())?;
        self.rest = rest;
        Ok(nested)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading: nothing may be left.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.damaged())
        }
    }
}

/// Times in whole milliseconds, as the channel's time counts; the longest stands for ever.
pub(crate) mod millis {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to_millis(*time).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(from_millis)
    }

    fn to_millis(time: Duration) -> u64 {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    fn from_millis(millis: u64) -> Duration {
        match millis {
            u64::MAX => Duration::MAX,
            millis => Duration::from_millis(millis),
        }
    }

    /// The same for times that may be missing.
    pub(crate) mod option {
        use super::{Duration, from_millis, to_millis};
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(to_millis).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(from)?.map(from_millis))
        }
    }
}
