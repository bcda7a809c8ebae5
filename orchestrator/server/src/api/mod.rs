//! The gRPC services: they check requests, call the node, and translate the answers.

mod channel_service;
mod cluster_service;
mod cluster_view;
mod forward;
mod paging;
mod peer_service;
mod plans;
mod resource;
mod signer_service;
mod topology_service;
mod watch;

pub(crate) use channel_service::ChannelApi;
pub(crate) use cluster_service::ClusterApi;
pub(crate) use forward::Router;
pub(crate) use peer_service::{PeerApi, PeerNode};
pub(crate) use signer_service::GuardedSigner;
pub(crate) use topology_service::TopologyApi;

/// Largest request of the API, bytes.
pub(crate) const MAX_REQUEST: usize = 256 * 1024;
/// Largest message of a peer, bytes: an Open that names many children.
pub(crate) const MAX_PEER_MESSAGE: usize = 512 * 1024;
/// Largest answer that is taken from another node, bytes: the topology of a large channel.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
