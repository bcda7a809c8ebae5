//! The native peer: WebRTC links, the session with the orchestrator, CDN reads, and a local HLS server.
//!
//! A shell round [`espalier_peer_core`]'s relay engine: it carries bytes and words between the engine
//! and the world, and decides nothing that the engine decides.

mod backoff;
mod session;
pub mod transport;
