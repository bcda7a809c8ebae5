//! Links between two peers: one reliable ordered channel for frames, one lossy one for pings.
//!
//! A [`Transport`] makes links, a [`Link`] carries frames. Both are handles: calls return at once, and
//! everything that happens afterwards arrives as a [`TransportEvent`] on the bounded channel that the
//! caller gave when it made the link. Most callers give every link a clone of one sender.
//!
//! How a link is made. The child calls [`Transport::offer`]; the link emits [`Signal::Offer`], then
//! candidates, which the caller carries to the other peer by whatever way it has. There, the caller
//! passes the offer to [`Transport::accept`] and every later signal to [`Link::signal`], and carries
//! the answer and its candidates back. Signals may arrive early, late or twice. When both channels
//! are open, each side emits [`TransportEvent::Open`].
//!
//! Invariants:
//! - `Closed` is the last event of a link, and it is emitted exactly once, whoever closed it.
//! - Frames arrive whole, in order, without gaps. `Open` comes before the first frame or ping.
//! - A link holds at most its send limit in bytes that the other side has not acknowledged; beyond it
//!   [`Link::try_send`] refuses. A receiver that does not drain its events slows its senders.
//! - Nothing that the other peer sends (SDP, candidates, messages) can panic or grow without bound.
//!
//! It does not decide whom to link to, judge whether a silent link is dead (heartbeats are the
//! engine's), or know what a frame means.

mod config;
mod error;
pub mod memory;
pub mod webrtc;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub use config::{TransportConfig, TransportConfigError};
pub use error::{CloseReason, LinkError, SendError, SignalError};
pub use memory::{MemoryNetwork, MemoryTransport, PathConditions};
pub use webrtc::WebRtcTransport;

/// The largest message that a link carries: a whole chunk (61,440 bytes), its frame header, and room.
/// 64 KiB is what every WebRTC implementation takes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The largest message of the lossy channel.
pub const MAX_PING_BYTES: usize = 1024;

/// The largest SDP that a link reads from another peer.
pub const MAX_SDP_BYTES: usize = 16 * 1024;

/// The largest candidate (JSON) that a link reads from another peer.
pub const MAX_CANDIDATE_BYTES: usize = 1024;

/// How many candidates a link takes from another peer; later ones are refused.
pub const MAX_CANDIDATES: usize = 32;

/// How many STUN servers the control plane may name.
pub const MAX_STUN_SERVERS: usize = 4;

/// Names a link within this process. The caller chooses it and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What two transports tell each other through the control plane while a link is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The offering side's session description.
    Offer(String),
    /// The accepting side's session description.
    Answer(String),
    /// A JSON-encoded `RTCIceCandidateInit`; an empty string says that no more will come.
    Candidate(String),
}

/// What a link tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// Carry this to the other peer.
    Signal {
        /// The link that speaks.
        link: LinkId,
        /// What to carry.
        signal: Signal,
    },
    /// Both channels are open: frames and pings may be sent.
    Open {
        /// The link that opened.
        link: LinkId,
    },
    /// A message of the reliable ordered channel, whole.
    Frame {
        /// The link that it came over.
        link: LinkId,
        /// The message.
        bytes: Bytes,
    },
    /// A message of the lossy unordered channel.
    Ping {
        /// The link that it came over.
        link: LinkId,
        /// The message.
        bytes: Bytes,
    },
    /// The other side acknowledged some of what was sent. Several acknowledgements may share one
    /// event, so [`Link::buffered`] may be lower already; it is never left unreported.
    Writable {
        /// The link that has room again.
        link: LinkId,
        /// Bytes sent and not yet acknowledged at the time of the event.
        buffered: usize,
    },
    /// The link is gone; nothing follows.
    Closed {
        /// The link that closed.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
}

impl TransportEvent {
    /// Returns the link that the event is about.
    #[must_use]
    pub fn link(&self) -> LinkId {
        match self {
            Self::Signal { link, .. }
            | Self::Open { link }
            | Self::Frame { link, .. }
            | Self::Ping { link, .. }
            | Self::Writable { link, .. }
            | Self::Closed { link, .. } => *link,
        }
    }
}

/// Where a link puts its events. Bounded: a full channel holds the link's receiving side back.
pub type EventSender = mpsc::Sender<TransportEvent>;

/// Makes links.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Starts a link as the offering side and returns at once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The transport was shut down, or no local address is usable.
    fn offer(&self, link: LinkId, events: EventSender) -> Result<Arc<dyn Link>, LinkError>;

    /// Starts a link as the accepting side of `offer_sdp` and returns at once; a description that
    /// turns out to be unusable closes the link with [`CloseReason::BadSignal`].
    ///
    /// # Errors
    /// The offer is too large, the transport was shut down, or no local address is usable.
    fn accept(
        &self,
        link: LinkId,
        offer_sdp: String,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError>;

    /// Uses these STUN servers (`stun:host:port`) too for the links made from now on, in the place of
    /// those named before in this way. What has another form is ignored, and so is what is too much.
    fn use_stun(&self, uris: &[String]);

    /// Closes every link and returns when their tasks have ended and their sockets are closed. No
    /// link can be made afterwards. Keep draining events meanwhile, or drop the receiver.
    async fn shutdown(&self);
}

/// One link. Dropping the last handle closes it.
pub trait Link: Send + Sync + fmt::Debug + 'static {
    /// Returns the name that the caller gave it.
    fn id(&self) -> LinkId;

    /// Takes a signal from the other peer. Candidates may come before the description that they
    /// belong to; after the link has closed they are ignored.
    ///
    /// # Errors
    /// The signal is too large, one too many, or of the wrong kind for this side.
    fn signal(&self, signal: Signal) -> Result<(), SignalError>;

    /// Queues `header` followed by `payload` as one message of the reliable ordered channel. Copies
    /// once, never waits. An empty message is not sent: the transport has its own use for it.
    ///
    /// # Errors
    /// The link is not open, the message is larger than [`MAX_MESSAGE_BYTES`], or the send limit is
    /// reached: then wait for [`TransportEvent::Writable`].
    fn try_send(&self, header: &[u8], payload: &[u8]) -> Result<(), SendError>;

    /// Sends one message on the lossy unordered channel, or drops it if that channel has no room.
    ///
    /// # Errors
    /// The link is not open, or the message is larger than [`MAX_PING_BYTES`].
    fn try_ping(&self, message: &[u8]) -> Result<(), SendError>;

    /// Returns how many bytes were sent and are not yet acknowledged.
    fn buffered(&self) -> usize;

    /// Closes the link and returns at once; `Closed` follows. What was sent before gets a moment to
    /// leave, and is lost after it.
    fn close(&self);
}
