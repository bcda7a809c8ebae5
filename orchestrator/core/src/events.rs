//! What a channel's engine is told.

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, PeerId, Source, TrackIndex, TrackName};
use crate::policy::Policy;
use crate::profile::PeerProfile;

/// Something that happened, as the shell learned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// A peer's session is open: a newcomer, or one that comes back.
    SessionOpened(SessionOpened),
    /// A peer's session ended without a word. That is not the peer's death.
    SessionLost {
        /// Whose.
        peer: PeerId,
        /// The attachment that ended; the engine ignores all but the peer's newest.
        attachment: u64,
    },
    /// The gateway of a peer's session is not heard at the moment. The peer is neither here nor absent: it
    /// gets no new children and is told nothing until its session is said again, or said to be lost.
    SessionSilent {
        /// Whose.
        peer: PeerId,
    },
    /// The peer said that it leaves, or its viewer's right was revoked.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// The peer watches these tracks from now on; empty: the defaults.
    WantTracks {
        /// Who.
        peer: PeerId,
        /// All that it wants, by name; names that the channel does not have yet are remembered.
        tracks: Vec<TrackName>,
    },
    /// The peer is something else than its session said when it opened: it was unplugged, or has found out
    /// what its network lets through.
    ProfileChanged {
        /// Who.
        peer: PeerId,
        /// What it is from now on.
        profile: PeerProfile,
    },
    /// The peer holds the assignment of this generation.
    Acknowledged {
        /// Who.
        peer: PeerId,
        /// Which.
        generation: Generation,
    },
    /// What a peer says about one of its links.
    Link(LinkReport),
    /// What a peer says about one of its sources.
    Source(SourceReport),
    /// A peer's counters.
    Report {
        /// Whose.
        peer: PeerId,
        /// Since the peer started.
        report: PeerReport,
    },
    /// All tracks of the channel, as its signer knows them.
    TracksChanged {
        /// Every one; tracks that are not in here are gone.
        tracks: Vec<TrackInfo>,
    },
    /// A track's measured payload rate: the peak over three segments.
    TrackRate {
        /// Which.
        track: TrackIndex,
        /// Bit/s; 0 is not a measurement and is ignored.
        rate_bps: u64,
    },
    /// The owner changed the policy.
    PolicyChanged {
        /// The new one, whole.
        policy: Policy,
    },
    /// The oldest outstanding [`crate::ChannelCommand::Commit`]s are in the log, at one place.
    Committed {
        /// Where: rises with each.
        index: u64,
        /// How many of them; more than there are outstanding count as all.
        entries: usize,
    },
    /// The oldest outstanding commit failed, or nobody knows. The engine is of no more use: see
    /// [`crate::ChannelCommand::Rebuild`].
    CommitFailed,
    /// All gateways that live have said who is attached. From now on every peer without a session is
    /// absent, also if this engine has never seen it; until then nobody is whom it has not.
    AbsenceCounts,
    /// Time has passed.
    Tick,
}

/// A session that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpened {
    /// Whose.
    pub peer: PeerId,
    /// Counts the peer's sessions, over all gateways: the highest wins.
    pub attachment: u64,
    /// What it is willing to do.
    pub role: PeerRole,
    /// Wire bit/s that it offers to upload.
    pub upload_bps: u64,
    /// What it is besides.
    pub profile: PeerProfile,
    /// The tracks that it wants, by name; empty: the defaults.
    pub tracks: Vec<TrackName>,
    /// What it has, if it comes back.
    pub held: Vec<HeldEdge>,
    /// The newest assignment that it holds.
    pub generation: Option<Generation>,
}

/// A source that a returning peer has, and the children that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEdge {
    /// For which track.
    pub track: TrackName,
    /// For which stripe of it.
    pub stripe: u8,
    /// Where it takes the stripe from now.
    pub source: Source,
    /// Where it would take it from.
    pub standby: Option<Source>,
    /// Whom it serves.
    pub children: Vec<PeerId>,
}

/// What a peer is willing and able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerRole {
    /// Watches and has no children.
    Consumer,
    /// Watches and may have children.
    Contributor,
    /// Has children and watches nothing.
    Relay,
}

/// A peer's word about one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkReport {
    /// Who says so.
    pub peer: PeerId,
    /// The other end.
    pub neighbour: PeerId,
    /// How it is.
    pub state: LinkState,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    /// It opened.
    Up,
    /// It never opened.
    Failed,
    /// It was open; nothing is heard any more.
    Dead,
    /// The neighbour sent bytes that fail their hash, or a statement that fails its signature.
    Corrupt,
    /// It lives but cannot carry its share.
    Late,
    /// The neighbour broke the protocol.
    Invalid,
    /// The neighbour closed it in order.
    Closed,
}

/// A peer's word about one of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Who says so.
    pub peer: PeerId,
    /// For which track.
    pub track: TrackName,
    /// For which stripe of it.
    pub stripe: u8,
    /// Where it takes the stripe from.
    pub source: Source,
    /// How that goes.
    pub state: SourceState,
    /// Of the assignment that the peer held; `None` counts as the newest.
    pub generation: Option<Generation>,
}

/// How a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceState {
    /// Verified bytes arrive.
    Flowing,
    /// It fails and the peer is about its standby or the CDN.
    Repairing,
    /// No statements arrive: the peer plays CDN bytes unverified and relays none of them.
    Bypass,
}

/// A peer's counters since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerReport {
    /// Media bytes from the CDN.
    pub bytes_from_cdn: u64,
    /// Media bytes from other peers.
    pub bytes_from_peers: u64,
    /// Media bytes to other peers.
    pub bytes_to_peers: u64,
    /// Media ahead of the playhead.
    pub buffer_ms: u32,
    /// From an object's announcement to its last verified chunk here.
    pub latency_ms: u32,
    /// How often the playhead had to wait.
    pub stalls: u32,
    /// How long, together.
    pub stall_ms: u32,
    /// How long children waited with more to send than their links took, together.
    pub backlogged_ms: u64,
    /// Media bytes sent to children meanwhile: over that time, what the uplink carries.
    pub backlogged_bytes: u64,
}

/// A track of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackInfo {
    /// Its number.
    pub index: TrackIndex,
    /// Its name.
    pub name: TrackName,
    /// Payload bit/s; 0: not measured yet.
    pub rate_bps: u64,
    /// Whether a peer that names no tracks gets it.
    pub default: bool,
}
