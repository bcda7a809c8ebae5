//! What a relay engine counts, for reports, `/stats` and `/metrics`.

use core::time::Duration;

use crate::command::SourceState;
use crate::ids::{Generation, PeerId, Source, TrackName};

/// Sums since the engine was made. Bytes are media bytes: chunks, not headers or statements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received from the CDN, used or not.
    pub bytes_from_cdn: u64,
    /// Bytes received from peers, used or not.
    pub bytes_from_peers: u64,
    /// Of those, bytes from a standby.
    pub bytes_from_standby: u64,
    /// Bytes given to the transport for children.
    pub bytes_to_peers: u64,
    /// Bytes that were held already when they came.
    pub duplicate_bytes: u64,
    /// Chunks from peers that failed their hash.
    pub corrupt_chunks: u64,
    /// Statements that failed their signature.
    pub bad_statements: u64,
    /// Statements that say something else about an object than the first one did.
    pub conflicting_statements: u64,
    /// Requests made to the CDN.
    pub cdn_requests: u64,
    /// Of those, the ones that failed.
    pub cdn_failures: u64,
    /// Bytes taken from the CDN beyond the lease, because the buffer was low.
    pub cdn_overrun_bytes: u64,
    /// Objects whose bytes at the CDN differ from those signed.
    pub origin_mismatches: u64,
    /// Objects played unverified for want of statements.
    pub bypassed_objects: u64,
    /// Objects received whole and verified.
    pub objects_completed: u64,
    /// Objects that were given up: neither peers nor the CDN had them in time.
    pub objects_missed: u64,
    /// Requests for chunks made to a standby or parent.
    pub repair_requests: u64,
}

/// The virtual player's state: the worst of the tracks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlayoutStatistics {
    /// Media held ahead of the playhead.
    pub buffer: Duration,
    /// How far the playhead is behind the newest segment's end.
    pub latency: Duration,
    /// How often it ran dry.
    pub stalls: u32,
    /// For how long in all.
    pub stalled: Duration,
}

/// One stripe of a track as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackSnapshot {
    /// The track's name.
    pub track: TrackName,
    /// Which stripe of it.
    pub stripe: u8,
    /// From where it comes now.
    pub source: Option<Source>,
    /// What takes over.
    pub standby: Option<Source>,
    /// How the source does.
    pub state: SourceState,
    /// The newest segment's epoch and sequence number.
    pub newest: Option<(u32, u64)>,
}

/// One link as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSnapshot {
    /// The other end.
    pub peer: PeerId,
    /// Whether both channels are open.
    pub up: bool,
    /// Whether something was heard within the last second.
    pub alive: bool,
    /// Whether the other end is a child.
    pub child: bool,
    /// The smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Bytes sent and not yet acknowledged.
    pub buffered_bytes: u64,
}

/// Everything that the outside may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the assignment in force.
    pub generation: Generation,
    /// The sums.
    pub counters: Counters,
    /// The virtual player.
    pub playout: PlayoutStatistics,
    /// The tracks by name, each by stripe.
    pub tracks: Vec<TrackSnapshot>,
    /// The links, by peer.
    pub links: Vec<LinkSnapshot>,
    /// Bytes in the ring.
    pub ring_bytes: u64,
    /// When the first verified chunk came from a peer, on the engine's clock.
    pub first_tree_byte: Option<Duration>,
    /// When the first byte came from the CDN, on the engine's clock.
    pub first_cdn_byte: Option<Duration>,
}

/// What a session must say when it is opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of the assignment in force; zero: none.
    pub generation: Generation,
    /// One entry for each stripe of each track.
    pub edges: Vec<HeldEdge>,
}

/// A stripe's source now, and the children that it is passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEdge {
    /// Which track.
    pub track: TrackName,
    /// Which stripe of it.
    pub stripe: u8,
    /// From where it comes.
    pub source: Option<Source>,
    /// What takes over.
    pub standby: Option<Source>,
    /// Who takes it from here.
    pub children: Vec<PeerId>,
}
