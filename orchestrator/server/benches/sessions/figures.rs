//! What one server took.

use core::fmt;

pub(crate) struct Figures {
    pub(crate) sessions: usize,
    /// Resident memory that the sessions added, divided by their number.
    pub(crate) kib_per_session: f64,
    /// Of one core, while nobody said anything.
    pub(crate) idle_cpu_percent: f64,
    /// From the server's being asked to end until the last peer had the notice.
    pub(crate) notice_ms: f64,
    /// From the first peer that had it until the last.
    pub(crate) spread_ms: f64,
    pub(crate) noticed: usize,
}

impl Figures {
    pub(crate) const HEADINGS: &str =
        "             KiB/session   idle CPU %   notice to all ms   first to last ms   noticed";

    /// What this one took more than another.
    pub(crate) fn less(&self, other: &Self) -> Self {
        Self {
            sessions: self.sessions,
            kib_per_session: self.kib_per_session - other.kib_per_session,
            idle_cpu_percent: self.idle_cpu_percent - other.idle_cpu_percent,
            notice_ms: self.notice_ms - other.notice_ms,
            spread_ms: self.spread_ms - other.spread_ms,
            noticed: self.noticed,
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "sessions": self.sessions,
            "kib_per_session": self.kib_per_session,
            "idle_cpu_percent": self.idle_cpu_percent,
            "notice_ms": self.notice_ms,
            "spread_ms": self.spread_ms,
            "noticed": self.noticed,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>14.1}{:>13.1}{:>19.0}{:>19.0}{:>10}",
            self.kib_per_session,
            self.idle_cpu_percent,
            self.notice_ms,
            self.spread_ms,
            self.noticed
        )
    }
}
