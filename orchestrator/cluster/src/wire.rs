//! Raft's messages as bytes: a version, then postcard.
//!
//! openraft's types are encoded by position, so another release of openraft is another version here.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest};
use openraft::raft::{SnapshotResponse, TransferLeaderResponse, VoteRequest, VoteResponse};
use openraft_rt_tokio::TokioRuntime;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The types of production's groups.
pub(crate) type Types = espalier_shards::Types<TokioRuntime>;
pub(crate) type Append = AppendEntriesRequest<Types>;
pub(crate) type Appended = StreamAppendResult<Types>;
pub(crate) type VoteAsked = VoteRequest<Types>;
pub(crate) type VoteAnswered = VoteResponse<Types>;
pub(crate) type Transfer = TransferLeaderRequest<Types>;
pub(crate) type Transferred = TransferLeaderResponse<Types>;
pub(crate) type Installed = SnapshotResponse<Types>;

const VERSION: u8 = 1;

/// What another node sent cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// Another release wrote it.
    #[error("the message has version {found}, this release speaks {VERSION}")]
    Version {
        /// Which version it has.
        found: u8,
    },
    /// It is cut short or garbled.
    #[error("the message cannot be read: {0}")]
    Garbled(String),
}

/// Writes a message.
///
/// # Panics
///
/// Never: openraft's types have nothing that postcard cannot write.
pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    let bytes = postcard::to_extend(message, vec![VERSION]);
    bytes
        .expect("invariant: every Raft message can be written")
        .into()
}

/// Reads all of a message.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok((_, rest)) => Err(WireError::Garbled(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(WireError::Garbled(error.to_string())),
        },
        Some((&found, _)) => Err(WireError::Version { found }),
        None => Err(WireError::Garbled("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use espalier_shards::{Command, LogId, Vote};
    use openraft::vote::{RaftLeaderId, RaftVote};
    use openraft::{Entry, EntryPayload};

    use super::*;

    type Leader = openraft::type_config::alias::LeaderIdOf<Types>;

    fn append(command: &'static [u8]) -> Append {
        let leader = Leader::new(7, 2);
        let id = |index| LogId::<TokioRuntime>::new(leader.to_committed(), index);
        AppendEntriesRequest {
            vote: Vote::<TokioRuntime>::from_leader_id(leader, true),
            prev_log_id: Some(id(8)),
            entries: vec![Entry {
                log_id: id(9),
                payload: EntryPayload::Normal(Command(Bytes::from_static(command))),
            }],
            leader_commit: None,
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let bytes = encode(&append(b"entry"));
        let back: Append = decode(&bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", append(b"entry")));
        assert!(bytes.len() < 40, "{} bytes around 5", bytes.len());
    }

    #[test]
    fn everything_else_is_an_error() {
        let good = encode(&append(b"entry"));
        for cut in 0..good.len() {
            assert!(decode::<Append>(&good[..cut]).is_err(), "cut to {cut}");
        }
        let longer = [&good[..], b"x"].concat();
        assert!(matches!(
            decode::<Append>(&longer),
            Err(WireError::Garbled(_))
        ));
        let newer = [&[2], &good[1..]].concat();
        assert_eq!(
            decode::<Append>(&newer).err(),
            Some(WireError::Version { found: 2 })
        );
    }
}
