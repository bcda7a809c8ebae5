//! A part of the audience vanishes, and the planner is told.

use espalier_orchestrator_core::planner::PeerSlot;

use super::{Driver, Event};
use crate::planning::losses::Vanished;
use crate::planning::overlay::Overlay;
use crate::planning::stopwatch::Kind;

impl<O: Overlay> Driver<O> {
    pub(super) fn lose(&mut self) {
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

    pub(super) fn hear_of_loss(&mut self) {
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
        let before = self.counts.edges;
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
            edges: self.counts.edges - before,
        });
    }
}
