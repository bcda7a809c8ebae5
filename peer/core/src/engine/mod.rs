//! The relay engine's face: it routes events to the small engines and collects their commands.
//!
//! ```text
//! links      who is linked, greeted, alive          ─┐
//! statements what is signed: headers, descriptors    ├─► tracks, ring ─► serving   chunks to children
//! receive    chunks from peers, verified             │        │
//! fetching   chunks from the CDN, verified          ─┘        └────────► publications, reports
//! reflex     from whom each stripe is taken; repair: the chunks that are late;  bypass
//! ```
//!
//! Cheap events (a chunk, an acknowledgement) touch only what they concern. Everything that follows from
//! time or from a change of circumstances is decided in [`RelayEngine::tick`], from scratch each time.

mod assignment;
mod bypass;
mod fetching;
mod links;
mod neighbours;
mod ranges;
mod receive;
mod reflex;
mod repair;
mod reports;
mod serving;
mod statements;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use espalier_media::{ObjectKey, SignedStatement, TrackIndex, TrustedKeys};

use crate::cdn::{Fetch, Lease};
use crate::command::Command;
use crate::config::EngineConfig;
use crate::event::Event;
use crate::ids::{FetchId, Generation, PeerId, TrackName};
use crate::link::{Link, Phase};
use crate::liveness::Health;
use crate::pacer::TokenBucket;
use crate::ring::Ring;
use crate::statistics::{
    Counters, Held, HeldEdge, LinkSnapshot, PlayoutStatistics, Snapshot, TrackSnapshot,
};
use crate::stripe::Stripe;
use crate::track::Track;
use crate::{Role, SourceState};

/// How often time alone may change something: while a track does not flow yet or objects are read from
/// the CDN, while they are received from a peer, and otherwise.
const BUSY_TICK: Duration = Duration::from_millis(50);
const FLOWING_TICK: Duration = Duration::from_millis(100);
const IDLE_TICK: Duration = Duration::from_millis(250);
/// How soon after the last look at the time an event may bring the next one forward: then a stream's own
/// rhythm takes the place of timers.
const TICK_AGAIN: Duration = Duration::from_millis(40);
/// The share of the upload budget that the pacer gives out, in tenths.
const PACED_TENTHS: u64 = 9;
/// How much of the uplink's time may be sent at once, if it is more than a fragment. Timers are good to
/// a millisecond or so: without this, a fast uplink would wait for one after every chunk.
const PACED_AT_ONCE: Duration = Duration::from_millis(10);

/// Decides everything that a peer does with a channel's media.
#[derive(Debug)]
pub struct RelayEngine {
    config: EngineConfig,
    now: Duration,
    commands: VecDeque<Command>,
    random: u64,
    /// Circumstances changed: decide anew.
    dirty: bool,
    last_tick: Duration,
    next_tick: Duration,

    incarnation: Option<u64>,
    generation: Generation,
    keys: TrustedKeys,
    /// The children of the assignment in force.
    children: BTreeSet<PeerId>,
    /// Those of them that take a track's stripe from here as assigned, not in reserve.
    active_children: BTreeSet<(TrackName, u8, PeerId)>,

    feed: Feed,
    master: Option<SignedStatement>,
    /// Hashes of statements that were verified lately, so that copies cost nothing, and what object
    /// they describe.
    verified: VecDeque<(u64, Option<ObjectKey>)>,
    /// Statements about tracks that are not taken, from the feed that is open.
    spare: VecDeque<SignedStatement>,

    tracks: Vec<Track>,
    ring: Ring,
    links: BTreeMap<PeerId, Link>,
    /// Peers that sent something false: no link to them until then.
    separated: BTreeMap<PeerId, Duration>,

    fetches: BTreeMap<FetchId, Fetch>,
    next_fetch: u64,
    /// The CDN's last answer to a request for a range was the whole resource.
    ignores_ranges: bool,
    lease: Lease,

    pacer: TokenBucket,
    fragment: usize,
    /// The child that was served last.
    served: PeerId,
    pacer_blocks: bool,

    counters: Counters,
    first_tree_byte: Option<Duration>,
    first_cdn_byte: Option<Duration>,
}

/// The signer's feed as the engine has it.
#[derive(Debug, Default)]
struct Feed {
    wanted: bool,
    open: bool,
    caught_up: bool,
}

impl RelayEngine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let random = config.seed ^ 0x9e37_79b9_7f4a_7c15;
        Self {
            now: Duration::ZERO,
            commands: VecDeque::new(),
            random: random.max(1),
            dirty: false,
            last_tick: Duration::ZERO,
            next_tick: Duration::ZERO,
            incarnation: None,
            generation: Generation::default(),
            keys: TrustedKeys::default(),
            children: BTreeSet::new(),
            active_children: BTreeSet::new(),
            feed: Feed::default(),
            master: None,
            verified: VecDeque::new(),
            spare: VecDeque::new(),
            tracks: Vec::new(),
            ring: Ring::new(config.ring_bytes),
            links: BTreeMap::new(),
            separated: BTreeMap::new(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            ignores_ranges: false,
            lease: Lease::new(config.default_lease),
            pacer: TokenBucket::new(0, 0, Duration::ZERO),
            fragment: serving::WHOLE_CHUNK,
            served: PeerId(0),
            pacer_blocks: false,
            counters: Counters::default(),
            first_tree_byte: None,
            first_cdn_byte: None,
            config,
        }
    }

    /// Takes note of what happened. Drain [`Self::poll_command`] afterwards.
    pub fn handle(&mut self, event: Event, now: Duration) {
        self.now = self.now.max(now);
        match event {
            Event::SessionWelcomed(welcome) => self.on_welcome(welcome),
            Event::Assignment(assignment) => self.on_assignment(assignment),
            Event::LinkUp { peer } => self.on_link_up(peer),
            Event::LinkFailed { peer, reason } => self.on_link_failed(peer, reason),
            Event::LinkDown { peer, reason } => self.on_link_down(peer, reason),
            Event::Frame { peer, bytes } => self.on_frame(peer, bytes),
            Event::Ping { peer, bytes } => self.on_ping(peer, &bytes),
            Event::Buffered { peer, bytes } => self.on_buffered(peer, bytes),
            Event::Feed(event) => self.on_feed(event),
            Event::Fetch { id, update } => self.on_fetch(id, update),
            Event::PlaylistFetched { track, playlist } => {
                self.on_playlist(&track, playlist.as_deref());
            }
            Event::PlayerWants { object } => self.on_player_wants(object),
            Event::TracksWanted { tracks } => {
                self.commands
                    .push_back(Command::ReportTracksWanted { tracks });
            }
            Event::Timeout => {}
        }
        if self.dirty || self.now >= self.next_tick.min(self.last_tick + TICK_AGAIN) {
            self.tick();
        }
        self.pump();
    }

    /// Takes the next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When to call [`Self::handle`] with [`Event::Timeout`], on the clock of `now`. Ask again after
    /// each event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let pacer = if self.pacer_blocks {
            self.pacer.ready_at()
        } else {
            None
        };
        Some(pacer.map_or(self.next_tick, |at| at.min(self.next_tick)))
    }

    /// Decides everything that depends on time and circumstances.
    fn tick(&mut self) {
        self.dirty = false;
        self.last_tick = self.now;
        self.tend_links();
        self.sync_links();
        for t in 0..self.tracks.len() {
            self.tracks[t].playout.advance(self.now);
            self.reflect(t);
            self.tend_bypass(t);
            self.repair(t);
            self.report_sources(t);
        }
        self.tend_fetches();
        self.tend_feed();
        self.make_room();
        self.schedule();
    }

    fn schedule(&mut self) {
        let unsettled = |track: &Track| {
            let mut stripes = track.stripes.iter();
            stripes.any(|stripe| !stripe.decision.flowing) || !track.unsigned.is_empty()
        };
        let receives = self.ring.wants_any();
        let mut stripes = self.tracks.iter().flat_map(|track| &track.stripes);
        let is_root = stripes.any(|stripe| stripe.root_since.is_some());
        let interval = if self.tracks.iter().any(unsettled) || (receives && is_root) {
            BUSY_TICK
        } else if receives {
            FLOWING_TICK
        } else {
            IDLE_TICK
        };
        let tick = self.now + interval;
        let up = self.links.values().filter(|link| link.phase == Phase::Up);
        let alive = up.map(|link| link.liveness.timeout(self.now)).min();
        // Never at once again, whatever happened: a link that stays dead must not spin.
        let soonest = self.now + Duration::from_millis(1);
        self.next_tick = alive.map_or(tick, |at| at.min(tick)).max(soonest);
    }

    /// Drops what is too old to be held.
    fn make_room(&mut self) {
        let target = self
            .tracks
            .iter()
            .map(Track::target)
            .max()
            .unwrap_or_default();
        let mut evicted = self.ring.evict(self.now.saturating_sub(target * 4));
        for track in self.tracks.iter().filter_map(|track| track.index) {
            evicted.extend(self.ring.prune(track));
        }
        for object in evicted {
            self.publish(crate::Publication::Evicted { object });
        }
    }

    fn publish(&mut self, publication: crate::Publication) {
        self.commands.push_back(Command::Publish(publication));
    }

    /// The track of an index, as a place in `tracks`.
    fn track_of(&self, index: TrackIndex) -> Option<usize> {
        self.tracks
            .iter()
            .position(|track| track.index == Some(index))
    }

    /// Pseudo-random, the same for the same seed: for jitter and nonces, not for secrets.
    fn random(&mut self) -> u64 {
        // xorshift64*, Vigna 2016.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between nothing and `most`.
    fn jitter(&mut self, most: Duration) -> Duration {
        let share = u32::try_from(self.random() >> 48).unwrap_or(0);
        most * share / 65_536
    }

    /// What a session that is opened again must say.
    #[must_use]
    pub fn held(&self) -> Held {
        let edges = self.tracks.iter().flat_map(|track| {
            let stripes = (0_u8..).zip(&track.stripes);
            stripes.map(|(number, stripe)| self.held_edge(track, number, stripe))
        });
        Held {
            generation: self.generation,
            edges: edges.collect(),
        }
    }

    fn held_edge(&self, track: &Track, number: u8, stripe: &Stripe) -> HeldEdge {
        let takes = |link: &Link| {
            let index = track.index;
            index.is_some_and(|index| link.takes(index, number, track.stripe_count()))
        };
        let children = self.links.iter().filter(|(_, link)| takes(link));
        HeldEdge {
            track: track.name.clone(),
            stripe: number,
            source: stripe.decision.active.or(stripe.assigned.source),
            standby: stripe.assigned.standby,
            children: children.map(|(peer, _)| *peer).collect(),
        }
    }

    /// Everything that the outside may want to know, as of `now`.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let now = self.now.max(now);
        Snapshot {
            generation: self.generation,
            counters: self.counters,
            playout: self.playout(now),
            tracks: self.tracks.iter().flat_map(snapshot_track).collect(),
            links: self
                .links
                .iter()
                .map(|(peer, link)| self.snapshot_link(*peer, link))
                .collect(),
            ring_bytes: self.ring.bytes(),
            first_tree_byte: self.first_tree_byte,
            first_cdn_byte: self.first_cdn_byte,
        }
    }

    fn playout(&self, now: Duration) -> PlayoutStatistics {
        let players = || self.tracks.iter().map(|track| &track.playout);
        let worst = players()
            .map(|playout| playout.stalls(now))
            .max()
            .unwrap_or_default();
        let (stalls, stalled) = match self.config.role {
            Role::Relay => (0, Duration::ZERO),
            Role::Contributor | Role::Consumer => worst,
        };
        PlayoutStatistics {
            buffer: players()
                .map(|playout| playout.buffer(now))
                .min()
                .unwrap_or_default(),
            latency: players()
                .map(|playout| playout.latency(now))
                .max()
                .unwrap_or_default(),
            stalls,
            stalled,
        }
    }

    fn snapshot_link(&self, peer: PeerId, link: &Link) -> LinkSnapshot {
        LinkSnapshot {
            peer,
            up: link.is_ready(),
            alive: link.is_ready() && link.health(self.now) == Health::Alive,
            child: self.children.contains(&peer),
            rtt: link.liveness.rtt(),
            buffered_bytes: link.in_flight,
        }
    }
}

fn snapshot_track(track: &Track) -> impl Iterator<Item = TrackSnapshot> {
    let stripes = (0_u8..).zip(&track.stripes);
    stripes.map(|(number, stripe)| TrackSnapshot {
        track: track.name.clone(),
        stripe: number,
        source: stripe.decision.active,
        standby: stripe.assigned.standby,
        state: track.state(stripe).unwrap_or(SourceState::Repairing),
        newest: track.newest.map(|key| (key.epoch, key.sequence)),
    })
}
