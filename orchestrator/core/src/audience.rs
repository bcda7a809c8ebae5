//! The audience's totals, from its peers' reports.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::events::PeerReport;
use crate::ids::PeerId;

/// Seconds over which the offload is counted.
const WINDOW: u64 = 10;

/// What a channel's audience does, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audience {
    /// Peers in the channel.
    pub peers: u32,
    /// Peers that the CDN feeds in at least one track.
    pub roots: u32,
    /// The deepest tree's.
    pub max_depth: u32,
    /// Media bytes from the CDN since the owner started.
    pub bytes_from_cdn: u64,
    /// Media bytes from peers since the owner started.
    pub bytes_from_peers: u64,
    /// 1000 × (1 − CDN bytes ÷ all bytes) over the last ten seconds; 0 without any bytes.
    pub offload_permille: u32,
    /// Stalls since the owner started.
    pub stalls: u64,
}

/// Counts what peers report. A peer's counters rise from its start; lower ones mean a new start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    reports: BTreeMap<PeerId, PeerReport>,
    /// Peers that another owner has counted until now: their first report is where counting starts.
    returned: BTreeSet<PeerId>,
    from_cdn: u64,
    from_peers: u64,
    stalls: u64,
    /// By second, the oldest first: second, CDN bytes, peers' bytes.
    seconds: VecDeque<(u64, u64, u64)>,
}

impl Counters {
    pub(crate) fn take(&mut self, peer: PeerId, report: PeerReport, now: Duration) {
        let last = self.reports.insert(peer, report);
        let first = if self.returned.remove(&peer) {
            report
        } else {
            PeerReport::default()
        };
        let last = last.unwrap_or(first);
        let cdn = grown(last.bytes_from_cdn, report.bytes_from_cdn);
        let peers = grown(last.bytes_from_peers, report.bytes_from_peers);
        self.from_cdn = self.from_cdn.saturating_add(cdn);
        self.from_peers = self.from_peers.saturating_add(peers);
        self.stalls += grown(last.stalls.into(), report.stalls.into());
        let second = now.as_secs();
        self.seconds.retain(|(at, _, _)| at + WINDOW > second);
        match self.seconds.back_mut().filter(|(at, _, _)| *at == second) {
            Some((_, of_cdn, of_peers)) => {
                *of_cdn = of_cdn.saturating_add(cdn);
                *of_peers = of_peers.saturating_add(peers);
            }
            None => self.seconds.push_back((second, cdn, peers)),
        }
    }

    /// Takes in that the peer has been counted by an earlier owner.
    pub(crate) fn returns(&mut self, peer: PeerId) {
        if !self.reports.contains_key(&peer) {
            self.returned.insert(peer);
        }
    }

    /// Forgets a peer that is gone; what it reported stays counted.
    pub(crate) fn remove(&mut self, peer: PeerId) {
        self.reports.remove(&peer);
        self.returned.remove(&peer);
    }

    pub(crate) fn last(&self, peer: PeerId) -> Option<PeerReport> {
        self.reports.get(&peer).copied()
    }

    pub(crate) fn totals(&self, now: Duration) -> Audience {
        let recent = self
            .seconds
            .iter()
            .filter(|(at, _, _)| at + WINDOW > now.as_secs());
        let (cdn, peers) = recent.fold((0_u128, 0_u128), |sum, (_, cdn, peers)| {
            (sum.0 + u128::from(*cdn), sum.1 + u128::from(*peers))
        });
        let permille = (peers * 1000).checked_div(cdn + peers).unwrap_or(0);
        Audience {
            bytes_from_cdn: self.from_cdn,
            bytes_from_peers: self.from_peers,
            offload_permille: u32::try_from(permille).unwrap_or(1000),
            stalls: self.stalls,
            ..Audience::default()
        }
    }
}

fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(bytes_from_cdn: u64, bytes_from_peers: u64, stalls: u32) -> PeerReport {
        PeerReport {
            bytes_from_cdn,
            bytes_from_peers,
            stalls,
            ..PeerReport::default()
        }
    }

    #[test]
    fn totals_are_sums_of_what_was_added_and_survive_a_peers_new_start() {
        let mut counters = Counters::default();
        let now = Duration::from_secs(3);
        counters.take(PeerId(1), report(100, 300, 1), now);
        counters.take(PeerId(1), report(150, 450, 1), now);
        counters.take(PeerId(1), report(10, 0, 0), now);
        counters.take(PeerId(2), report(0, 160, 2), now);
        counters.remove(PeerId(2));
        let totals = counters.totals(now);
        assert_eq!(
            (
                totals.bytes_from_cdn,
                totals.bytes_from_peers,
                totals.stalls
            ),
            (160, 610, 3)
        );
        assert_eq!(totals.offload_permille, 610_000 / 770);
    }

    #[test]
    fn a_returning_peers_earlier_bytes_are_not_counted_again() {
        let mut counters = Counters::default();
        counters.returns(PeerId(1));
        counters.take(PeerId(1), report(5000, 9000, 4), Duration::ZERO);
        assert_eq!(counters.totals(Duration::ZERO), Audience::default());
        counters.take(PeerId(1), report(5000, 9100, 5), Duration::ZERO);
        let totals = counters.totals(Duration::ZERO);
        assert_eq!((totals.bytes_from_peers, totals.stalls), (100, 1));
    }

    #[test]
    fn offload_is_of_the_last_ten_seconds() {
        let mut counters = Counters::default();
        counters.take(PeerId(1), report(1000, 0, 0), Duration::from_secs(0));
        counters.take(PeerId(1), report(1000, 1000, 0), Duration::from_secs(9));
        assert_eq!(
            counters.totals(Duration::from_secs(9)).offload_permille,
            500
        );
        assert_eq!(
            counters.totals(Duration::from_secs(10)).offload_permille,
            1000
        );
        assert_eq!(counters.totals(Duration::from_secs(60)).offload_permille, 0);
    }
}
