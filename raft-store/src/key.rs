//! Where a record lies: the one key space of all groups.
//!
//! A key is `kind (1) | group (8) | index (8) | part (2)`, big-endian, so that a group's entries lie side
//! by side in the order of the log. Only entries have an index; only long entries have parts above 0.

use std::fmt;

/// A Raft group's number, unique in one store.
pub type GroupId = u64;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 19;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// About the store: sequence of the last commit and the sum of all records.
    Header = 1,
    /// A group's vote.
    Vote = 2,
    /// A group's committed log id.
    Committed = 3,
    /// The log id up to which a group's log is purged.
    Purged = 4,
    /// A log entry.
    Entry = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Header),
            2 => Some(Self::Vote),
            3 => Some(Self::Committed),
            4 => Some(Self::Purged),
            5 => Some(Self::Entry),
            _ => None,
        }
    }
}

/// The key of one record, or of one part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What the record says.
    pub kind: Kind,
    /// Whose it is; 0 for the header.
    pub group: GroupId,
    /// An entry's index; 0 for all else.
    pub index: u64,
    /// Which part of a long entry this is.
    pub part: u16,
}

impl Key {
    /// The store's header.
    pub const HEADER: Self = Self {
        kind: Kind::Header,
        group: 0,
        index: 0,
        part: 0,
    };

    /// The key of a group's one record of a kind.
    #[must_use]
    pub fn single(kind: Kind, group: GroupId) -> Self {
        Self {
            kind,
            group,
            index: 0,
            part: 0,
        }
    }

    /// The key of a log entry's first part.
    #[must_use]
    pub fn entry(group: GroupId, index: u64) -> Self {
        Self {
            kind: Kind::Entry,
            group,
            index,
            part: 0,
        }
    }

    /// The same record's other part.
    #[must_use]
    pub fn with_part(self, part: u16) -> Self {
        Self { part, ..self }
    }

    /// The key as it is stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1..9].copy_from_slice(&self.group.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.index.to_be_bytes());
        bytes[17..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    /// Reads a stored key; none if this is no key of this store.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().ok()?;
        Some(Self {
            kind: Kind::from_byte(bytes[0])?,
            group: u64::from_be_bytes(bytes[1..9].try_into().ok()?),
            index: u64::from_be_bytes(bytes[9..17].try_into().ok()?),
            part: u16::from_be_bytes(bytes[17..].try_into().ok()?),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Header => f.write_str("the store's header"),
            Kind::Vote => write!(f, "the vote of group {}", self.group),
            Kind::Committed => write!(f, "the committed index of group {}", self.group),
            Kind::Purged => write!(f, "the purge mark of group {}", self.group),
            Kind::Entry => write!(f, "entry {} of group {}", self.index, self.group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_keep_the_order_of_the_log() {
        let keys = [
            Key::HEADER,
            Key::single(Kind::Vote, 3),
            Key::entry(1, 255),
            Key::entry(1, 256),
            Key::entry(1, 256).with_part(1),
            Key::entry(1, u64::MAX),
            Key::entry(2, 0),
        ];
        for pair in keys.windows(2) {
            assert!(
                pair[0].to_bytes() < pair[1].to_bytes(),
                "{} before {}",
                pair[0],
                pair[1]
            );
        }
        for key in keys {
            assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = Key::entry(1, 1).to_bytes();
        assert_eq!(Key::from_bytes(&good[1..]), None);
        assert_eq!(Key::from_bytes(&[]), None);
        let mut unknown = good;
        unknown[0] = 9;
        assert_eq!(Key::from_bytes(&unknown), None);
    }
}
