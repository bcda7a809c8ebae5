//! What a run of the demo measured.

use std::time::Duration;

use serde::Serialize;

use super::picture::Picture;
use crate::terminal::tree_table::bytes;
use crate::topology::count;

/// The report that `--report` writes.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Report {
    peers: usize,
    /// Nodes of the orchestrator that were started.
    nodes: usize,
    /// How often the channel was seen with another owner than before.
    failovers: u32,
    /// From ten seconds after the tree had formed: the longest time for which any peer's newest whole segment stayed
    /// the newest, less a segment's duration. What a viewer without a buffer would have noticed.
    longest_gap_ms: u128,
    roots: usize,
    max_depth: u32,
    /// Whether every peer ever had its place, and after how long.
    formed: bool,
    formed_ms: Option<u128>,
    /// Since the tree had formed: 1 - (bytes that the audience took from the CDN / bytes that it took).
    offload: Option<f64>,
    /// The same since the start.
    offload_total: Option<f64>,
    stalls: u64,
    stall_ms: u64,
    /// Media bytes that peers took from the CDN, as the CDN counted them.
    cdn_bytes: u64,
    /// Media bytes that peers took from each other, as they counted them.
    p2p_bytes: u64,
    /// Media bytes that the signer took.
    signer_bytes: u64,
    playlist_bytes: u64,
    corrupt_chunks: u64,
    /// From a segment's program date-time to its last verified chunk, over the peers, at the end.
    latency_ms: Percentiles,
    /// From a peer's start to its open session.
    session_ms: Percentiles,
    /// From a peer's start to the first verified byte from another peer.
    first_tree_byte_ms: Percentiles,
    /// From a peer's start to a playlist that can be played.
    join_ms: Percentiles,
    duration_s: f64,
    stream: String,
}

/// Of a handful of values, by nearest rank; null without any.
#[derive(Debug, Serialize, PartialEq, Eq, Default)]
pub(crate) struct Percentiles {
    p50: Option<u64>,
    p95: Option<u64>,
}

impl Report {
    /// Makes the report of a run from its last picture.
    pub(crate) fn of(picture: &Picture) -> Self {
        let taken = picture.taken();
        let all = || picture.stats.values();
        Self {
            peers: picture.peers,
            nodes: picture.leadership.processes.len(),
            failovers: picture.leadership.failovers,
            longest_gap_ms: picture.longest_gap.as_millis(),
            roots: picture.topology.root_count(),
            max_depth: picture.max_depth,
            formed: picture.formed_after.is_some(),
            formed_ms: picture.formed_after.map(|after| after.as_millis()),
            offload: picture.taken_steady().offload(),
            offload_total: taken.offload(),
            stalls: all().map(|stats| stats.playout.stalls).sum(),
            stall_ms: all().map(|stats| stats.playout.stall_ms).sum(),
            cdn_bytes: taken.from_cdn,
            p2p_bytes: taken.from_peers,
            signer_bytes: picture.traffic.signer,
            playlist_bytes: picture.traffic.playlists,
            corrupt_chunks: all().map(|stats| stats.counters.corrupt_chunks).sum(),
            latency_ms: Percentiles::of(
                all()
                    .map(|stats| stats.playout.latency_ms)
                    .filter(|latency| *latency > 0),
            ),
            session_ms: Percentiles::of(all().filter_map(|stats| stats.first_ms.session_open)),
            first_tree_byte_ms: Percentiles::of(all().filter_map(|stats| stats.first_ms.tree_byte)),
            join_ms: Percentiles::of(all().filter_map(|stats| stats.first_ms.playable_playlist)),
            duration_s: seconds(picture.elapsed),
            stream: picture.stream.clone(),
        }
    }

    /// The run in three lines, for people.
    pub(crate) fn summary(&self) -> String {
        let offload = self.offload.map_or_else(
            || "no tree formed".to_owned(),
            |share| format!("offload {:.1} %", share * 100.0),
        );
        format!(
            "{}, {}, depth {}, {offload}, {} stalls in {:.0} s\n\
             {}, {}, longest gap {} ms\n\
             from the CDN {}, from peers {}, to the signer {}",
            count(self.peers, "peer"),
            count(self.roots, "root"),
            self.max_depth,
            self.stalls,
            self.duration_s,
            count(self.nodes, "node"),
            count(
                usize::try_from(self.failovers).unwrap_or(usize::MAX),
                "failover"
            ),
            self.longest_gap_ms,
            bytes(self.cdn_bytes),
            bytes(self.p2p_bytes),
            bytes(self.signer_bytes),
        )
    }
}

impl Percentiles {
    fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let rank = |percent: usize| {
            let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(index).copied()
        };
        Self {
            p50: rank(50),
            p95: rank(95),
        }
    }
}

fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::leadership::tests::leadership;
    use crate::demo::picture::tests::picture;

    #[test]
    fn a_report_has_what_scripts_read() {
        let mut picture = picture();
        picture.leadership = leadership().1;
        picture.longest_gap = Duration::from_millis(250);
        let value = serde_json::to_value(Report::of(&picture)).unwrap();
        let table = [
            ("peers", serde_json::json!(2)),
            ("roots", serde_json::json!(1)),
            ("max_depth", serde_json::json!(2)),
            ("formed", serde_json::json!(true)),
            ("offload", serde_json::json!(0.5)),
            ("stalls", serde_json::json!(0)),
            ("cdn_bytes", serde_json::json!(3_000)),
            ("p2p_bytes", serde_json::json!(1_500)),
            ("latency_ms", serde_json::json!({"p50": 50, "p95": 90})),
            ("join_ms", serde_json::json!({"p50": 200, "p95": 200})),
            ("duration_s", serde_json::json!(3.0)),
            ("nodes", serde_json::json!(3)),
            ("failovers", serde_json::json!(1)),
            ("longest_gap_ms", serde_json::json!(250)),
        ];
        for (key, expected) in table {
            assert_eq!(value[key], expected, "{key}");
        }
        let summary = Report::of(&picture).summary();
        for words in ["offload 50.0 %", "3 nodes, 1 failover, longest gap 250 ms"] {
            assert!(summary.contains(words), "{summary}");
        }
    }

    #[test]
    fn a_run_without_a_tree_reports_that() {
        let report = Report::of(&Picture::new(2, ""));
        assert!(!report.formed);
        assert_eq!(report.offload, None);
        assert_eq!(report.latency_ms, Percentiles::default());
        assert!(report.summary().contains("no tree formed"));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let table = [
            (vec![], None, None),
            (vec![7], Some(7), Some(7)),
            (vec![3, 1, 2], Some(2), Some(3)),
            ((1..=20).collect(), Some(10), Some(19)),
        ];
        for (values, p50, p95) in table {
            assert_eq!(
                Percentiles::of(values.into_iter()),
                Percentiles { p50, p95 }
            );
        }
    }
}
