//! The state of one shard: its channels, each with what its makers wanted and what its owner decided.
//!
//! Invariants: `apply` is total and deterministic; an operation of another term than the one that it is
//! written in changes nothing; a channel's entries reach only the incarnation that they were made for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::channel::ChannelState;
use super::codec::{DecodeError, EntryTooLong, Reader, Writer};
use super::cow_map::CowMap;
use super::entry::Entry;
use super::hash::{Kind, StateHash};
use super::outcome::{LogPosition, Outcome, Refusal, same_term};
use super::sealed::Sealed;
use crate::ids::ChannelId;
use crate::policy::{Policy, PolicyDraft};

/// The version of [`ShardEntry`] that this program writes, and the only one that it reads.
pub const SHARD_ENTRY_VERSION: u16 = 3;

const WHAT: &str = "a shard's entry";
/// The longest text in a channel's settings.
const MOST_TEXT_BYTES: usize = 64 << 10;

/// What a shard's log carries: operations of one leader, applied in their order, each by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardEntry {
    /// The term of the leader that proposes it.
    pub term: u64,
    /// What to do.
    pub ops: Vec<ShardOp>,
}

/// One change of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardOp {
    /// Makes a channel; done again, it changes nothing.
    Create {
        /// Which.
        channel: ChannelId,
        /// What it is to be.
        settings: ChannelSettings,
        /// The settings' policy, completed.
        policy: Policy,
    },
    /// Gives a channel other settings. Its incarnation and the time of its making stay.
    Update {
        /// Which.
        channel: ChannelId,
        /// Refused if the channel has another etag than this.
        expected_etag: Option<String>,
        /// All of them.
        settings: ChannelSettings,
    },
    /// Begins a channel's end: it takes no entries any more.
    Retire {
        /// Which.
        channel: ChannelId,
        /// Of which incarnation.
        incarnation: u64,
    },
    /// Forgets a channel; done again, it changes nothing.
    Delete {
        /// Which.
        channel: ChannelId,
        /// Of which incarnation.
        incarnation: u64,
    },
    /// What the channel's owner decided.
    Decide {
        /// Which.
        channel: ChannelId,
        /// What.
        entry: Entry,
    },
    /// What the channel's signer needs to go on where it stopped.
    KeepSignerState {
        /// Which.
        channel: ChannelId,
        /// Of which incarnation.
        incarnation: u64,
        /// As the signer wrote it.
        state: Sealed,
    },
}

/// What a channel is, as far as somebody decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSettings {
    /// Names this channel's state: another incarnation does not descend from it.
    pub incarnation: u64,
    /// The HLS playlist.
    pub origin_uri: String,
    /// Where its signer runs; `None`: in its nodes.
    pub signer_uri: Option<String>,
    /// The policy, as it was given.
    pub policy: PolicyDraft,
    /// When it was created, milliseconds since the Unix epoch.
    pub create_time_ms: i64,
    /// Changes with each update.
    pub etag: String,
    /// Who signs, and with which key.
    pub signing: Sealed,
}

/// Where a channel's life in its shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifecycle {
    /// It has an owner.
    Active,
    /// It is about to be forgotten.
    Retired,
}

/// A channel in its shard.
#[derive(Debug, Clone)]
pub struct ShardChannel {
    /// What its makers wanted.
    pub settings: ChannelSettings,
    /// Where its life stands.
    pub lifecycle: Lifecycle,
    /// What its signer kept.
    pub signer_state: Sealed,
    /// What its owner decided.
    pub state: ChannelState,
}

/// One shard's replicated state.
#[derive(Debug, Clone, Default)]
pub struct ShardState {
    pub(super) channels: CowMap<ChannelId, Arc<ShardChannel>>,
}

impl ShardState {
    /// Returns a channel.
    pub fn channel(&self, channel: &ChannelId) -> Option<&ShardChannel> {
        self.channels.get(channel).map(AsRef::as_ref)
    }

    /// Walks through all channels in the order of their ids.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelId, &ShardChannel)> {
        self.channels
            .iter()
            .map(|(id, channel)| (id, channel.as_ref()))
    }

    /// Returns how many channels there are.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Returns the hash of all of it: equal on two replicas if and, accidents aside, only if they are.
    pub fn hash(&self) -> StateHash {
        let mut hash = StateHash::default();
        for (id, channel) in self.channels() {
            hash.add(channel.hash(id));
        }
        hash
    }

    /// Takes in an entry that is committed at this place; one outcome for each operation.
    pub fn apply(&mut self, entry: &ShardEntry, at: LogPosition) -> Vec<Outcome> {
        if let Err(refusal) = same_term(entry.term, at) {
            return vec![Outcome::Refused(refusal); entry.ops.len()];
        }
        entry.ops.iter().map(|op| self.apply_op(op, at)).collect()
    }

    fn apply_op(&mut self, op: &ShardOp, at: LogPosition) -> Outcome {
        match op {
            ShardOp::Create {
                channel,
                settings,
                policy,
            } => self.create(channel, settings, policy).into(),
            ShardOp::Update {
                channel,
                expected_etag,
                settings,
            } => self
                .update(channel, expected_etag.as_deref(), settings)
                .into(),
            ShardOp::Retire {
                channel,
                incarnation,
            } => {
                let known = self.of_incarnation(channel, *incarnation);
                known
                    .map(|known| known.lifecycle = Lifecycle::Retired)
                    .into()
            }
            ShardOp::Delete {
                channel,
                incarnation,
            } => self.delete(channel, *incarnation).into(),
            ShardOp::Decide { channel, entry } => {
                match self.of_incarnation(channel, entry.incarnation) {
                    Ok(known) if known.lifecycle == Lifecycle::Active => {
                        known.state.apply(entry, at)
                    }
                    Ok(_) => Outcome::Refused(Refusal::Deleting),
                    Err(refusal) => Outcome::Refused(refusal),
                }
            }
            ShardOp::KeepSignerState {
                channel,
                incarnation,
                state,
            } => self.keep_signer_state(channel, *incarnation, state).into(),
        }
    }

    fn create(
        &mut self,
        channel: &ChannelId,
        settings: &ChannelSettings,
        policy: &Policy,
    ) -> Result<(), Refusal> {
        if settings.is_too_much() {
            return Err(Refusal::TooMuch);
        }
        if !policy.is_workable() {
            return Err(Refusal::Policy);
        }
        match self.channel(channel) {
            Some(known) if known.settings.incarnation != settings.incarnation => {
                Err(Refusal::AlreadyExists)
            }
            Some(known) if known.lifecycle == Lifecycle::Retired => Err(Refusal::Deleting),
            Some(_) => Ok(()),
            None => {
                let made = ShardChannel {
                    settings: settings.clone(),
                    lifecycle: Lifecycle::Active,
                    signer_state: Sealed::default(),
                    state: ChannelState::new(settings.incarnation, policy.clone()),
                };
                self.channels.insert(channel.clone(), Arc::new(made));
                Ok(())
            }
        }
    }

    fn update(
        &mut self,
        channel: &ChannelId,
        expected_etag: Option<&str>,
        settings: &ChannelSettings,
    ) -> Result<(), Refusal> {
        if settings.is_too_much() {
            return Err(Refusal::TooMuch);
        }
        let known = self.of_incarnation(channel, settings.incarnation)?;
        if known.lifecycle == Lifecycle::Retired {
            return Err(Refusal::Deleting);
        }
        if expected_etag.is_some_and(|etag| etag != known.settings.etag) {
            return Err(Refusal::Etag);
        }
        let create_time_ms = known.settings.create_time_ms;
        known.settings = ChannelSettings {
            create_time_ms,
            ..settings.clone()
        };
        Ok(())
    }

    fn delete(&mut self, channel: &ChannelId, incarnation: u64) -> Result<(), Refusal> {
        match self.channel(channel) {
            Some(known) if known.settings.incarnation != incarnation => Err(Refusal::Incarnation),
            Some(_) | None => {
                self.channels.remove(channel);
                Ok(())
            }
        }
    }

    fn keep_signer_state(
        &mut self,
        channel: &ChannelId,
        incarnation: u64,
        state: &Sealed,
    ) -> Result<(), Refusal> {
        if state.is_too_long() {
            return Err(Refusal::TooMuch);
        }
        self.of_incarnation(channel, incarnation)?.signer_state = state.clone();
        Ok(())
    }

    fn of_incarnation(
        &mut self,
        channel: &ChannelId,
        incarnation: u64,
    ) -> Result<&mut ShardChannel, Refusal> {
        let known = self.channel(channel).ok_or(Refusal::UnknownChannel)?;
        if known.settings.incarnation != incarnation {
            return Err(Refusal::Incarnation);
        }
        let known = self.channels.get_mut(channel);
        known.map(Arc::make_mut).ok_or(Refusal::UnknownChannel)
    }
}

impl ShardChannel {
    fn hash(&self, id: &ChannelId) -> StateHash {
        let (kept, state) = (&self.signer_state, self.state.hash());
        let record = (id, &self.settings, self.lifecycle, kept, state);
        StateHash::of(Kind::Channel, &record)
    }
}

impl ChannelSettings {
    fn is_too_much(&self) -> bool {
        let signer = self.signer_uri.as_deref().unwrap_or_default();
        let texts = [self.origin_uri.as_str(), signer, &self.etag];
        texts.iter().any(|text| text.len() > MOST_TEXT_BYTES) || self.signing.is_too_long()
    }
}

const CREATE: u16 = 1;
const UPDATE: u16 = 2;
const RETIRE: u16 = 3;
const DELETE: u16 = 4;
const DECIDE: u16 = 5;
const KEEP_SIGNER_STATE: u16 = 6;

impl ShardEntry {
    /// Makes an entry of these operations.
    pub fn new(term: u64, ops: Vec<ShardOp>) -> Self {
        Self { term, ops }
    }

    /// Writes the entry as bytes, the version first.
    ///
    /// # Errors
    /// When it is longer than any may be.
    pub fn encode(&self) -> Result<Vec<u8>, EntryTooLong> {
        let mut writer = Writer::default();
        writer.put(&(SHARD_ENTRY_VERSION, self.term, self.ops.len()));
        for op in &self.ops {
            op.encode(&mut writer)?;
        }
        writer.finish()
    }

    /// Reads what [`ShardEntry::encode`] wrote.
    ///
    /// # Errors
    /// When another version wrote it, it does something that this program cannot, or it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(WHAT, bytes)?;
        reader.version(SHARD_ENTRY_VERSION)?;
        let (term, count): (u64, usize) = reader.take()?;
        let mut ops = Vec::new();
        for _ in 0..count {
            ops.push(ShardOp::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { term, ops })
    }
}

impl ShardOp {
    fn encode(&self, writer: &mut Writer) -> Result<(), EntryTooLong> {
        match self {
            Self::Create {
                channel,
                settings,
                policy,
            } => writer.put(&(CREATE, channel, settings, policy)),
            Self::Update {
                channel,
                expected_etag,
                settings,
            } => writer.put(&(UPDATE, channel, expected_etag, settings)),
            Self::Retire {
                channel,
                incarnation,
            } => writer.put(&(RETIRE, channel, incarnation)),
            Self::Delete {
                channel,
                incarnation,
            } => writer.put(&(DELETE, channel, incarnation)),
            Self::Decide { channel, entry } => {
                writer.put(&(DECIDE, channel));
                writer.put_nested(&entry.encode()?);
            }
            Self::KeepSignerState {
                channel,
                incarnation,
                state,
            } => writer.put(&(KEEP_SIGNER_STATE, channel, incarnation, state)),
        }
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.take()?;
        match kind {
            CREATE => {
                let (channel, settings, policy) = reader.take()?;
                Ok(Self::Create {
                    channel,
                    settings,
                    policy,
                })
            }
            UPDATE => {
                let (channel, expected_etag, settings) = reader.take()?;
                Ok(Self::Update {
                    channel,
                    expected_etag,
                    settings,
                })
            }
            RETIRE => reader.take().map(|(channel, incarnation)| Self::Retire {
                channel,
                incarnation,
            }),
            DELETE => reader.take().map(|(channel, incarnation)| Self::Delete {
                channel,
                incarnation,
            }),
            DECIDE => {
                let channel = reader.take()?;
                let entry = Entry::decode(reader.take_nested()?)?;
                Ok(Self::Decide { channel, entry })
            }
            KEEP_SIGNER_STATE => {
                let (channel, incarnation, state) = reader.take()?;
                Ok(Self::KeepSignerState {
                    channel,
                    incarnation,
                    state,
                })
            }
            unknown => Err(reader.unknown_kind(unknown)),
        }
    }
}
