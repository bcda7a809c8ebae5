//! Which init section each segment needs, and by which sequence number it is named.
//!
//! An init section is named by the first segment of the run that needs it, so that two signers, and
//! one signer before and after its restart, name it alike. A run that goes back to an init section of
//! before gets a name of its own, so that the order of names is the order of need, but its bytes are
//! not read again.

use std::collections::{BTreeSet, VecDeque};

use espalier_media::hls::DeclaredInit;
use espalier_media::{ByteRange, Descriptor, HashedObject};

use crate::numbering::identity;
use crate::state::InitState;

/// How many runs, and how many init sections' hashes, are remembered.
const REMEMBERED: usize = 16;

/// The init sections of one epoch.
#[derive(Debug, Default)]
pub(crate) struct InitRuns {
    /// By sequence, oldest first.
    runs: Vec<InitState>,
    /// The runs whose init section was listed since the start.
    listed: BTreeSet<u64>,
    read: VecDeque<(String, Option<ByteRange>, HashedObject)>,
}

/// What a segment's init section is.
#[derive(Debug, PartialEq)]
pub(crate) struct Need {
    /// The sequence number that names it.
    pub(crate) sequence: u64,
    /// Whether it has yet to be listed.
    pub(crate) new: bool,
    /// Its hashes, if it was read before.
    pub(crate) read: Option<HashedObject>,
}

impl InitRuns {
    /// Goes on from what an earlier run of ours remembered.
    pub(crate) fn resume(runs: Vec<InitState>) -> Self {
        Self {
            runs,
            ..Self::default()
        }
    }

    /// Returns what is remembered.
    pub(crate) fn remembered(&self) -> Vec<InitState> {
        self.runs.clone()
    }

    /// A segment that needs this init section is listed.
    pub(crate) fn need(&mut self, sequence: u64, init: &DeclaredInit) -> Need {
        let run = self.run(sequence, init);
        let new = self.listed.insert(run);
        while self.listed.len() > 2 * REMEMBERED {
            self.listed.pop_first();
        }
        let read = new.then(|| self.find_read(init)).flatten();
        Need {
            sequence: run,
            new,
            read,
        }
    }

    /// An init section's descriptor was made.
    pub(crate) fn read(&mut self, descriptor: &Descriptor) {
        let hashed = HashedObject {
            length: descriptor.length,
            chunk_hashes: descriptor.chunk_hashes.clone(),
        };
        self.read
            .push_back((descriptor.uri.clone(), descriptor.byte_range, hashed));
        if self.read.len() > REMEMBERED {
            self.read.pop_front();
        }
    }

    /// An init section was given up: the next segment that needs it lists it anew.
    pub(crate) fn give_up(&mut self, sequence: u64) {
        self.runs.retain(|run| run.sequence != sequence);
        self.listed.remove(&sequence);
    }

    /// Finds the run that a segment belongs to, or begins one with it.
    fn run(&mut self, sequence: u64, init: &DeclaredInit) -> u64 {
        let byte_range = init.byte_range.map(|range| (range.offset, range.length));
        let name = identity(&init.uri);
        let place = self.runs.partition_point(|run| run.sequence <= sequence);
        if let Some(run) = place.checked_sub(1).map(|before| &self.runs[before])
            && run.identity == name
            && run.byte_range == byte_range
        {
            return run.sequence;
        }
        let run = InitState {
            sequence,
            identity: name.to_owned(),
            byte_range,
        };
        self.runs.insert(place, run);
        if self.runs.len() > REMEMBERED {
            self.runs.remove(0);
        }
        sequence
    }

    fn find_read(&self, init: &DeclaredInit) -> Option<HashedObject> {
        let (.., hashed) = self
            .read
            .iter()
            .find(|(uri, range, _)| *uri == init.uri && *range == init.byte_range)?;
        Some(hashed.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn init(name: &str) -> DeclaredInit {
        DeclaredInit {
            uri: format!("http://origin.example/{name}.mp4"),
            byte_range: None,
            key_lines: Arc::from([]),
        }
    }

    #[test]
    fn a_run_is_named_by_its_first_segment() {
        let mut runs = InitRuns::default();
        let mut need = |sequence, name| {
            let need = runs.need(sequence, &init(name));
            (need.sequence, need.new)
        };
        assert_eq!(need(5, "a"), (5, true));
        assert_eq!(need(6, "a"), (5, false));
        assert_eq!(need(7, "b"), (7, true));
        assert_eq!(need(8, "a"), (8, true));
    }

    #[test]
    fn names_survive_a_restart() {
        let mut before = InitRuns::default();
        before.need(5, &init("a"));
        before.need(9, &init("b"));
        let mut after = InitRuns::resume(before.remembered());
        assert_eq!(
            after.need(8, &init("a")),
            Need {
                sequence: 5,
                new: true,
                read: None
            }
        );
        assert_eq!(
            after.need(9, &init("b")),
            Need {
                sequence: 9,
                new: true,
                read: None
            }
        );
        assert_eq!(after.need(10, &init("b")).sequence, 9);
    }

    #[test]
    fn bytes_are_not_read_twice() {
        let mut runs = InitRuns::default();
        let hashed = espalier_media::ObjectHasher::new().finish();
        runs.need(5, &init("a"));
        runs.read(&init("a").descriptor(espalier_media::TrackIndex(0), 0, 5, hashed.clone()));
        runs.need(6, &init("b"));
        assert_eq!(runs.need(7, &init("a")).read, Some(hashed));
    }

    #[test]
    fn what_was_given_up_is_listed_anew() {
        let mut runs = InitRuns::default();
        runs.need(5, &init("a"));
        runs.give_up(5);
        assert_eq!(
            runs.need(6, &init("a")),
            Need {
                sequence: 6,
                new: true,
                read: None
            }
        );
    }
}
