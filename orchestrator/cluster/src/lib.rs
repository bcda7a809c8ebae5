//! A node's part in the cluster: its Raft groups on disk, the network between nodes, membership and balance.
//!
//! ```text
//!             Cluster
//!   meta group, shards 1..=16 ──── espalier-shards (pure Raft side, shared with the simulator)
//!        │            │
//!   network/      raft-store       steward: reconciler, balance      reset task: killed leaders
//! ```
//!
//! Not here: channels, sessions, gateways, what entries mean.

mod changes;
mod cluster;
mod config;
mod desk;
mod error;
mod hand_over;
mod handle;
mod identity;
mod network;
mod reconcile;
mod reset_task;
mod snapshots;
mod standing;
mod start;
mod steward;
mod tended;
mod tls;
mod wire;

pub use changes::ChangeError;
pub use cluster::{Cluster, ShardGroup};
pub use config::{ClusterConfig, DEFAULT_SHARDS, Formation};
pub use error::{MetaError, StartError};
pub use handle::ClusterHandle;
pub use identity::{Identity, IdentityError};
pub use network::lines::BadAddress;
pub use snapshots::{DiskSnapshot, DiskSnapshots, Spool};
pub use standing::{Neighbour, Neighbours, Standing};
pub use tls::ClusterTls;
