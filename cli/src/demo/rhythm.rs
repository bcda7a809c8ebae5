//! The longest time for which any viewer's playable edge stood still.

use std::collections::BTreeMap;
use std::time::Duration;

/// Watches each peer's playable edge: the newest media that it has whole.
///
/// A segment is due one segment's duration after the one before. By how much longer than that an edge stood
/// still is a gap: what a viewer whose buffer is empty would have noticed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rhythm {
    /// When each peer's edge last moved, in milliseconds since the Unix epoch.
    edges: BTreeMap<String, i64>,
    longest_ms: i64,
}

impl Rhythm {
    /// Takes when a peer's segments were whole, in any order; those that were looked at before change nothing.
    pub(crate) fn update(&mut self, peer: &str, completed_ms: &[i64], segment: Duration) {
        let mut completed = completed_ms.to_vec();
        completed.sort_unstable();
        let Some(newest) = completed.last().copied() else {
            return;
        };
        // What came before the first look belongs to the start, not to the stream.
        let edge = self.edges.entry(peer.to_owned()).or_insert(newest);
        for at in completed {
            if at > *edge {
                self.longest_ms = self.longest_ms.max(at - *edge - millis(segment));
                *edge = at;
            }
        }
    }

    /// The longest gap until now, of edges that moved again and of those that still stand.
    pub(crate) fn longest(&self, now_ms: i64, segment: Duration) -> Duration {
        let standing = self
            .edges
            .values()
            .map(|edge| now_ms - edge - millis(segment));
        let longest = standing.fold(self.longest_ms, i64::max);
        Duration::from_millis(u64::try_from(longest).unwrap_or(0))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Duration = Duration::from_secs(2);

    #[test]
    fn a_gap_is_what_an_edge_stood_still_beyond_a_segment() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.longest(9_000, SEGMENT), Duration::ZERO);
        rhythm.update("a", &[10_000], SEGMENT);
        rhythm.update("a", &[14_100, 12_000, 10_000], SEGMENT);
        rhythm.update("b", &[14_000], SEGMENT);
        assert_eq!(rhythm.longest(14_200, SEGMENT), Duration::from_millis(100));
        // An edge that never moves again counts too.
        assert_eq!(
            rhythm.longest(17_000, SEGMENT),
            Duration::from_millis(1_000)
        );
        rhythm.update("a", &[19_000], SEGMENT);
        rhythm.update("b", &[15_900, 17_000, 19_000], SEGMENT);
        assert_eq!(
            rhythm.longest(19_000, SEGMENT),
            Duration::from_millis(2_900)
        );
    }
}
