//! The native peer: WebRTC links, the session with the orchestrator, CDN reads, and a local HLS server.
//!
//! A shell round [`espalier_peer_core`]'s relay engine: it carries bytes and words between the engine
//! and the world, and decides nothing that the engine decides.
//!
//! ```text
//!  orchestrator ◄─► session ─┐                   ┌─► store ◄─ local HLS server ◄─ any player
//!  signer       ──► feed ────┤                   │
//!  CDN          ──► cdn ─────┼─► engine task ────┼─► session, feed, cdn
//!  neighbours   ◄─► links ───┘   (RelayEngine)   └─► links
//! ```
//!
//! Invariant: every arrow is a bounded channel or a latest-wins value; the engine's task never waits
//! for any other.

mod agent;
mod alarm;
mod backlog;
mod backoff;
mod cdn;
mod config;
mod endpoint;
mod endpoints;
mod engine_task;
mod feed;
mod hls;
mod links;
mod milestones;
mod nat;
mod session;
mod stats;
mod store;
mod translate;
pub mod transport;

pub use agent::{Agent, StartError};
pub use alarm::Alarm;
pub use config::{AgentConfig, Circumstances, Device};
pub use endpoint::EndpointError;
pub use session::SessionEnd;

/// An error and its sources on one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
