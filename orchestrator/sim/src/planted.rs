//! Bugs that can be planted, to prove that the simulator finds such bugs.

use clap::ValueEnum;

/// A known way to get a replicated system wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Bug {
    /// A log entry counts as durable as soon as it is handed to the disk.
    AckBeforeSync,
    /// A restarted leader resumes its term (openraft's default).
    LeaderRestore,
    /// Current reads rely on the leader's lease, which the reset path voids.
    LeaseReads,
    /// A vote is answered before it is on the disk.
    UnsyncedVote,
    /// A channel's actor goes on when its term has ended, and proposes under a later one.
    OutlivingActor,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 5] = [
        Bug::AckBeforeSync,
        Bug::LeaderRestore,
        Bug::LeaseReads,
        Bug::UnsyncedVote,
        Bug::OutlivingActor,
    ];
}
