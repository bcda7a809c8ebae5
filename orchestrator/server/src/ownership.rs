//! Who owns which shard, as this node knows it, and how to reach the other nodes.
//!
//! The rest of the node asks here and nowhere else, so that one node alone and one of many run the same code.
//! [`Alone`] is the node without others.

use std::sync::Arc;

use espalier_orchestrator_core::{ChannelId, NodeId, ShardId};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::channel::{AtOnce, Log};
use crate::store::ChannelStore;

/// The cluster, as one of its nodes sees it.
pub(crate) trait Ownership: Send + Sync + 'static {
    /// This node.
    fn this(&self) -> NodeId;
    /// Every shard.
    fn shards(&self) -> Vec<ShardId>;
    /// The shard that a channel belongs to, or would belong to.
    fn shard_of(&self, channel: &ChannelId) -> ShardId;
    /// Who owns the shard, as far as is known here; `None`: nobody.
    fn owner(&self, shard: ShardId) -> watch::Receiver<Option<NodeId>>;
    /// The term in which this node owns the shard, from when everything before that term is applied until
    /// the moment when the node must assume that it owns it no more.
    fn leading(&self, shard: ShardId) -> watch::Receiver<Option<u64>>;
    /// A connection to what another node serves to nodes.
    fn transport(&self, node: NodeId) -> Option<Channel>;
    /// Where peers find the nodes, this one among them; empty when only this one is known.
    fn endpoints(&self) -> Vec<String>;
    /// Where the shard's decisions are kept.
    fn log(&self, shard: ShardId) -> Arc<dyn Log>;
}

/// One node without others: it owns its one shard for as long as it lives.
pub(crate) struct Alone {
    owner: watch::Sender<Option<NodeId>>,
    leading: watch::Sender<Option<u64>>,
    log: Arc<dyn Log>,
}

const THIS: NodeId = NodeId(1);

impl Alone {
    pub(crate) fn new(store: ChannelStore) -> Self {
        Self {
            owner: watch::Sender::new(Some(THIS)),
            leading: watch::Sender::new(Some(1)),
            log: Arc::new(AtOnce::new(store)),
        }
    }
}

impl Ownership for Alone {
    fn this(&self) -> NodeId {
        THIS
    }

    fn shards(&self) -> Vec<ShardId> {
        vec![ShardId(1)]
    }

    fn shard_of(&self, _channel: &ChannelId) -> ShardId {
        ShardId(1)
    }

    fn owner(&self, _shard: ShardId) -> watch::Receiver<Option<NodeId>> {
        self.owner.subscribe()
    }

    fn leading(&self, _shard: ShardId) -> watch::Receiver<Option<u64>> {
        self.leading.subscribe()
    }

    fn transport(&self, _node: NodeId) -> Option<Channel> {
        None
    }

    fn endpoints(&self) -> Vec<String> {
        Vec::new()
    }

    fn log(&self, _shard: ShardId) -> Arc<dyn Log> {
        Arc::clone(&self.log)
    }
}
