//! What comes out of a relay engine.
//!
//! The shell executes commands in order and decides nothing.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use espalier_media::{ByteRange, ChunkIndex, Descriptor, ObjectKey, Statement};

use crate::frame::{OutgoingFrame, PING_LENGTH};
use crate::ids::{FetchId, Generation, PeerId, Source, TrackName};

/// Something to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Open a link, and tell [`LinkUp`](crate::Event::LinkUp) or
    /// [`LinkFailed`](crate::Event::LinkFailed). Signals from peers for whom no such command stands
    /// are refused. The engine asks again when a wanted link failed or went down.
    Connect {
        /// To whom.
        peer: PeerId,
        /// Who begins.
        side: LinkSide,
    },
    /// Close a link, or give up opening it. Frames sent before still go out if they can at once.
    Disconnect {
        /// To whom.
        peer: PeerId,
    },
    /// Send on the reliable channel: `frame.header()` and then `frame.payload()` as one message. The
    /// engine sends no more than the transport takes
    /// ([`EngineConfig::link_limit_bytes`](crate::EngineConfig::link_limit_bytes)); a frame that is
    /// refused all the same cannot be made up for: close the link and tell it as lost.
    SendFrame {
        /// To whom.
        peer: PeerId,
        /// What.
        frame: OutgoingFrame,
    },
    /// Send on the unordered channel.
    SendPing {
        /// To whom.
        peer: PeerId,
        /// What.
        bytes: [u8; PING_LENGTH],
    },
    /// Get bytes from the CDN.
    Fetch(FetchRequest),
    /// Stop a request; nothing more is told about it.
    CancelFetch {
        /// Which.
        id: FetchId,
    },
    /// Get a media playlist from the origin once, and tell
    /// [`PlaylistFetched`](crate::Event::PlaylistFetched).
    FetchPlaylist {
        /// Of which track.
        track: TrackName,
        /// Where.
        uri: String,
    },
    /// Keep the signer's feed open until [`Command::CloseFeed`].
    OpenFeed,
    /// Close the signer's feed.
    CloseFeed,
    /// Something for the local player.
    Publish(Publication),
    /// Tell the orchestrator that this assignment is in force.
    Acknowledge {
        /// Which.
        generation: Generation,
    },
    /// Tell the orchestrator about a link.
    ReportLink {
        /// The other end.
        peer: PeerId,
        /// What happened.
        state: LinkState,
        /// For people.
        detail: String,
    },
    /// Tell the orchestrator about the source of a track's stripe.
    ReportSource(SourceReport),
    /// Tell the orchestrator which tracks the player reads.
    ReportTracksWanted {
        /// Their names.
        tracks: Vec<TrackName>,
    },
}

/// Who makes the offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSide {
    /// This peer.
    Offer,
    /// The other one: wait for it, however long that takes, and tell no failure for waiting.
    Await,
}

/// A request to the CDN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Names it.
    pub id: FetchId,
    /// For which object.
    pub object: ObjectKey,
    /// The resource.
    pub uri: String,
    /// The bytes of the resource; absent: all.
    pub range: Option<ByteRange>,
}

/// Something for the local player's store. Objects are published to it in no particular order, the
/// chunks of one object neither; each chunk at most once.
#[derive(Debug, Clone)]
pub enum Publication {
    /// A master or track header is new or changed; verified.
    Header(Arc<Statement>),
    /// A verified descriptor ([`Statement::Object`]): the object is listed from now on, in the order of
    /// its key. If it was published unverified before, this replaces its description only.
    Listed(Arc<Statement>),
    /// A verified chunk of a listed object.
    Chunk {
        /// Of which object.
        object: ObjectKey,
        /// Which chunk.
        index: ChunkIndex,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Every chunk of an object was published.
    Complete {
        /// Which.
        object: ObjectKey,
        /// When, on the engine's clock.
        at: Duration,
        /// Where its bytes came from.
        from: Provenance,
    },
    /// A whole object that no statement vouches for (bypass), or whose bytes at the CDN differ from
    /// what was signed. To be played, never to be mixed with verified chunks of the same object.
    Unverified {
        /// Which.
        object: ObjectKey,
        /// How the playlist described it, in a descriptor's form, without hashes: the object is listed
        /// from now on. Absent if the object was listed by its signed descriptor.
        descriptor: Option<Arc<Descriptor>>,
        /// Its bytes, in order.
        body: Vec<Bytes>,
    },
    /// The engine no longer holds this object.
    Evicted {
        /// Which.
        object: ObjectKey,
    },
}

/// Where the bytes of an object came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Provenance {
    /// From the assigned parent.
    pub parent_bytes: u64,
    /// From the standby.
    pub standby_bytes: u64,
    /// From the CDN.
    pub cdn_bytes: u64,
}

impl Provenance {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parent_bytes + self.standby_bytes + self.cdn_bytes
    }
}

/// What happened to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It opened.
    Up,
    /// It never opened.
    Failed,
    /// Nothing was heard for too long, or the transport lost it.
    Dead,
    /// The other end sent bytes that fail their hash, or a statement that fails its signature.
    Corrupt,
    /// It lives but cannot carry its share.
    Late,
    /// The other end broke the protocol.
    Invalid,
    /// The other end said Bye, or closed the link in order.
    Closed,
}

/// A stripe's source as the peer has it; reported when it changes, and once after each session opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Which track.
    pub track: TrackName,
    /// Which stripe of it.
    pub stripe: u8,
    /// From where it comes now; absent: from nowhere yet.
    pub source: Option<Source>,
    /// How.
    pub state: SourceState,
    /// Of the assignment that the peer holds.
    pub generation: Generation,
}

/// How a track's source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// Data comes from it.
    Flowing,
    /// It fails, and another is being found.
    Repairing,
    /// No statements arrive from anywhere: CDN bytes are played unverified, and none relayed.
    Bypass,
}
