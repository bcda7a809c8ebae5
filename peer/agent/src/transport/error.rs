//! What can go wrong with a link, one type an operation.

/// Why a link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// [`Transport::shutdown`](super::Transport::shutdown) was called.
    #[error("the transport was shut down")]
    ShutDown,
    /// The other peer's offer is larger than this transport reads.
    #[error("the offer has {bytes} bytes; at most {limit} are read")]
    OfferTooLarge {
        /// The offer's size.
        bytes: usize,
        /// The largest size read.
        limit: usize,
    },
    /// None of the addresses to bind is usable on this machine.
    #[error("no local address is usable for links")]
    NoAddress,
}

/// Why a signal from the other peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// It is larger than this transport reads.
    #[error("the signal has {bytes} bytes; at most {limit} are read")]
    TooLarge {
        /// The signal's size.
        bytes: usize,
        /// The largest size read.
        limit: usize,
    },
    /// The other peer sent more candidates than a link takes.
    #[error("more than {limit} candidates")]
    TooManyCandidates {
        /// The largest number taken.
        limit: usize,
    },
    /// It is not a candidate.
    #[error("not a candidate: {0}")]
    Malformed(String),
    /// An offer after the first, an answer to an accepting side, or a second answer.
    #[error("a signal that this side of the link does not expect now")]
    Unexpected,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link has not opened yet, or is closed.
    #[error("the link is not open")]
    NotOpen,
    /// The send limit is reached; `Writable` will say when there is room.
    #[error("{buffered} bytes are waiting for acknowledgement")]
    Full {
        /// Bytes sent and not yet acknowledged.
        buffered: usize,
    },
    /// The message is larger than the channel takes.
    #[error("the message has {bytes} bytes; at most {limit} are sent")]
    TooLarge {
        /// The message's size.
        bytes: usize,
        /// The largest size taken.
        limit: usize,
    },
}

/// Why a link closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed here")]
    Local,
    /// The other side closed it.
    #[error("closed by the other peer")]
    Remote,
    /// The other peer's description or candidates could not be used.
    #[error("unusable signal: {0}")]
    BadSignal(String),
    /// The other peer sent what this transport does not take.
    #[error("the other peer broke a limit: {0}")]
    Violation(String),
    /// It did not open in time, or its path broke.
    #[error("failed: {0}")]
    Failed(String),
}
