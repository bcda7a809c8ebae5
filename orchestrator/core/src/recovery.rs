//! The first seconds of an owner whose predecessor had an audience: who comes back with what.
//!
//! Returning peers wait here, untold, until all that they mention are back or [`LONGEST`] is over; then
//! the forest takes their edges up as they are. Newcomers do not wait. Peers come back within the
//! longest back-off of their sessions, five seconds, hence the six.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::events::{HeldEdge, SessionOpened, SourceReport, SourceState};
use crate::forest::Returning;
use crate::ids::{PeerId, Source, TrackName};
use crate::profile::PeerProfile;

/// How long peers are awaited.
const LONGEST: Duration = Duration::from_secs(6);
/// How long nobody has come when it ends early.
const QUIET: Duration = Duration::from_secs(1);

/// The peers that have come back so far.
#[derive(Debug)]
pub(crate) struct Recovery {
    ends: Duration,
    last_arrival: Duration,
    returning: BTreeMap<PeerId, Returning>,
    /// Whom they mention and who has neither come back nor left.
    missing: BTreeSet<PeerId>,
    left: BTreeSet<PeerId>,
    /// The last word on each source.
    reports: BTreeMap<PeerId, BTreeMap<(TrackName, u8), SourceReport>>,
}

impl Recovery {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            ends: now + LONGEST,
            last_arrival: now,
            returning: BTreeMap::new(),
            missing: BTreeSet::new(),
            left: BTreeSet::new(),
            reports: BTreeMap::new(),
        }
    }

    pub(crate) fn open(&mut self, opened: SessionOpened, now: Duration) {
        self.last_arrival = now;
        let mentioned = opened.held.iter().flat_map(mentions);
        let awaited = mentioned
            .filter(|peer| !self.returning.contains_key(peer) && !self.left.contains(peer));
        self.missing.extend(awaited);
        self.missing.remove(&opened.peer);
        self.left.remove(&opened.peer);
        let SessionOpened {
            peer,
            role,
            upload_bps,
            profile,
            tracks,
            held,
            ..
        } = opened;
        let returning = Returning {
            peer,
            role,
            upload_bps,
            profile,
            session: true,
            wanted: tracks,
            held,
        };
        self.returning.insert(peer, returning);
    }

    /// Whether the peer waits and says that it has had something from the other.
    pub(crate) fn holds(&self, peer: PeerId, from: PeerId) -> bool {
        let held = self
            .returning
            .get(&peer)
            .into_iter()
            .flat_map(|returning| &returning.held);
        let mut sources = held.flat_map(|held| [Some(held.source), held.standby]);
        sources.any(|source| source == Some(Source::Peer(from)))
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Returning> {
        self.returning.values()
    }

    pub(crate) fn set_session(&mut self, peer: PeerId, session: bool) {
        if let Some(returning) = self.returning.get_mut(&peer) {
            returning.session = session;
        }
    }

    pub(crate) fn set_profile(&mut self, peer: PeerId, profile: PeerProfile) {
        if let Some(returning) = self.returning.get_mut(&peer) {
            returning.profile = profile;
        }
    }

    pub(crate) fn want(&mut self, peer: PeerId, tracks: Vec<TrackName>) {
        if let Some(returning) = self.returning.get_mut(&peer) {
            returning.wanted = tracks;
        }
    }

    /// Takes in what a waiting peer says about a source: a switch that it has made by itself counts as
    /// what it holds; how its sources do is told to the forest when it is there.
    pub(crate) fn take_report(&mut self, report: &SourceReport) {
        let Some(returning) = self.returning.get_mut(&report.peer) else {
            return;
        };
        let held = returning
            .held
            .iter_mut()
            .find(|held| held.track == report.track && held.stripe == report.stripe);
        if let (Some(held), SourceState::Flowing) = (held, report.state) {
            held.source = report.source;
        }
        let said = self.reports.entry(report.peer).or_default();
        said.insert((report.track.clone(), report.stripe), report.clone());
    }

    pub(crate) fn remove(&mut self, peer: PeerId) {
        self.returning.remove(&peer);
        self.reports.remove(&peer);
        self.missing.remove(&peer);
        self.left.insert(peer);
    }

    /// Whether everybody whom the returned mention has returned too.
    fn is_complete(&self) -> bool {
        !self.returning.is_empty() && self.missing.is_empty()
    }

    /// Returns when the waiting ends, as far as it is known now.
    pub(crate) fn ends(&self) -> Duration {
        if self.is_complete() {
            self.ends.min(self.last_arrival + QUIET)
        } else {
            self.ends
        }
    }

    /// Hands over the peers, and what they last said about their sources.
    pub(crate) fn into_parts(self) -> (Vec<Returning>, Vec<SourceReport>) {
        let peers: Vec<_> = self.returning.into_values().collect();
        let reports = self.reports.into_values().flat_map(BTreeMap::into_values);
        (peers, reports.collect())
    }
}

fn mentions(held: &HeldEdge) -> Vec<PeerId> {
    let up = [Some(held.source), held.standby].into_iter().flatten();
    let up = up.filter_map(|source| match source {
        Source::Peer(peer) => Some(peer),
        Source::Cdn => None,
    });
    up.chain(held.children.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::PeerRole;

    fn opened(peer: u64, source: Source, children: &[u64]) -> SessionOpened {
        let track = "v0".parse().unwrap();
        let children = children.iter().map(|child| PeerId(*child)).collect();
        SessionOpened {
            peer: PeerId(peer),
            attachment: 1,
            role: PeerRole::Contributor,
            upload_bps: 0,
            profile: crate::PeerProfile::default(),
            tracks: Vec::new(),
            held: vec![HeldEdge {
                track,
                stripe: 0,
                source,
                standby: None,
                children,
            }],
            generation: None,
        }
    }

    #[test]
    fn it_ends_a_second_after_the_last_who_was_mentioned() {
        let at = Duration::from_millis;
        let mut recovery = Recovery::new(at(0));
        assert_eq!(recovery.ends(), at(6000));
        recovery.open(opened(1, Source::Cdn, &[2]), at(100));
        assert_eq!(recovery.ends(), at(6000), "2 is not back");
        recovery.open(opened(2, Source::Peer(PeerId(1)), &[]), at(300));
        assert_eq!(recovery.ends(), at(1300));
        recovery.open(opened(3, Source::Peer(PeerId(9)), &[]), at(900));
        assert_eq!(recovery.ends(), at(6000), "9 may come yet");
        recovery.remove(PeerId(9));
        assert_eq!(recovery.ends(), at(1900));
    }
}
