//! The state of the meta group: the cluster itself, its nodes, which shard has which channel, and the
//! secrets that all nodes share.
//!
//! Invariants: `apply` is total and deterministic; a node's id is never used for another; the number of
//! shards never changes; the cluster's version never falls; a channel is in one shard for all its life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hash::{Kind, StateHash};
use super::meta_entry::{MetaEntry, MetaOp};
use super::outcome::{LogPosition, Outcome, Refusal, same_term};
use super::sealed::Sealed;
use crate::ids::{ChannelId, NodeId, ShardId};

/// Shards that a cluster may have.
const MOST_SHARDS: u32 = 1024;
/// Nodes that a cluster may have at a time.
const MOST_NODES: usize = 1024;
/// Secrets that a cluster may have.
const MOST_SECRETS: usize = 4096;
/// Addresses that a node may have of a kind, and the bytes of one.
const MOST_ADDRESSES: usize = 16;
const MOST_TEXT_BYTES: usize = 1024;

/// What makes a cluster this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its name, the same for ever.
    pub id: String,
    /// New kinds of entries are written only when all nodes know this version.
    pub version: u32,
    /// How many shards share the channels: `1..=shards`.
    pub shards: u32,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Where it is.
    pub addresses: NodeAddresses,
    /// What it is to be in the Raft groups.
    pub membership: Membership,
    /// Where its life stands.
    pub phase: NodePhase,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// For other nodes.
    pub cluster: Vec<String>,
    /// For peers and the API.
    pub public: Vec<String>,
    /// For operators.
    pub admin: Vec<String>,
}

/// What a node is to be in the Raft groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    /// It votes.
    Voter,
    /// It has the logs and does not vote.
    Learner,
    /// It has no logs and serves peers only.
    Gateway,
}

/// Where a node's life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodePhase {
    /// It is wanted and has not been seen yet.
    Joining,
    /// It takes part.
    Active,
    /// Leaders and peers are moved away from it.
    Draining,
    /// It is taken out of the groups, and then removed.
    Leaving,
}

/// Where a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRecord {
    /// The shard that has it.
    pub shard: ShardId,
    /// Of its state.
    pub incarnation: u64,
    /// Where its life stands.
    pub phase: ChannelPhase,
}

/// Where a channel's life stands, as the directory sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelPhase {
    /// Its shard may have it or not.
    Pending,
    /// Its shard has it.
    Active,
    /// Its shard is to forget it.
    Deleting,
}

/// The meta group's replicated state.
#[derive(Debug, Clone, Default)]
pub struct MetaState {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Inner {
    pub(super) cluster: Option<ClusterRecord>,
    pub(super) nodes: BTreeMap<NodeId, NodeRecord>,
    /// Ids of nodes that are gone.
    pub(super) used: BTreeSet<NodeId>,
    pub(super) channels: BTreeMap<ChannelId, DirectoryRecord>,
    pub(super) secrets: BTreeMap<String, Sealed>,
}

impl MetaState {
    /// Returns the cluster; `None` before it is made.
    pub fn cluster(&self) -> Option<&ClusterRecord> {
        self.inner.cluster.as_ref()
    }

    /// Returns all nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.inner.nodes
    }

    /// Returns where all channels are.
    pub fn channels(&self) -> &BTreeMap<ChannelId, DirectoryRecord> {
        &self.inner.channels
    }

    /// Returns all secrets, as they were sealed, by name.
    pub fn secrets(&self) -> &BTreeMap<String, Sealed> {
        &self.inner.secrets
    }

    /// Returns an id that no node has had.
    pub fn unused_node_id(&self) -> NodeId {
        let nodes = self.inner.nodes.last_key_value().map(|(id, _)| *id);
        let highest = nodes.max(self.inner.used.last().copied());
        NodeId(highest.unwrap_or_default().0.saturating_add(1))
    }

    /// Returns whether a node of this id was there and is gone.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.inner.used.contains(&node)
    }

    /// Returns the hash of all of it: equal on two replicas if and, accidents aside, only if they are.
    pub fn hash(&self) -> StateHash {
        StateHash::of(Kind::Meta, &*self.inner)
    }

    /// Takes in an entry that is committed at this place; one outcome for each operation.
    pub fn apply(&mut self, entry: &MetaEntry, at: LogPosition) -> Vec<Outcome> {
        if let Err(refusal) = same_term(entry.term, at) {
            return vec![Outcome::Refused(refusal); entry.ops.len()];
        }
        let inner = Arc::make_mut(&mut self.inner);
        entry.ops.iter().map(|op| inner.apply(op).into()).collect()
    }
}

impl Inner {
    fn apply(&mut self, op: &MetaOp) -> Result<(), Refusal> {
        match op {
            MetaOp::Initialise { cluster } => self.initialise(cluster),
            MetaOp::RaiseVersion { version } => self.raise_version(*version),
            MetaOp::AddNode { node, record } => self.add_node(*node, record),
            MetaOp::MoveNode { node, addresses } => self.move_node(*node, addresses),
            MetaOp::TurnNode { node, from, to } => self.turn_node(*node, *from, *to),
            MetaOp::RemoveNode { node } => {
                if self.nodes.remove(node).is_some() {
                    self.used.insert(*node);
                    return Ok(());
                }
                let gone = self.used.contains(node);
                gone.then_some(()).ok_or(Refusal::UnknownNode)
            }
            MetaOp::ReserveChannel {
                channel,
                shard,
                incarnation,
            } => self.reserve(channel, *shard, *incarnation),
            MetaOp::ActivateChannel {
                channel,
                incarnation,
            } => {
                let known = self.channel_mut(channel, *incarnation)?;
                if known.phase == ChannelPhase::Deleting {
                    return Err(Refusal::Deleting);
                }
                known.phase = ChannelPhase::Active;
                Ok(())
            }
            MetaOp::RetireChannel {
                channel,
                incarnation,
            } => {
                self.channel_mut(channel, *incarnation)?.phase = ChannelPhase::Deleting;
                Ok(())
            }
            MetaOp::ForgetChannel {
                channel,
                incarnation,
            } => self.forget(channel, *incarnation),
            MetaOp::PutSecret { name, secret } => self.put_secret(name, secret),
            MetaOp::DropSecret { name } => {
                let dropped = self.secrets.remove(name);
                dropped.map(drop).ok_or(Refusal::UnknownSecret)
            }
        }
    }

    fn initialise(&mut self, cluster: &ClusterRecord) -> Result<(), Refusal> {
        if cluster.id.len() > MOST_TEXT_BYTES {
            return Err(Refusal::TooMuch);
        }
        if !(1..=MOST_SHARDS).contains(&cluster.shards) {
            return Err(Refusal::UnknownShard);
        }
        match &self.cluster {
            Some(known) if known.id != cluster.id => Err(Refusal::OtherCluster),
            Some(known) if known.shards != cluster.shards => Err(Refusal::AlreadyExists),
            Some(_) => Ok(()),
            None => {
                self.cluster = Some(cluster.clone());
                Ok(())
            }
        }
    }

    fn raise_version(&mut self, version: u32) -> Result<(), Refusal> {
        let cluster = self.cluster.as_mut().ok_or(Refusal::NotInitialised)?;
        if version < cluster.version {
            return Err(Refusal::VersionFalls);
        }
        cluster.version = version;
        Ok(())
    }

    fn add_node(&mut self, node: NodeId, record: &NodeRecord) -> Result<(), Refusal> {
        if record.addresses.is_too_much() || self.nodes.len() >= MOST_NODES {
            return Err(Refusal::TooMuch);
        }
        if self.used.contains(&node) {
            return Err(Refusal::NodeIdUsed);
        }
        match self.nodes.get(&node) {
            Some(known) if known.addresses != record.addresses => Err(Refusal::AlreadyExists),
            Some(_) => Ok(()),
            None => {
                self.nodes.insert(node, record.clone());
                Ok(())
            }
        }
    }

    fn move_node(&mut self, node: NodeId, addresses: &NodeAddresses) -> Result<(), Refusal> {
        if addresses.is_too_much() {
            return Err(Refusal::TooMuch);
        }
        let known = self.nodes.get_mut(&node).ok_or(Refusal::UnknownNode)?;
        known.addresses.clone_from(addresses);
        Ok(())
    }

    fn turn_node(&mut self, node: NodeId, from: NodePhase, to: NodePhase) -> Result<(), Refusal> {
        let known = self.nodes.get_mut(&node).ok_or(Refusal::UnknownNode)?;
        if known.phase != from && known.phase != to {
            return Err(Refusal::Lifecycle);
        }
        known.phase = to;
        Ok(())
    }

    fn reserve(
        &mut self,
        channel: &ChannelId,
        shard: ShardId,
        incarnation: u64,
    ) -> Result<(), Refusal> {
        let cluster = self.cluster.as_ref().ok_or(Refusal::NotInitialised)?;
        if !(1..=cluster.shards).contains(&shard.0) {
            return Err(Refusal::UnknownShard);
        }
        match self.channels.get(channel) {
            Some(known) if known.phase == ChannelPhase::Deleting => Err(Refusal::Deleting),
            Some(known) if (known.shard, known.incarnation) == (shard, incarnation) => Ok(()),
            Some(_) => Err(Refusal::AlreadyExists),
            None => {
                let phase = ChannelPhase::Pending;
                let record = DirectoryRecord {
                    shard,
                    incarnation,
                    phase,
                };
                self.channels.insert(channel.clone(), record);
                Ok(())
            }
        }
    }

    fn forget(&mut self, channel: &ChannelId, incarnation: u64) -> Result<(), Refusal> {
        match self.channels.get(channel) {
            None => Ok(()),
            Some(known) if known.incarnation != incarnation => Err(Refusal::Incarnation),
            Some(known) if known.phase == ChannelPhase::Active => Err(Refusal::Lifecycle),
            Some(_) => {
                self.channels.remove(channel);
                Ok(())
            }
        }
    }

    fn channel_mut(
        &mut self,
        channel: &ChannelId,
        incarnation: u64,
    ) -> Result<&mut DirectoryRecord, Refusal> {
        let known = self
            .channels
            .get_mut(channel)
            .ok_or(Refusal::UnknownChannel)?;
        if known.incarnation == incarnation {
            Ok(known)
        } else {
            Err(Refusal::Incarnation)
        }
    }

    fn put_secret(&mut self, name: &str, secret: &Sealed) -> Result<(), Refusal> {
        let full = self.secrets.len() >= MOST_SECRETS && !self.secrets.contains_key(name);
        if full || secret.is_too_long() || name.len() > MOST_TEXT_BYTES {
            return Err(Refusal::TooMuch);
        }
        self.secrets.insert(name.to_owned(), secret.clone());
        Ok(())
    }
}

impl NodeAddresses {
    fn is_too_much(&self) -> bool {
        [&self.cluster, &self.public, &self.admin]
            .into_iter()
            .any(|kind| {
                let long = kind.iter().any(|address| address.len() > MOST_TEXT_BYTES);
                long || kind.len() > MOST_ADDRESSES
            })
    }
}
