//! What others may see of a channel's engine.

use std::time::SystemTime;

use espalier_orchestrator_core::{Audience, Finding, Generation, NodeView, PeerId};

/// A channel's trees and audience at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelView {
    /// The newest committed entry's.
    pub generation: Generation,
    /// Every peer's place in every tree.
    pub nodes: Vec<NodeView>,
    /// The audience's totals.
    pub audience: Audience,
    /// Peers that others accuse.
    pub suspects: Vec<SuspectView>,
    /// The engine dropped an event that it could not survive.
    pub degraded: bool,
}

/// A peer that others accuse, with the time of day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuspectView {
    /// Who.
    pub peer: PeerId,
    /// How many different peers accuse it.
    pub accusers: u32,
    /// How often.
    pub reports: u64,
    /// When last.
    pub last_report: SystemTime,
}

/// What a check of the invariants found.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckReport {
    /// Empty: every invariant holds.
    pub findings: Vec<Finding>,
    /// How many peers' places were looked at.
    pub peers: usize,
}
