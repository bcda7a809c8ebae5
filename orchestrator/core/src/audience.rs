//! The audience's totals, from its peers' reports.

/// What a channel's audience does, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audience {
    /// Peers in the channel.
    pub peers: u32,
    /// Peers that the CDN feeds in at least one track.
    pub roots: u32,
    /// The deepest tree's.
    pub max_depth: u32,
    /// Media bytes from the CDN since the owner started.
    pub bytes_from_cdn: u64,
    /// Media bytes from peers since the owner started.
    pub bytes_from_peers: u64,
    /// 1000 × (1 − CDN bytes ÷ all bytes) over the last ten seconds; 0 without any bytes.
    pub offload_permille: u32,
    /// Stalls since the owner started.
    pub stalls: u64,
}
