//! Who leads a group, as its node sees it.

use crate::NodeId;

/// Who leads, and in which term. Values may be skipped when they follow each other quickly; a term that
/// differs from the one seen before is another leadership, even of the same node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Nobody that this node knows of.
    #[default]
    Unknown,
    /// Another node.
    Follower {
        /// Which one.
        leader: NodeId,
        /// In which term.
        term: u64,
    },
    /// This node, but the first entry of its term is not applied yet: the state may lack what earlier
    /// leaders committed, so nobody may decide on it.
    Preparing {
        /// In which term.
        term: u64,
    },
    /// This node, and its state holds all that was committed before its term.
    Leader {
        /// In which term.
        term: u64,
    },
    /// The group has stopped on this node: it was shut down, or its storage or its state failed.
    Stopped,
}

impl Leadership {
    /// The term in which this node leads and may decide.
    #[must_use]
    pub fn leading_term(self) -> Option<u64> {
        match self {
            Leadership::Leader { term } => Some(term),
            Leadership::Unknown
            | Leadership::Follower { .. }
            | Leadership::Preparing { .. }
            | Leadership::Stopped => None,
        }
    }

    /// The leader, if it is another node.
    #[must_use]
    pub fn other(self) -> Option<NodeId> {
        match self {
            Leadership::Follower { leader, .. } => Some(leader),
            Leadership::Unknown
            | Leadership::Leader { .. }
            | Leadership::Preparing { .. }
            | Leadership::Stopped => None,
        }
    }
}
