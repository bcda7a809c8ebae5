//! What is counted while it is measured, and what there is at the moment.

/// Since the measurement began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Calls of the planner, but for those that only ask.
    pub(crate) events: u64,
    pub(crate) joins: u64,
    pub(crate) leaves: u64,
    pub(crate) arrivals: u64,
    pub(crate) retunes: u64,
    /// Links that did not come up, or led to somebody who had gone.
    pub(crate) failed_links: u64,
    /// Sources given, newcomers' included.
    pub(crate) edges: u64,
    /// Moves away from a source that was fine.
    pub(crate) planned: u64,
    /// Moves away from one that was not.
    pub(crate) repairs: u64,
    /// Viewers whose path broke, once for each time.
    pub(crate) interruptions: u64,
    /// The same, where it was seen.
    pub(crate) stalls: u64,
    pub(crate) stall_ms: u64,
    /// Parents with more children than they can carry, each second of it.
    pub(crate) overloaded_seconds: u64,
    pub(crate) most_work: u32,
    /// Edges whose source fell silent, and how long data did not flow over them.
    pub(crate) breaks: u64,
    pub(crate) break_ms: u64,
    pub(crate) longest_break_ms: u32,
    /// Places in trees at the moment, and those whose data come from another peer.
    pub(crate) places: u64,
    pub(crate) fed: u64,
}
