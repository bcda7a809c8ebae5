//! Many runs, side by side, until all are done or time is up.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cluster::{Outcome, Run};

/// Which runs, and for how long.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Their seeds.
    pub seeds: Range<u64>,
    /// What they have in common.
    pub run: Run,
    /// How many at a time.
    pub jobs: usize,
    /// No run begins after this time.
    pub limit: Option<Duration>,
    /// Whether the first failure ends it.
    pub first_failure_ends: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Runs that were played to their end.
    pub runs: u64,
    /// Those that violated something, by seed.
    pub failures: Vec<FoundViolation>,
    /// Log entries that were applied.
    pub entries: u64,
    /// Calls of the API whose outcomes were checked.
    pub operations: u64,
    /// Seconds that passed in the worlds.
    pub virtual_seconds: f64,
    /// Seconds that passed here.
    pub seconds: f64,
}

/// A run that violated something.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct FoundViolation {
    /// Of the run.
    pub seed: u64,
    /// The rule's short name.
    pub rule: String,
    /// What was seen.
    pub detail: String,
}

struct Shared {
    next: u64,
    summary: Summary,
}

impl Batch {
    /// Plays the runs. `done` is called after each, with what came of all so far.
    pub fn play(&self, done: impl Fn(&Summary) + Sync) -> Summary {
        let begun = Instant::now();
        let shared = Mutex::new(Shared {
            next: self.seeds.start,
            summary: Summary::default(),
        });
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| self.work(begun, &shared, &done));
            }
        });
        let shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut summary = shared.summary;
        summary.seconds = begun.elapsed().as_secs_f64();
        summary.failures.sort_by_key(|failure| failure.seed);
        summary
    }

    fn work(&self, begun: Instant, shared: &Mutex<Shared>, done: &impl Fn(&Summary)) {
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let seed = {
                let mut shared = lock();
                let late = self.limit.is_some_and(|limit| begun.elapsed() >= limit);
                let found = self.first_failure_ends && !shared.summary.failures.is_empty();
                if late || found || shared.next >= self.seeds.end {
                    return;
                }
                shared.next += 1;
                shared.next - 1
            };
            let outcome = Run { seed, ..self.run }.play();
            let mut shared = lock();
            shared.summary.add(seed, outcome);
            done(&shared.summary);
        }
    }
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.runs += 1;
        self.entries += outcome.applied;
        self.operations += outcome.operations as u64;
        self.virtual_seconds += outcome.virtual_time.as_secs_f64();
        if let Some(violation) = outcome.violation {
            self.failures.push(FoundViolation {
                seed,
                rule: violation.rule.to_owned(),
                detail: violation.detail,
            });
        }
    }
}
