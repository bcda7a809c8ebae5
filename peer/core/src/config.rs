//! What a relay engine is told once, at its making.

use core::time::Duration;

use crate::event::CdnLease;
use crate::ids::PeerId;

/// What a peer does with what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Watches and may have children.
    Contributor,
    /// Watches and has no children.
    Consumer,
    /// Has children and watches nothing.
    Relay,
}

/// An engine's settings.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This peer's id.
    pub peer: PeerId,
    /// The channel's id.
    pub channel: String,
    /// What the peer does with what it receives.
    pub role: Role,
    /// Seeds the jitter and the pings' nonces: the same seed and events give the same commands.
    pub seed: u64,
    /// The most bytes of verified objects that the ring holds, all tracks together. Objects of the last
    /// four target durations are held even beyond it, up to twice as much.
    pub ring_bytes: u64,
    /// The most bytes of not yet signed objects that a root holds.
    pub prefetch_bytes: u64,
    /// The most bytes that may wait for acknowledgement on one link; the transport must take as many.
    pub link_limit_bytes: u64,
    /// What may be taken from the CDN without a lease from the orchestrator.
    pub default_lease: CdnLease,
}

impl EngineConfig {
    /// A native contributor's settings.
    #[must_use]
    pub fn new(peer: PeerId, channel: impl Into<String>) -> Self {
        Self {
            peer,
            channel: channel.into(),
            role: Role::Contributor,
            seed: peer.0,
            ring_bytes: 64 << 20,
            prefetch_bytes: 64 << 20,
            link_limit_bytes: 192 << 10,
            default_lease: CdnLease {
                rate_bps: 8_000_000,
                burst_bytes: 8 << 20,
                lifetime: Duration::MAX,
            },
        }
    }
}
