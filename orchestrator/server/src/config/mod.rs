//! What a node needs to know before it starts.
//!
//! Invariant: a [`NodeConfig`] is valid. It is made from a file by [`NodeConfig::from_toml`], which reports
//! every mistake with its key, or from [`NodeConfig::dev`].

mod cluster;
pub(crate) mod geo;
mod limits;
mod locality;
mod reader;
mod stun;
mod toml_file;
mod web;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use cluster::{ClusterPlace, DEFAULT_CLUSTER_PORT};
pub use limits::Limits;
pub use locality::LocalityConfig;
pub use reader::{ConfigMistakes, Mistake};
pub use stun::StunConfig;
pub use web::WebOrigins;

use crate::api_token::TokenHash;
use espalier_token::VerifierKey;

/// The port for peers and the API.
pub const DEFAULT_PORT: u16 = 7300;
/// The port for metrics and probes.
pub const DEFAULT_ADMIN_PORT: u16 = 7302;

/// What a node needs to know before it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where state is kept; `None`: in a temporary directory that is removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Where peers and the API are served; port 0: any free one.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/ready` and `/live` are served; `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// The certificate chain and private key, PEM; `None`: no TLS.
    pub tls: Option<TlsConfig>,
    /// Keys of other issuers whose viewer tokens are accepted, beside the node's own.
    pub issuers: Vec<VerifierKey>,
    /// API tokens that are accepted, beside those that the node made.
    pub api_tokens: Vec<TokenHash>,
    /// STUN servers that peers are told of, `stun:host:port`.
    pub stun_uris: Vec<String>,
    /// Where the node itself answers STUN; `None`: nowhere.
    pub stun: Option<StunConfig>,
    /// Whose pages browsers may call this node from.
    pub web_origins: WebOrigins,
    /// How the node finds out where its peers are.
    pub locality: LocalityConfig,
    /// The node's place among others; `None`: it is a cluster of one.
    pub cluster: Option<ClusterPlace>,
    /// Bounds on what clients may use.
    pub limits: Limits,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct TlsConfig {
    /// The certificate chain.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl core::fmt::Debug for TlsConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("TlsConfig")
    }
}

impl NodeConfig {
    /// One node for trying things out: temporary data, no TLS, no admin listener.
    #[must_use]
    pub fn dev() -> Self {
        Self {
            data_dir: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            admin_listen: None,
            tls: None,
            issuers: Vec::new(),
            api_tokens: Vec::new(),
            stun_uris: Vec::new(),
            stun: None,
            web_origins: WebOrigins::Local,
            locality: LocalityConfig::default(),
            cluster: None,
            limits: Limits::default(),
        }
    }
}
