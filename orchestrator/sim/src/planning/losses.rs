//! A part of the audience that vanishes at once, and what the planner made of it.

use espalier_orchestrator_core::planner::PeerSlot;
use serde::Serialize;

use super::network::{Geography, Spot};
use super::scenario::{Loss, Lost, Scenario};

/// What a mass event was like.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MassEvent {
    /// How many vanished.
    pub peers: u64,
    /// How many of the others lost their parent: each needs one edge at least.
    pub orphan_heads: u64,
    /// Edges that the planner changed.
    pub edges: u64,
    /// In how many calls: first who is lost, then who leaves.
    pub slices: u64,
    /// The longest of them, milliseconds.
    pub worst_slice_ms: f64,
    /// All together, milliseconds.
    pub total_ms: f64,
}

/// The calls that a mass event takes.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    calls: u64,
    worst_nanos: u64,
    nanos: u64,
}

impl Slices {
    pub(crate) fn took(&mut self, nanos: u64) {
        self.calls += 1;
        self.worst_nanos = self.worst_nanos.max(nanos);
        self.nanos += nanos;
    }
}

/// What the planner was told, and what it did.
#[derive(Debug)]
pub(crate) struct Vanished {
    pub(crate) peers: usize,
    pub(crate) heads: usize,
    pub(crate) slices: Slices,
    pub(crate) edges: u64,
}

/// The loss of a scenario, if it has one.
#[derive(Debug)]
pub(crate) struct Losses {
    loss: Option<Loss>,
    region: Option<u16>,
    providers: Vec<u16>,
    lost_at: Option<u32>,
    lost: Vec<(PeerSlot, u32)>,
    pub(crate) mass: Option<MassEvent>,
}

impl Losses {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let geography = Geography::new(&scenario.network, &scenario.nat);
        let loss = scenario.loss;
        let of = |kind| loss.filter(|loss| loss.of == kind).map(|loss| loss.share);
        Self {
            loss,
            region: of(Lost::Region).map(|share| geography.region_of_share(share).0),
            providers: of(Lost::Providers)
                .map_or(Vec::new(), |share| geography.providers_of_share(share)),
            lost_at: None,
            lost: Vec::new(),
            mass: None,
        }
    }

    pub(crate) fn at(&self, zero: u32) -> u32 {
        zero + self.loss.map_or(0, |loss| loss.at_seconds * 1000)
    }

    /// Whether this is where the loss is.
    pub(crate) fn contains(&self, spot: Spot) -> bool {
        self.region == Some(spot.region) || self.providers.contains(&spot.provider)
    }

    /// Whether nobody can come from there any more.
    pub(crate) fn includes(&self, spot: Spot, now: u32) -> bool {
        self.lost_at.is_some_and(|at| at <= now) && self.contains(spot)
    }

    pub(crate) fn lost(&mut self, now: u32, lost: Vec<(PeerSlot, u32)>) {
        self.lost_at = Some(now);
        self.lost = lost;
    }

    pub(crate) fn take_lost(&mut self) -> Vec<(PeerSlot, u32)> {
        core::mem::take(&mut self.lost)
    }

    pub(crate) fn heard(&mut self, vanished: &Vanished) {
        self.mass = Some(MassEvent {
            peers: vanished.peers as u64,
            orphan_heads: vanished.heads as u64,
            edges: vanished.edges,
            slices: vanished.slices.calls,
            worst_slice_ms: milliseconds(vanished.slices.worst_nanos),
            total_ms: milliseconds(vanished.slices.nanos),
        });
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time of years loses a microsecond"
)]
fn milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
