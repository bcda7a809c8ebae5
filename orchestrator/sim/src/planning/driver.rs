//! The run: an audience comes and goes on virtual time, and a planner is told.
//!
//! ```text
//!  the past   everyone who will be there at its end comes at its own time of birth, and nobody goes
//!  warming up all come and go
//!  measured   the same
//! ```
//!
//! So when the past is over the ages are those of the steady state. Nobody says goodbye: who goes falls silent, and the
//! planner hears of it after the detection time.
//!
//! Invariant: the same scenario and seed are the same calls of the planner at the same times.

use std::time::{Duration, Instant};

use espalier_orchestrator_core::TrackIndex;
use espalier_orchestrator_core::planner::{EdgeChange, PeerSlot, SourceSlot, TreeId};

use super::arrivals::Arriving;
use super::audience::{Audience, CDN, Drawn, NEVER, NOWHERE, Place, milliseconds};
use super::calendar::Calendar;
use super::counts::Counts;
use super::delivery::Delivery;
use super::losses::{Losses, Vanished};
use super::network::Geography;
use super::overlay::Overlay;
use super::samples::Samples;
use super::scenario::Scenario;
use super::stopwatch::{Kind, Stopwatch, processor_seconds};
use crate::dice::Dice;

/// Above this audience only every eighth who goes has the viewers below it counted.
const LARGE: u32 = 200_000;

/// Something that will happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The planner hears that the peer has gone.
    Gone { slot: u32, turn: u32 },
    /// The first byte from a source is due.
    Due { slot: u32, tree: u8, token: u32 },
    /// A viewer changes its track.
    Retune,
    /// A part of the audience vanishes.
    Loss,
    /// The planner hears of that.
    LossHeard,
}

/// A child whose source fell silent, and what is to take over.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    slot: PeerSlot,
    tree: u8,
    standby: Option<SourceSlot>,
}

/// A run of one scenario.
#[derive(Debug)]
pub(crate) struct Driver<O> {
    pub(crate) scenario: Scenario,
    pub(crate) overlay: O,
    pub(crate) audience: Audience,
    pub(crate) trees: Vec<TreeId>,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) counts: Counts,
    pub(crate) samples: Samples,
    pub(crate) losses: Losses,
    delivery: Delivery,
    calendar: Calendar<Event>,
    arriving: Arriving,
    changes: Vec<EdgeChange>,
    orphans: Vec<Orphan>,
    below: Vec<PeerSlot>,
    events: Vec<Event>,
    pub(crate) now: u32,
    /// When the measurement begins.
    pub(crate) zero: u32,
    tick_at: u32,
    dice: Dice,
    /// The planner's invariants are checked each time so many events have passed.
    check_every: Option<u64>,
    pub(crate) findings: Vec<String>,
    observing: Duration,
    pub(crate) wall: Duration,
    /// What the measured part had of a processor, where the system says.
    pub(crate) processor: Option<f64>,
}

impl<O: Overlay> Driver<O> {
    pub(crate) fn new(scenario: &Scenario, seed: u64, overlay: O) -> Self {
        let dice = Dice::new(seed);
        let geography = Geography::new(&scenario.network, &scenario.nat);
        let mut audience = Audience::new(scenario, geography, &dice);
        let trees: Vec<_> = (0..scenario.channel.tracks.len())
            .flat_map(|track| {
                (0..scenario.channel.stripes).map(move |stripe| TreeId {
                    track: TrackIndex(u32::try_from(track).unwrap_or(0)),
                    stripe,
                })
            })
            .collect();
        let past = scenario.past_seconds * 1000;
        let zero = past + scenario.warm_seconds * 1000;
        let arriving = Arriving::new(scenario, &mut audience, past, zero, &dice);
        Self {
            delivery: Delivery::new(&scenario.network, trees.clone()),
            samples: Samples::new(scenario, zero),
            losses: Losses::new(scenario),
            scenario: scenario.clone(),
            overlay,
            audience,
            trees,
            stopwatch: Stopwatch::new(),
            counts: Counts::default(),
            calendar: Calendar::new(),
            arriving,
            changes: Vec::new(),
            orphans: Vec::new(),
            below: Vec::new(),
            events: Vec::new(),
            now: 0,
            zero,
            tick_at: NEVER,
            dice: dice.stream("driver", 0),
            check_every: None,
            findings: Vec::new(),
            observing: Duration::ZERO,
            wall: Duration::ZERO,
            processor: None,
        }
    }

    /// Checks the planner's invariants each time so many events have passed.
    pub(crate) fn checking(mut self, every: Option<u64>) -> Self {
        self.check_every = every;
        self
    }

    /// Plays it to the end. `progress` is told which part has passed.
    pub(crate) fn play(&mut self, mut progress: impl FnMut(f64)) {
        let end = self.zero + self.scenario.seconds * 1000;
        self.schedule();
        let step = ((end - self.scenario.past_seconds * 1000) / 400).max(1);
        let mut pause = self
            .arriving
            .begins()
            .min(self.scenario.past_seconds * 1000);
        while pause < self.zero {
            pause = (pause + step * 4).min(self.zero);
            self.run_until(pause);
            progress(f64::from(pause) / f64::from(end) * 0.5);
        }
        self.begin_measuring();
        let (started, had) = (Instant::now(), processor_seconds());
        while self.now < end {
            let pause = self.samples.next_at().min(end);
            self.run_until(pause);
            self.observe();
            let passed = f64::from(pause - self.zero) / f64::from(end - self.zero);
            progress(0.5 + passed / 2.0);
        }
        let had = processor_seconds()
            .zip(had)
            .map(|(after, before)| after - before);
        self.processor = had.map(|had| had - self.observing.as_secs_f64());
        self.wall = started.elapsed().saturating_sub(self.observing);
        self.check();
    }

    fn schedule(&mut self) {
        if self.scenario.loss.is_some() {
            let at = self.losses.at(self.zero);
            self.calendar.add(at, Event::Loss);
        }
        if self.scenario.channel.switch_percent_per_minute > 0.0 {
            self.calendar
                .add(self.scenario.past_seconds * 1000, Event::Retune);
        }
    }

    fn begin_measuring(&mut self) {
        self.stopwatch.reset();
        self.counts = Counts {
            places: self.counts.places,
            fed: self.counts.fed,
            ..Counts::default()
        };
        self.observing = Duration::ZERO;
    }

    fn time(&self) -> Duration {
        Duration::from_millis(u64::from(self.now))
    }

    fn run_until(&mut self, end: u32) {
        let mut events = core::mem::take(&mut self.events);
        loop {
            let next = end.min(self.arriving.next_at()).min(self.tick_at);
            events.clear();
            if let Some(at) = self.calendar.take_next(next, &mut events) {
                self.now = self.now.max(at);
                for event in &events {
                    self.happen(*event);
                }
            } else {
                self.now = self.now.max(next);
                if self.arriving.next_at() <= self.now {
                    while let Some(drawn) = self.arriving.pop(self.now, &mut self.audience) {
                        self.join(drawn);
                    }
                } else if self.tick_at <= self.now {
                    self.tick();
                } else if self.now >= end {
                    break;
                }
            }
            self.look_at_the_clock();
        }
        self.events = events;
        self.settle_breaks();
    }

    /// Asks when the planner wants to be called next.
    fn look_at_the_clock(&mut self) {
        let due = self.overlay.next_timeout();
        let due = due.map(|due| u32::try_from(due.as_micros().div_ceil(1000)).unwrap_or(NEVER));
        self.tick_at = due.map_or(NEVER, |due| due.max(self.now + 1));
        self.losses.looked(self.now, self.tick_at);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Gone { slot, turn } => self.hear_of_gone(PeerSlot(slot), turn),
            Event::Due { slot, tree, token } => self.arrive(PeerSlot(slot), tree, token),
            Event::Retune => self.retune_one(),
            Event::Loss => self.lose(),
            Event::LossHeard => self.hear_of_loss(),
        }
        self.check_now_and_then();
    }

    fn tick(&mut self) {
        let now = self.time();
        let overlay = &mut self.overlay;
        let kind = if self.losses.is_busy() {
            Kind::Mass
        } else {
            Kind::Tick
        };
        let nanos = self.stopwatch.calls_nanos(kind, || overlay.tick(now));
        self.losses.ticked(nanos);
        self.worked();
        self.apply(false);
    }

    fn join(&mut self, drawn: Drawn) {
        let (viewer, newcomer) = self.audience.prepare(drawn, self.now);
        if self.losses.includes(viewer.spot, self.now) {
            return;
        }
        let now = self.time();
        let overlay = &mut self.overlay;
        let slot = self
            .stopwatch
            .measure(Kind::Join, || overlay.join(newcomer, now));
        self.worked();
        self.counts.joins += 1;
        self.audience.seat(slot, viewer);
        self.delivery.forget(slot);
        self.samples
            .came(self.audience.capacity(&viewer), slot, &viewer);
        if viewer.dies != NEVER {
            let heard = viewer
                .dies
                .saturating_add(self.scenario.network.detection_ms);
            let (slot, turn) = (slot.0, viewer.turn);
            self.calendar.add(heard, Event::Gone { slot, turn });
        }
        self.apply(false);
    }

    fn hear_of_gone(&mut self, slot: PeerSlot, turn: u32) {
        let viewer = *self.audience.viewer(slot);
        if !viewer.here || viewer.turn != turn {
            return;
        }
        self.orphans.clear();
        self.bereave(slot);
        self.sort_orphans();
        self.count_interrupted(slot);
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch
            .measure(Kind::Leave, || overlay.leave(&[slot], now));
        self.worked();
        self.counts.leaves += 1;
        self.samples
            .went(self.audience.capacity(&viewer), &viewer, self.now);
        self.audience.unseat(slot);
        self.apply(true);
    }

    /// Notes whom a silent peer leaves without a source, and what they see of it.
    fn bereave(&mut self, slot: PeerSlot) {
        let died = self.audience.viewer(slot).dies;
        for tree in 0..self.trees.len() {
            let id = self.trees[tree];
            self.below.clear();
            self.overlay.children(slot, id, &mut self.below);
            for at in 0..self.below.len() {
                let child = self.below[at];
                if !self.audience.viewer(child).lives(self.now) {
                    continue;
                }
                let standby = self.overlay.standby(child, id);
                let tree = u8::try_from(tree).unwrap_or(0);
                let lasted = self.outage(child, standby);
                self.delivery.broke(child, tree, died, lasted);
                self.orphans.push(Orphan {
                    slot: child,
                    tree,
                    standby,
                });
            }
        }
    }

    /// So that an orphan is found quickly, also among those of a region.
    fn sort_orphans(&mut self) {
        self.orphans
            .sort_unstable_by_key(|orphan| (orphan.slot, orphan.tree));
    }

    /// How long data do not flow to a child whose parent has fallen silent.
    fn outage(&self, child: PeerSlot, standby: Option<SourceSlot>) -> u32 {
        let network = &self.scenario.network;
        let more = match standby {
            Some(SourceSlot::Peer(standby)) if self.can_serve(child, standby) => {
                self.there_and_back(child, standby)
            }
            Some(SourceSlot::Peer(_)) => network.standby_patience_ms + network.cdn_ms,
            Some(SourceSlot::Cdn) | None => network.cdn_ms,
        };
        network.detection_ms + more
    }

    fn can_serve(&self, child: PeerSlot, parent: PeerSlot) -> bool {
        let (one, other) = (self.audience.viewer(child), self.audience.viewer(parent));
        let geography = self.audience.geography();
        other.lives(self.now) && geography.connects((one.turn, one.spot), (other.turn, other.spot))
    }

    fn there_and_back(&self, one: PeerSlot, other: PeerSlot) -> u32 {
        let (one, other) = (self.audience.viewer(one), self.audience.viewer(other));
        let way = self.audience.geography().way_ms(one.spot, other.spot);
        milliseconds(2.0 * way / 1000.0)
    }

    /// Counts the viewers below one who has gone; of a large audience, of every eighth.
    fn count_interrupted(&mut self, slot: PeerSlot) {
        let weight = if self.scenario.peers > LARGE { 8 } else { 1 };
        if weight > 1 && !u64::from(self.audience.viewer(slot).turn).is_multiple_of(weight) {
            return;
        }
        for tree in 0..self.trees.len() {
            let below = self.count_below(slot, tree);
            self.counts.interruptions += u64::from(below) * weight;
        }
    }

    /// Counts those who live in the subtree below the slot.
    fn count_below(&mut self, slot: PeerSlot, tree: usize) -> u32 {
        self.below.clear();
        let id = self.trees[tree];
        self.overlay.children(slot, id, &mut self.below);
        let mut count = 0;
        while let Some(at) = self.below.pop() {
            count += u32::from(self.audience.viewer(at).lives(self.now));
            self.overlay.children(at, id, &mut self.below);
        }
        count
    }

    fn arrive(&mut self, slot: PeerSlot, tree: u8, token: u32) {
        let place = *self.audience.place(slot, tree);
        if place.token != token || !self.audience.viewer(slot).lives(self.now) {
            return;
        }
        let now = self.time();
        if place.source != CDN && !self.can_serve(slot, PeerSlot(place.source)) {
            self.counts.failed_links += 1;
            let overlay = &mut self.overlay;
            let parent = PeerSlot(place.source);
            self.stopwatch
                .measure(Kind::Other, || overlay.failed(slot, parent, now));
        } else {
            let id = self.trees[usize::from(tree)];
            let overlay = &mut self.overlay;
            self.stopwatch
                .measure(Kind::Arrival, || overlay.arrived(slot, id, now));
            self.counts.arrivals += 1;
            self.feed(slot, tree, place.source != CDN);
        }
        self.worked();
        self.apply(false);
    }

    /// Takes in which edges have changed. `bereaved`: some because their source had gone.
    fn apply(&mut self, bereaved: bool) {
        let mut changes = core::mem::take(&mut self.changes);
        changes.clear();
        self.overlay.take_changes(&mut changes);
        for change in &changes {
            self.change(change, bereaved);
        }
        self.changes = changes;
    }

    fn change(&mut self, change: &EdgeChange, bereaved: bool) {
        let Some(tree) = self.trees.iter().position(|tree| *tree == change.tree) else {
            return;
        };
        let tree = u8::try_from(tree).unwrap_or(0);
        let Place {
            source: before,
            token,
            fed,
        } = *self.audience.place(change.peer, tree);
        let source = match change.source {
            None => NOWHERE,
            Some(SourceSlot::Cdn) => CDN,
            Some(SourceSlot::Peer(parent)) => parent.0,
        };
        if before == source {
            return;
        }
        // What is left for another goes on until that one's data come; what has failed does not.
        self.feed(
            change.peer,
            tree,
            source != NOWHERE && change.planned && fed,
        );
        self.counts.places += u64::from(before == NOWHERE);
        self.counts.places -= u64::from(source == NOWHERE);
        let token = token.wrapping_add(1);
        let place = self.audience.place_mut(change.peer, tree);
        (place.source, place.token) = (source, token);
        self.count_child(before, false);
        self.count_child(source, true);
        if source == NOWHERE {
            return;
        }
        self.counts.edges += 1;
        let moves = before != NOWHERE;
        self.counts.planned += u64::from(moves && change.planned);
        self.counts.repairs += u64::from(moves && !change.planned);
        let mut delay = self.delay(change, tree, bereaved && moves && !change.planned);
        // Whoever feeds it, a newcomer has no link to serve over, and no object to serve, before that.
        delay = delay.max(if moves {
            0
        } else {
            self.scenario.network.setup_ms
        });
        let slot = change.peer.0;
        self.calendar
            .add(self.now + delay, Event::Due { slot, tree, token });
    }

    /// Notes whether the place's data come from another peer.
    fn feed(&mut self, slot: PeerSlot, tree: u8, fed: bool) {
        let place = self.audience.place_mut(slot, tree);
        let before = core::mem::replace(&mut place.fed, fed);
        self.counts.fed += u64::from(fed);
        self.counts.fed -= u64::from(before);
    }

    fn count_child(&mut self, source: u32, more: bool) {
        if source < CDN {
            let children = &mut self.audience.viewer_mut(PeerSlot(source)).children;
            *children = if more {
                children.saturating_add(1)
            } else {
                children.saturating_sub(1)
            };
        }
    }

    /// When the first byte comes from a new source.
    fn delay(&self, change: &EdgeChange, tree: u8, bereaved: bool) -> u32 {
        let network = &self.scenario.network;
        let Some(SourceSlot::Peer(parent)) = change.source else {
            return network.cdn_ms;
        };
        let key = (change.peer, tree);
        let orphan = bereaved.then(|| {
            let found = self
                .orphans
                .binary_search_by_key(&key, |orphan| (orphan.slot, orphan.tree));
            found.ok().map(|at| self.orphans[at].standby)
        });
        // To a standby the link is open already, and its children have gone there by themselves.
        let known = orphan.flatten() == Some(change.source);
        let way = self.there_and_back(change.peer, parent);
        if known { way } else { network.setup_ms + way }
    }

    fn retune_one(&mut self) {
        let percent = self.scenario.channel.switch_percent_per_minute;
        let rate = percent / 100.0 / 60.0 * f64::from(self.audience.viewers_here.max(1));
        let gap = super::distribution::unit_exponential(&mut self.dice) / rate;
        self.calendar
            .add(self.now + milliseconds(gap).max(1), Event::Retune);
        let slots = u64::from(self.audience.slots().max(1));
        let at = u32::try_from(self.dice.below(slots)).unwrap_or(0);
        let slot = PeerSlot(at);
        if self.audience.slots() == 0 || !self.audience.viewer(slot).lives(self.now) {
            return;
        }
        let track = self.audience.draw_track();
        if track == self.audience.viewer(slot).track || self.audience.viewer(slot).relay {
            return;
        }
        self.audience.retune(slot, track);
        let name = self.audience.track_name(track);
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch
            .measure(Kind::Other, || overlay.want(slot, name, now));
        self.worked();
        self.counts.retunes += 1;
        self.apply(false);
    }

    fn lose(&mut self) {
        let lost: Vec<_> = self
            .audience
            .living(self.now)
            .filter(|(_, viewer)| self.losses.contains(viewer.spot))
            .map(|(slot, viewer)| (slot, viewer.turn))
            .collect();
        for (slot, _) in &lost {
            self.audience.viewer_mut(*slot).dies = self.now;
        }
        self.losses.lost(self.now, lost);
        let heard = self.now + self.scenario.network.detection_ms;
        self.calendar.add(heard, Event::LossHeard);
    }

    fn hear_of_loss(&mut self) {
        let lost = self.losses.take_lost();
        let there = |(slot, turn): &(PeerSlot, u32)| {
            let viewer = self.audience.viewer(*slot);
            viewer.here && viewer.turn == *turn
        };
        let lost: Vec<_> = lost
            .into_iter()
            .filter(there)
            .map(|(slot, _)| slot)
            .collect();
        self.orphans.clear();
        let before = self.edge_count();
        for slot in &lost {
            self.bereave(*slot);
        }
        self.sort_orphans();
        let now = self.time();
        let overlay = &mut self.overlay;
        let nanos = self
            .stopwatch
            .calls_nanos(Kind::Mass, || overlay.leave(&lost, now));
        self.worked();
        self.counts.leaves += lost.len() as u64;
        let heads = self.orphans.len();
        for slot in &lost {
            let viewer = *self.audience.viewer(*slot);
            self.samples
                .went(self.audience.capacity(&viewer), &viewer, self.now);
            self.audience.unseat(*slot);
        }
        self.apply(true);
        self.losses.heard(&Vanished {
            peers: lost.len(),
            heads,
            nanos,
            edges: self.edge_count() - before,
        });
    }

    fn edge_count(&self) -> u64 {
        self.counts.edges
    }

    fn settle_breaks(&mut self) {
        while let Some(stall) = self.delivery.settle_next(&self.overlay, self.now) {
            if let Some(slot) = stall.peer {
                let lives = self.audience.viewer(slot).lives(self.now);
                let below = self.count_below(slot, usize::from(stall.tree));
                let viewers = u64::from(below) + u64::from(lives);
                self.counts.stalls += viewers;
                self.counts.stall_ms += viewers * u64::from(stall.ms);
            }
        }
    }

    fn worked(&mut self) {
        let work = self.overlay.work().total();
        self.counts.most_work = self.counts.most_work.max(work);
        self.counts.events += 1;
    }

    fn check_now_and_then(&mut self) {
        let Some(every) = self.check_every else {
            return;
        };
        if self.counts.events.is_multiple_of(every) {
            self.check();
        }
    }

    fn check(&mut self) {
        if self.check_every.is_some() && self.findings.is_empty() {
            self.findings = self.overlay.findings();
        }
    }

    /// Looks at the trees and the audience; this is no part of what is timed.
    fn observe(&mut self) {
        let started = Instant::now();
        self.samples.take(
            &self.overlay,
            &self.audience,
            &self.trees,
            self.now,
            &self.counts,
        );
        if let Some(wrong) = self.scenario.wrong_capacity {
            self.observing += started.elapsed();
            self.learn(wrong.learned_after_seconds);
            return;
        }
        self.observing += started.elapsed();
    }

    /// Uplinks that are full are measured; children of one that carries more than it can say so.
    fn learn(&mut self, after: u32) {
        let now = self.now;
        let full: Vec<_> = self
            .audience
            .living(now)
            .filter(|(_, viewer)| viewer.children > 0 && viewer.uplink_kbps != viewer.believed_kbps)
            .map(|(slot, _)| slot)
            .collect();
        for slot in full {
            let viewer = *self.audience.viewer(slot);
            let (real, believed) = (
                self.audience.capacity(&viewer),
                self.audience.believed_capacity(&viewer),
            );
            let carried = u32::from(viewer.children);
            let over = carried > real;
            self.counts.overloaded_seconds += u64::from(over);
            let is_full = over || (carried >= believed && real > believed);
            let full_for = if is_full {
                viewer.full_for.saturating_add(1)
            } else {
                0
            };
            self.audience.viewer_mut(slot).full_for = full_for;
            if u32::from(full_for) >= after {
                self.correct(slot);
            } else if over && full_for == 2 {
                self.complain(slot);
            }
        }
    }

    /// What the uplink carries has been measured: one more child's worth, or what there is.
    fn correct(&mut self, slot: PeerSlot) {
        let viewer = *self.audience.viewer(slot);
        let more = viewer.believed_kbps + self.audience.costs_kbps[usize::from(viewer.track)];
        let learned = viewer.uplink_kbps.min(more);
        let viewer = self.audience.viewer_mut(slot);
        (viewer.believed_kbps, viewer.full_for) = (learned, 0);
        let now = self.time();
        let overlay = &mut self.overlay;
        let bps = u64::from(learned) * 1000;
        self.stopwatch
            .measure(Kind::Other, || overlay.set_upload(slot, bps, now));
        self.worked();
        self.apply(false);
    }

    fn complain(&mut self, parent: PeerSlot) {
        self.below.clear();
        self.overlay
            .children(parent, self.trees[0], &mut self.below);
        let Some(child) = self.below.last().copied() else {
            return;
        };
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch
            .measure(Kind::Other, || overlay.late(child, parent, now));
        self.worked();
        self.apply(false);
    }
}
