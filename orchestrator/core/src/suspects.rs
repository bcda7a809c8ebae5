//! Who is accused of corrupt bytes, by whom, and what follows.
//!
//! One accusation separates the pair (elsewhere); quarantine needs [`ACCUSERS`] different peers whose
//! word counts. The word of a peer that accuses [`ACCUSED`] different others does not count: it is more
//! likely to have bad memory or bad intentions itself. Only accusations of a peer with which the
//! accuser had a link are counted.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::state::millis;
use crate::view::Suspect;

/// Different accusers that make a quarantine.
const ACCUSERS: usize = 3;
/// Different suspects that make a serial accuser.
const ACCUSED: usize = 4;
/// Suspects that are remembered.
const MOST: usize = 1024;

/// What is said about one peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SuspectRecord {
    accusers: BTreeSet<PeerId>,
    reports: u64,
    #[serde(with = "millis")]
    last_report: Duration,
}

/// What an accusation has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// Peers whose quarantine began or ended.
    pub(crate) changed: BTreeSet<PeerId>,
    /// The accuser has just become a serial one.
    pub(crate) serial: bool,
    /// The suspect that was forgotten for this one.
    pub(crate) forgotten: Option<PeerId>,
}

/// The accusations of one channel. `accused_by` says the same as `suspects`, from the other side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Suspects {
    suspects: BTreeMap<PeerId, SuspectRecord>,
    accused_by: BTreeMap<PeerId, BTreeSet<PeerId>>,
}

impl Suspects {
    /// Takes in an accusation.
    pub(crate) fn accuse(&mut self, accuser: PeerId, suspect: PeerId, now: Duration) -> Verdict {
        let was_serial = self.is_serial(accuser);
        let concerned: BTreeSet<PeerId> = self
            .accused_by
            .get(&accuser)
            .into_iter()
            .flatten()
            .copied()
            .chain([suspect])
            .collect();
        let before: BTreeSet<_> = concerned
            .iter()
            .copied()
            .filter(|peer| self.is_quarantined(*peer))
            .collect();
        self.note(accuser, suspect, now);
        let after: BTreeSet<_> = concerned
            .into_iter()
            .filter(|peer| self.is_quarantined(*peer))
            .collect();
        let serial = !was_serial && self.is_serial(accuser);
        let forgotten = self.oldest();
        if let Some(oldest) = forgotten {
            self.forget(oldest);
        }
        Verdict {
            changed: &before ^ &after,
            serial,
            forgotten,
        }
    }

    /// Notes an accusation, whatever follows.
    pub(crate) fn note(&mut self, accuser: PeerId, suspect: PeerId, now: Duration) {
        let record = self.suspects.entry(suspect).or_default();
        record.accusers.insert(accuser);
        record.reports = record.reports.saturating_add(1);
        record.last_report = now;
        self.accused_by.entry(accuser).or_default().insert(suspect);
    }

    /// Notes all that is said about a peer.
    pub(crate) fn restore(&mut self, suspect: PeerId, record: SuspectRecord) {
        self.forget(suspect);
        for accuser in &record.accusers {
            self.accused_by.entry(*accuser).or_default().insert(suspect);
        }
        self.suspects.insert(suspect, record);
    }

    /// Returns all that is said about a peer.
    pub(crate) fn record(&self, suspect: PeerId) -> Option<&SuspectRecord> {
        self.suspects.get(&suspect)
    }

    /// Walks through all peers of which something is said, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &SuspectRecord)> {
        self.suspects.iter().map(|(peer, record)| (*peer, record))
    }

    /// Returns the peers that are accused or accuse.
    pub(crate) fn concerned(&self) -> impl Iterator<Item = PeerId> + '_ {
        let peers = self.suspects.keys().chain(self.accused_by.keys());
        peers.copied()
    }

    /// Returns the suspect with the oldest report, but none in quarantine, when there are too many.
    fn oldest(&self) -> Option<PeerId> {
        if self.suspects.len() <= MOST {
            return None;
        }
        let free = self
            .suspects
            .iter()
            .filter(|(peer, _)| !self.is_quarantined(**peer));
        let oldest = free.min_by_key(|(peer, record)| (record.last_report, **peer));
        let oldest = oldest.or(self.suspects.first_key_value());
        oldest.map(|(peer, _)| *peer)
    }

    /// Forgets all that is said about a peer.
    pub(crate) fn forget(&mut self, suspect: PeerId) {
        let Some(record) = self.suspects.remove(&suspect) else {
            return;
        };
        for accuser in record.accusers {
            if let Some(accused) = self.accused_by.get_mut(&accuser) {
                accused.remove(&suspect);
                if accused.is_empty() {
                    self.accused_by.remove(&accuser);
                }
            }
        }
    }

    pub(crate) fn is_serial(&self, accuser: PeerId) -> bool {
        self.accused_by
            .get(&accuser)
            .is_some_and(|accused| accused.len() >= ACCUSED)
    }

    pub(crate) fn is_quarantined(&self, suspect: PeerId) -> bool {
        self.credible_accusers(suspect) >= ACCUSERS
    }

    pub(crate) fn credible_accusers(&self, suspect: PeerId) -> usize {
        let accusers = self.suspects.get(&suspect).map(|record| &record.accusers);
        accusers
            .into_iter()
            .flatten()
            .filter(|accuser| !self.is_serial(**accuser))
            .count()
    }

    pub(crate) fn view(&self) -> Vec<Suspect> {
        let row = |(peer, record): (&PeerId, &SuspectRecord)| Suspect {
            peer: *peer,
            accusers: u32::try_from(record.accusers.len()).unwrap_or(u32::MAX),
            reports: record.reports,
            last_report: record.last_report,
            quarantined: self.is_quarantined(*peer),
        };
        self.suspects.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn accused(pairs: &[(u64, u64)]) -> Suspects {
        let mut suspects = Suspects::default();
        for (accuser, suspect) in pairs {
            suspects.accuse(PeerId(*accuser), PeerId(*suspect), NOW);
        }
        suspects
    }

    #[test]
    fn quarantine_needs_three_different_accusers() {
        for (pairs, expect) in [
            (vec![(1, 9)], false),
            (vec![(1, 9), (1, 9), (1, 9)], false),
            (vec![(1, 9), (2, 9)], false),
            (vec![(1, 9), (2, 9), (3, 9)], true),
            (vec![(1, 9), (2, 9), (3, 8)], false),
        ] {
            assert_eq!(
                accused(&pairs).is_quarantined(PeerId(9)),
                expect,
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn the_third_accusation_says_that_the_quarantine_begins() {
        let mut suspects = accused(&[(1, 9), (2, 9)]);
        let verdict = suspects.accuse(PeerId(3), PeerId(9), NOW);
        assert_eq!(
            verdict,
            Verdict {
                changed: [PeerId(9)].into(),
                ..Verdict::default()
            }
        );
        let again = suspects.accuse(PeerId(4), PeerId(9), NOW);
        assert_eq!(again, Verdict::default());
    }

    #[test]
    fn a_serial_accusers_word_is_withdrawn() {
        let mut suspects = accused(&[(1, 9), (2, 9), (3, 9), (3, 8), (3, 7)]);
        assert!(suspects.is_quarantined(PeerId(9)));
        let verdict = suspects.accuse(PeerId(3), PeerId(6), NOW);
        assert_eq!(
            verdict,
            Verdict {
                changed: [PeerId(9)].into(),
                serial: true,
                forgotten: None,
            }
        );
        assert!(!suspects.is_quarantined(PeerId(9)));
        assert_eq!(suspects.credible_accusers(PeerId(9)), 2);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_quarantined() {
        let mut suspects = accused(&[(1, 9), (2, 9), (3, 9)]);
        for peer in 0..2000 {
            suspects.accuse(
                PeerId(peer + 10_000),
                PeerId(peer + 20_000),
                Duration::from_secs(1),
            );
        }
        assert_eq!(suspects.suspects.len(), MOST);
        assert!(suspects.accused_by.len() <= MOST + 3);
        assert!(suspects.is_quarantined(PeerId(9)));
    }
}
