//! One run of one scenario with one who plans.

use std::time::Duration;

use espalier_orchestrator_core::planner::Planner;
use espalier_orchestrator_core::{Policy, PolicyDraft, PolicyError, TrackIndex, TrackInfo};

use super::driver::Driver;
use super::overlay::{Nobody, Overlay};
use super::report::Report;
use super::scenario::Scenario;
use super::yardstick::{Rule, Yardstick};

/// Who plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Production's planner.
    Planner,
    /// One that it is compared with.
    Yardstick(Rule),
    /// Nobody: the CDN feeds everyone, and what the run costs is the simulator's share.
    Nobody,
}

impl Subject {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planner => "planner",
            Self::Yardstick(Rule::Random) => "random",
            Self::Yardstick(Rule::MinimumDepth) => "minimum-depth",
            Self::Yardstick(Rule::Rost) => "rost",
            Self::Nobody => "nobody",
        }
    }
}

/// A run that has not begun.
#[derive(Debug, Clone)]
pub struct PlannerRun {
    /// What is played.
    pub scenario: Scenario,
    /// From which seed.
    pub seed: u64,
    /// With whom.
    pub subject: Subject,
    /// Check the invariants each time so many events have passed, and in the end.
    pub check_every: Option<u64>,
    /// Rebuild the planner from its snapshot four times on the way, and play all of it again: every state must
    /// be the same.
    pub replay_from_snapshot: bool,
}

impl PlannerRun {
    /// Plays it. `progress` is told which part of it has passed.
    ///
    /// # Errors
    /// If the scenario's channel makes no policy.
    pub fn play(&self, mut progress: impl FnMut(f64)) -> Result<Report, PolicyError> {
        if !self.replay_from_snapshot {
            return self.play_once(progress);
        }
        let mut report = self.play_once(|part| progress(part / 2.0))?;
        let once = Self {
            replay_from_snapshot: false,
            ..self.clone()
        };
        let again = once.play_once(|part| progress(0.5 + part / 2.0))?;
        report.compare_states(&again);
        Ok(report)
    }

    fn play_once(&self, progress: impl FnMut(f64)) -> Result<Report, PolicyError> {
        let channel = &self.scenario.channel;
        match self.subject {
            Subject::Planner => {
                let planner = Planner::new(self.policy()?, &self.tracks(), Duration::ZERO);
                Ok(self.drive(planner, progress))
            }
            Subject::Yardstick(rule) => {
                let track = &channel.tracks[0];
                let cost = track.rate_bps * u64::from(channel.overhead_permille) / 1000;
                let most = channel.max_relay_children.unwrap_or(channel.max_children);
                let target = self.scenario.target_roots();
                let yardstick = Yardstick::new(rule, cost, most, target, self.seed);
                Ok(self.drive(yardstick, progress))
            }
            Subject::Nobody => Ok(self.drive(Nobody::default(), progress)),
        }
    }

    fn drive(&self, overlay: impl Overlay, progress: impl FnMut(f64)) -> Report {
        let driver = Driver::new(&self.scenario, self.seed, overlay);
        let driver = driver.checking(self.check_every);
        let mut driver = driver.replaying(self.replay_from_snapshot);
        driver.play(progress);
        Report::of(&driver, self.subject.name(), self.seed)
    }

    fn policy(&self) -> Result<Policy, PolicyError> {
        let channel = &self.scenario.channel;
        let children = channel.max_relay_children.unwrap_or(channel.max_children);
        Policy::validate(&PolicyDraft {
            target_roots: Some(self.scenario.target_roots()),
            max_depth: Some(channel.max_depth),
            overhead_permille: Some(channel.overhead_permille),
            max_children: Some(u32::from(channel.stripes) * children),
            stripes: Some(u32::from(channel.stripes)),
            ..PolicyDraft::default()
        })
    }

    fn tracks(&self) -> Vec<TrackInfo> {
        let tracks = (0..).zip(&self.scenario.channel.tracks);
        let info = |(index, track): (u32, &super::scenario::Track)| {
            Some(TrackInfo {
                index: TrackIndex(index),
                name: track.name.parse().ok()?,
                rate_bps: track.rate_bps,
                default: index == 0,
            })
        };
        tracks.filter_map(info).collect()
    }
}
