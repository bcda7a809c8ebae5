//! A shard's snapshot: each channel, then its peers, partings and suspects, in order.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::channel::{ChannelHead, ChannelState, PeerRecord};
use super::codec::DecodeError;
use super::entry::Parting;
use super::sealed::Sealed;
use super::shard::{ChannelSettings, Lifecycle, ShardChannel, ShardState};
use super::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};
use crate::ids::{ChannelId, PeerId};
use crate::suspects::SuspectRecord;

const KIND: u8 = 1;

/// A record as it is read. [`RecordRef`] is the same as it is written: equal variants, equal fields.
#[derive(Deserialize)]
enum Record {
    Channel(Box<Head>),
    Peer(PeerId, PeerRecord),
    Parting(Parting),
    Suspect(PeerId, SuspectRecord),
}

#[derive(Deserialize)]
struct Head {
    id: ChannelId,
    settings: ChannelSettings,
    lifecycle: Lifecycle,
    signer_state: Sealed,
    state: ChannelHead,
}

#[derive(Serialize)]
enum RecordRef<'a> {
    Channel(HeadRef<'a>),
    Peer(PeerId, &'a PeerRecord),
    Parting(Parting),
    Suspect(PeerId, &'a SuspectRecord),
}

#[derive(Serialize)]
struct HeadRef<'a> {
    id: &'a ChannelId,
    settings: &'a ChannelSettings,
    lifecycle: Lifecycle,
    signer_state: &'a Sealed,
    state: &'a ChannelHead,
}

impl ShardState {
    /// Writes all of it. Call it on a clone, away from whoever applies entries.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn write_snapshot(&self, to: impl Write) -> io::Result<()> {
        let mut writer = SnapshotWriter::start(to, KIND)?;
        for (id, channel) in self.channels() {
            writer.put(&RecordRef::Channel(HeadRef {
                id,
                settings: &channel.settings,
                lifecycle: channel.lifecycle,
                signer_state: &channel.signer_state,
                state: &channel.state.head,
            }))?;
            write_channel(&channel.state, &mut writer)?;
        }
        writer.finish(self.hash())
    }

    /// Reads what [`ShardState::write_snapshot`] wrote.
    ///
    /// # Errors
    /// When the stream fails or ends too early, another version wrote it, or it is damaged.
    pub fn read_snapshot(from: impl Read) -> Result<Self, SnapshotError> {
        let mut reader = SnapshotReader::start(from, KIND)?;
        let mut shard = Self::default();
        let mut current: Option<(ChannelId, ShardChannel)> = None;
        while let Some(record) = reader.next()? {
            if let Record::Channel(head) = record {
                shard.put_channel(current.take());
                current = Some((head.id.clone(), head.into_channel()));
            } else {
                let stray = DecodeError::Damaged { what: "a snapshot" };
                let (_, channel) = current.as_mut().ok_or(stray)?;
                read_record(record, &mut channel.state);
            }
        }
        shard.put_channel(current);
        reader.finish(shard.hash())?;
        Ok(shard)
    }

    fn put_channel(&mut self, channel: Option<(ChannelId, ShardChannel)>) {
        if let Some((id, channel)) = channel {
            self.channels.insert(id, Arc::new(channel));
        }
    }
}

fn write_channel<W: Write>(state: &ChannelState, writer: &mut SnapshotWriter<W>) -> io::Result<()> {
    for (peer, record) in state.peers() {
        writer.put(&RecordRef::Peer(peer, record))?;
    }
    for ((one, other), until) in state.pairs().iter() {
        writer.put(&RecordRef::Parting(Parting { one, other, until }))?;
    }
    for (peer, record) in state.suspects().iter() {
        writer.put(&RecordRef::Suspect(peer, record))?;
    }
    Ok(())
}

fn read_record(record: Record, state: &mut ChannelState) {
    match record {
        // It begins a channel; it is no part of one.
        Record::Channel(_) => {}
        Record::Peer(peer, record) => state.put_peer(peer, record),
        Record::Parting(Parting { one, other, until }) => state.put_parting(one, other, until),
        Record::Suspect(peer, record) => state.put_suspect(peer, record),
    }
}

impl Head {
    fn into_channel(self) -> ShardChannel {
        ShardChannel {
            settings: self.settings,
            lifecycle: self.lifecycle,
            signer_state: self.signer_state,
            state: ChannelState::with_head(self.state),
        }
    }
}
