//! What goes into a relay engine.
//!
//! Events carry facts, never wishes about how to react. The shell translates and loses none: every
//! request ends with exactly one of [`FetchUpdate::End`] or [`FetchUpdate::Failed`] unless it was
//! cancelled, every link that came up goes down once.

use core::time::Duration;

use bytes::Bytes;
use espalier_media::hls::MediaPlaylist;
use espalier_media::{ByteRange, ObjectKey, TrustedKeys};

use crate::ids::{FetchId, Generation, PeerId, Source, TrackName};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A session to an orchestrator was opened or opened again. Only this may introduce a new
    /// incarnation, in which older generations do not count.
    SessionWelcomed(Welcome),
    /// The orchestrator said what to do now.
    Assignment(Assignment),
    /// A link asked for with [`Command::Connect`](crate::Command::Connect) is open, both channels.
    LinkUp {
        /// The other end.
        peer: PeerId,
    },
    /// A link asked for did not open.
    LinkFailed {
        /// The other end.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// A link that was up is gone, and was not closed by
    /// [`Command::Disconnect`](crate::Command::Disconnect).
    LinkDown {
        /// The other end.
        peer: PeerId,
        /// How it ended.
        reason: LinkDown,
    },
    /// A message arrived on the reliable channel.
    Frame {
        /// From whom.
        peer: PeerId,
        /// The whole message. Chunks are kept as slices of it, so it must not be part of a bigger
        /// buffer that would live on.
        bytes: Bytes,
    },
    /// A message arrived on the unordered channel.
    Ping {
        /// From whom.
        peer: PeerId,
        /// The whole message.
        bytes: Bytes,
    },
    /// How much of what was sent to a peer its transport still counts: to be told whenever this
    /// falls, and may be told at any other time. All
    /// [`Command::SendFrame`](crate::Command::SendFrame) polled so far must be counted.
    Buffered {
        /// To whom.
        peer: PeerId,
        /// Bytes not yet acknowledged by the other end, or, if the transport cannot know that, not
        /// yet given to the network.
        bytes: u64,
    },
    /// Something from the signer's feed.
    Feed(FeedEvent),
    /// News of a request to the CDN.
    Fetch {
        /// Which.
        id: FetchId,
        /// What.
        update: FetchUpdate,
    },
    /// The answer to [`Command::FetchPlaylist`](crate::Command::FetchPlaylist); `None`: it failed,
    /// or was not a playlist.
    PlaylistFetched {
        /// Of which track.
        track: TrackName,
        /// Parsed, with absolute URIs.
        playlist: Option<Box<MediaPlaylist>>,
    },
    /// The player reads an object that was listed and is not held: it is fetched, verified, and
    /// published. Told again while it is still missing, it does nothing.
    PlayerWants {
        /// Which.
        object: ObjectKey,
    },
    /// The player reads these tracks, and no others.
    TracksWanted {
        /// Their names.
        tracks: Vec<TrackName>,
    },
    /// The time of [`RelayEngine::poll_timeout`](crate::RelayEngine::poll_timeout) has come.
    Timeout,
}

/// What a session's opening says.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The channel's incarnation.
    pub incarnation: u64,
    /// Whose statements to accept.
    pub keys: TrustedKeys,
}

/// Everything that a peer must do now; replaces the assignment before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Orders assignments.
    pub generation: Generation,
    /// The tracks to take, by stripe, and from where.
    pub tracks: Vec<TrackAssignment>,
    /// The links to accept, and for what.
    pub children: Vec<ChildAssignment>,
    /// What may be taken from the CDN while sources fail; absent: the configured default.
    pub cdn_lease: Option<CdnLease>,
    /// The upload budget, wire bit/s.
    pub upload_bps: u64,
}

/// Where to take one stripe of a track from. Stripes that an assignment does not name come from nowhere
/// yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackAssignment {
    /// Which track.
    pub track: TrackName,
    /// Which stripe of it: the chunks whose index modulo `stripes` this is.
    pub stripe: u8,
    /// Into how many stripes the track is cut; 1 is the whole track.
    pub stripes: u8,
    /// From where; absent: from nowhere yet, so from the CDN by lease.
    pub source: Option<Source>,
    /// Connected in advance and silent until needed.
    pub standby: Option<Source>,
    /// Whether the source before is to be kept until data flows from this one.
    pub make_before_break: bool,
}

/// A child to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildAssignment {
    /// Which track it takes.
    pub track: TrackName,
    /// Which stripe of it.
    pub stripe: u8,
    /// Who.
    pub peer: PeerId,
    /// Whether the child only holds this link in reserve.
    pub standby: bool,
}

/// A budget for what is taken from the CDN beyond what is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CdnLease {
    /// Long-run rate, bit/s.
    pub rate_bps: u64,
    /// Bytes that may be taken at once.
    pub burst_bytes: u64,
    /// How long it holds from its receipt; afterwards the configured default does.
    pub lifetime: Duration,
}

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDown {
    /// The other end closed it in order.
    Closed,
    /// The transport lost it.
    Lost,
}

/// Something from a signer's feed.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// The feed is open; its windows follow.
    Opened,
    /// The origin lists an object that is not signed yet.
    Announce {
        /// Which.
        object: ObjectKey,
        /// Where the CDN has it.
        uri: String,
        /// Set if it is a part of the resource at `uri`.
        byte_range: Option<ByteRange>,
    },
    /// A statement: an encoded `espalier.wire.v1.Signed`. The engine verifies it.
    Statement(Bytes),
    /// Every current header and descriptor was sent.
    CaughtUp,
    /// The feed was lost; the shell goes on trying until
    /// [`Command::CloseFeed`](crate::Command::CloseFeed).
    Lost,
}

/// News of a request to the CDN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchUpdate {
    /// The answer's head. Told once, before any bytes.
    Started {
        /// Whether the body is the range that was asked for (206) or the whole resource (200).
        partial: bool,
        /// The body's length, if the server said it.
        length: Option<u64>,
    },
    /// The next bytes of the body.
    Body(Bytes),
    /// The body is complete.
    End,
    /// Another status, or the connection failed: why, for people.
    Failed {
        /// The HTTP status, if there was one.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
}
