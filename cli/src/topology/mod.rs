//! A channel's trees as the orchestrator shows them, and the ways to look at them.
//!
//! What comes from the wire is taken as it is, legal or not: a view must be able to show a broken
//! tree. So nothing here assumes that sources form a tree, that depths are right or that a peer's
//! children know their parent.

mod dot;
mod forest;
mod json;
mod model;
mod text;

pub(crate) use dot::dot;
pub(crate) use forest::Forest;
pub(crate) use json::json;
pub(crate) use model::{Health, PeerNode, Source, Topology, state_name};
pub(crate) use text::{count, text};

#[cfg(test)]
pub(crate) mod fixtures;
