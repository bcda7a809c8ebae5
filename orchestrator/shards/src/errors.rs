//! What may go wrong with a group, one enum for each operation.

use crate::NodeId;

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error("the group's settings are not in order")]
    Settings(#[source] Box<openraft::ConfigError>),
    /// Log, vote or snapshot could not be read.
    #[error("the group's storage failed: {0}")]
    Storage(String),
}

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It is larger than any command may be. It was not appended.
    #[error("the command has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The most there may be.
        limit: usize,
    },
    /// This node does not lead the group in the named term. It was not appended.
    #[error("this node does not lead the group in that term")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The leadership ended, or the group stopped, while it was on its way: it may be committed, now or
    /// later, or never.
    #[error("it is unknown whether the command was committed")]
    Unknown {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
}

/// Why a current read was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// No majority confirmed the leadership in time.
    #[error("no majority of the group answers")]
    NoQuorum,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// Why a membership stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another node leads, or none.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// An earlier change is not through yet.
    #[error("an earlier change of the membership is not committed yet")]
    InProgress,
    /// The change makes no sense (no voter left, an unknown learner).
    #[error("the membership cannot be changed like that: {0}")]
    Refused(String),
    /// The leadership ended on the way: it may have taken place.
    #[error("it is unknown whether the membership changed")]
    Unknown,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// The group has stopped on this node: it was shut down, or its storage or state failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the group has stopped on this node: {reason}")]
pub struct Stopped {
    /// What openraft says about it.
    pub reason: String,
}
