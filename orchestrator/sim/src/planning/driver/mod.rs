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

mod edges;
mod happenings;
mod mass;
mod watch;

use std::time::{Duration, Instant};

use espalier_orchestrator_core::TrackIndex;
use espalier_orchestrator_core::planner::{EdgeChange, PeerSlot, SourceSlot, TreeId};

use crate::dice::Dice;
use crate::planning::arrivals::Arriving;
use crate::planning::audience::{Audience, CDN, NEVER};
use crate::planning::calendar::Calendar;
use crate::planning::counts::Counts;
use crate::planning::delivery::Delivery;
use crate::planning::losses::Losses;
use crate::planning::network::Geography;
use crate::planning::overlay::{Overlay, Replay};
use crate::planning::samples::Samples;
use crate::planning::scenario::Scenario;
use crate::planning::stopwatch::{Stopwatch, processor_seconds};

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
    /// The planner is rebuilt from its snapshot now and then, and compared.
    replays: bool,
    pub(crate) rebuilds: Vec<Replay>,
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
            replays: false,
            rebuilds: Vec::new(),
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

    /// Rebuilds the planner from its snapshot four times on the way, and compares.
    pub(crate) fn replaying(mut self, replays: bool) -> Self {
        self.replays = replays;
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
            self.replay(passed);
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
}
