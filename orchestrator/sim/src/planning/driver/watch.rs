//! What is looked at on the way: invariants, stalls, uplinks that are not what they claim.

use std::time::Instant;

use espalier_orchestrator_core::planner::PeerSlot;

use super::Driver;
use crate::planning::overlay::Overlay;
use crate::planning::stopwatch::Kind;

impl<O: Overlay> Driver<O> {
    pub(super) fn settle_breaks(&mut self) {
        while let Some(stall) = self.delivery.settle_next(&self.overlay, self.now) {
            if let Some(slot) = stall.peer {
                let lives = self.audience.viewer(slot).lives(self.now);
                let below = self.count_below(slot, usize::from(stall.tree));
                let viewers = u64::from(below) + u64::from(lives);
                self.counts.stalls += viewers;
                self.counts.stall_ms += viewers * u64::from(stall.ms);
            }
        }
    }

    pub(super) fn worked(&mut self) {
        let work = self.overlay.work().total();
        self.counts.most_work = self.counts.most_work.max(work);
        self.stopwatch.worked(work);
        self.counts.events += 1;
    }

    pub(super) fn check_now_and_then(&mut self) {
        let Some(every) = self.check_every else {
            return;
        };
        if self.counts.events.is_multiple_of(every) {
            self.check();
        }
    }

    pub(super) fn check(&mut self) {
        if self.check_every.is_some() && self.findings.is_empty() {
            self.findings.extend(self.overlay.findings());
        }
    }

    /// Rebuilds the planner from its snapshot each time a quarter has passed; this is no part of what is timed.
    pub(super) fn replay(&mut self, passed: f64) {
        let due = f64::from(u32::try_from(self.rebuilds.len()).unwrap_or(u32::MAX)) + 1.0;
        if !self.replays || passed * 4.0 < due {
            return;
        }
        let started = Instant::now();
        if let Some(replay) = self.overlay.replay(self.time()) {
            self.findings.extend(replay.findings.iter().cloned());
            self.rebuilds.push(replay);
        }
        self.observing += started.elapsed();
    }

    /// Looks at the trees and the audience; this is no part of what is timed.
    pub(super) fn observe(&mut self) {
        let started = Instant::now();
        self.samples.take(
            &self.overlay,
            &self.audience,
            &self.trees,
            self.now,
            &self.counts,
        );
        if let Some(wrong) = self.scenario.wrong_capacity {
            self.observing += started.elapsed();
            self.learn(wrong.learned_after_seconds);
            return;
        }
        self.observing += started.elapsed();
    }

    /// Uplinks that are full are measured; children of one that carries more than it can say so.
    pub(super) fn learn(&mut self, after: u32) {
        let now = self.now;
        let full: Vec<_> = self
            .audience
            .living(now)
            .filter(|(_, viewer)| viewer.children > 0 && viewer.uplink_kbps != viewer.believed_kbps)
            .map(|(slot, _)| slot)
            .collect();
        for slot in full {
            let viewer = *self.audience.viewer(slot);
            let (real, believed) = (
                self.audience.capacity(&viewer),
                self.audience.believed_capacity(&viewer),
            );
            let carried = u32::from(viewer.children);
            let over = carried > real;
            self.counts.overloaded_seconds += u64::from(over);
            let is_full = over || (carried >= believed && real > believed);
            let full_for = if is_full {
                viewer.full_for.saturating_add(1)
            } else {
                0
            };
            self.audience.viewer_mut(slot).full_for = full_for;
            if u32::from(full_for) >= after {
                self.correct(slot);
            } else if over && full_for == 2 {
                self.complain(slot);
            }
        }
    }

    /// What the uplink carries has been measured: one more child's worth, or what there is.
    pub(super) fn correct(&mut self, slot: PeerSlot) {
        let viewer = *self.audience.viewer(slot);
        let more = viewer.believed_kbps + self.audience.costs_kbps[usize::from(viewer.track)];
        let learned = viewer.uplink_kbps.min(more);
        let viewer = self.audience.viewer_mut(slot);
        (viewer.believed_kbps, viewer.full_for) = (learned, 0);
        let now = self.time();
        let overlay = &mut self.overlay;
        let bps = u64::from(learned) * 1000;
        self.stopwatch
            .measure(Kind::Other, || overlay.set_upload(slot, bps, now));
        self.worked();
        self.apply(false);
    }

    pub(super) fn complain(&mut self, parent: PeerSlot) {
        self.below.clear();
        self.overlay
            .children(parent, self.trees[0], &mut self.below);
        let Some(child) = self.below.last().copied() else {
            return;
        };
        let now = self.time();
        let overlay = &mut self.overlay;
        self.stopwatch
            .measure(Kind::Other, || overlay.late(child, parent, now));
        self.worked();
        self.apply(false);
    }
}
