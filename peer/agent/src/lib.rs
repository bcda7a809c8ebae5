//! The native peer: WebRTC links, the session with the orchestrator, CDN reads, and a local HLS server.
