//! Making, changing and ending channels, and what differs between a shard and what runs here.

use espalier_orchestrator_core::state::{
    ChannelPhase, DirectoryRecord, Lifecycle, MetaOp, Refusal, ShardOp,
};
use espalier_orchestrator_core::{ChannelId, Policy, ShardId};
use espalier_signer::SignerState;

use super::record::{self, ChannelRecord, RecordError};
use super::{Registry, RegistryError};

/// A channel that is new, or another than is known.
pub(crate) struct Changed {
    pub(crate) id: ChannelId,
    /// Names what differs, so that one that cannot be used is not tried again and again.
    pub(crate) mark: (u64, String),
    pub(crate) record: Result<ChannelRecord, RecordError>,
}

/// What differs between a shard and what is known of it.
#[derive(Default)]
pub(crate) struct Differences {
    pub(crate) changed: Vec<Changed>,
    pub(crate) gone: Vec<ChannelId>,
}

impl Registry {
    /// Whether the cluster has the channel now, whatever this node knows.
    pub(crate) async fn is_active(&self, id: &ChannelId) -> Result<bool, RegistryError> {
        let state = self.cluster.current_meta().await?;
        let record = state.channels().get(id);
        Ok(record.is_some_and(|record| record.phase == ChannelPhase::Active))
    }

    /// Compares the shard, as it is here, with the channels that are known: their incarnations and etags.
    pub(crate) fn differences(
        &self,
        shard: ShardId,
        known: &std::collections::BTreeMap<ChannelId, (u64, String)>,
    ) -> Differences {
        let Ok(group) = self.group(shard) else {
            return Differences::default();
        };
        let (changed, gone) = group.read(|_, state| {
            let active = state
                .channels()
                .filter(|(_, channel)| channel.lifecycle == Lifecycle::Active);
            let changed = active.filter(|(id, channel)| {
                let now = (channel.settings.incarnation, channel.settings.etag.as_str());
                known.get(*id).map(|(known, etag)| (*known, etag.as_str())) != Some(now)
            });
            let changed: Vec<_> = changed
                .map(|(id, channel)| (id.clone(), channel.settings.clone()))
                .collect();
            let is_gone = |id: &&ChannelId| {
                state
                    .channel(id)
                    .is_none_or(|channel| channel.lifecycle == Lifecycle::Retired)
            };
            let gone: Vec<_> = known.keys().filter(is_gone).cloned().collect();
            (changed, gone)
        });
        let changed = changed.into_iter().map(|(id, settings)| Changed {
            mark: (settings.incarnation, settings.etag.clone()),
            record: ChannelRecord::open(id.clone(), settings, &self.sealer),
            id,
        });
        Differences {
            changed: changed.collect(),
            gone,
        }
    }

    /// Makes a channel in its shard, which this node must lead and in which it must not be yet. Its
    /// incarnation is that of an attempt that was broken off, if there was one.
    ///
    /// # Errors
    /// When it cannot be decided here, or the name is another channel's.
    pub(crate) async fn create(
        &self,
        shard: ShardId,
        mut record: ChannelRecord,
        policy: Policy,
    ) -> Result<(), RegistryError> {
        let channel = record.id.clone();
        let meta = self.cluster.current_meta().await?;
        match meta.channels().get(&channel) {
            None => {}
            Some(known) if known.phase == ChannelPhase::Deleting => {
                self.finish_deletion(&channel, *known).await?;
            }
            Some(known) => record.incarnation = known.incarnation,
        }
        let incarnation = record.incarnation;
        let reserve = MetaOp::ReserveChannel {
            channel: channel.clone(),
            shard,
            incarnation,
        };
        self.cluster.change(vec![reserve]).await?;
        let create = ShardOp::Create {
            channel: channel.clone(),
            settings: record.settings(&self.sealer)?,
            policy,
        };
        self.propose(shard, create).await?;
        self.activate(&channel, incarnation).await
    }

    /// Notes that the shard has the channel.
    async fn activate(&self, channel: &ChannelId, incarnation: u64) -> Result<(), RegistryError> {
        let activate = MetaOp::ActivateChannel {
            channel: channel.clone(),
            incarnation,
        };
        Ok(self.cluster.change(vec![activate]).await?)
    }

    /// Gives a channel other settings, if its etag is still this one.
    ///
    /// # Errors
    /// When it cannot be decided here, or the channel is another by now.
    pub(crate) async fn update(
        &self,
        shard: ShardId,
        expected_etag: String,
        record: &ChannelRecord,
    ) -> Result<(), RegistryError> {
        let update = ShardOp::Update {
            channel: record.id.clone(),
            expected_etag: Some(expected_etag),
            settings: record.settings(&self.sealer)?,
        };
        self.propose(shard, update).await
    }

    /// Ends a channel for good.
    ///
    /// # Errors
    /// When it cannot be decided here. If the name stays reserved, the shard's next leader frees it.
    pub(crate) async fn delete(
        &self,
        shard: ShardId,
        channel: &ChannelId,
        incarnation: u64,
    ) -> Result<(), RegistryError> {
        let retire = MetaOp::RetireChannel {
            channel: channel.clone(),
            incarnation,
        };
        self.cluster.change(vec![retire]).await?;
        let phase = ChannelPhase::Deleting;
        let record = DirectoryRecord {
            shard,
            incarnation,
            phase,
        };
        self.finish_deletion(channel, record).await
    }

    async fn finish_deletion(
        &self,
        channel: &ChannelId,
        known: DirectoryRecord,
    ) -> Result<(), RegistryError> {
        let (channel, incarnation) = (channel.clone(), known.incarnation);
        let delete = ShardOp::Delete {
            channel: channel.clone(),
            incarnation,
        };
        self.propose(known.shard, delete).await?;
        let forget = MetaOp::ForgetChannel {
            channel,
            incarnation,
        };
        Ok(self.cluster.change(vec![forget]).await?)
    }

    /// Finishes what an earlier leader of the shard left half done: what was to be made is made if the
    /// shard has it, and forgotten otherwise; what was to end ends.
    ///
    /// # Errors
    /// When this node leads no more; the next leader goes on.
    pub(crate) async fn finish(&self, shard: ShardId) -> Result<(), RegistryError> {
        let meta = self.cluster.current_meta().await?;
        let unfinished = meta
            .channels()
            .iter()
            .filter(|(_, record)| record.shard == shard && record.phase != ChannelPhase::Active);
        for (channel, record) in unfinished {
            let made = self.group(shard)?.read(|_, state| {
                let made = state.channel(channel);
                made.is_some_and(|made| made.settings.incarnation == record.incarnation)
            });
            let outcome = if record.phase == ChannelPhase::Pending && made {
                self.activate(channel, record.incarnation).await
            } else {
                self.finish_deletion(channel, *record).await
            };
            match outcome {
                // Somebody was faster.
                Ok(()) | Err(RegistryError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What the channel's signer kept, as far as this node knows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn signer_state(
        &self,
        shard: ShardId,
        channel: &ChannelId,
    ) -> Result<SignerState, RegistryError> {
        let kept = self.group(shard)?.read(|_, state| {
            let channel = state.channel(channel);
            channel.map(|channel| channel.signer_state.clone())
        });
        let kept = kept.ok_or(RegistryError::Refused(Refusal::UnknownChannel))?;
        let state = record::signer_state_in(&kept).map_err(RecordError::from)?;
        Ok(state)
    }

    /// Keeps what the channel's signer needs to go on where it stopped.
    ///
    /// # Errors
    /// When this node does not lead the shard, or the channel is gone.
    pub(crate) async fn keep_signer_state(
        &self,
        shard: ShardId,
        (channel, incarnation): (&ChannelId, u64),
        state: &SignerState,
    ) -> Result<(), RegistryError> {
        let keep = ShardOp::KeepSignerState {
            channel: channel.clone(),
            incarnation,
            state: record::signer_state_out(state).map_err(RecordError::from)?,
        };
        self.propose(shard, keep).await
    }
}
