//! The names of things: one type each, validated where they enter.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A peer, by the id that it made for itself: 16 lower-case hexadecimal digits in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for PeerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(digits) {
            return Err(IdError::Peer);
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| IdError::Peer)
    }
}

/// Eight bytes as they are: ids are random, and a varint of one would take ten.
impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_le_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 8]>::deserialize(deserializer).map(|bytes| Self(u64::from_le_bytes(bytes)))
    }
}

/// A node of the cluster. Never used again, not even for the same machine.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the groups that share the channels among them; 0 is the meta group, which has none.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A channel: `[a-z][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Arc<str>);

impl ChannelId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ChannelId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let starts = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase());
        if !starts || text.len() > 63 || !text.bytes().all(allowed) {
            return Err(IdError::Channel);
        }
        Ok(Self(text.into()))
    }
}

/// A track's number, as in signed and relayed things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrackIndex(pub u32);

impl fmt::Display for TrackIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A track's name, as in URLs and the API: 1 to 128 bytes, no control characters, blanks or slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackName(Arc<str>);

impl TrackName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrackName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = |c: char| c.is_control() || c.is_whitespace() || c == '/' || c == '\\';
        if text.is_empty() || text.len() > 128 || text.chars().any(refused) {
            return Err(IdError::Track);
        }
        Ok(Self(text.into()))
    }
}

macro_rules! serialized_as_text {
    ($($id:ty),*) => {$(
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serialized_as_text!(ChannelId, TrackName);

/// Orders everything that an orchestrator tells a peer: by incarnation, then term, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation {
    /// Changes when the channel's state does not descend from what it was.
    pub incarnation: u64,
    /// The term of the channel's owner.
    pub term: u64,
    /// The log index of the entry that decided.
    pub index: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.incarnation, self.term, self.index)
    }
}

/// Where a peer takes a track from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The origin or its CDN.
    Cdn,
    /// Another peer.
    Peer(PeerId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cdn => f.write_str("cdn"),
            Self::Peer(peer) => peer.fmt(f),
        }
    }
}

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a peer's id.
    #[error("a peer's id is 16 lower-case hexadecimal digits")]
    Peer,
    /// Not a channel's id.
    #[error("a channel's id is a lower-case letter and up to 62 lower-case letters, digits or '-'")]
    Channel,
    /// Not a track's name.
    #[error("a track's name is 1 to 128 bytes without blanks, slashes or control characters")]
    Track,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_are_exactly_sixteen_lower_case_digits() {
        for (text, expect) in [
            ("00000000000000ff", Ok(PeerId(255))),
            ("ffffffffffffffff", Ok(PeerId(u64::MAX))),
            ("00000000000000FF", Err(IdError::Peer)),
            ("0000000000000ff", Err(IdError::Peer)),
            ("000000000000000ff", Err(IdError::Peer)),
            ("+00000000000000f", Err(IdError::Peer)),
            ("", Err(IdError::Peer)),
        ] {
            assert_eq!(text.parse::<PeerId>(), expect, "{text}");
            if let Ok(peer) = expect {
                assert_eq!(peer.to_string(), text);
            }
        }
    }

    #[test]
    fn channel_ids_follow_their_pattern() {
        let long = "a".repeat(63);
        let too_long = "a".repeat(64);
        for (text, legal) in [
            ("a", true),
            ("news-24", true),
            (long.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("-a", false),
            ("2a", false),
            ("A", false),
            ("a_b", false),
            ("ä", false),
        ] {
            assert_eq!(text.parse::<ChannelId>().is_ok(), legal, "{text}");
        }
    }

    #[test]
    fn track_names_stay_one_path_segment() {
        for (text, legal) in [
            ("v0", true),
            ("720p_5.1", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
        ] {
            assert_eq!(text.parse::<TrackName>().is_ok(), legal, "{text}");
        }
    }

    #[test]
    fn generations_order_by_incarnation_then_term_then_index() {
        let of = |incarnation, term, index| Generation {
            incarnation,
            term,
            index,
        };
        assert!(of(1, 9, 9) < of(2, 0, 0));
        assert!(of(1, 1, 9) < of(1, 2, 0));
        assert!(of(1, 1, 1) < of(1, 1, 2));
    }
}
