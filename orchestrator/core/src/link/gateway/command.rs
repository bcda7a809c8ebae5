//! What a gateway's link has its shell do, and what it refuses.

use crate::commands::Assignment;
use crate::ids::{ChannelId, PeerId};
use crate::link::message::{Refusal, Whereabouts};

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayCommand {
    /// The owner took the session in: welcome the peer, if that has not been done.
    Admit {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Which.
        attachment: u64,
    },
    /// End the session.
    Refuse {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Which.
        attachment: u64,
        /// Why.
        refusal: Refusal,
    },
    /// End the session: the peer has a newer one elsewhere.
    Supersede {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Which is to end.
        attachment: u64,
    },
    /// Send the assignment to the session.
    Assign {
        /// In which channel.
        channel: ChannelId,
        /// Whose.
        peer: PeerId,
        /// Which.
        attachment: u64,
        /// What.
        assignment: Assignment,
    },
    /// Remember where these peers sit.
    Locate {
        /// In which channel.
        channel: ChannelId,
        /// Where they sit.
        seats: Vec<Whereabouts>,
    },
    /// End every session of the channel.
    End {
        /// Which.
        channel: ChannelId,
    },
}

/// The owner takes nothing in and too much waits for it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits for the channel's owner")]
pub struct LinkFull;

/// Why a gateway takes no session in, without asking the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Too much waits.
    #[error(transparent)]
    Full(#[from] LinkFull),
    /// The peer has a session here, and the caller has not shown that it is that peer.
    #[error("the peer has a session already")]
    Taken,
    /// The peer has a newer session here.
    #[error("the peer has a newer session")]
    Superseded,
}
