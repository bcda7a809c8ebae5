//! Who owns which shard, as this node knows it, and how to reach the other nodes.
//!
//! The rest of the node asks here and nowhere else. Invariant: an owner is its shard's Raft leader, and it
//! leads from when its term's first entry is applied until the moment when its group says otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use espalier_cluster::{ClusterHandle, ShardGroup};
use espalier_orchestrator_core::state::NodePhase;
use espalier_orchestrator_core::{ChannelId, NodeId, ShardId};
use espalier_shards::Leadership;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::channel::{GroupLog, Log};
use crate::registry::Registry;

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
    /// Where peers find the nodes that take them, this one among them if it does; empty when no other does.
    fn endpoints(&self) -> Vec<String>;
    /// Where the shard's decisions are kept.
    fn log(&self, shard: ShardId) -> Arc<dyn Log>;
}

/// The cluster's Raft groups as the source of who owns what.
pub(crate) struct Clustered {
    cluster: ClusterHandle,
    registry: Arc<Registry>,
    shards: BTreeMap<ShardId, Shard>,
}

struct Shard {
    owner: watch::Receiver<Option<NodeId>>,
    leading: watch::Receiver<Option<u64>>,
    log: Arc<dyn Log>,
}

impl Clustered {
    /// Follows the groups for as long as they run.
    pub(crate) fn new(cluster: ClusterHandle, registry: Arc<Registry>) -> Self {
        let shard = |group: &ShardGroup| (ShardId(group.id().0), Shard::follow(group));
        Self {
            shards: cluster.shards().iter().map(shard).collect(),
            cluster,
            registry,
        }
    }

    fn shard(&self, shard: ShardId) -> &Shard {
        self.shards
            .get(&shard)
            .expect("invariant: the callers ask for shards that there are")
    }
}

impl Shard {
    fn follow(group: &ShardGroup) -> Self {
        let this = NodeId(group.node());
        let (owner_now, owner) = watch::channel(None);
        let (leading_now, leading) = watch::channel(None);
        let mut seen = group.leadership();
        tokio::spawn(async move {
            loop {
                let leadership = *seen.borrow_and_update();
                set(&leading_now, leadership.leading_term());
                set(&owner_now, owner_of(leadership, this));
                if leadership == Leadership::Stopped || seen.changed().await.is_err() {
                    return;
                }
            }
        });
        Self {
            owner,
            leading,
            log: Arc::new(GroupLog::new(group.clone())),
        }
    }
}

fn owner_of(leadership: Leadership, this: NodeId) -> Option<NodeId> {
    match leadership {
        Leadership::Leader { .. } | Leadership::Preparing { .. } => Some(this),
        Leadership::Follower { leader, .. } => Some(NodeId(leader)),
        Leadership::Unknown | Leadership::Stopped => None,
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<T>, now: T) {
    sender.send_if_modified(|known| {
        let changed = *known != now;
        *known = now;
        changed
    });
}

impl Ownership for Clustered {
    fn this(&self) -> NodeId {
        NodeId(self.cluster.identity().node)
    }

    fn shards(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    fn shard_of(&self, channel: &ChannelId) -> ShardId {
        self.registry.shard_of(channel)
    }

    fn owner(&self, shard: ShardId) -> watch::Receiver<Option<NodeId>> {
        self.shard(shard).owner.clone()
    }

    fn leading(&self, shard: ShardId) -> watch::Receiver<Option<u64>> {
        self.shard(shard).leading.clone()
    }

    fn transport(&self, node: NodeId) -> Option<Channel> {
        self.cluster.transport(node.0)
    }

    fn endpoints(&self) -> Vec<String> {
        let nodes: Vec<(NodeId, String)> = self.cluster.meta().read(|_, state| {
            let nodes = state.nodes().iter();
            let wanted = nodes.filter(|(_, record)| match record.phase {
                NodePhase::Joining | NodePhase::Active => true,
                NodePhase::Draining | NodePhase::Leaving => false,
            });
            wanted
                .filter_map(|(node, record)| {
                    Some((*node, record.addresses.public.first()?.clone()))
                })
                .collect()
        });
        let serving = nodes
            .into_iter()
            .filter(|(node, _)| !self.cluster.is_ending(node.0));
        let (ids, endpoints): (Vec<_>, Vec<_>) = serving.unzip();
        // Nobody need be told of the node that tells it.
        match ids.iter().any(|node| *node != self.this()) {
            true => endpoints,
            false => Vec::new(),
        }
    }

    fn log(&self, shard: ShardId) -> Arc<dyn Log> {
        Arc::clone(&self.shard(shard).log)
    }
}
