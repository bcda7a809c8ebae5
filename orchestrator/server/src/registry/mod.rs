//! The cluster's state, as the rest of the node uses it: which channels there are, their records, the
//! secrets that all nodes share.
//!
//! A channel is made in three steps, each of which changes nothing when it is done again: its name is
//! reserved in the meta group, its shard makes it, the meta group notes that. Its end takes the same way
//! back. Whoever leads the shard next finishes what was left in between.
//!
//! Invariants: changes of a shard are proposed in the term in which they were decided, and refused in any
//! other; secrets are in the state only sealed.

mod channels;
mod record;
mod secrets;

use espalier_cluster::{ClusterHandle, MetaError, ShardGroup};
use espalier_orchestrator_core::state::{Outcome, Refusal, ShardEntry, ShardOp};
use espalier_orchestrator_core::{ChannelId, ShardId};
use espalier_shards::{GroupId, LogPosition, ProposeError, ReadError, Types};
use openraft::type_config::alias::WatchReceiverOf;
use openraft_rt_tokio::TokioRuntime;

pub(crate) use channels::Changed;
pub use record::RecordError;
pub(crate) use record::{ChannelRecord, PublicKeyRecord, SigningRecord};
pub(crate) use secrets::NodeSecrets;
pub use secrets::SecretsError;

use crate::seal::Sealer;

/// Follows up to where a group's entries are applied here.
pub(crate) type Applied = WatchReceiverOf<Types<TokioRuntime>, Option<LogPosition>>;

/// Reads and changes the cluster's state.
pub(crate) struct Registry {
    cluster: ClusterHandle,
    sealer: Sealer,
}

/// Why the state was not changed, or not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// This node does not lead the channel's shard, or nobody leads the meta group.
    #[error("nobody can decide on that at the moment")]
    NoLeader,
    /// It may have taken place, now or later; asking again is safe.
    #[error("it is unknown whether the change took place")]
    Unknown,
    /// It makes no sense as things stand.
    #[error("it is refused: {0}")]
    Refused(Refusal),
    /// It cannot be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is too long for the log, or what came back is no answer.
    #[error("the log does not take it: {0}")]
    Log(String),
}

impl From<MetaError> for RegistryError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Unavailable => Self::NoLeader,
            MetaError::Unknown => Self::Unknown,
            MetaError::Refused(refusal) => Self::Refused(refusal),
            other @ (MetaError::Answer | MetaError::Address(_)) => Self::Log(other.to_string()),
        }
    }
}

impl Registry {
    pub(crate) fn new(cluster: ClusterHandle, key: &[u8; 32]) -> Self {
        Self {
            cluster,
            sealer: Sealer::new(key),
        }
    }

    fn group(&self, shard: ShardId) -> Result<&ShardGroup, RegistryError> {
        let group = self.cluster.shard(GroupId(shard.0));
        group.ok_or(RegistryError::Refused(Refusal::UnknownShard))
    }

    /// Changes whenever the shard's state here does.
    pub(crate) fn applied(&self, shard: ShardId) -> Option<Applied> {
        Some(self.group(shard).ok()?.applied())
    }

    /// Waits until the shard's state here holds everything that was committed before the call.
    ///
    /// # Errors
    /// When this node does not lead the shard, or no majority answers.
    pub(crate) async fn be_current(&self, shard: ShardId) -> Result<(), RegistryError> {
        let read = self.group(shard)?.read_index().await;
        read.map(drop).map_err(|error| match error {
            ReadError::NotLeader { .. } | ReadError::NoQuorum | ReadError::Stopped => {
                RegistryError::NoLeader
            }
        })
    }

    /// Has one operation on a channel done in the term in which this node leads the shard.
    async fn propose(&self, shard: ShardId, op: ShardOp) -> Result<(), RegistryError> {
        let group = self.group(shard)?;
        let term = group.current_leadership().leading_term();
        let term = term.ok_or(RegistryError::NoLeader)?;
        let entry = ShardEntry::new(term, vec![op]);
        let entry = entry
            .encode()
            .map_err(|error| RegistryError::Log(error.to_string()))?;
        let (_, answer) = group
            .propose(term, entry.into())
            .await
            .map_err(|error| match error {
                ProposeError::NotLeader { .. } => RegistryError::NoLeader,
                ProposeError::Unknown { .. } => RegistryError::Unknown,
                ProposeError::TooLarge { .. } => RegistryError::Log(error.to_string()),
            })?;
        let outcomes = Outcome::decode_all(&answer);
        let outcomes = outcomes.map_err(|error| RegistryError::Log(error.to_string()))?;
        outcomes.into_iter().try_for_each(|outcome| match outcome {
            Outcome::Applied => Ok(()),
            Outcome::Refused(Refusal::Term { .. }) => Err(RegistryError::NoLeader),
            Outcome::Refused(refusal) => Err(RegistryError::Refused(refusal)),
        })
    }

    /// The shard that a channel belongs to: the one that the directory names, or by a hash of its id.
    pub(crate) fn shard_of(&self, channel: &ChannelId) -> ShardId {
        let known = self
            .cluster
            .meta()
            .read(|_, state| state.channels().get(channel).map(|record| record.shard));
        known.unwrap_or_else(|| hashed(channel, self.cluster.identity().shards))
    }
}

fn hashed(channel: &ChannelId, shards: u32) -> ShardId {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(channel.as_str());
    let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    ShardId(head % shards.max(1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_spread_over_all_shards_and_stay_there() {
        let mut counts = [0_u32; 16];
        for number in 0..1_600 {
            let channel: ChannelId = format!("channel-{number}").parse().unwrap();
            let shard = hashed(&channel, 16);
            assert_eq!(shard, hashed(&channel, 16));
            counts[shard.0 as usize - 1] += 1;
        }
        assert!(
            counts.iter().all(|count| (50..150).contains(count)),
            "{counts:?}"
        );
    }
}
