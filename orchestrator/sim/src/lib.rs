//! A whole cluster on virtual time: one seed makes the nodes, their disks and clocks, the network, an audience,
//! callers of the API and everything that goes wrong.
//!
//! ```text
//!  seed ──► plan ──► world ──► nodes: Gateway ─ Owner ─ Group (production's engines and groups)
//!                      │  ▲             │                  │
//!                      │  └── audience, clients, faults    └─ disk, sky (simulated)
//!                      ▼
//!                    audit: what must hold at every moment; rest: and when everything works again
//! ```
//!
//! Invariant: the same seed is the same history, to the last event. Nothing here decides about trees, sessions
//! or logs: the engines do, as in production.

mod audience;
mod audit;
mod batch;
mod clients;
mod cluster;
mod context;
mod dice;
mod disk;
mod faults;
mod linear;
mod node;
mod pipe;
pub mod planning;
mod planted;
mod replica;
mod rest;
mod runtime;
mod sky;
mod trouble;
mod wires;
mod world;

pub use audit::Violation;
pub use batch::{Batch, FoundViolation, Summary};
pub use cluster::{Outcome, Run};
pub use planted::Bug;
