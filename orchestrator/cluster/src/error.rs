//! What may go wrong with a node's part in a cluster.

use std::net::SocketAddr;

use espalier_orchestrator_core::state::Refusal;
use espalier_raft_store::{OpenError, StoreError};
use espalier_shards::NodeId;

use crate::identity::IdentityError;
use crate::network::lines::BadAddress;

/// Why the node's part in the cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The identity cannot be read or kept.
    #[error("the node's identity cannot be used")]
    Identity(#[from] IdentityError),
    /// The data belong to another cluster.
    #[error(
        "the data directory belongs to a node of cluster {found}, but this node's key is of cluster {expected}"
    )]
    OtherCluster {
        /// Whose data these are.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// The list of nodes does not name this one.
    #[error("the bootstrap list does not name this node's own address, {advertise}")]
    NotInList {
        /// The node's own address.
        advertise: String,
    },
    /// The node had data and has lost them.
    #[error(
        "node {node} has taken part in this cluster, but its data are gone: under its old id it could undo what the \
         cluster has acknowledged"
    )]
    DataLost {
        /// Which node it was.
        node: NodeId,
    },
    /// The node is out of the cluster.
    #[error("node {node} was removed from this cluster, which uses no id twice")]
    Removed {
        /// Which node it was.
        node: NodeId,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A group's log cannot be read.
    #[error("a group's log cannot be read")]
    Log(#[from] StoreError),
    /// A group did not start.
    #[error("group {group} did not start")]
    Group {
        /// Which one.
        group: espalier_shards::GroupId,
        /// Why not.
        #[source]
        source: espalier_shards::StartError,
    },
    /// The address is taken, or not ours.
    #[error("cannot listen for other nodes on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("the certificate for other nodes, its key or their authority cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// The node was asked to end before it was added.
    #[error("the node was asked to end before it was added to a cluster")]
    Ended,
    /// A new group would not take its first members.
    #[error("the cluster cannot be made")]
    Initialise(#[source] espalier_shards::MembershipError),
}

impl StartError {
    /// Whether the node cannot come back as who it was: what it held is lost, or its id is.
    #[must_use]
    pub fn needs_a_new_id(&self) -> bool {
        match self {
            StartError::Removed { .. } | StartError::DataLost { .. } => true,
            StartError::Store(error) => match error {
                OpenError::Absent { .. } | OpenError::Damaged { .. } => true,
                OpenError::InUse { .. }
                | OpenError::Io { .. }
                | OpenError::Full { .. }
                | OpenError::SyncIneffective { .. }
                | OpenError::NewerFormat { .. } => false,
            },
            StartError::Identity(_)
            | StartError::OtherCluster { .. }
            | StartError::NotInList { .. }
            | StartError::Log(_)
            | StartError::Group { .. }
            | StartError::Listen { .. }
            | StartError::Tls(_)
            | StartError::Ended
            | StartError::Initialise(_) => false,
        }
    }
}

/// Why the cluster's own state did not change, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// No leader could be asked in time.
    #[error("the cluster has no leader that answers")]
    Unavailable,
    /// The outcome is unknown; asking again is safe.
    #[error("it is unknown whether the change took place")]
    Unknown,
    /// The change was refused.
    #[error("the cluster refuses: {0}")]
    Refused(Refusal),
    /// The leader said something that this release does not understand.
    #[error("the leader's answer cannot be read")]
    Answer,
    /// An address is none.
    #[error(transparent)]
    Address(#[from] BadAddress),
}
