//! The network between nodes: what goes out, what comes in, and who is there.

pub(crate) mod incoming;
pub(crate) mod lines;
pub(crate) mod outgoing;
pub(crate) mod presence;
