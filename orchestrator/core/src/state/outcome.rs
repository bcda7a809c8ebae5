//! What became of an entry: noted, or refused for a reason that every replica finds.

use serde::{Deserialize, Serialize};

use super::codec::{DecodeError, Reader, Writer};
use crate::ids::{PeerId, TrackIndex};

const WHAT: &str = "an entry's outcome";

/// Where an entry stands in its group's log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// What became of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is part of the state, now or already.
    Applied,
    /// It changed nothing.
    Refused(Refusal),
}

/// Why an operation changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another term's leader made it: it may know less than it should.
    #[error("it was made in term {made} and written in term {written}")]
    Term {
        /// In which it was made.
        made: u64,
        /// In which it was written.
        written: u64,
    },
    /// The entry has a version that is not applied.
    #[error("its version is {0}")]
    Version(u16),
    /// There is no such channel.
    #[error("there is no such channel")]
    UnknownChannel,
    /// The channel's state does not descend from the one that it was made for.
    #[error("the channel has another incarnation")]
    Incarnation,
    /// There is one of this name already.
    #[error("there is one already")]
    AlreadyExists,
    /// It has been changed by somebody else meanwhile.
    #[error("it was changed meanwhile")]
    Etag,
    /// It is being deleted.
    #[error("it is being deleted")]
    Deleting,
    /// The change is not possible from where its life stands.
    #[error("its life stands elsewhere")]
    Lifecycle,
    /// The entry names a peer that is not in the channel.
    #[error("peer {0} is not in the channel")]
    UnknownPeer(PeerId),
    /// The entry names a track that the channel does not have.
    #[error("the channel has no track {0}")]
    UnknownTrack(TrackIndex),
    /// The entry makes a peer its own neighbour.
    #[error("peer {0} would be its own neighbour")]
    OwnNeighbour(PeerId),
    /// The policy is outside its limits.
    #[error("the policy is outside its limits")]
    Policy,
    /// Two tracks have one name or number, or there are too many.
    #[error("the tracks cannot be told apart")]
    Tracks,
    /// Something is longer or more than any may be.
    #[error("it is more than the state holds")]
    TooMuch,
    /// The cluster has not been made yet.
    #[error("the cluster has not been made")]
    NotInitialised,
    /// It was made for another cluster.
    #[error("it is another cluster's")]
    OtherCluster,
    /// The cluster's version never falls.
    #[error("the cluster's version never falls")]
    VersionFalls,
    /// There is no such shard.
    #[error("there is no such shard")]
    UnknownShard,
    /// There is no such node.
    #[error("there is no such node")]
    UnknownNode,
    /// A node had this id, and ids are not used again.
    #[error("the node's id has been used")]
    NodeIdUsed,
    /// There is no such secret.
    #[error("there is no such secret")]
    UnknownSecret,
    /// The entry is built on others than the channel has: one that was decided before it was lost.
    #[error("it follows {follows} entries, and there are {here}")]
    Gap {
        /// How many entries were decided before it.
        follows: u64,
        /// How many the channel has.
        here: u64,
    },
}

impl Outcome {
    /// Whether it is part of the state.
    pub fn is_applied(self) -> bool {
        self == Self::Applied
    }

    /// Writes the outcomes of one proposal as bytes, for who proposed it.
    pub fn encode_all(outcomes: &[Self]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.put(outcomes);
        writer.bytes
    }

    /// Reads what [`Outcome::encode_all`] wrote.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut reader = Reader::new(WHAT, bytes)?;
        let outcomes = reader.take()?;
        reader.finish()?;
        Ok(outcomes)
    }
}

impl From<Result<(), Refusal>> for Outcome {
    fn from(result: Result<(), Refusal>) -> Self {
        result.map_or_else(Self::Refused, |()| Self::Applied)
    }
}

/// An entry's term must be that of the leader that wrote it: one engine, one term.
pub(super) fn same_term(made: u64, at: LogPosition) -> Result<(), Refusal> {
    let written = at.term;
    if made == written {
        Ok(())
    } else {
        Err(Refusal::Term { made, written })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_travel_as_bytes() {
        let refused = Outcome::Refused(Refusal::Term {
            made: 3,
            written: 4,
        });
        let outcomes = [Outcome::Applied, refused];
        let bytes = Outcome::encode_all(&outcomes);
        assert_eq!(Outcome::decode_all(&bytes).unwrap(), outcomes);
        assert!(Outcome::decode_all(&bytes[..bytes.len() - 1]).is_err());
    }
}
