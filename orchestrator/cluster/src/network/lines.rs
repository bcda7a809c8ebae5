//! Connections to the other nodes: four each, shared by all groups, opened when first used.
//!
//! Votes, heartbeats and reads have a connection of their own, so that they wait neither for entries nor
//! for snapshots; snapshots have one so that entries do not wait for them; gateways have one of theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use espalier_proto::cluster::v1 as proto;
use espalier_proto::cluster::v1::raft_service_client::RaftServiceClient;
use espalier_shards::{GroupId, NodeId};
use tonic::transport::{Channel, Endpoint};

use crate::tls::ClusterTls;

/// How long a connection may take to open.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// How often an open connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// The largest message: what one append reads from the log, and one entry of the largest size.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
/// Enough on its way for a fast network with some delay.
const WINDOW: u32 = 8 << 20;

/// A client of another node's Raft service.
pub(crate) type Client = RaftServiceClient<Channel>;

/// All connections of this node.
#[derive(Clone)]
pub(crate) struct Lines {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: String,
    tls: Option<ClusterTls>,
    nodes: Mutex<BTreeMap<NodeId, Node>>,
}

#[derive(Clone)]
struct Node {
    address: String,
    lines: NodeLines,
}

/// The connections to one node.
#[derive(Clone)]
pub(crate) struct NodeLines {
    pub(crate) entries: Channel,
    pub(crate) control: Channel,
    pub(crate) bulk: Channel,
    pub(crate) gateways: Channel,
}

/// An address is none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{address} is no address of a node: {reason}")]
pub struct BadAddress {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Lines {
    pub(crate) fn new(cluster: String, tls: Option<ClusterTls>) -> Self {
        let nodes = Mutex::new(BTreeMap::new());
        Lines {
            inner: Arc::new(Inner {
                cluster,
                tls,
                nodes,
            }),
        }
    }

    /// The connections to a node; new ones when it has moved.
    pub(crate) fn to(&self, node: NodeId, address: &str) -> Result<NodeLines, BadAddress> {
        let mut nodes = self
            .inner
            .nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = nodes.get(&node).filter(|known| known.address == address) {
            return Ok(known.lines.clone());
        }
        let endpoint = self.endpoint(address)?;
        let lines = NodeLines {
            entries: endpoint.connect_lazy(),
            control: endpoint.connect_lazy(),
            bulk: endpoint.connect_lazy(),
            gateways: endpoint.connect_lazy(),
        };
        nodes.insert(
            node,
            Node {
                address: address.to_owned(),
                lines: lines.clone(),
            },
        );
        Ok(lines)
    }

    /// How a node at this address is connected to.
    pub(crate) fn endpoint(&self, address: &str) -> Result<Endpoint, BadAddress> {
        let bad = |error: tonic::transport::Error| BadAddress {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        let scheme = if self.inner.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(bad)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW);
        match &self.inner.tls {
            Some(tls) => endpoint.tls_config(tls.client()).map_err(bad),
            None => Ok(endpoint),
        }
    }

    /// What a call says of where it belongs.
    pub(crate) fn destination(&self, node: NodeId, group: GroupId) -> proto::Destination {
        proto::Destination {
            cluster: self.inner.cluster.clone(),
            node,
            group: group.0,
        }
    }
}

/// A client on one of a node's connections.
pub(crate) fn client(line: Channel) -> Client {
    RaftServiceClient::new(line)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}
