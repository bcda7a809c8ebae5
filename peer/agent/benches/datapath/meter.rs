//! What is measured: gaps between arrivals, CPU time, memory.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// A silence counts from this much beyond the stream's own rhythm.
const GAP: Duration = Duration::from_millis(100);

/// Counts silences between arrivals.
#[derive(Debug, Clone)]
pub(crate) struct Gaps {
    rhythm: Duration,
    last: Option<Instant>,
    pub(crate) bytes: u64,
    pub(crate) count: u64,
    pub(crate) longest: Duration,
}

impl Gaps {
    pub(crate) fn new(rhythm: Duration) -> Self {
        Self {
            rhythm,
            last: None,
            bytes: 0,
            count: 0,
            longest: Duration::ZERO,
        }
    }

    pub(crate) fn arrived(&mut self, bytes: usize) {
        let now = Instant::now();
        self.bytes += bytes as u64;
        if let Some(last) = self.last.replace(now) {
            let silence = (now - last).saturating_sub(self.rhythm);
            self.longest = self.longest.max(silence);
            self.count += u64::from(silence > GAP);
        }
    }
}

/// This process's CPU time, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage of this process");
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The most memory that this process has had, in KiB. (`ru_maxrss` would start at what the process that
/// started this one had.)
pub(crate) fn peak_rss_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process's status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("its peak");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
