//! The channel's state machine: events in, decided edges and assignments out.
//!
//! ```text
//!  event ──► sessions, suspects, forest ──► settle ──► one entry ──► Commit
//!                                                         │ staged assignments
//!  Committed{index} ─────────────────────────────────────►┴──────► Assign, at most one a peer
//! ```
//!
//! Invariants: all that one event decided is in one entry, and nobody is told any of it before that
//! entry is committed. After a failed commit the engine does nothing more. The entries say everything
//! that [`ChannelEngine::from_state`] needs to go on where this engine stops.
//!
//! Time is the channel's: whole milliseconds that go on where the state's time ended, also in an owner
//! whose clock is behind its predecessor's.

mod accusations;
mod attendance;
mod entry;
mod observation;
mod rebuild;
mod uploads;

pub(crate) use entry::content;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::audience::{Audience, Counters};
use crate::commands::{Alarm, ChannelCommand};
use crate::dispatch::Dispatch;
use crate::events::ChannelEvent;
use crate::forest::{Forest, Work};
use crate::ids::{Generation, PeerId};
use crate::policy::Policy;
use crate::profile::PeerProfile;
use crate::recovery::Recovery;
use crate::sessions::SessionTable;
use crate::state::{Accusation, TrackRecord};
use crate::suspects::Suspects;
use crate::view::{Finding, NodeView, Suspect};

/// How often what is left undone is tried again.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long a neighbour's word about a dead link counts, and how long two peers that had an edge are
/// taken for acquainted after it.
const MEMORY: Duration = Duration::from_secs(30);

/// What a channel's engine starts with.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// The owner's wishes.
    pub policy: Policy,
    /// Of the channel's state: see [`Generation`].
    pub incarnation: u64,
    /// Of the owner.
    pub term: u64,
    /// True when there may be peers that hold edges of an engine before this one: for a few seconds
    /// they are awaited and taken up as they are.
    pub recovering: bool,
}

/// One channel's trees, sessions and effects.
#[derive(Debug)]
pub struct ChannelEngine {
    now: Duration,
    /// How far the channel's time is ahead of the shell's.
    ahead: Duration,
    generation: Generation,
    forest: Forest,
    sessions: SessionTable,
    dispatch: Dispatch,
    suspects: Suspects,
    /// What the next entry says of the suspects.
    said: Said,
    /// The tracks as the last entry had them.
    tracks: Vec<TrackRecord>,
    /// How many entries come before the next one.
    entries: u64,
    counters: Counters,
    recovery: Option<Recovery>,
    /// Peers whose neighbours say that they are dead, and until when that counts.
    deaths: Memory<PeerId>,
    uploads: uploads::Uploads,
    /// Pairs (child, parent) whose edge ended, and until when they are taken for acquainted.
    acquainted: Memory<(PeerId, PeerId)>,
    commands: VecDeque<ChannelCommand>,
    broken: bool,
    work: Work,
}

/// Accusations, and the suspects that were forgotten over them.
#[derive(Debug, Default)]
struct Said {
    accusations: Vec<Accusation>,
    forgotten: Vec<PeerId>,
}

impl ChannelEngine {
    /// Makes the engine of a channel without replicated state, whose tracks are not known yet; see
    /// [`ChannelEngine::from_state`].
    pub fn new(config: ChannelConfig, now: Duration) -> Self {
        let ChannelConfig {
            policy,
            incarnation,
            term,
            recovering,
        } = config;
        let now = whole_millis(now);
        Self {
            now,
            ahead: Duration::ZERO,
            generation: Generation {
                incarnation,
                term,
                index: 0,
            },
            forest: Forest::new(policy),
            sessions: SessionTable::default(),
            dispatch: Dispatch::default(),
            suspects: Suspects::default(),
            said: Said::default(),
            tracks: Vec::new(),
            entries: 0,
            counters: Counters::default(),
            recovery: recovering.then(|| Recovery::new(now)),
            deaths: Memory::default(),
            uploads: uploads::Uploads::default(),
            acquainted: Memory::default(),
            commands: VecDeque::new(),
            broken: false,
            work: Work::default(),
        }
    }

    /// Takes in one event. A `now` before an earlier one counts as that one.
    pub fn handle(&mut self, event: ChannelEvent, now: Duration) {
        if self.broken {
            return;
        }
        self.now = self.now.max(self.channel_time(now));
        self.pass_time();
        match event {
            ChannelEvent::SessionOpened(opened) => self.open(opened),
            ChannelEvent::SessionLost { peer, attachment } => self.lose(peer, attachment),
            ChannelEvent::SessionSilent { peer } => self.silence(peer),
            ChannelEvent::Left { peer } => self.leave(peer),
            ChannelEvent::WantTracks { peer, tracks } => self.want(peer, tracks),
            ChannelEvent::ProfileChanged { peer, profile } => {
                self.change_profile(peer, profile);
            }
            ChannelEvent::Acknowledged { peer, generation } => {
                self.dispatch.acknowledge(peer, generation);
            }
            ChannelEvent::Link(report) => self.take_link_report(report),
            ChannelEvent::Source(report) => self.take_source_report(&report),
            ChannelEvent::Report { peer, report } => {
                if self.sessions.is_attached(peer) {
                    self.counters.take(peer, report, self.now);
                    self.learn_from_report(peer, &report);
                }
            }
            ChannelEvent::TracksChanged { tracks } => self.forest.set_tracks(&tracks, self.now),
            ChannelEvent::TrackRate { track, rate_bps } => {
                self.forest.set_rate(track, rate_bps, self.now);
            }
            ChannelEvent::PolicyChanged { policy } => self.forest.set_policy(policy, self.now),
            ChannelEvent::Committed { index, entries } => self.take_committed(index, entries),
            ChannelEvent::CommitFailed => {
                self.broken = true;
                self.commands = VecDeque::from([ChannelCommand::Rebuild]);
                return;
            }
            ChannelEvent::AbsenceCounts => self.count_absence(),
            ChannelEvent::Tick => {}
        }
        self.settle();
    }

    /// Returns the channel's time at this time of the shell's.
    pub fn channel_time(&self, now: Duration) -> Duration {
        whole_millis(now.saturating_add(self.ahead))
    }

    /// Does what is due, whatever the event.
    fn pass_time(&mut self) {
        self.deaths.expire(self.now);
        self.acquainted.expire(self.now);
        self.forest.pass_time(self.now);
        self.recover_if_due();
        let expired = self.sessions.expired(self.now);
        self.presume_gone(&expired, false);
    }

    fn settle(&mut self) {
        self.forest.settle(self.now);
        for (track, over) in self.forest.crossings() {
            let limit = self.forest.policy.max_planned_roots().unwrap_or(u32::MAX);
            let alarm = match over {
                Some(roots) => Alarm::RootsOverPolicy {
                    track,
                    roots,
                    limit,
                },
                None => Alarm::RootsWithinPolicy { track },
            };
            self.raise(alarm);
        }
        self.close_entry();
        self.work = self.forest.take_work();
    }

    fn raise(&mut self, alarm: Alarm) {
        self.commands.push_back(ChannelCommand::Raise(alarm));
    }

    /// Returns the next thing to do.
    pub fn poll_command(&mut self) -> Option<ChannelCommand> {
        self.commands.pop_front()
    }

    /// Returns when [`ChannelEvent::Tick`] is due, in the time of `now`; at once if that is past.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.broken {
            return None;
        }
        let recovery = self.recovery.as_ref().filter(|_| self.forest.has_trees());
        let undone = self.forest.trees().any(|tree| {
            tree.bare > 0
                || tree.root_count() != self.forest.policy.target_roots()
                || tree.is_uneven()
        });
        let occupied = undone && self.forest.peer_count() > 0;
        [
            self.sessions.next_timeout(),
            self.forest.next_timeout(),
            recovery.map(Recovery::ends),
            occupied.then(|| self.now + HOUSEKEEPING),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|due| due.saturating_sub(self.ahead))
    }

    /// Returns the generation of the newest committed entry.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether peers of an engine before this one are still awaited.
    pub fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// Returns every peer's place in every tree, ordered by peer, then track.
    pub fn topology(&self) -> Vec<NodeView> {
        let recovering = self.recovery.iter().flat_map(Recovery::peers);
        let mut rows = crate::view::rows(&self.forest, &self.sessions, &self.counters);
        rows.extend(recovering.flat_map(crate::view::waiting_rows));
        rows.sort_by(|one, other| (one.peer, &one.track).cmp(&(other.peer, &other.track)));
        rows
    }

    /// Verifies every invariant on the live state.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = crate::check::forest(&self.forest);
        findings.extend(crate::check::told(
            &self.forest,
            &self.dispatch,
            &self.sessions,
        ));
        findings
    }

    /// Returns the audience's totals.
    pub fn audience(&self, now: Duration) -> Audience {
        let (roots, max_depth) = self.forest.extent();
        let waiting = self
            .recovery
            .as_ref()
            .map_or(0, |recovery| recovery.peers().count());
        let peers = u32::try_from(self.forest.peer_count() + waiting).unwrap_or(u32::MAX);
        Audience {
            peers,
            roots,
            max_depth,
            ..self.counters.totals(self.channel_time(now))
        }
    }

    /// Returns what the peer is, as its newest session says it.
    pub fn profile(&self, peer: PeerId) -> PeerProfile {
        let known = self.forest.find(peer);
        known.map_or_else(PeerProfile::default, |peer| self.forest.peer(peer).profile)
    }

    /// Returns the peers that others accuse, ordered by id.
    pub fn suspects(&self) -> Vec<Suspect> {
        self.suspects.view()
    }

    /// Returns the last assignment that the peer was told, or would have been with a session, and since when
    /// its sources are what they are.
    #[cfg(test)]
    pub(crate) fn told(&self, peer: PeerId) -> impl core::fmt::Debug + PartialEq + use<> {
        self.dispatch.told(peer)
    }

    #[cfg(test)]
    pub(crate) fn pairs(&self) -> &crate::pairs::Pairs {
        &self.forest.pairs
    }

    /// How much the last event made the planner do.
    #[cfg(test)]
    pub(crate) fn last_work(&self) -> Work {
        self.work
    }
}

fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Things that are remembered for [`MEMORY`], and at most [`Memory::MOST`] of them.
#[derive(Debug)]
struct Memory<T> {
    until: BTreeMap<T, Duration>,
    order: VecDeque<(Duration, T)>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self {
            until: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T: Ord + Copy> Memory<T> {
    const MOST: usize = 65_536;

    fn note(&mut self, thing: T, now: Duration) {
        self.until.insert(thing, now + MEMORY);
        self.order.push_back((now + MEMORY, thing));
        if self.order.len() > Self::MOST {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((until, thing)) = self.order.pop_front()
            && self.until.get(&thing) == Some(&until)
        {
            self.until.remove(&thing);
        }
    }

    fn expire(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn contains(&self, thing: &T) -> bool {
        self.until.contains_key(thing)
    }
}
