//! What goes over a link, in both directions.

use crate::commands::Assignment;
use crate::events::{ChannelEvent, LinkReport, PeerReport, SessionOpened, SourceReport};
use crate::ids::{ChannelId, Generation, NodeId, PeerId, TrackName};
use crate::profile::PeerProfile;

/// From a gateway to the owner of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToOwner {
    /// The first message of a stream.
    Open {
        /// Who speaks.
        gateway: NodeId,
        /// Of the gateway's process: another one knows nothing of this one's streams.
        boot: u64,
        /// Rises with each stream that this process opens.
        opening: u64,
    },
    /// Something changed; numbered from 1 in each stream, without gaps.
    Change {
        /// Its number.
        seq: u64,
        /// In which channel.
        channel: ChannelId,
        /// What.
        change: Change,
    },
    /// Every session that the gateway had when the stream opened has been said.
    Synced,
    /// The newest counters of some peers. Not numbered: may be dropped.
    Reports {
        /// In which channel.
        channel: ChannelId,
        /// Each peer at most once.
        reports: Vec<(PeerId, PeerReport)>,
    },
}

/// Something that a gateway saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A peer has a session here.
    Attached(Attached),
    /// A session ended without a word.
    Detached {
        /// Whose.
        peer: PeerId,
        /// Which of the peer's attachments.
        attachment: u64,
    },
    /// The peer said that it leaves.
    Left {
        /// Who.
        peer: PeerId,
        /// The attachment that said so.
        attachment: u64,
    },
    /// The peer said something else.
    Said {
        /// Who.
        peer: PeerId,
        /// The attachment that said so.
        attachment: u64,
        /// What.
        said: Said,
    },
}

/// A session, as its gateway knows it. Its peer and attachment are the request's id: however often it is
/// said, there is one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The session, with what its peer has by now.
    pub session: SessionOpened,
    /// The peer has shown that the id is its own, or an owner has admitted it.
    pub proven: bool,
    /// An owner was told of this session and may have admitted it without being heard.
    pub asked: bool,
}

/// What a peer says to its channel's owner, reports aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It holds the assignment of this generation.
    Acknowledged(Generation),
    /// It watches these tracks.
    WantTracks(Vec<TrackName>),
    /// It is this from now on.
    Profile(PeerProfile),
    /// About one of its links.
    Link(LinkReport),
    /// About one of its sources.
    Source(SourceReport),
}

impl Said {
    /// Returns the event that a channel's engine is told.
    pub fn into_event(self, peer: PeerId) -> ChannelEvent {
        match self {
            Self::Acknowledged(generation) => ChannelEvent::Acknowledged { peer, generation },
            Self::WantTracks(tracks) => ChannelEvent::WantTracks { peer, tracks },
            Self::Profile(profile) => ChannelEvent::ProfileChanged { peer, profile },
            Self::Link(report) => ChannelEvent::Link(LinkReport { peer, ..report }),
            Self::Source(report) => ChannelEvent::Source(SourceReport { peer, ..report }),
        }
    }
}

/// From the owner of a shard to a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGateway {
    /// Every change up to this number has been taken in.
    Acked {
        /// The number.
        through: u64,
    },
    /// The session counts.
    Admitted {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Which.
        attachment: u64,
    },
    /// The session does not count: end it.
    Refused {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Which.
        attachment: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The peer has a newer session elsewhere: end every older one.
    Superseded {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// The newer one.
        by: u64,
        /// Where that is.
        gateway: NodeId,
    },
    /// What the peer must do from now on.
    Assigned {
        /// In which channel.
        channel: ChannelId,
        /// Who.
        peer: PeerId,
        /// To which of its sessions.
        attachment: u64,
        /// Everything that it must do.
        assignment: Assignment,
        /// Where its neighbours sit, those at this gateway left out.
        seats: Vec<Whereabouts>,
    },
    /// Peers that neighbours of this gateway's peers are sit elsewhere than before.
    Seats {
        /// In which channel.
        channel: ChannelId,
        /// Where they sit now.
        seats: Vec<Whereabouts>,
    },
    /// The channel has ended, and every session in it.
    Ended {
        /// Which.
        channel: ChannelId,
    },
}

/// Where a peer has its session: a hint, and never more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whereabouts {
    /// Who.
    pub peer: PeerId,
    /// At which gateway.
    pub gateway: NodeId,
}

/// Why an owner takes no session in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The id is somebody's, and the caller has not shown that it is its own.
    Taken,
    /// The owner has no such channel, or not yet.
    NoChannel,
}
