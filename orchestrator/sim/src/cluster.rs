//! One run of the cluster from one seed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use openraft::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;

use crate::audit::{Audit, Violation};
use crate::dice::Dice;
use crate::faults::Plan;
use crate::planted::Bug;
use crate::world::World;

/// What is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Makes everything.
    pub seed: u64,
    /// How many nodes; without it the seed says so.
    pub nodes: Option<u64>,
    /// A bug that is planted.
    pub bug: Option<Bug>,
    /// Keep the last events, to show them. It changes nothing else.
    pub recording: bool,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was violated first.
    pub violation: Option<Violation>,
    /// Of the whole history: equal for equal runs.
    pub history: u64,
    /// The last events, if they were kept.
    pub events: Vec<String>,
    /// The last entry that was applied.
    pub applied: u64,
    /// Calls of the API whose outcome was checked.
    pub operations: usize,
    /// How long it took, in the world's time.
    pub virtual_time: Duration,
}

impl Run {
    /// A run without planted bugs.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            nodes: None,
            bug: None,
            recording: false,
        }
    }

    /// Plays it.
    #[must_use]
    pub fn play(self) -> Outcome {
        keep_panics_to_ourselves();
        let audit = Audit::new(self.recording);
        let seed = Dice::new(self.seed);
        let plan = Plan::draw(&seed, self.nodes);
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut runtime = SimRuntime::with_seed(seed.stream("runtime", 0).next());
            let audit = audit.clone();
            runtime.block_on(async move {
                audit.note(self.seed, || format!("{plan:?}"));
                World::new(&seed, plan, self.bug, &audit).run().await
            })
        }));
        let panic = PANIC.take().flatten();
        let mut violation = audit.violation();
        if let (None, Some(detail)) = (&violation, panic) {
            violation = Some(Violation {
                rule: "nothing panics",
                detail,
            });
        }
        let tally = played.unwrap_or_default();
        let (history, events) = audit.history();
        Outcome {
            violation,
            history,
            events,
            applied: tally.applied,
            operations: tally.operations,
            virtual_time: tally.virtual_time,
        }
    }
}

thread_local! {
    /// What panicked first on this thread; `None`: nobody plays here.
    static PANIC: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// While a run is played, a panic is a finding of the run, wherever it happens; the first one counts.
fn keep_panics_to_ourselves() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let kept = PANIC.with_borrow_mut(|first| {
                let first = first.as_mut()?;
                first.get_or_insert_with(|| panic.to_string());
                Some(())
            });
            if kept.is_none() {
                before(panic);
            }
        }));
    });
    PANIC.set(Some(None));
}
