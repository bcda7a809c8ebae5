//! What a channel's engine has its shell do.

use core::time::Duration;

use crate::ids::{Generation, PeerId, Source, TrackName};
use crate::state::Entry;

/// Something to do, in the order in which commands are polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelCommand {
    /// Replicate the entry, then answer [`crate::ChannelEvent::Committed`] (or `CommitFailed`), in order;
    /// one answer may be for several entries that share a place in the log.
    Commit {
        /// All that one event decided.
        entry: Entry,
    },
    /// Send the assignment to the peer's session. Given only after its entry is committed.
    Assign {
        /// To whom.
        peer: PeerId,
        /// Everything that it must do now.
        assignment: Assignment,
    },
    /// A person may want to know.
    Raise(Alarm),
    /// A commit failed: drop this engine and make a new one from the replicated state.
    Rebuild,
}

/// Everything that one peer must do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Peers ignore an older one than they have.
    pub generation: Generation,
    /// Ordered by track and stripe; every stripe of a track, each once.
    pub tracks: Vec<TrackAssignment>,
    /// The links that it must accept, ordered by track, stripe and peer.
    pub children: Vec<ChildAssignment>,
    /// What it may take from the CDN beyond its assigned sources.
    pub cdn_lease: CdnLease,
    /// Its upload budget, wire bit/s.
    pub upload_bps: u64,
}

/// One stripe of a track in an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackAssignment {
    /// Of which track.
    pub track: TrackName,
    /// Which stripe of it: the chunks whose index modulo `stripes` this is.
    pub stripe: u8,
    /// Into how many stripes the track is cut, at least 1; the same in all of the track's entries.
    pub stripes: u8,
    /// Where it comes from.
    pub source: Source,
    /// Connected in advance and silent until needed; `None` for a root.
    pub standby: Option<Source>,
    /// The old source must be kept until data flows from this one.
    pub make_before_break: bool,
}

/// One child of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildAssignment {
    /// Which track it takes.
    pub track: TrackName,
    /// Which stripe of it.
    pub stripe: u8,
    /// Who.
    pub peer: PeerId,
    /// The child holds this link as its standby.
    pub standby: bool,
}

/// What a peer may take from the CDN while its sources fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CdnLease {
    /// Bit/s.
    pub rate_bps: u64,
    /// Bytes at once.
    pub burst_bytes: u64,
    /// Outlives the orchestrator.
    pub lifetime: Duration,
}

/// Something that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The CDN feeds more peers than the policy plans for; raised once until it ends.
    RootsOverPolicy {
        /// In which track.
        track: TrackName,
        /// How many.
        roots: u32,
        /// How many the policy plans for.
        limit: u32,
    },
    /// The CDN feeds no more peers than the policy plans for, again.
    RootsWithinPolicy {
        /// In which track.
        track: TrackName,
    },
    /// A peer was accused of corrupt bytes; the two will not meet again.
    PairSeparated {
        /// Who says so.
        accuser: PeerId,
        /// Who is said to have sent them.
        suspect: PeerId,
    },
    /// Enough different peers accused this one: it gets no children.
    PeerQuarantined {
        /// Who.
        peer: PeerId,
        /// How many peers accused it.
        accusers: u32,
    },
    /// A peer accuses so many others that its word does not count any more.
    SerialAccuser {
        /// Who.
        peer: PeerId,
    },
    /// A peer without a session is taken for gone.
    PeerPresumedGone {
        /// Who.
        peer: PeerId,
        /// True: a neighbour said so. False: it did not come back in time.
        reported: bool,
    },
    /// The channel's owner has taken up what its peers held.
    Recovered {
        /// Peers that came back.
        peers: u32,
        /// Edges that were taken up as they were.
        edges: u32,
    },
}
