//! The names that the relay engine uses: peers, requests, generations and sources.
//!
//! Each id is a type of its own, so that none can be taken for another. Objects, tracks and chunks are
//! named by `espalier-media`.

use core::fmt;
use core::str::FromStr;

/// A peer's id, chosen by the peer once: written as 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a peer's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer's id is 16 lower-case hexadecimal digits")]
pub struct InvalidPeerId;

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(text: &str) -> Result<Self, InvalidPeerId> {
        let digits = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if text.len() != 16 || !digits {
            return Err(InvalidPeerId);
        }
        u64::from_str_radix(text, 16)
            .map(PeerId)
            .map_err(|_| InvalidPeerId)
    }
}

/// Names one of the engine's requests to the origin or CDN; never used twice by an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// A track's name, as URLs and the orchestrator use it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackName(pub String);

impl TrackName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Orders everything that an orchestrator says to a peer: by incarnation, then term, then index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// Changes when the channel's state does not descend from what it was.
    pub incarnation: u64,
    /// The owner's term.
    pub term: u64,
    /// The log index of the decision.
    pub index: u64,
}

/// Where a peer takes a track from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Another peer.
    Peer(PeerId),
    /// The origin or its CDN.
    Cdn,
}

impl Source {
    /// The peer, if the source is one.
    #[must_use]
    pub fn peer(self) -> Option<PeerId> {
        match self {
            Source::Peer(peer) => Some(peer),
            Source::Cdn => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_are_sixteen_lower_case_hexadecimal_digits() {
        for bad in [
            "",
            "1",
            "00000000000000AB",
            "+000000000000001",
            "0000000000000000f",
            "zz",
        ] {
            assert_eq!(bad.parse::<PeerId>(), Err(InvalidPeerId), "{bad}");
        }
        let id = PeerId(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(id));
    }

    #[test]
    fn generations_are_ordered_by_incarnation_then_term_then_index() {
        let generation = |incarnation, term, index| Generation {
            incarnation,
            term,
            index,
        };
        assert!(generation(1, 0, 0) > generation(0, 9, 9));
        assert!(generation(1, 2, 0) > generation(1, 1, 9));
        assert!(generation(1, 2, 3) > generation(1, 2, 2));
    }
}
