//! What another policy would do to a channel: tried on a copy of its records, by the production engine, with
//! peers that do at once as they are told.
//!
//! ```text
//!   records ──► engine ──► rest ──► figures "now"
//!                  └ the other policy ──► rest ──► figures "then", and every move on the way
//! ```
//!
//! Nothing leaves this module: no entry is in any log and nobody is told anything. Limits: nobody joins or
//! leaves meanwhile, and no link fails; where the planner paces its moves by the hour, the rest may come
//! after the [`LONGEST`] that is looked at, which the answer says.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use crate::channel::ChannelEngine;
use crate::commands::{Assignment, ChannelCommand};
use crate::events::{ChannelEvent, SessionOpened, SourceReport, SourceState};
use crate::ids::{Generation, PeerId, Source};
use crate::policy::Policy;
use crate::state::{ChannelState, Entry, LogPosition};

/// Nothing has changed for so long: the trees are at rest. Longer than any deadline of a move.
const QUIET: Duration = Duration::from_secs(120);
/// How far ahead is looked for the rest to come.
const LONGEST: Duration = Duration::from_secs(4 * 3600);
/// Events that are tried at the most, so that a policy that never comes to rest ends all the same.
const MOST_STEPS: u32 = 200_000;

/// What another policy would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhatIf {
    /// The trees with the policy of now.
    pub now: PlanFigures,
    /// The trees with the other policy.
    pub then: PlanFigures,
    /// How often a peer would go from one source to another.
    pub moves: u64,
    /// How many peers would do so at least once.
    pub peers_moved: u32,
    /// How long it would take.
    pub takes: Duration,
    /// Whether the trees came to rest within what was looked at.
    pub settled: bool,
}

/// A channel's trees in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanFigures {
    /// Peers that have a place.
    pub peers: u32,
    /// Those that the CDN feeds in at least one tree.
    pub roots: u32,
    /// The deepest place.
    pub max_depth: u32,
    /// 1000 × the mean depth of all places.
    pub mean_depth_permille: u32,
    /// 1000 × the part of all bytes that does not come from the CDN.
    pub offload_permille: u32,
}

/// Tries another policy on a copy of a channel's records. Peers in `absent` have no session.
pub fn what_if(state: &ChannelState, absent: &BTreeSet<PeerId>, policy: Policy) -> WhatIf {
    let mut trial = Trial::new(state.clone());
    trial.attend(absent);
    trial.rest();
    let now = trial.figures();
    let began = trial.now;
    trial.begin();
    trial.tell(ChannelEvent::PolicyChanged { policy });
    let settled = trial.rest();
    WhatIf {
        now,
        then: trial.figures(),
        moves: trial.moves,
        peers_moved: u32::try_from(trial.moved.len()).unwrap_or(u32::MAX),
        takes: trial.last_change.saturating_sub(began),
        settled,
    }
}

/// An engine with a log of its own, and peers that obey.
struct Trial {
    engine: ChannelEngine,
    state: ChannelState,
    now: Duration,
    index: u64,
    /// What peers have to say about what they were told.
    words: VecDeque<ChannelEvent>,
    moves: u64,
    moved: BTreeSet<PeerId>,
    last_change: Duration,
}

impl Trial {
    fn new(state: ChannelState) -> Self {
        // A term after all that there were: nobody has heard anything newer.
        let (term, now) = (u64::MAX, state.time());
        Self {
            engine: ChannelEngine::from_state(&state, term, now),
            state,
            now,
            index: 0,
            words: VecDeque::new(),
            moves: 0,
            moved: BTreeSet::new(),
            last_change: now,
        }
    }

    /// Lets everybody attach who has a session, with what the records say of them.
    fn attend(&mut self, absent: &BTreeSet<PeerId>) {
        let records = self.state.peers();
        let present = records.filter(|(peer, _)| !absent.contains(peer));
        let sessions = present.map(|(peer, record)| SessionOpened {
            peer,
            attachment: 1,
            role: record.offer.role,
            upload_bps: record.offer.upload_bps,
            profile: record.offer.profile,
            tracks: record.offer.wanted.clone(),
            held: Vec::new(),
            generation: Some(Generation::default()),
        });
        let sessions: Vec<_> = sessions.collect();
        for session in sessions {
            self.tell(ChannelEvent::SessionOpened(session));
        }
    }

    /// Starts to count.
    fn begin(&mut self) {
        (self.moves, self.last_change) = (0, self.now);
        self.moved.clear();
    }

    fn tell(&mut self, event: ChannelEvent) {
        self.engine.handle(event, self.now);
        while let Some(command) = self.engine.poll_command() {
            match command {
                ChannelCommand::Commit { entry } => self.commit(&entry),
                ChannelCommand::Assign { peer, assignment } => self.obey(peer, assignment),
                ChannelCommand::Raise(_) | ChannelCommand::Rebuild => {}
            }
        }
    }

    /// Lets time pass until nothing has changed for a while; returns whether that came to be.
    fn rest(&mut self) -> bool {
        let (began, mut quiet_since) = (self.now, self.now);
        for _ in 0..MOST_STEPS {
            let changed = self.last_change;
            if let Some(word) = self.words.pop_front() {
                self.tell(word);
            } else {
                let Some(due) = self.engine.poll_timeout() else {
                    return true;
                };
                self.now = self.now.max(due);
                self.tell(ChannelEvent::Tick);
            }
            if changed != self.last_change || !self.words.is_empty() {
                quiet_since = self.now;
            }
            if self.now.saturating_sub(quiet_since) >= QUIET {
                return true;
            }
            if self.now.saturating_sub(began) >= LONGEST {
                return false;
            }
        }
        false
    }

    fn commit(&mut self, entry: &Entry) {
        self.count(entry);
        self.index += 1;
        let at = LogPosition {
            term: u64::MAX,
            index: self.index,
        };
        let applied = self.state.apply(entry, at).is_applied();
        debug_assert!(applied, "the copy takes what its own engine decides");
        let committed = ChannelEvent::Committed {
            index: self.index,
            entries: 1,
        };
        self.engine.handle(committed, self.now);
    }

    /// Counts the sources that an entry changes, against the state as it is before.
    fn count(&mut self, entry: &Entry) {
        for decided in &entry.edges {
            let key = (decided.track, decided.stripe);
            let record = self.state.peer(decided.peer);
            let known = record.into_iter().flat_map(|record| &record.edges);
            let mut known = known.filter(|edge| (edge.track, edge.stripe) == key);
            let before = known.next().map(|known| known.edge.source);
            let after = decided.edge.map(|edge| edge.source);
            if before == after {
                continue;
            }
            self.last_change = self.now;
            if before.is_some() && after.is_some() {
                self.moves += 1;
                self.moved.insert(decided.peer);
            }
        }
    }

    fn obey(&mut self, peer: PeerId, assignment: Assignment) {
        let generation = assignment.generation;
        let acknowledged = ChannelEvent::Acknowledged { peer, generation };
        self.words.push_back(acknowledged);
        let words = assignment.tracks.into_iter().map(|told| SourceReport {
            peer,
            track: told.track,
            stripe: told.stripe,
            source: told.source,
            state: SourceState::Flowing,
            generation: Some(generation),
        });
        self.words.extend(words.map(ChannelEvent::Source));
    }

    fn figures(&self) -> PlanFigures {
        let tracks = self.state.tracks();
        let mut sums = Sums::default();
        let rows = self.engine.topology();
        for row in rows.iter().filter(|row| row.source.is_some()) {
            let track = tracks.iter().find(|track| track.name == row.track);
            let rate = track.map_or(1, |track| u128::from(track.rate_bps.max(1)));
            let fed = row.source == Some(Source::Cdn);
            sums.add(row.peer, row.depth, fed, rate);
        }
        sums.figures()
    }
}

#[derive(Default)]
struct Sums {
    peers: BTreeSet<PeerId>,
    roots: BTreeSet<PeerId>,
    max_depth: u32,
    depths: u64,
    places: u64,
    from_cdn: u128,
    all: u128,
}

impl Sums {
    fn add(&mut self, peer: PeerId, depth: u32, fed: bool, rate: u128) {
        self.peers.insert(peer);
        if fed {
            self.roots.insert(peer);
            self.from_cdn += rate;
        }
        self.max_depth = self.max_depth.max(depth);
        self.depths += u64::from(depth);
        self.places += 1;
        self.all += rate;
    }

    fn figures(&self) -> PlanFigures {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mean = (self.depths * 1000).checked_div(self.places).unwrap_or(0);
        let not_cdn = self.all - self.from_cdn;
        let offload = (not_cdn * 1000).checked_div(self.all).unwrap_or(0);
        PlanFigures {
            peers: small(self.peers.len()),
            roots: small(self.roots.len()),
            max_depth: self.max_depth,
            mean_depth_permille: u32::try_from(mean).unwrap_or(u32::MAX),
            offload_permille: u32::try_from(offload).unwrap_or(1000),
        }
    }
}
