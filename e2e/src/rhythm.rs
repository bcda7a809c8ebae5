//! When objects arrive, against the rhythm of the stream.
//!
//! Latency is from a segment's appearance on nginx to its last verified byte at a peer. Lateness is
//! latency above the peer's own usual: what a fault adds.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::origin::Origin;
use crate::statistics::{float_ms, median};
use crate::stats::{ObjectRecord, Stats};

/// One segment's arrival at a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Its media sequence number.
    pub sequence: u64,
    /// When it appeared on nginx, in milliseconds since the Unix epoch.
    pub appeared_ms: i64,
    /// When its first chunk was verified.
    pub first_chunk_ms: i64,
    /// When its last chunk was verified.
    pub completed_ms: i64,
}

impl Arrival {
    /// From the appearance to the last verified chunk.
    #[must_use]
    pub fn latency_ms(&self) -> f64 {
        float_ms(self.completed_ms - self.appeared_ms)
    }

    /// From the first to the last verified chunk.
    #[must_use]
    pub fn transfer_ms(&self) -> f64 {
        float_ms(self.completed_ms - self.first_chunk_ms)
    }
}

/// The arrivals of a rendition's segments at a peer, by sequence number.
#[must_use]
pub fn arrivals(
    stats: &Stats,
    track: &str,
    origin: &Origin,
    rendition: &str,
) -> BTreeMap<u64, Arrival> {
    let segments = stats
        .objects
        .iter()
        .filter(|object| object.track == track && object.is_segment());
    let arrival = |object: &ObjectRecord| {
        let published = origin.segment(rendition, object.sequence)?;
        let arrival = Arrival {
            sequence: object.sequence,
            appeared_ms: published.appeared_ms,
            first_chunk_ms: object.first_chunk_unix_ms,
            completed_ms: object.completed_unix_ms,
        };
        Some((object.sequence, arrival))
    };
    segments.filter_map(arrival).collect()
}

/// The most that any segment which appeared in `[from_ms, to_ms)` was later than the median of those
/// that appeared in the `before_ms` milliseconds before; negative if none was later.
///
/// # Errors
/// There is nothing to compare.
pub fn worst_lateness_ms(
    arrivals: &BTreeMap<u64, Arrival>,
    from_ms: i64,
    to_ms: i64,
    before_ms: i64,
) -> Result<f64> {
    let latencies = |from, to| -> Vec<f64> {
        let within = arrivals
            .values()
            .filter(|arrival| (from..to).contains(&arrival.appeared_ms));
        within.map(Arrival::latency_ms).collect()
    };
    let usual =
        median(&latencies(from_ms - before_ms, from_ms)).context("no arrivals before the fault")?;
    let during = latencies(from_ms, to_ms);
    let worst = during
        .iter()
        .copied()
        .max_by(f64::total_cmp)
        .context("no arrivals after the fault")?;
    Ok(worst - usual)
}

/// Sequence numbers that are missing between the first and the last arrival.
#[must_use]
pub fn gaps(arrivals: &BTreeMap<u64, Arrival>) -> Vec<u64> {
    let (Some(first), Some(last)) = (arrivals.keys().next(), arrivals.keys().next_back()) else {
        return Vec::new();
    };
    (*first..=*last)
        .filter(|sequence| !arrivals.contains_key(sequence))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Arrival, gaps, worst_lateness_ms};

    #[test]
    fn lateness_is_above_the_usual() {
        let arrival = |sequence: u64, appeared_ms, latency| {
            let arrival = Arrival {
                sequence,
                appeared_ms,
                first_chunk_ms: appeared_ms,
                completed_ms: appeared_ms + latency,
            };
            (sequence, arrival)
        };
        let all = [
            arrival(1, 0, 100),
            arrival(2, 2000, 140),
            arrival(3, 4000, 100),
            arrival(5, 6000, 900),
            arrival(6, 8000, 100),
        ];
        let all = all.into_iter().collect();
        assert_eq!(worst_lateness_ms(&all, 5000, 10_000, 5000).unwrap(), 800.0);
        assert!(worst_lateness_ms(&all, 20_000, 30_000, 5000).is_err());
        assert_eq!(gaps(&all), [4]);
    }
}
