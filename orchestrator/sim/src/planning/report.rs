//! What a run found, beside what could not be beaten.

use std::time::Duration;

use serde::Serialize;

use super::bounds;
use super::driver::Driver;
use super::latency;
use super::losses::MassEvent;
use super::overlay::{Overlay, Replay};
use super::samples::{Crowd, Sample};
use super::stopwatch::{self, Kind, Timing};
use crate::dice::Dice;

/// Results, each divided by its bound; none where the scenario has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// The mean depth by the least mean depth under as many roots.
    pub mean_depth: Option<f64>,
    /// Interruptions per viewer-hour by the least.
    pub interruptions: Option<f64>,
    /// Roots by the least.
    pub roots: Option<f64>,
    /// The crowd's most roots by the most that were necessary.
    pub flash_peak: Option<f64>,
}

/// Averages over the measurement, and what bounds them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Averages {
    /// Viewers.
    pub viewers: f64,
    /// Depth; a root has 1.
    pub mean_depth: f64,
    /// The least that it can be.
    pub least_mean_depth: f64,
    /// The greatest depth that was seen.
    pub max_depth: u32,
    /// Roots.
    pub roots: f64,
    /// The least that they can be, if nobody helps where it does not watch.
    pub least_roots: f64,
    /// The least that they can be if everybody helps everywhere.
    pub least_roots_with_helpers: f64,
    /// Of what the audience received, what other peers sent.
    pub offload: f64,
    /// Broken paths per viewer-hour.
    pub interruptions_per_viewer_hour: f64,
    /// The least that they can be by the hazard of parents alone.
    pub least_interruptions_by_parents: f64,
    /// The least that they can be, those above the parents included.
    pub least_interruptions: f64,
    /// Moves away from a failed source, per viewer-hour.
    pub repairs_per_viewer_hour: f64,
    /// From a source's silence until data flow from another, in the mean.
    pub break_to_repair_ms: f64,
    /// The same, at most.
    pub longest_break_ms: u32,
    /// How long viewers stood still, per viewer-hour.
    pub stall_seconds_per_viewer_hour: f64,
    /// For how long parents had more children than they could carry, per viewer-hour.
    pub overloaded_seconds_per_viewer_hour: f64,
}

/// Where the time went.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Speed {
    /// Of joins.
    pub join: Timing,
    /// Of leaves.
    pub leave: Timing,
    /// Of arrivals.
    pub arrival: Timing,
    /// Of ticks.
    pub tick: Timing,
    /// Of everything else that the planner is told.
    pub other: Timing,
    /// Of asking, after each event, which edges have changed.
    pub changes: Timing,
    /// The planner's part of an event, nanoseconds.
    pub planner_ns_per_event: f64,
    /// The simulator's, with what measuring costs.
    pub simulator_ns_per_event: f64,
    /// Events per second of processor time, where the system says: of one core that nobody else uses.
    pub events_per_processor_second: Option<f64>,
    /// Resident bytes of the process, all included.
    pub resident_bytes: Option<u64>,
    /// The most work units of an event.
    pub most_work: u32,
    /// Of a thousand events, one was more work units.
    pub work_p999: u64,
}

/// Latency behind the CDN, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the viewers have less.
    pub p50_ms: f64,
    /// One of a hundred has more.
    pub p99_ms: f64,
    /// The greatest.
    pub max_ms: f64,
    /// Of the viewers that another peer feeds, how many take it from their region.
    pub within_region: f64,
    /// And from their provider.
    pub within_provider: f64,
    /// Latency and the part of the viewers that have at most this.
    pub cdf: Vec<(f64, f64)>,
    /// The same by the hop formula at the least depths.
    pub least_cdf: Vec<(f64, f64)>,
}

/// How many calls of each kind there were while it was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Events {
    /// All.
    pub all: u64,
    /// Newcomers.
    pub joins: u64,
    /// Those who went.
    pub leaves: u64,
    /// First bytes from a source.
    pub arrivals: u64,
    /// Ticks.
    pub ticks: u64,
    /// Changes of the track.
    pub retunes: u64,
    /// Links that did not come up.
    pub failed_links: u64,
    /// Edges that were changed.
    pub edges: u64,
}

/// What came of playing a run again, and of rebuilding its planner from snapshots.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Replays {
    /// The hash in the end of the second run.
    pub second_run: String,
    /// How often the planner was rebuilt, and had the same state.
    pub rebuilds: usize,
    /// The longest that reading a snapshot took.
    pub read_ms: f64,
    /// The longest that making a planner from the records took.
    pub rebuild_ms: f64,
}

/// A run's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Which scenario.
    pub scenario: String,
    /// Which policy: `planner`, or a yardstick's name.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// Viewers at the beginning.
    pub peers: u32,
    /// Results by bounds.
    pub ratios: Ratios,
    /// Planner events a second of the planner's and the simulator's time.
    pub events_per_second: f64,
    /// One of a hundred joins took longer.
    pub join_p99_us: f64,
    /// One of a hundred leaves took longer.
    pub leave_p99_us: f64,
    /// The longest of all single events.
    pub worst_event_us: f64,
    /// Of the trees and their indices, a place in a tree.
    pub bytes_per_peer: Option<f64>,
    /// Moves away from a source that was fine.
    pub planned_moves_per_viewer_hour: f64,
    /// Breaks that outlasted a buffer.
    pub stalls_per_viewer_hour: f64,
    /// Of who takes what from whom in the end.
    pub state_hash: String,
    /// Seconds that were measured.
    pub seconds: u32,
    /// Averages.
    pub averages: Averages,
    /// Where the time went.
    pub speed: Speed,
    /// How many of what.
    pub events: Events,
    /// Latency in the end.
    pub latency: Latency,
    /// The crowd's figures, if there was one.
    pub crowd: Option<Crowd>,
    /// The mass event's, if there was one.
    pub mass_event: Option<MassEvent>,
    /// The replays', if they were asked for.
    pub replays: Option<Replays>,
    /// Invariants that did not hold.
    pub findings: Vec<String>,
    /// Over time.
    pub series: Vec<Sample>,
}

impl Report {
    pub(crate) fn of<O: Overlay>(driver: &Driver<O>, policy: &str, seed: u64) -> Self {
        let averages = averages(driver);
        let hours = driver.samples.sums.viewer_hours;
        let counts = &driver.counts;
        let crowd = driver.samples.crowd.clone();
        let stopwatch = &driver.stopwatch;
        let places: u32 = driver
            .trees
            .iter()
            .map(|tree| driver.overlay.levels(*tree).iter().sum::<u32>())
            .sum();
        let bytes = driver.overlay.bytes().trees;
        Self {
            scenario: driver.scenario.name.clone(),
            policy: policy.to_owned(),
            seed,
            peers: driver.scenario.peers,
            ratios: Ratios {
                mean_depth: divided(averages.mean_depth, averages.least_mean_depth),
                interruptions: divided(
                    averages.interruptions_per_viewer_hour,
                    averages.least_interruptions,
                ),
                roots: divided(averages.roots, averages.least_roots),
                flash_peak: crowd.as_ref().and_then(|crowd| {
                    divided(
                        f64::from(crowd.peak_roots),
                        f64::from(crowd.least_peak_roots),
                    )
                }),
            },
            events_per_second: float(counts.events) / driver.wall.as_secs_f64(),
            join_p99_us: stopwatch.timing(Kind::Join).p99_us,
            leave_p99_us: stopwatch.timing(Kind::Leave).p99_us,
            worst_event_us: stopwatch.worst_us(),
            bytes_per_peer: (bytes > 0).then(|| float(bytes as u64) / f64::from(places.max(1))),
            planned_moves_per_viewer_hour: float(counts.planned) / hours,
            stalls_per_viewer_hour: float(counts.stalls) / hours,
            state_hash: format!("{:016x}", driver.overlay.state_hash()),
            seconds: driver.scenario.seconds,
            averages,
            speed: speed(driver),
            events: events(driver),
            latency: latency_of(driver, seed),
            crowd,
            mass_event: driver.losses.mass.clone(),
            replays: replays(driver),
            findings: driver.findings.clone(),
            series: driver.samples.series.clone(),
        }
    }

    /// Takes in how the same run ended when it was played again.
    pub(crate) fn compare_states(&mut self, again: &Self) {
        if let Some(replays) = &mut self.replays {
            replays.second_run.clone_from(&again.state_hash);
        }
        if again.state_hash != self.state_hash {
            let (one, other) = (&self.state_hash, &again.state_hash);
            self.findings
                .push(format!("two runs: {one} and {other} in the end"));
        }
    }

    /// The report without what differs from machine to machine and from run to run.
    #[must_use]
    pub fn without_timings(&self) -> Self {
        let mass = |mass: &MassEvent| MassEvent {
            worst_slice_ms: 0.0,
            total_ms: 0.0,
            ..mass.clone()
        };
        Self {
            events_per_second: 0.0,
            join_p99_us: 0.0,
            leave_p99_us: 0.0,
            worst_event_us: 0.0,
            speed: Speed::default(),
            replays: None,
            mass_event: self.mass_event.as_ref().map(mass),
            ..self.clone()
        }
    }
}

fn replays<O: Overlay>(driver: &Driver<O>) -> Option<Replays> {
    let longest = |took: fn(&Replay) -> Duration| {
        let longest = driver.rebuilds.iter().map(took).max().unwrap_or_default();
        longest.as_secs_f64() * 1000.0
    };
    (!driver.rebuilds.is_empty()).then(|| Replays {
        second_run: String::new(),
        rebuilds: driver.rebuilds.len(),
        read_ms: longest(|replay| replay.read),
        rebuild_ms: longest(|replay| replay.rebuilt),
    })
}

fn divided(result: f64, bound: f64) -> Option<f64> {
    (bound > 0.0 && result.is_finite()).then(|| result / bound)
}

fn averages<O: Overlay>(driver: &Driver<O>) -> Averages {
    let sums = &driver.samples.sums;
    let counts = &driver.counts;
    let mean = |sum: f64| sum / f64::max(sums.samples, 1.0);
    let hazard = |sum: f64| sum / f64::max(sums.hazard_samples, 1.0);
    let hourly = |count: f64| count / f64::max(sums.viewer_hours, 1e-9);
    let stripes = f64::from(driver.scenario.channel.stripes);
    let by_parents = hazard(sums.least_by_parents);
    let hours = f64::from(driver.scenario.seconds) / 3600.0;
    Averages {
        viewers: sums.viewer_hours / hours,
        mean_depth: mean(sums.depth),
        least_mean_depth: mean(sums.least_depth),
        max_depth: driver
            .samples
            .series
            .iter()
            .map(|sample| sample.max_depth)
            .max()
            .unwrap_or(0),
        roots: mean(sums.roots),
        least_roots: mean(sums.least_roots),
        least_roots_with_helpers: hazard(sums.least_roots_with_helpers),
        offload: mean(sums.offload),
        interruptions_per_viewer_hour: hourly(float(counts.interruptions)) / stripes,
        least_interruptions_by_parents: by_parents,
        least_interruptions: by_parents + hazard(sums.least_by_others),
        repairs_per_viewer_hour: hourly(float(counts.repairs)),
        break_to_repair_ms: float(counts.break_ms) / f64::max(float(counts.breaks), 1.0),
        longest_break_ms: counts.longest_break_ms,
        stall_seconds_per_viewer_hour: hourly(float(counts.stall_ms) / 1000.0),
        overloaded_seconds_per_viewer_hour: hourly(float(counts.overloaded_seconds)),
    }
}

fn speed<O: Overlay>(driver: &Driver<O>) -> Speed {
    let stopwatch = &driver.stopwatch;
    let events = f64::max(float(driver.counts.events), 1.0);
    let planner = float(stopwatch.nanos());
    let all = driver.wall.as_secs_f64() * 1e9;
    Speed {
        join: stopwatch.timing(Kind::Join),
        leave: stopwatch.timing(Kind::Leave),
        arrival: stopwatch.timing(Kind::Arrival),
        tick: stopwatch.timing(Kind::Tick),
        other: stopwatch.timing(Kind::Other),
        changes: stopwatch.timing(Kind::Changes),
        planner_ns_per_event: planner / events,
        simulator_ns_per_event: (all - planner) / events,
        events_per_processor_second: driver.processor.map(|seconds| events / seconds),
        resident_bytes: stopwatch::resident_bytes(),
        most_work: driver.counts.most_work,
        work_p999: stopwatch.work_p999(),
    }
}

fn events<O: Overlay>(driver: &Driver<O>) -> Events {
    let counts = &driver.counts;
    Events {
        all: counts.events,
        joins: counts.joins,
        leaves: counts.leaves,
        arrivals: counts.arrivals,
        ticks: driver.stopwatch.timing(Kind::Tick).calls,
        retunes: counts.retunes,
        failed_links: counts.failed_links,
        edges: counts.edges,
    }
}

fn latency_of<O: Overlay>(driver: &Driver<O>, seed: u64) -> Latency {
    let mut dice = Dice::new(seed).stream("latency", 0);
    let network = &driver.scenario.network;
    let (overlay, audience) = (&driver.overlay, &driver.audience);
    let near = latency::near(overlay, audience, &driver.trees, driver.now, &mut dice);
    let sorted = latency::sample(
        overlay,
        audience,
        network,
        &driver.trees,
        driver.now,
        &mut dice,
    );
    let at = |part: f64| {
        let index = (0..sorted.len())
            .rev()
            .find(|index| float(*index as u64) <= part * float(sorted.len() as u64));
        index.map_or(0.0, |index| sorted[index])
    };
    let points = 100;
    let cdf = (0..=points).map(|point| {
        let part = f64::from(point) / f64::from(points);
        (at(part), part)
    });
    let mut all = vec![0; audience.capacities[0].len()];
    for capacities in &audience.capacities {
        all.iter_mut()
            .zip(capacities)
            .for_each(|(sum, count)| *sum += count);
    }
    let roots: u32 = driver
        .trees
        .iter()
        .map(|tree| overlay.root_count(*tree))
        .sum();
    let stripes = u32::from(driver.scenario.channel.stripes);
    let depths = bounds::depths(audience.viewers_here, roots / stripes, &all);
    Latency {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: sorted.last().copied().unwrap_or(0.0),
        within_region: near.0,
        within_provider: near.1,
        cdf: cdf.collect(),
        least_cdf: latency::formula(&driver.scenario, &depths, audience.viewers_here),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
