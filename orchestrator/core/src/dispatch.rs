//! Told, and told again: what each peer must do, and which generation of it the peer has.
//!
//! Effects are level-triggered. What one event decided is staged as whole assignments; when the entry
//! is committed each of them gets the entry's generation and is sent, at most one a peer. A peer that
//! attaches with an older generation than its last is sent the last again. An assignment whose content
//! is what the peer has been told already is not sent. Of several entries that share a place in the log
//! only the newest content counts.
//!
//! What was told is kept as a digest: the content itself is what is planned, unless an entry that changes
//! it is on its way, which then tells it.

use core::hash::{Hash as _, Hasher};
use std::collections::{BTreeMap, VecDeque};

use twox_hash::XxHash3_64;

use crate::commands::{Assignment, CdnLease, ChildAssignment, TrackAssignment};
use crate::ids::{Generation, PeerId, Source, TrackName};

/// An assignment without its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) tracks: Vec<TrackAssignment>,
    pub(crate) children: Vec<ChildAssignment>,
    pub(crate) cdn_lease: CdnLease,
    pub(crate) upload_bps: u64,
}

impl Content {
    pub(crate) fn at(self, generation: Generation) -> Assignment {
        let Self {
            tracks,
            children,
            cdn_lease,
            upload_bps,
        } = self;
        Assignment {
            generation,
            tracks,
            children,
            cdn_lease,
            upload_bps,
        }
    }

    /// Returns a digest of all that is news for a peer if it changes. That a move has ended is the peer's
    /// own news, so it is not in it.
    pub(crate) fn digest(&self) -> u64 {
        let mut bytes = Bytes(Vec::with_capacity(512));
        self.tracks.len().hash(&mut bytes);
        for track in &self.tracks {
            (&track.track, track.stripe, track.stripes).hash(&mut bytes);
            (track.source, track.standby).hash(&mut bytes);
        }
        self.children.hash(&mut bytes);
        self.cdn_lease.hash(&mut bytes);
        self.upload_bps.hash(&mut bytes);
        XxHash3_64::oneshot(&bytes.0)
    }
}

/// Collects what is hashed: the one-shot hash of short bytes is the fast one.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        XxHash3_64::oneshot(&self.0)
    }
}

/// When a source was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// In an entry that is not committed yet.
    Entry(u64),
    Generation(Generation),
}

/// A source that a peer is, or is about to be, told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceSince {
    pub(crate) track: TrackName,
    pub(crate) stripe: u8,
    pub(crate) source: Source,
    pub(crate) since: Since,
}

#[derive(Debug, Default)]
struct Record {
    attached: bool,
    /// Of what the peer has been or is about to be told.
    staged: Option<u64>,
    told: Option<Generation>,
    acknowledged: Option<Generation>,
    /// How many entries that are not committed tell it something.
    pending: u32,
    sources: Vec<SourceSince>,
    /// The first entry that can be about it: earlier ones were about somebody who had its id.
    first_entry: u64,
}

/// What a peer had been told by the owners before this one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ToldBefore {
    pub(crate) generation: Generation,
    pub(crate) digest: u64,
    pub(crate) sources: Vec<SourceSince>,
}

/// The assignments of one channel's peers.
#[derive(Debug, Default)]
pub(crate) struct Dispatch {
    records: BTreeMap<PeerId, Record>,
    staging: Vec<(PeerId, Content)>,
    pending: VecDeque<Vec<(PeerId, Content)>>,
    /// The number of the entry that is being staged.
    entry: u64,
}

impl Dispatch {
    /// Makes the dispatch of an owner whose peers, in the order of their ids, have been told all this.
    pub(crate) fn restore(told: impl Iterator<Item = (PeerId, ToldBefore)>) -> Self {
        let record = |told: ToldBefore| Record {
            staged: Some(told.digest),
            told: Some(told.generation),
            sources: told.sources,
            ..Record::default()
        };
        Self {
            records: told.map(|(peer, told)| (peer, record(told))).collect(),
            ..Self::default()
        }
    }

    /// Notes what a peer must do now; returns its digest if that is news.
    pub(crate) fn stage(&mut self, peer: PeerId, content: Content) -> Option<u64> {
        let record = record(&mut self.records, peer, self.entry);
        let digest = content.digest();
        if record.staged == Some(digest) {
            return None;
        }
        let known = &record.sources;
        let since = |told: &TrackAssignment| {
            let (track, stripe, source) = (told.track.clone(), told.stripe, told.source);
            let same = |known: &&SourceSince| {
                known.track == track && known.stripe == stripe && known.source == source
            };
            let known = known.iter().find(same);
            let since = known.map_or(Since::Entry(self.entry), |known| known.since);
            SourceSince {
                track,
                stripe,
                source,
                since,
            }
        };
        record.sources = content.tracks.iter().map(since).collect();
        record.staged = Some(digest);
        record.pending += 1;
        self.staging.push((peer, content));
        Some(digest)
    }

    /// Closes the entry: what was staged since the last call is sent when it is committed.
    pub(crate) fn close_entry(&mut self) {
        self.pending.push_back(core::mem::take(&mut self.staging));
        self.entry += 1;
    }

    /// The oldest pending entries, so many of them, are committed at one place: returns what to send, the
    /// newest to each peer. `None`: there is none pending.
    pub(crate) fn committed(
        &mut self,
        generation: Generation,
        entries: usize,
    ) -> Option<Vec<(PeerId, Assignment)>> {
        let oldest = self.entry - u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        let entries = entries.min(self.pending.len());
        let committed: Vec<_> = self.pending.drain(..entries).collect();
        let newest = oldest + u64::try_from(entries).unwrap_or(u64::MAX);
        let mut last = BTreeMap::new();
        for (entry, contents) in (oldest..).zip(committed) {
            for (peer, content) in contents {
                let record = self.records.get_mut(&peer);
                if let Some(record) = record.filter(|record| record.first_entry <= entry) {
                    record.pending -= 1;
                    last.insert(peer, content);
                }
            }
        }
        let mut send = Vec::new();
        for (peer, content) in last {
            let Some(record) = self.records.get_mut(&peer) else {
                continue;
            };
            for source in &mut record.sources {
                if matches!(source.since, Since::Entry(entry) if entry < newest) {
                    source.since = Since::Generation(generation);
                }
            }
            record.told = Some(generation);
            if record.attached {
                send.push((peer, content.at(generation)));
            }
        }
        (entries > 0).then_some(send)
    }

    /// The peer has a session and holds this generation: returns the generation under which it has to be
    /// told again what is planned, if it has. What is on its way to the log is told from there.
    pub(crate) fn attach(&mut self, peer: PeerId, held: Option<Generation>) -> Option<Generation> {
        let record = record(&mut self.records, peer, self.entry);
        record.attached = true;
        record.acknowledged = held;
        let told = record.told.filter(|_| record.pending == 0);
        told.filter(|told| held != Some(*told))
    }

    pub(crate) fn detach(&mut self, peer: PeerId) {
        if let Some(record) = self.records.get_mut(&peer) {
            record.attached = false;
        }
    }

    pub(crate) fn remove(&mut self, peer: PeerId) {
        self.records.remove(&peer);
    }

    pub(crate) fn acknowledge(&mut self, peer: PeerId, generation: Generation) {
        if let Some(record) = self.records.get_mut(&peer) {
            record.acknowledged = record.acknowledged.max(Some(generation));
        }
    }

    /// Whether the peer was ever told anything.
    pub(crate) fn was_told(&self, peer: PeerId) -> bool {
        self.records
            .get(&peer)
            .is_some_and(|record| record.told.is_some())
    }

    /// Whether a peer that holds `held` knows the stripe's source as it was last decided.
    pub(crate) fn knows_source(
        &self,
        peer: PeerId,
        track: &TrackName,
        stripe: u8,
        held: Option<Generation>,
    ) -> bool {
        let record = self.records.get(&peer);
        let mut sources = record.into_iter().flat_map(|record| &record.sources);
        let known = sources.find(|known| known.track == *track && known.stripe == stripe);
        match (held, known.map(|known| known.since)) {
            (None, _) | (_, None) => true,
            (Some(_), Some(Since::Entry(_))) => false,
            (Some(held), Some(Since::Generation(since))) => held >= since,
        }
    }

    #[cfg(test)]
    pub(crate) fn told(&self, peer: PeerId) -> Option<ToldBefore> {
        let record = self.records.get(&peer)?;
        Some(ToldBefore {
            generation: record.told?,
            digest: record.staged?,
            sources: record.sources.clone(),
        })
    }

    /// Whether this is what the peer has been or is about to be told.
    pub(crate) fn is_staged(&self, peer: PeerId, content: &Content) -> bool {
        let record = self.records.get(&peer);
        record.is_some_and(|record| record.staged == Some(content.digest()))
    }
}

fn record(records: &mut BTreeMap<PeerId, Record>, peer: PeerId, entry: u64) -> &mut Record {
    records.entry(peer).or_insert_with(|| Record {
        first_entry: entry,
        ..Record::default()
    })
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::ids::Source;

    const PEER: PeerId = PeerId(1);

    fn content(source: Source, make_before_break: bool, upload_bps: u64) -> Content {
        let track = "v0".parse().unwrap();
        let standby = Some(Source::Cdn);
        Content {
            tracks: vec![TrackAssignment {
                track,
                stripe: 0,
                stripes: 1,
                source,
                standby,
                make_before_break,
            }],
            children: Vec::new(),
            cdn_lease: CdnLease {
                rate_bps: 1,
                burst_bytes: 1,
                lifetime: Duration::ZERO,
            },
            upload_bps,
        }
    }

    fn at(index: u64) -> Generation {
        Generation {
            incarnation: 1,
            term: 1,
            index,
        }
    }

    fn under(parent: u64) -> Source {
        Source::Peer(PeerId(parent))
    }

    fn stages(dispatch: &mut Dispatch, peer: PeerId, content: Content) -> bool {
        dispatch.stage(peer, content).is_some()
    }

    fn commit(dispatch: &mut Dispatch, index: u64) -> Vec<u64> {
        let sent = dispatch.committed(at(index), 1).unwrap();
        sent.iter()
            .map(|(_, assignment)| assignment.generation.index)
            .collect()
    }

    #[test]
    fn nothing_is_sent_before_its_entry_is_committed_and_only_its_own_content() {
        let mut dispatch = Dispatch::default();
        assert_eq!(dispatch.attach(PEER, None), None);
        assert!(stages(&mut dispatch, PEER, content(Source::Cdn, false, 1)));
        dispatch.close_entry();
        assert!(stages(&mut dispatch, PEER, content(under(2), true, 1)));
        dispatch.close_entry();
        let first = dispatch.committed(at(4), 1).unwrap();
        assert_eq!(first[0].1.tracks[0].source, Source::Cdn);
        let second = dispatch.committed(at(5), 1).unwrap();
        assert_eq!(second[0].1.tracks[0].source, under(2));
        assert_eq!(dispatch.committed(at(6), 1), None, "nothing was pending");
    }

    #[test]
    fn equal_content_is_not_sent_again_and_the_end_of_a_move_is_no_news() {
        let mut dispatch = Dispatch::default();
        dispatch.attach(PEER, None);
        assert!(stages(&mut dispatch, PEER, content(under(2), true, 1)));
        assert!(!stages(&mut dispatch, PEER, content(under(2), true, 1)));
        assert!(!stages(&mut dispatch, PEER, content(under(2), false, 1)));
        assert!(stages(&mut dispatch, PEER, content(under(2), false, 9)));
        assert!(stages(&mut dispatch, PEER, content(under(3), false, 9)));
    }

    #[test]
    fn a_peer_that_attaches_is_sent_what_it_lacks() {
        let mut dispatch = Dispatch::default();
        dispatch.attach(PEER, None);
        dispatch.stage(PEER, content(Source::Cdn, false, 1));
        dispatch.close_entry();
        assert_eq!(commit(&mut dispatch, 7), [7]);
        dispatch.detach(PEER);
        dispatch.stage(PEER, content(under(2), false, 1));
        dispatch.close_entry();
        assert_eq!(commit(&mut dispatch, 8), [0_u64; 0], "it has no session");
        let other = Generation {
            incarnation: 0,
            term: 9,
            index: 99,
        };
        for (held, expect) in [
            (None, Some(8)),
            (Some(at(7)), Some(8)),
            (Some(at(8)), None),
            (Some(other), Some(8)),
        ] {
            let again = dispatch.attach(PEER, held).map(|again| again.index);
            assert_eq!(again, expect, "{held:?}");
        }
    }

    #[test]
    fn an_event_from_before_the_source_was_decided_is_told_apart() {
        let mut dispatch = Dispatch::default();
        let track: TrackName = "v0".parse().unwrap();
        dispatch.attach(PEER, None);
        dispatch.stage(PEER, content(under(2), false, 1));
        dispatch.close_entry();
        commit(&mut dispatch, 5);
        dispatch.stage(PEER, content(under(2), false, 2));
        dispatch.close_entry();
        commit(&mut dispatch, 6);
        assert!(
            dispatch.knows_source(PEER, &track, 0, Some(at(5))),
            "only the budget is newer"
        );
        assert!(!dispatch.knows_source(PEER, &track, 0, Some(at(4))));
        dispatch.stage(PEER, content(under(3), false, 2));
        dispatch.close_entry();
        assert!(
            !dispatch.knows_source(PEER, &track, 0, Some(at(6))),
            "its entry is pending"
        );
        commit(&mut dispatch, 7);
        assert!(dispatch.knows_source(PEER, &track, 0, Some(at(7))));
        assert!(dispatch.knows_source(PEER, &track, 0, None));
    }

    #[test]
    fn a_removed_peer_is_sent_nothing() {
        let mut dispatch = Dispatch::default();
        dispatch.attach(PEER, None);
        dispatch.stage(PEER, content(Source::Cdn, false, 1));
        dispatch.close_entry();
        dispatch.remove(PEER);
        dispatch.attach(PEER, None);
        assert_eq!(dispatch.committed(at(1), 1), Some(Vec::new()));
        assert_eq!(dispatch.attach(PEER, None), None, "it was told nothing");
    }

    #[test]
    fn entries_that_share_a_place_tell_a_peer_once_the_newest() {
        let mut dispatch = Dispatch::default();
        dispatch.attach(PEER, None);
        for parent in 2..=4 {
            dispatch.stage(PEER, content(under(parent), false, 1));
            dispatch.close_entry();
        }
        let sent = dispatch.committed(at(5), 2).unwrap();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].1.tracks[0].source, under(3));
        let track: TrackName = "v0".parse().unwrap();
        assert!(
            !dispatch.knows_source(PEER, &track, 0, Some(at(5))),
            "4 is pending"
        );
        let sent = dispatch.committed(at(6), 9).unwrap();
        assert_eq!(sent[0].1.tracks[0].source, under(4));
        assert!(dispatch.knows_source(PEER, &track, 0, Some(at(6))));
        assert_eq!(dispatch.committed(at(7), 1), None);
    }
}
