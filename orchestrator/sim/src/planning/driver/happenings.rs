//! What happens to peers: they come, go, get their first byte, and change the track.

use espalier_orchestrator_core::planner::PeerSlot;

use super::{CDN, Driver, Event};
use crate::planning::audience::{Drawn, NEVER, milliseconds};
use crate::planning::distribution::unit_exponential;
use crate::planning::overlay::Overlay;
use crate::planning::stopwatch::Kind;

/// Above this audience only every eighth who goes has the viewers below it counted.
const LARGE: u32 = 200_000;

impl<O: Overlay> Driver<O> {
    pub(super) fn join(&mut self, drawn: Drawn) {
        let (viewer, newcomer) = self.audience.prepare(drawn, self.now);
        if self.losses.includes(viewer.spot, self.now) {
            return;
        }
        let now = self.time();
        let overlay = &mut self.overlay;
        let slot = self
            .stopwatch
            .measure(Kind::Join, || overlay.join(newcomer, now));
        self.worked();
        self.counts.joins += 1;
        self.audience.seat(slot, viewer);
        self.delivery.forget(slot);
        self.samples
            .came(self.audience.capacity(&viewer), slot, &viewer);
        if viewer.dies != NEVER {
            let heard = viewer
                .dies
                .saturating_add(self.scenario.network.detection_ms);
            let (slot, turn) = (slot.0, viewer.turn);
            self.calendar.add(heard, Event::Gone { slot, turn });
        }
        self.apply(false);
    }

    pub(super) fn hear_of_gone(&mut self, slot: PeerSlot, turn: u32) {
        let viewer = *self.audience.viewer(slot);
        if !viewer.here || viewer.turn != turn {
            return;
        }
        self.orphans.clear();
        self.bereave(slot);
        self.sort_orphans();
        self.count_interrupted(slot);
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch
            .measure(Kind::Leave, || overlay.leave(&[slot], now));
        self.worked();
        self.counts.leaves += 1;
        self.samples
            .went(self.audience.capacity(&viewer), &viewer, self.now);
        self.audience.unseat(slot);
        self.apply(true);
    }

    pub(super) fn arrive(&mut self, slot: PeerSlot, tree: u8, token: u32) {
        let place = *self.audience.place(slot, tree);
        if place.token != token || !self.audience.viewer(slot).lives(self.now) {
            return;
        }
        let now = self.time();
        if place.source != CDN && !self.can_serve(slot, PeerSlot(place.source)) {
            self.counts.failed_links += 1;
            let overlay = &mut self.overlay;
            let parent = PeerSlot(place.source);
            self.stopwatch
                .measure(Kind::Other, || overlay.failed(slot, parent, now));
        } else {
            let id = self.trees[usize::from(tree)];
            let overlay = &mut self.overlay;
            self.stopwatch
                .measure(Kind::Arrival, || overlay.arrived(slot, id, now));
            self.counts.arrivals += 1;
            self.feed(slot, tree, place.source != CDN);
        }
        self.worked();
        self.apply(false);
    }

    pub(super) fn retune_one(&mut self) {
        let percent = self.scenario.channel.switch_percent_per_minute;
        let rate = percent / 100.0 / 60.0 * f64::from(self.audience.viewers_here.max(1));
        let gap = unit_exponential(&mut self.dice) / rate;
        self.calendar
            .add(self.now + milliseconds(gap).max(1), Event::Retune);
        let slots = u64::from(self.audience.slots().max(1));
        let at = u32::try_from(self.dice.below(slots)).unwrap_or(0);
        let slot = PeerSlot(at);
        if self.audience.slots() == 0 || !self.audience.viewer(slot).lives(self.now) {
            return;
        }
        let track = self.audience.draw_track();
        if track == self.audience.viewer(slot).track || self.audience.viewer(slot).relay {
            return;
        }
        self.audience.retune(slot, track);
        let name = self.audience.track_name(track);
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch
            .measure(Kind::Other, || overlay.want(slot, name, now));
        self.worked();
        self.counts.retunes += 1;
        self.apply(false);
    }

    /// Counts the viewers below one who has gone; of a large audience, of every eighth.
    pub(super) fn count_interrupted(&mut self, slot: PeerSlot) {
        let weight = if self.scenario.peers > LARGE { 8 } else { 1 };
        if weight > 1 && !u64::from(self.audience.viewer(slot).turn).is_multiple_of(weight) {
            return;
        }
        for tree in 0..self.trees.len() {
            let below = self.count_below(slot, tree);
            self.counts.interruptions += u64::from(below) * weight;
        }
    }

    /// Counts those who live in the subtree below the slot.
    pub(super) fn count_below(&mut self, slot: PeerSlot, tree: usize) -> u32 {
        self.below.clear();
        let id = self.trees[tree];
        self.overlay.children(slot, id, &mut self.below);
        let mut count = 0;
        while let Some(at) = self.below.pop() {
            count += u32::from(self.audience.viewer(at).lives(self.now));
            self.overlay.children(at, id, &mut self.below);
        }
        count
    }

    pub(super) fn tick(&mut self) {
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch.measure(Kind::Tick, || overlay.tick(now));
        self.worked();
        self.apply(false);
    }
}
