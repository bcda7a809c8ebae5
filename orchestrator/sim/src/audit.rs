//! What must hold whatever happens, and what was seen to decide that.
//!
//! One ledger for the whole run: every applied entry with the state's hash after it, who led in which term,
//! what each peer was told under which generation. The first contradiction ends the run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use espalier_orchestrator_core::{Assignment, ChannelId, Generation, PeerId};
use espalier_shards::{LogPosition, NodeId};

use crate::dice::mix;
use crate::runtime::{Life, now};

/// How many of the last events a failure shows.
const LAST_EVENTS: usize = 2_000;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule's short name.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

/// The ledger; clones are the same one.
#[derive(Clone)]
pub(crate) struct Audit {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// Of each index: the term, the command's digest, the state's hash after it.
    applied: BTreeMap<u64, (u64, u64, u128)>,
    leaders: BTreeMap<u64, NodeId>,
    tellers: BTreeMap<(ChannelId, u64, u64), (NodeId, u64)>,
    told: BTreeMap<(ChannelId, PeerId), (Generation, u64)>,
    violation: Option<Violation>,
    history: u64,
    recording: bool,
    events: VecDeque<String>,
}

impl Audit {
    pub(crate) fn new(recording: bool) -> Self {
        let inner = Inner {
            applied: BTreeMap::new(),
            leaders: BTreeMap::new(),
            tellers: BTreeMap::new(),
            told: BTreeMap::new(),
            violation: None,
            history: 0,
            recording,
            events: VecDeque::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Notes that something happened. The digest is part of the history's hash; the words are made only when
    /// somebody wants to read them.
    pub(crate) fn note(&self, digest: u64, words: impl FnOnce() -> String) {
        let mut inner = self.lock();
        let at = u64::try_from(now().as_micros()).unwrap_or(u64::MAX);
        inner.history = mix(inner.history ^ mix(at) ^ digest.rotate_left(17));
        if inner.recording {
            let line = format!("{:>10.3} ms  {}", now().as_secs_f64() * 1e3, words());
            inner.events.push_back(line);
            if inner.events.len() > LAST_EVENTS {
                inner.events.pop_front();
            }
        }
    }

    /// Notes a violation; the first one counts.
    pub(crate) fn violated(&self, rule: &'static str, detail: String) {
        self.note(0xbad, || format!("VIOLATION {rule}: {detail}"));
        self.lock()
            .violation
            .get_or_insert(Violation { rule, detail });
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// The history's hash and its last events.
    pub(crate) fn history(&self) -> (u64, Vec<String>) {
        let inner = self.lock();
        (inner.history, inner.events.iter().cloned().collect())
    }

    /// A replica applied an entry: whatever is at this place is there on every node, for ever, and leaves the
    /// same state.
    pub(crate) fn applied(&self, node: NodeId, at: LogPosition, command: &[u8], hash: u128) {
        let digest = digest(command);
        let seen = (at.term, digest, hash);
        let known = *self.lock().applied.entry(at.index).or_insert(seen);
        if known.0 != at.term || known.1 != digest {
            let detail = format!(
                "node {node} applies {at} ({digest:016x}), but {}.{} ({:016x}) was applied there before",
                known.0, at.index, known.1
            );
            self.violated("committed entries stay", detail);
        } else if known.2 != hash {
            let detail = format!(
                "node {node} has {hash:032x} after {at}, another had {:032x}",
                known.2
            );
            self.violated("equal states at equal index", detail);
        }
    }

    /// A state was seen at a place.
    pub(crate) fn state_seen(&self, node: NodeId, at: LogPosition, hash: u128) {
        // The newest command at or before the place made the state what it is.
        let known = {
            let inner = self.lock();
            let newest = inner.applied.range(..=at.index).next_back();
            newest.map(|(index, seen)| (*index, seen.2))
        };
        if let Some((index, expected)) = known
            && expected != hash
        {
            let detail = format!(
                "node {node} shows {hash:032x} at {at}; after the command at {index} it was {expected:032x}"
            );
            self.violated("equal states at equal index", detail);
        }
    }

    /// A write was acknowledged.
    pub(crate) fn acknowledged(&self, at: LogPosition, command: &[u8]) {
        let digest = digest(command);
        let known = self.lock().applied.get(&at.index).copied();
        if known.is_none_or(|known| (known.0, known.1) != (at.term, digest)) {
            let detail = format!("{at} was acknowledged as {digest:016x}; applied is {known:x?}");
            self.violated("acknowledged writes are committed", detail);
        }
    }

    /// How many commands have been applied anywhere.
    pub(crate) fn last_applied(&self) -> Option<u64> {
        self.lock().applied.keys().next_back().copied()
    }

    /// A node says that it leads.
    pub(crate) fn leads(&self, node: NodeId, term: u64) {
        let known = *self.lock().leaders.entry(term).or_insert(node);
        if known != node {
            let detail = format!("nodes {known} and {node} both lead in term {term}");
            self.violated("one leader a term", detail);
        }
    }

    /// The owner of a term tells a peer something.
    pub(crate) fn told(
        &self,
        (by, term): (&Life, u64),
        channel: &ChannelId,
        peer: PeerId,
        assignment: &Assignment,
    ) {
        let generation = assignment.generation;
        // A later owner says again what an earlier one decided, perhaps before that one hears of its commit.
        let again = term > generation.term;
        let key = (channel.clone(), generation.incarnation, generation.term);
        let teller = (by.node, by.boot);
        let known = if again {
            teller
        } else {
            *self.lock().tellers.entry(key).or_insert(teller)
        };
        if term < generation.term || known != teller {
            let detail = format!(
                "{channel} {generation}: told by {known:?} and in term {term} by {teller:?}"
            );
            self.violated("one actor a generation", detail);
        }
        let decided = self
            .lock()
            .applied
            .get(&generation.index)
            .map(|seen| seen.0);
        if decided != Some(generation.term) {
            let detail = format!("{channel} {peer} is told {generation}, which is not in the log");
            self.violated("told after the commit", detail);
        }
        let digest = content_digest(assignment);
        let key = (channel.clone(), peer);
        let told = self.lock().told.get(&key).copied();
        match told {
            Some((at, known)) if at == generation && known != digest => {
                let detail = format!("{channel} {peer}: two assignments under {generation}");
                self.violated("one assignment a generation", detail);
            }
            Some((at, _)) if at > generation => {}
            Some(_) | None => {
                self.lock().told.insert(key, (generation, digest));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of what an assignment says; that a move has ended is the peer's own news.
pub(crate) fn content_digest(assignment: &Assignment) -> u64 {
    let tracks = assignment.tracks.iter();
    let tracks = tracks.map(|track| (track.track.as_str(), track.source, track.standby));
    let said = format!(
        "{:?} {:?} {:?} {}",
        tracks.collect::<Vec<_>>(),
        assignment.children,
        assignment.cdn_lease,
        assignment.upload_bps
    );
    digest(said.as_bytes())
}

pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8);
    words.fold(bytes.len() as u64, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(state.rotate_left(5) ^ u64::from_le_bytes(word))
    })
}
