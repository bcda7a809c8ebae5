//! What a node needs to know to take its part in a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use espalier_shards::Settings;

use crate::tls::ClusterTls;

/// How many shards a new cluster gets unless it is told otherwise.
pub const DEFAULT_SHARDS: u32 = 16;

/// What a node needs to know to take its part in a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where identity, logs and snapshots are kept.
    pub dir: PathBuf,
    /// The cluster's id.
    pub cluster: String,
    /// Where other nodes are served; `None`: nowhere, for a node alone.
    pub listen: Option<SocketAddr>,
    /// `host:port` at which the others reach this node.
    pub advertise: String,
    /// `host:port` or URI at which peers and callers reach this node.
    pub public_address: String,
    /// How this node finds its place when it has none yet.
    pub formation: Formation,
    /// How many shards a new cluster gets.
    pub shards: u32,
    /// Mutual TLS between nodes.
    pub tls: Option<ClusterTls>,
    /// How the groups behave.
    pub settings: Settings,
}

/// How a node without identity finds its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formation {
    /// It is a cluster of one.
    Alone,
    /// It makes a cluster together with the others at these addresses, its own among them. The first in the
    /// list is node 1, and so on; all name the same list.
    Bootstrap(Vec<String>),
    /// It waits until somebody adds it to a cluster.
    Join,
}
