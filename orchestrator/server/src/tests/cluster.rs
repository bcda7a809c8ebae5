//! Two nodes, one shard, and a log that both share.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use espalier_orchestrator_core::state::{ChannelState, Entry, LogPosition};
use espalier_orchestrator_core::{
    ChannelConfig, ChannelEngine, ChannelId, NodeId, PeerId, ShardId,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;

use super::support::{FakePeer, TestNode};
use crate::channel::{CommitFailed, Log};
use crate::node::Membership;
use crate::ownership::Ownership;
use crate::{Node, NodeConfig};

/// The one that `news` belongs to.
const SHARD: ShardId = ShardId(10);

/// What the nodes share: the log, and who leads.
pub(super) struct Shared {
    owner: watch::Sender<Option<NodeId>>,
    leading: BTreeMap<NodeId, watch::Sender<Option<u64>>>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    endpoints: Mutex<Vec<String>>,
    state: Mutex<Kept>,
}

/// The log's end.
#[derive(Default)]
struct Kept {
    term: u64,
    index: u64,
    channels: BTreeMap<ChannelId, ChannelState>,
    /// How many proposals are to fail.
    failing: u32,
}

/// One node's view of it.
struct View {
    this: NodeId,
    shared: Arc<Shared>,
}

/// A log that keeps entries in one state for all nodes, and refuses those of a term that is over.
struct SharedLog(Arc<Shared>);

impl Shared {
    /// Makes a node the owner, or nobody.
    pub(super) fn elect(&self, node: Option<u64>) {
        let node = node.map(NodeId);
        let term = {
            let mut state = self.state.lock().unwrap();
            state.term += 1;
            state.term
        };
        for (id, leading) in &self.leading {
            leading.send_replace((Some(*id) == node).then_some(term));
        }
        self.owner.send_replace(node);
    }

    /// The next proposals fail.
    pub(super) fn fail(&self, count: u32) {
        self.state.lock().unwrap().failing = count;
    }

    pub(super) fn failures_left(&self) -> u32 {
        self.state.lock().unwrap().failing
    }
}

impl Ownership for View {
    fn this(&self) -> NodeId {
        self.this
    }

    fn shards(&self) -> Vec<ShardId> {
        vec![SHARD]
    }

    fn shard_of(&self, _channel: &ChannelId) -> ShardId {
        SHARD
    }

    fn owner(&self, _shard: ShardId) -> watch::Receiver<Option<NodeId>> {
        self.shared.owner.subscribe()
    }

    fn leading(&self, _shard: ShardId) -> watch::Receiver<Option<u64>> {
        self.shared.leading[&self.this].subscribe()
    }

    fn transport(&self, node: NodeId) -> Option<Channel> {
        let address = self.shared.addresses.get(&node)?;
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        Some(endpoint.connect_lazy())
    }

    fn endpoints(&self) -> Vec<String> {
        self.shared.endpoints.lock().unwrap().clone()
    }

    fn log(&self, _shard: ShardId) -> Arc<dyn Log> {
        Arc::new(SharedLog(Arc::clone(&self.shared)))
    }
}

impl Log for SharedLog {
    fn engine(&self, channel: &ChannelId, config: ChannelConfig, now: Duration) -> ChannelEngine {
        let mut state = self.0.state.lock().unwrap();
        let state = state
            .channels
            .entry(channel.clone())
            .or_insert_with(|| ChannelState::new(config.incarnation, config.policy.clone()));
        ChannelEngine::from_state(state, config.term, now)
    }

    fn state(&self, channel: &ChannelId) -> Option<ChannelState> {
        self.0.state.lock().unwrap().channels.get(channel).cloned()
    }

    fn known_peers(&self, channel: &ChannelId) -> Vec<PeerId> {
        let state = self.0.state.lock().unwrap();
        let channel = state.channels.get(channel).into_iter();
        channel
            .flat_map(|state| state.peers().map(|(peer, _)| peer))
            .collect()
    }

    fn propose(
        &self,
        channel: &ChannelId,
        term: u64,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<u64, CommitFailed>> {
        let (shared, channel) = (Arc::clone(&self.0), channel.clone());
        // Not at once: what arises meanwhile goes together.
        let kept = async move {
            tokio::task::yield_now().await;
            let mut state = shared.state.lock().unwrap();
            if state.failing > 0 || state.term != term {
                state.failing = state.failing.saturating_sub(1);
                return Err(CommitFailed);
            }
            state.index += 1;
            let index = state.index;
            let at = LogPosition { term, index };
            let channel = state.channels.get_mut(&channel).ok_or(CommitFailed)?;
            for entry in &entries {
                assert!(channel.apply(entry, at).is_applied());
            }
            Ok(index)
        };
        kept.boxed()
    }

    fn settle(&self, _term: u64) -> BoxFuture<'static, Result<(), CommitFailed>> {
        futures::future::ready(Ok(())).boxed()
    }
}

/// Two nodes that know the channel `news` and the same secrets.
pub(super) struct Cluster {
    pub(super) shared: Arc<Shared>,
    pub(super) nodes: Vec<TestNode>,
    pub(super) token: String,
    _data: TempDir,
}

impl Cluster {
    /// Starts the nodes 1 and 2; nobody owns anything yet.
    pub(super) async fn start(origin: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let first = TestNode::start(config(&data.path().join("1"))).await;
        first.create("news", origin).await;
        let token = first.viewer_token("news").await;
        drop(first.transport);
        first.node.shutdown().await;
        copy(&data.path().join("1"), &data.path().join("2"));

        let ids = [NodeId(1), NodeId(2)];
        let listeners = ids.map(|_| TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap());
        let addresses = ids.iter().zip(&listeners);
        let addresses = addresses.map(|(id, it)| (*id, it.local_addr().unwrap()));
        let shared = Arc::new(Shared {
            owner: watch::Sender::new(None),
            leading: ids
                .iter()
                .map(|id| (*id, watch::Sender::new(None)))
                .collect(),
            addresses: addresses.collect(),
            endpoints: Mutex::default(),
            state: Mutex::default(),
        });
        let mut nodes = Vec::new();
        for (this, listener) in ids.into_iter().zip(listeners) {
            let shared = Arc::clone(&shared);
            let ownership: Arc<dyn Ownership> = Arc::new(View { this, shared });
            let membership = Membership {
                ownership,
                listener: Some(listener),
            };
            let config = config(&data.path().join(this.to_string()));
            let node = Node::start_as(config, Some(membership)).await.unwrap();
            nodes.push(TestNode::of(node).await);
        }
        let endpoints = nodes.iter().map(|node| node.node.endpoint());
        *shared.endpoints.lock().unwrap() = endpoints.collect();
        Self {
            shared,
            nodes,
            token,
            _data: data,
        }
    }

    /// A peer at a node, 1 or 2.
    pub(super) async fn join(&self, node: usize, open: espalier_proto::v1::Open) -> FakePeer {
        let node = &self.nodes[node - 1];
        FakePeer::join(node, &self.token, open).await.unwrap()
    }

    pub(super) async fn end(self) {
        for node in self.nodes {
            drop(node.transport);
            node.node.shutdown().await;
        }
    }
}

fn config(path: &Path) -> NodeConfig {
    NodeConfig {
        data_dir: Some(path.to_owned()),
        listen: ([127, 0, 0, 1], 0).into(),
        ..NodeConfig::dev()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
