//! The demo at one moment.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use espalier_proto::v1::NodeState;

use super::leadership::Leadership;
use super::peer_stats::PeerStats;
use super::rhythm::Rhythm;
use super::stream::SEGMENT;
use crate::origin::TrafficTotals;
use crate::topology::Topology;

/// How many seconds of rates are kept.
const HISTORY: usize = 120;

/// How long a tree that has formed is put in better shape.
const SETTLING: Duration = Duration::from_secs(10);

/// Media bytes that the audience has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from_cdn: u64,
    pub(crate) from_peers: u64,
}

impl Taken {
    /// The part that did not come from the CDN, 0 to 1; nothing while nothing was taken.
    pub(crate) fn offload(self) -> Option<f64> {
        let all = self.from_cdn.saturating_add(self.from_peers);
        (all > 0).then(|| ratio(self.from_peers, all))
    }

    fn since(self, before: Self) -> Self {
        Self {
            from_cdn: self.from_cdn.saturating_sub(before.from_cdn),
            from_peers: self.from_peers.saturating_sub(before.from_peers),
        }
    }
}

/// Everything that is shown and reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    /// How many peers were started.
    pub(crate) peers: usize,
    pub(crate) stream: String,
    /// Since the peers were attached.
    pub(crate) elapsed: Duration,
    pub(crate) topology: Topology,
    pub(crate) stats: BTreeMap<String, PeerStats>,
    pub(crate) traffic: TrafficTotals,
    /// When every peer first had its place, since `elapsed` began.
    pub(crate) formed_after: Option<Duration>,
    /// What had been taken by then: what follows is the steady state.
    taken_when_formed: Taken,
    /// The deepest the tree ever was.
    pub(crate) max_depth: u32,
    /// What was taken in each of the last seconds, oldest first.
    pub(crate) rates: VecDeque<Taken>,
    /// Where a player finds the stream.
    pub(crate) url: Option<String>,
    /// Where a browser finds the dashboard, with a login in what browsers send to nobody.
    pub(crate) dashboard: Option<String>,
    /// Where a browser joins the tree, with a login likewise.
    pub(crate) player: Option<String>,
    pub(crate) problem: Option<String>,
    pub(crate) leadership: Leadership,
    rhythm: Rhythm,
    /// The longest gap in any viewer's playable edge since the tree had settled.
    pub(crate) longest_gap: Duration,
}

impl Picture {
    /// Makes the picture of a demo that has just begun.
    pub(crate) fn new(peers: usize, stream: impl Into<String>) -> Self {
        Self {
            peers,
            stream: stream.into(),
            ..Self::default()
        }
    }

    /// Takes what was seen just now.
    pub(crate) fn update(
        &mut self,
        elapsed: Duration,
        traffic: TrafficTotals,
        stats: impl IntoIterator<Item = (String, PeerStats)>,
    ) {
        let before = self.taken();
        self.elapsed = elapsed;
        self.traffic = traffic;
        // A peer that does not answer keeps what it said last.
        self.stats.extend(stats);
        for node in &mut self.topology.nodes {
            if let Some(stats) = self.stats.get(&node.peer) {
                node.health = Some(stats.health());
            }
        }
        let now = self.taken();
        if self.rates.len() == HISTORY {
            self.rates.pop_front();
        }
        self.rates.push_back(now.since(before));
        self.max_depth = self.max_depth.max(self.topology.max_depth());
        if self.formed_after.is_none() && self.is_formed() {
            self.formed_after = Some(elapsed);
            self.taken_when_formed = now;
        }
    }

    /// Looks how far every peer's playable edge is; only a tree that nobody is moved in has a rhythm.
    pub(crate) fn keep_time(&mut self, now_unix_ms: i64) {
        let settled = self.formed_after.map(|formed| formed + SETTLING);
        if settled.is_none_or(|settled| self.elapsed < settled) {
            return;
        }
        for (peer, stats) in &self.stats {
            let completed = stats.segments_completed_ms();
            self.rhythm.update(peer, &completed, SEGMENT);
        }
        self.longest_gap = self
            .rhythm
            .longest(now_unix_ms, SEGMENT)
            .max(self.longest_gap);
    }

    /// What was taken so far, as the origin and the peers counted it.
    pub(crate) fn taken(&self) -> Taken {
        Taken {
            from_cdn: self.traffic.peers,
            from_peers: self
                .stats
                .values()
                .map(|stats| stats.counters.bytes_from_peers)
                .sum(),
        }
    }

    /// What was taken since the tree had formed.
    pub(crate) fn taken_steady(&self) -> Taken {
        match self.formed_after {
            Some(_) => self.taken().since(self.taken_when_formed),
            None => Taken::default(),
        }
    }

    /// Whether every peer has its place, and everyone but the roots is fed by others.
    fn is_formed(&self) -> bool {
        self.peers > 0 && self.placed() == self.peers && (self.peers == 1 || self.is_deep())
    }

    fn is_deep(&self) -> bool {
        self.topology.max_depth() >= 2
    }

    /// How many peers are active in every tree that they are in.
    pub(crate) fn placed(&self) -> usize {
        let mut placed: BTreeMap<&str, bool> = BTreeMap::new();
        for node in &self.topology.nodes {
            let active = node.state == NodeState::Active && node.depth > 0;
            placed
                .entry(&node.peer)
                .and_modify(|all| *all &= active)
                .or_insert(active);
        }
        placed.values().filter(|placed| **placed).count()
    }

    /// Says what was missing for a tree.
    pub(crate) fn why_not_formed(&self) -> String {
        if let Some(problem) = &self.problem {
            return problem.clone();
        }
        if self.placed() < self.peers {
            return format!("{} of {} peers have a place", self.placed(), self.peers);
        }
        "every peer is fed by the CDN".to_owned()
    }
}

/// Bytes are far below 2^53 here, and shares are shown with one digit.
#[expect(clippy::cast_precision_loss, reason = "a share for display")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::demo::peer_stats::{CounterStats, FirstStats, ObjectStats, PlayoutStats};
    use crate::topology::fixtures::topology;

    pub(crate) fn stats(from_peers: u64, latency_ms: u64) -> PeerStats {
        PeerStats {
            counters: CounterStats {
                bytes_from_peers: from_peers,
                ..CounterStats::default()
            },
            playout: PlayoutStats {
                latency_ms,
                buffer_ms: 5_000,
                stalls: 0,
                stall_ms: 0,
            },
            first_ms: FirstStats {
                session_open: Some(20),
                tree_byte: Some(120),
                playable_playlist: Some(200),
            },
            objects: Vec::new(),
        }
    }

    pub(crate) fn traffic(peers: u64) -> TrafficTotals {
        TrafficTotals {
            peers,
            signer: 7,
            playlists: 3,
            by_peer: BTreeMap::new(),
        }
    }

    /// Two peers, the second below the first, seen three times.
    pub(crate) fn picture() -> Picture {
        let mut picture = Picture::new(2, "test");
        picture.update(
            Duration::from_secs(1),
            traffic(1_000),
            [("a".to_owned(), stats(0, 50))],
        );
        let mut formed = topology(&[("a", "cdn"), ("b", "a")]);
        formed.nodes[0].depth = 1;
        formed.nodes[1].depth = 2;
        picture.topology = formed;
        picture.update(
            Duration::from_secs(2),
            traffic(2_000),
            [("b".to_owned(), stats(500, 90))],
        );
        picture.update(
            Duration::from_secs(3),
            traffic(3_000),
            [("b".to_owned(), stats(1_500, 90))],
        );
        picture
    }

    #[test]
    fn the_steady_state_begins_when_the_tree_has_formed() {
        let picture = picture();
        assert_eq!(picture.formed_after, Some(Duration::from_secs(2)));
        assert_eq!(
            picture.taken(),
            Taken {
                from_cdn: 3_000,
                from_peers: 1_500
            }
        );
        assert_eq!(
            picture.taken_steady(),
            Taken {
                from_cdn: 1_000,
                from_peers: 1_000
            }
        );
        assert_eq!(picture.taken_steady().offload(), Some(0.5));
        assert_eq!(picture.max_depth, 2);
        let rates: Vec<Taken> = picture.rates.iter().copied().collect();
        assert_eq!(
            rates[2],
            Taken {
                from_cdn: 1_000,
                from_peers: 1_000
            }
        );
    }

    #[test]
    fn a_tree_has_not_formed_while_anyone_lacks_a_place_or_all_are_roots() {
        let mut flat = topology(&[("a", "cdn"), ("b", "cdn")]);
        flat.nodes.iter_mut().for_each(|node| node.depth = 1);
        let mut picture = Picture {
            peers: 2,
            topology: flat,
            ..Picture::default()
        };
        assert!(!picture.is_formed());
        assert_eq!(picture.why_not_formed(), "every peer is fed by the CDN");
        picture.topology.nodes[1].state = NodeState::Joining;
        assert_eq!(picture.why_not_formed(), "1 of 2 peers have a place");
        picture.peers = 0;
        assert!(!picture.is_formed());
    }

    #[test]
    fn one_peer_alone_is_a_tree() {
        let mut alone = topology(&[("a", "cdn")]);
        alone.nodes[0].depth = 1;
        assert!(
            Picture {
                peers: 1,
                topology: alone,
                ..Picture::default()
            }
            .is_formed()
        );
    }

    #[test]
    fn nothing_taken_is_no_offload() {
        assert_eq!(Taken::default().offload(), None);
    }

    #[test]
    fn gaps_count_when_the_tree_has_settled() {
        let whole_at = |completed_unix_ms| PeerStats {
            objects: vec![ObjectStats {
                kind: "segment".to_owned(),
                completed_unix_ms,
            }],
            ..PeerStats::default()
        };
        let mut young = Picture::new(2, "test");
        young.stats.insert("a".to_owned(), whole_at(1_000));
        young.keep_time(60_000);
        assert_eq!(young.longest_gap, Duration::ZERO);
        let mut picture = picture();
        picture.stats.insert("a".to_owned(), whole_at(1_000));
        picture.keep_time(60_000);
        assert_eq!(picture.longest_gap, Duration::ZERO);
        picture.elapsed = Duration::from_secs(12);
        for (at, now) in [(60_000, 60_100), (62_700, 63_000), (64_700, 64_800)] {
            picture.stats.insert("a".to_owned(), whole_at(at));
            picture.keep_time(now);
        }
        assert_eq!(picture.longest_gap, Duration::from_millis(700));
    }

    #[test]
    fn history_is_bounded() {
        let mut picture = Picture::default();
        for second in 0..500 {
            picture.update(Duration::from_secs(second), traffic(second), []);
        }
        assert_eq!(picture.rates.len(), HISTORY);
    }
}
