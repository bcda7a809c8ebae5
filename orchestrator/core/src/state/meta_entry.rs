//! What the meta group's log carries, and its bytes.

use super::codec::{DecodeError, EntryTooLong, Reader, Writer};
use super::meta::{ClusterRecord, NodeAddresses, NodePhase, NodeRecord};
use super::sealed::Sealed;
use crate::ids::{ChannelId, NodeId, ShardId};

/// The version of [`MetaEntry`] that this program writes, and the only one that it reads.
pub const META_ENTRY_VERSION: u16 = 2;

const WHAT: &str = "the meta group's entry";

/// What the meta group's log carries: operations of one leader, applied in their order, each by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaEntry {
    /// The term of the leader that proposes it.
    pub term: u64,
    /// What to do.
    pub ops: Vec<MetaOp>,
}

/// One change of the meta group's state. Done again, each changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaOp {
    /// Makes the cluster.
    Initialise {
        /// What it is.
        cluster: ClusterRecord,
    },
    /// All nodes know this version.
    RaiseVersion {
        /// Which.
        version: u32,
    },
    /// Adds a node under an id that none has had.
    AddNode {
        /// Which.
        node: NodeId,
        /// How it is to be.
        record: NodeRecord,
    },
    /// A node is elsewhere.
    MoveNode {
        /// Which.
        node: NodeId,
        /// Where it is from here on.
        addresses: NodeAddresses,
    },
    /// A node's life goes on. From where is said, so that nobody undoes what another wanted meanwhile.
    TurnNode {
        /// Which.
        node: NodeId,
        /// Where its life stands.
        from: NodePhase,
        /// Where it is to stand.
        to: NodePhase,
    },
    /// Removes a node; its id is not used again.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Gives a channel that is to be made its shard.
    ReserveChannel {
        /// Which.
        channel: ChannelId,
        /// Its shard.
        shard: ShardId,
        /// Of its state.
        incarnation: u64,
    },
    /// Its shard has the channel.
    ActivateChannel {
        /// Which.
        channel: ChannelId,
        /// Of which incarnation.
        incarnation: u64,
    },
    /// The channel's shard is to forget it.
    RetireChannel {
        /// Which.
        channel: ChannelId,
        /// Of which incarnation.
        incarnation: u64,
    },
    /// Its shard has forgotten the channel.
    ForgetChannel {
        /// Which.
        channel: ChannelId,
        /// Of which incarnation.
        incarnation: u64,
    },
    /// Keeps a secret, in place of another of its name.
    PutSecret {
        /// What it is called.
        name: String,
        /// Sealed with a key that is not in this state.
        secret: Sealed,
    },
    /// Forgets a secret.
    DropSecret {
        /// What it is called.
        name: String,
    },
}

const INITIALISE: u16 = 1;
const RAISE_VERSION: u16 = 2;
const ADD_NODE: u16 = 3;
const MOVE_NODE: u16 = 4;
const REMOVE_NODE: u16 = 5;
const RESERVE_CHANNEL: u16 = 6;
const ACTIVATE_CHANNEL: u16 = 7;
const RETIRE_CHANNEL: u16 = 8;
const FORGET_CHANNEL: u16 = 9;
const PUT_SECRET: u16 = 10;
const DROP_SECRET: u16 = 11;
const TURN_NODE: u16 = 12;

impl MetaEntry {
    /// Makes an entry of these operations.
    pub fn new(term: u64, ops: Vec<MetaOp>) -> Self {
        Self { term, ops }
    }

    /// Writes the entry as bytes, the version first.
    ///
    /// # Errors
    /// When it is longer than any may be.
    pub fn encode(&self) -> Result<Vec<u8>, EntryTooLong> {
        let mut writer = Writer::default();
        writer.put(&(META_ENTRY_VERSION, self.term, self.ops.len()));
        for op in &self.ops {
            op.encode(&mut writer);
        }
        writer.finish()
    }

    /// Reads what [`MetaEntry::encode`] wrote.
    ///
    /// # Errors
    /// When another version wrote it, it does something that this program cannot, or it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(WHAT, bytes)?;
        reader.version(META_ENTRY_VERSION)?;
        let (term, count): (u64, usize) = reader.take()?;
        let mut ops = Vec::new();
        for _ in 0..count {
            ops.push(MetaOp::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { term, ops })
    }
}

impl MetaOp {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Initialise { cluster } => writer.put(&(INITIALISE, cluster)),
            Self::RaiseVersion { version } => writer.put(&(RAISE_VERSION, version)),
            Self::AddNode { node, record } => writer.put(&(ADD_NODE, node, record)),
            Self::MoveNode { node, addresses } => writer.put(&(MOVE_NODE, node, addresses)),
            Self::TurnNode { node, from, to } => writer.put(&(TURN_NODE, node, from, to)),
            Self::RemoveNode { node } => writer.put(&(REMOVE_NODE, node)),
            Self::ReserveChannel {
                channel,
                shard,
                incarnation,
            } => writer.put(&(RESERVE_CHANNEL, channel, shard, incarnation)),
            Self::ActivateChannel {
                channel,
                incarnation,
            } => writer.put(&(ACTIVATE_CHANNEL, channel, incarnation)),
            Self::RetireChannel {
                channel,
                incarnation,
            } => writer.put(&(RETIRE_CHANNEL, channel, incarnation)),
            Self::ForgetChannel {
                channel,
                incarnation,
            } => writer.put(&(FORGET_CHANNEL, channel, incarnation)),
            Self::PutSecret { name, secret } => writer.put(&(PUT_SECRET, name, secret)),
            Self::DropSecret { name } => writer.put(&(DROP_SECRET, name)),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let of_channel = |reader: &mut Reader<'_>| reader.take::<(ChannelId, u64)>();
        let kind = reader.take()?;
        Ok(match kind {
            INITIALISE => Self::Initialise {
                cluster: reader.take()?,
            },
            RAISE_VERSION => Self::RaiseVersion {
                version: reader.take()?,
            },
            ADD_NODE => {
                let (node, record) = reader.take()?;
                Self::AddNode { node, record }
            }
            MOVE_NODE => {
                let (node, addresses) = reader.take()?;
                Self::MoveNode { node, addresses }
            }
            TURN_NODE => {
                let (node, from, to) = reader.take()?;
                Self::TurnNode { node, from, to }
            }
            REMOVE_NODE => Self::RemoveNode {
                node: reader.take()?,
            },
            RESERVE_CHANNEL => {
                let (channel, shard, incarnation) = reader.take()?;
                Self::ReserveChannel {
                    channel,
                    shard,
                    incarnation,
                }
            }
            ACTIVATE_CHANNEL => {
                let (channel, incarnation) = of_channel(reader)?;
                Self::ActivateChannel {
                    channel,
                    incarnation,
                }
            }
            RETIRE_CHANNEL => {
                let (channel, incarnation) = of_channel(reader)?;
                Self::RetireChannel {
                    channel,
                    incarnation,
                }
            }
            FORGET_CHANNEL => {
                let (channel, incarnation) = of_channel(reader)?;
                Self::ForgetChannel {
                    channel,
                    incarnation,
                }
            }
            PUT_SECRET => {
                let (name, secret) = reader.take()?;
                Self::PutSecret { name, secret }
            }
            DROP_SECRET => Self::DropSecret {
                name: reader.take()?,
            },
            unknown => return Err(reader.unknown_kind(unknown)),
        })
    }
}
