//! What the bench's processes say to each other, a line of JSON each, over their pipes.

use espalier_peer::transport::Signal;
use serde::{Deserialize, Serialize};

/// A signal on its way between two peers.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) signal: Signal,
}

/// A line between the conductor and a process, either way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Signal {
        from: u64,
        to: u64,
        kind: Kind,
        text: String,
    },
    /// From a process: every link that it shall have is open.
    Ready,
    /// To a process: the stream starts, measure from now.
    Begin,
    /// To a process: say what you have seen, and end.
    Finish,
    /// From a process: what it has seen.
    Report(NodeReport),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Kind {
    Offer,
    Answer,
    Candidate,
}

/// What one process has used and seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_rss_kib: i64,
    /// Verified payload that arrived here, over all children of this process.
    pub(crate) bytes: u64,
    pub(crate) gaps: u64,
    pub(crate) longest_gap_ms: f64,
    /// What must be zero: corrupt, missed, or taken from elsewhere.
    pub(crate) faults: u64,
}

impl From<Envelope> for Line {
    fn from(Envelope { from, to, signal }: Envelope) -> Self {
        let (kind, text) = match signal {
            Signal::Offer(text) => (Kind::Offer, text),
            Signal::Answer(text) => (Kind::Answer, text),
            Signal::Candidate(text) => (Kind::Candidate, text),
        };
        Self::Signal {
            from,
            to,
            kind,
            text,
        }
    }
}

impl Kind {
    pub(crate) fn signal(self, text: String) -> Signal {
        match self {
            Self::Offer => Signal::Offer(text),
            Self::Answer => Signal::Answer(text),
            Self::Candidate => Signal::Candidate(text),
        }
    }
}
