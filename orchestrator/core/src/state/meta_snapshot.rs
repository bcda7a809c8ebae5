//! The meta group's snapshot: the cluster, then its nodes, channels and secrets.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::meta::{ClusterRecord, DirectoryRecord, Inner, MetaState, NodeRecord};
use super::sealed::Sealed;
use super::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};
use crate::ids::{ChannelId, NodeId};

const KIND: u8 = 2;

#[derive(Serialize, Deserialize)]
enum Record {
    Cluster(ClusterRecord),
    Node(NodeId, NodeRecord),
    Used(NodeId),
    Channel(ChannelId, DirectoryRecord),
    Secret(String, Sealed),
}

impl MetaState {
    /// Writes all of it. Call it on a clone, away from whoever applies entries.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn write_snapshot(&self, to: impl Write) -> io::Result<()> {
        let mut writer = SnapshotWriter::start(to, KIND)?;
        if let Some(cluster) = self.cluster() {
            writer.put(&Record::Cluster(cluster.clone()))?;
        }
        for (node, record) in self.nodes() {
            writer.put(&Record::Node(*node, record.clone()))?;
        }
        for node in &self.inner.used {
            writer.put(&Record::Used(*node))?;
        }
        for (channel, record) in self.channels() {
            writer.put(&Record::Channel(channel.clone(), *record))?;
        }
        for (name, secret) in self.secrets() {
            writer.put(&Record::Secret(name.clone(), secret.clone()))?;
        }
        writer.finish(self.hash())
    }

    /// Reads what [`MetaState::write_snapshot`] wrote.
    ///
    /// # Errors
    /// When the stream fails or ends too early, another version wrote it, or it is damaged.
    pub fn read_snapshot(from: impl Read) -> Result<Self, SnapshotError> {
        let mut reader = SnapshotReader::start(from, KIND)?;
        let mut inner = Inner::default();
        while let Some(record) = reader.next()? {
            match record {
                Record::Cluster(cluster) => inner.cluster = Some(cluster),
                Record::Node(node, record) => {
                    inner.nodes.insert(node, record);
                }
                Record::Used(node) => {
                    inner.used.insert(node);
                }
                Record::Channel(channel, record) => {
                    inner.channels.insert(channel, record);
                }
                Record::Secret(name, secret) => {
                    inner.secrets.insert(name, secret);
                }
            }
        }
        let inner = Arc::new(inner);
        let state = Self { inner };
        reader.finish(state.hash())?;
        Ok(state)
    }
}
