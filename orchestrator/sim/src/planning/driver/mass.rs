//! A part of the audience vanishes, and the planner is told.

use espalier_orchestrator_core::planner::{AT_ONCE, PeerSlot};

use super::{Driver, Event};
use crate::planning::losses::{Slices, Vanished};
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
        let mut slices = Slices::default();
        for slice in lost.chunks(AT_ONCE) {
            let overlay = &mut self.overlay;
            let lose = || overlay.lose(slice, now);
            slices.took(self.stopwatch.calls_nanos(Kind::Mass, lose));
        }
        let heads = self.orphans.len();
        for slice in lost.chunks(AT_ONCE) {
            self.give_up(slice, &mut slices);
        }
        self.losses.heard(&Vanished {
            peers: lost.len(),
            heads,
            slices,
            edges: self.counts.edges - before,
        });
    }

    fn give_up(&mut self, slice: &[PeerSlot], slices: &mut Slices) {
        let now = self.time();
        let (overlay, changes) = (&mut self.overlay, &mut self.changes);
        changes.clear();
        slices.took(self.stopwatch.calls_nanos(Kind::Mass, || {
            overlay.leave(slice, now);
            overlay.take_changes(changes);
        }));
        self.worked();
        self.check_now_and_then();
        self.counts.leaves += slice.len() as u64;
        for slot in slice {
            let viewer = *self.audience.viewer(*slot);
            self.samples
                .went(self.audience.capacity(&viewer), &viewer, self.now);
            self.audience.unseat(*slot);
        }
        self.make_changes(true);
    }
}
