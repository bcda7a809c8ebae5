//! The orchestrator node: channel actors, gateway, API and signer behind one gRPC port.
//!
//! [`Node::start`] runs one from a [`NodeConfig`]; the binary is that and the command line. What a channel's
//! trees look like is decided in espalier-orchestrator-core, what is signed in espalier-signer; here
//! requests are checked, translated, carried out and answered.
//!
//! Map: `config` what a node needs to know · `store` the node's own files · `registry` the cluster's
//! state · `seal` secrets in it · `directory` the channels ·
//! `channel` one actor round one engine · `owner` the shards that this node leads · `gateway` the peers'
//! sessions · `moving` sends them elsewhere · `ownership` who owns what · `link_*` gateways and owners on different nodes · `api` the gRPC services ·
//! `status` errors to statuses · `layers` what every call passes · `web` how browsers call · `pages` what they are shown · `admin`, `metrics` what operators see.

mod access;
mod admin;
mod api;
mod api_token;
mod channel;
mod config;
mod directory;
mod gateway;
mod late_routes;
mod layers;
mod link_service;
mod link_wire;
mod metrics;
mod moving;
mod node;
mod owner;
mod ownership;
mod pages;
mod placed;
mod policies;
mod readiness;
mod registry;
mod seal;
mod secret;
mod signing;
mod status;
mod store;
mod stun;
mod ticket;
mod translate;
mod web;

#[cfg(test)]
mod tests;

pub use api_token::TokenHash;
pub use config::{
    ClusterPlace, ConfigMistakes, DEFAULT_ADMIN_PORT, DEFAULT_CLUSTER_PORT, DEFAULT_PORT, Limits,
    LocalityConfig, Mistake, NodeConfig, StunConfig, TlsConfig, WebOrigins,
};
pub use node::{Node, StartError};
pub use registry::{RecordError, SecretsError};
pub use seal::SealError;
pub use signing::SigningError;
pub use status::ERROR_DOMAIN;
pub use store::StoreError;

/// An error and everything that it names as its source, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

// What the tests of the node from outside and those of several nodes share names the crate as it is from
// outside.
#[cfg(test)]
extern crate self as espalier_orchestrator;
