//! How long the planner's calls take: each one is measured, and the worst kept by its kind.

use hdrhistogram::Histogram;
use quanta::Clock;
use serde::Serialize;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Join,
    Leave,
    Arrival,
    Tick,
    Other,
    /// Asking which edges have changed; no event of its own.
    Changes,
    /// A mass event's call, and the ticks that work it off.
    Mass,
}

const KINDS: [Kind; 7] = [
    Kind::Join,
    Kind::Leave,
    Kind::Arrival,
    Kind::Tick,
    Kind::Other,
    Kind::Changes,
    Kind::Mass,
];

/// What calls of one kind took, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Timing {
    /// How many there were.
    pub calls: u64,
    /// The mean.
    pub mean_us: f64,
    /// Half of them took less.
    pub p50_us: f64,
    /// Of a hundred, one took longer.
    pub p99_us: f64,
    /// Of a thousand, one took longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Measures calls, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: Clock,
    histograms: Vec<Histogram<u64>>,
    sums: [u64; KINDS.len()],
    /// Work units of each call.
    works: Histogram<u64>,
}

impl Stopwatch {
    pub(crate) fn new() -> Self {
        let histogram = || {
            let an_hour = 3_600_000_000_000;
            Histogram::new_with_bounds(1, an_hour, 2).expect("invariant: these bounds are allowed")
        };
        Self {
            clock: Clock::new(),
            histograms: KINDS.iter().map(|_| histogram()).collect(),
            sums: [0; KINDS.len()],
            works: histogram(),
        }
    }

    /// Measures one call.
    pub(crate) fn measure<T>(&mut self, kind: Kind, call: impl FnOnce() -> T) -> T {
        let mut result = None;
        let _nanos = self.calls_nanos(kind, || result = Some(call()));
        result.expect("invariant: it was called")
    }

    /// Measures one call, and says how long it took.
    pub(crate) fn calls_nanos(&mut self, kind: Kind, call: impl FnOnce()) -> u64 {
        let before = self.clock.raw();
        call();
        let after = self.clock.raw();
        let nanos = self.clock.delta_as_nanos(before, after);
        self.sums[kind as usize] += nanos;
        self.histograms[kind as usize].saturating_record(nanos);
        nanos
    }

    /// Takes in how many units of work a call was.
    pub(crate) fn worked(&mut self, units: u32) {
        self.works.saturating_record(u64::from(units));
    }

    /// Of a thousand calls, one was more work.
    pub(crate) fn work_p999(&self) -> u64 {
        self.works.value_at_quantile(0.999)
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        self.histograms.iter_mut().for_each(Histogram::reset);
        self.sums = [0; KINDS.len()];
        self.works.reset();
    }

    /// How long they took together.
    pub(crate) fn nanos(&self) -> u64 {
        self.sums.iter().sum()
    }

    /// The longest of all but mass events, in microseconds.
    pub(crate) fn worst_us(&self) -> f64 {
        let single = &self.histograms[..Kind::Mass as usize];
        let longest = single.iter().map(Histogram::max).max();
        micros(longest.unwrap_or(0))
    }

    pub(crate) fn timing(&self, kind: Kind) -> Timing {
        let histogram = &self.histograms[kind as usize];
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        Timing {
            calls: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(histogram.max()),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time of years loses a microsecond"
)]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// What this thread has had of a processor, where the system says.
pub(crate) fn processor_seconds() -> Option<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ran: u64 = statistics.split_whitespace().next()?.parse().ok()?;
    Some(micros(ran) / 1e6)
}

/// Resident memory in bytes, where the system says.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
