//! The node, through its real port: tonic on a free port, a real origin, fake peers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../cluster/tests/addresses/mod.rs"]
mod addresses;
mod browsers;
mod channels;
mod cluster;
mod cluster_service;
mod command_line;
mod listener;
mod members;
mod profiles;
mod restart;
mod sessions;
mod signer_elsewhere;
mod support;
mod topology;
