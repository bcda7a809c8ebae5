//! The state's hash: a sum over its records, so that a change costs what it touches.
//!
//! Equal states have equal hashes on every machine and in every run. It finds accidents; it is no
//! protection against somebody who makes up records to match it.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::codec::Writer;

/// The hash of a state, or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateHash(pub u128);

impl core::fmt::Display for StateHash {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a record is, so that equal bytes of different kinds differ.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) enum Kind {
    Peer,
    Parting,
    Suspect,
    Channel,
    Meta,
}

impl StateHash {
    pub(super) fn of<T: Serialize>(kind: Kind, record: &T) -> Self {
        let mut writer = Writer::default();
        writer.bytes.reserve(256);
        writer.put(&(kind, record));
        Self(XxHash3_128::oneshot(&writer.bytes))
    }

    pub(super) fn add(&mut self, part: Self) {
        self.0 = self.0.wrapping_add(part.0);
    }

    pub(super) fn remove(&mut self, part: Self) {
        self.0 = self.0.wrapping_sub(part.0);
    }
}
