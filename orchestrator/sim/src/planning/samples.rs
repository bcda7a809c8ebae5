//! What is seen over time, beside what the audience of that moment allows.

use std::collections::VecDeque;

use espalier_orchestrator_core::planner::{PeerSlot, TreeId};
use serde::Serialize;

use super::audience::{Audience, Viewer};
use super::bounds::{self, Hazards};
use super::counts::Counts;
use super::overlay::Overlay;
use super::report::float;
use super::scenario::Scenario;

/// A moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds of the measurement.
    pub seconds: f64,
    /// How many are there.
    pub viewers: u32,
    /// How many the CDN feeds, and how many it must at least.
    pub roots: u32,
    /// The least roots.
    pub least_roots: u32,
    /// How many take their data from the CDN, planned or not: newcomers whose link is not up yet, and those
    /// whose source has failed.
    pub fed_by_cdn: u64,
    /// The mean depth.
    pub mean_depth: f64,
    /// The least mean depth under so many roots.
    pub least_mean_depth: f64,
    /// The greatest depth.
    pub max_depth: u32,
    /// Of the places in trees, how many take their data from other peers.
    pub offload: f64,
    /// Interruptions so far; a stripe's is that part of one.
    pub interruptions: f64,
    /// Planned moves so far.
    pub planned_moves: u64,
    /// Stalls so far.
    pub stalls: u64,
}

/// Sums over time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    pub(crate) viewer_hours: f64,
    pub(crate) depth: f64,
    pub(crate) least_depth: f64,
    pub(crate) roots: f64,
    pub(crate) least_roots: f64,
    pub(crate) least_roots_with_helpers: f64,
    pub(crate) offload: f64,
    pub(crate) samples: f64,
    /// Interruptions per viewer-hour that cannot be avoided: by parents, and by those above them.
    pub(crate) least_by_parents: f64,
    pub(crate) least_by_others: f64,
    pub(crate) hazard_samples: f64,
}

/// The crowd's figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Crowd {
    /// The most roots at any time.
    pub peak_roots: u32,
    /// The most that the slots of the warm made necessary at any time.
    pub least_peak_roots: u32,
    /// The most that took their data from the CDN at any time, newcomers whose link was not up yet included.
    pub peak_fed_by_cdn: u64,
    /// Seconds from the crowd's last newcomer until the roots were at most twice what is wanted; none:
    /// they never were.
    pub seconds_to_twice_the_target: Option<f64>,
    /// Roots in the end.
    pub roots_in_the_end: u32,
}

/// Everything that is looked at now and then.
#[derive(Debug)]
pub(crate) struct Samples {
    zero: u32,
    step: u32,
    next: u32,
    target: u32,
    stripes: u32,
    /// Every so many samples the hazards are looked at.
    hazards_every: usize,
    crowd_over: Option<u32>,
    setup: u32,
    /// Newcomers that will be warm: when, who, and their slots.
    warming: VecDeque<(u32, PeerSlot, u32, u32)>,
    /// Until when those have been taken in, and the slots of the warm.
    warmed: u32,
    warm_slots: u64,
    pub(crate) crowd: Option<Crowd>,
    pub(crate) sums: Sums,
    pub(crate) series: Vec<Sample>,
}

impl Samples {
    pub(crate) fn new(scenario: &Scenario, zero: u32) -> Self {
        let crowd = scenario.arrivals.flash;
        let step = match crowd {
            Some(_) => 100,
            None => (scenario.seconds * 1000 / 600).max(1000),
        };
        let samples = scenario.seconds * 1000 / step;
        Self {
            zero,
            step,
            next: zero + step,
            target: scenario.target_roots(),
            stripes: u32::from(scenario.channel.stripes),
            hazards_every: (samples as usize / 24).max(1),
            crowd_over: crowd.map(|flash| zero + (flash.at_seconds + flash.over_seconds) * 1000),
            setup: scenario.network.setup_ms,
            warming: VecDeque::new(),
            warmed: 0,
            warm_slots: 0,
            crowd: crowd.map(|_| Crowd::default()),
            sums: Sums::default(),
            series: Vec::new(),
        }
    }

    pub(crate) fn next_at(&self) -> u32 {
        self.next
    }

    /// Somebody has come.
    pub(crate) fn came(&mut self, slots: u32, slot: PeerSlot, viewer: &Viewer) {
        if self.crowd.is_some() && slots > 0 {
            let warm = viewer.born.saturating_add(self.setup);
            self.warming.push_back((warm, slot, viewer.turn, slots));
        }
    }

    /// Somebody has gone.
    pub(crate) fn went(&mut self, slots: u32, viewer: &Viewer, _now: u32) {
        if self.crowd.is_some() && viewer.born.saturating_add(self.setup) <= self.warmed {
            self.warm_slots -= u64::from(slots);
        }
    }

    /// Looks at everything.
    pub(crate) fn take(
        &mut self,
        overlay: &impl Overlay,
        audience: &Audience,
        trees: &[TreeId],
        now: u32,
        counts: &Counts,
    ) {
        self.next = now + self.step;
        let sample = self.look(overlay, audience, trees, now, counts);
        self.watch_the_crowd(&sample, audience, now);
        if self.series.len().is_multiple_of(self.hazards_every) {
            self.look_at_hazards(&sample, audience, now);
        }
        let hours = f64::from(self.step) / 3_600_000.0;
        let sums = &mut self.sums;
        sums.viewer_hours += f64::from(sample.viewers) * hours;
        sums.depth += sample.mean_depth;
        sums.least_depth += sample.least_mean_depth;
        sums.roots += f64::from(sample.roots);
        sums.least_roots += f64::from(sample.least_roots);
        sums.offload += sample.offload;
        sums.samples += 1.0;
        self.series.push(sample);
    }

    fn look(
        &mut self,
        overlay: &impl Overlay,
        audience: &Audience,
        trees: &[TreeId],
        now: u32,
        counts: &Counts,
    ) -> Sample {
        let mut sample = Sample {
            seconds: f64::from(now - self.zero) / 1000.0,
            viewers: audience.viewers_here,
            interruptions: float(counts.interruptions) / f64::from(self.stripes),
            planned_moves: counts.planned,
            stalls: counts.stalls,
            fed_by_cdn: counts.places - counts.fed,
            ..Sample::default()
        };
        let (mut depth, mut least_depth, mut members) = (0.0, 0.0, 0.0);
        for tree in trees {
            let track = tree.track.0 as usize;
            let capacities = &audience.capacities[track];
            let viewers: u32 = capacities.iter().sum();
            let roots = overlay.root_count(*tree);
            sample.roots += roots;
            // In one stripe a peer can have no more children than it has slots for all stripes.
            let bound = bounds::depths(viewers, roots, capacities);
            least_depth += bound.mean * f64::from(viewers);
            if tree.stripe == 0 {
                let slots = bounds::slots(capacities);
                let target = self.target * self.stripes;
                sample.least_roots += bounds::roots(viewers * self.stripes, slots, target);
            }
            let levels = overlay.levels(*tree);
            for (depth_of, count) in (0_u32..).zip(&levels) {
                depth += f64::from(depth_of) * f64::from(*count);
                members += f64::from(*count);
                if *count > 0 {
                    sample.max_depth = sample.max_depth.max(depth_of);
                }
            }
        }
        if audience.capacities.len() == 1 {
            let nats = audience
                .by_nat
                .map(|(viewers, slots)| (viewers * self.stripes, slots));
            let least = bounds::roots_behind_nats(&nats, self.target * self.stripes);
            sample.least_roots = sample.least_roots.max(least);
        }
        sample.mean_depth = depth / f64::max(members, 1.0);
        sample.least_mean_depth = least_depth / f64::from((sample.viewers * self.stripes).max(1));
        sample.offload = float(counts.fed) / f64::max(float(counts.places), 1.0);
        sample
    }

    fn watch_the_crowd(&mut self, sample: &Sample, audience: &Audience, now: u32) {
        let Some(crowd) = &mut self.crowd else { return };
        while let Some((warm, slot, turn, slots)) = self.warming.front().copied() {
            if warm > now {
                break;
            }
            self.warming.pop_front();
            let viewer = audience.viewer(slot);
            if viewer.here && viewer.turn == turn {
                self.warm_slots += u64::from(slots);
            }
        }
        self.warmed = now;
        let (target, places) = (self.target * self.stripes, sample.viewers * self.stripes);
        let least = bounds::roots(places, self.warm_slots, target);
        crowd.peak_roots = crowd.peak_roots.max(sample.roots);
        crowd.least_peak_roots = crowd.least_peak_roots.max(least);
        crowd.peak_fed_by_cdn = crowd.peak_fed_by_cdn.max(sample.fed_by_cdn);
        crowd.roots_in_the_end = sample.roots;
        let over = self.crowd_over.filter(|over| now >= *over);
        if let Some(over) = over
            && sample.roots <= 2 * target
            && crowd.seconds_to_twice_the_target.is_none()
        {
            crowd.seconds_to_twice_the_target = Some(f64::from(now - over) / 1000.0);
        }
    }

    /// Bounds the interruptions, and the roots if everybody could help everywhere.
    fn look_at_hazards(&mut self, sample: &Sample, audience: &Audience, now: u32) {
        let mut hazards = Hazards::new();
        let mut uplinks = 0.0;
        for (_, viewer) in audience.living(now) {
            let capacity = audience.capacity(viewer);
            if capacity > 0 {
                let age = f64::from(now - viewer.born) / 1000.0;
                let hazard = audience.session_of(viewer.group).hazard(age);
                hazards.add(hazard, capacity);
                uplinks += f64::from(viewer.uplink_kbps);
            }
        }
        let mut all = vec![0; audience.capacities[0].len()];
        let (mut demand, mut dearest) = (0.0, 1.0);
        for (capacities, cost) in audience.capacities.iter().zip(&audience.costs_kbps) {
            let viewers: u32 = capacities.iter().sum();
            demand += f64::from(viewers * self.stripes) * f64::from(*cost);
            dearest = f64::max(dearest, f64::from(*cost));
            for (sum, count) in all.iter_mut().zip(capacities) {
                *sum += count;
            }
        }
        let depths = bounds::depths(sample.viewers, sample.roots / self.stripes, &all);
        let places = sample.viewers * self.stripes;
        let per_hour = 3600.0;
        let sums = &mut self.sums;
        sums.least_by_parents += per_hour * hazards.parents(places, sample.roots);
        sums.least_by_others += per_hour * hazards.above(sample.viewers, &depths);
        let trees = u32::try_from(audience.costs_kbps.len()).unwrap_or(1);
        let missing = ((demand - uplinks) / dearest).ceil();
        sums.least_roots_with_helpers += missing.max(f64::from(self.target * self.stripes * trees));
        sums.hazard_samples += 1.0;
    }
}
