//! The planner at full size: an audience of up to millions, drawn from published distributions, comes and goes
//! on virtual time, and production's planner decides who takes what from whom.
//!
//! ```text
//!  scenario ──► arrivals ──► driver ──► planner (or a yardstick)
//!               audience       │ ▲          │ edges
//!               network        │ └ calendar ┘ first bytes, silence
//!                              ▼
//!               samples, delivery, latency  ÷  bounds  ──► report, plots
//! ```
//!
//! Invariant: the same scenario and seed are the same calls of the planner at the same times, and so the same
//! report but for what the clock says.
//!
//! Not here: sessions, entries and links; the cluster's simulator has those. Nothing here decides about trees
//! but the yardsticks.

mod arrivals;
mod audience;
mod bounds;
mod calendar;
mod counts;
mod delivery;
mod distribution;
mod driver;
mod latency;
mod losses;
mod network;
mod overlay;
mod plots;
mod report;
mod run;
mod samples;
mod scenario;
mod stopwatch;
mod yardstick;

pub use distribution::{Published, Shape};
pub use losses::MassEvent;
pub use plots::{PlotError, draw};
pub use report::{Averages, Events, Latency, Ratios, Replays, Report, Speed};
pub use run::{PlannerRun, Subject};
pub use samples::{Crowd, Sample};
pub use scenario::{
    Arrivals, Channel, Day, Device, Flash, Group, Loss, Lost, Nat, Network, Scenario,
    ScenarioError, Track, WrongCapacity,
};
pub use stopwatch::Timing;
pub use yardstick::Rule;
