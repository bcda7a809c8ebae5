//! The orchestrator's word: sessions and assignments.

use std::collections::BTreeSet;

use crate::command::Command;
use crate::event::{Assignment, TrackAssignment, Welcome};
use crate::ids::{Generation, PeerId, Source};
use crate::pacer::TokenBucket;
use crate::track::Track;

use super::{PACED_AT_ONCE, PACED_TENTHS, RelayEngine, serving};

impl RelayEngine {
    pub(super) fn on_welcome(&mut self, welcome: Welcome) {
        if self.incarnation != Some(welcome.incarnation) {
            let known = self.incarnation.replace(welcome.incarnation).is_some();
            self.generation = Generation::default();
            if known && self.keys != welcome.keys {
                self.forget_media();
            }
        }
        self.keys = welcome.keys;
        // A new session knows nothing of what was reported to the one before.
        self.tracks
            .iter_mut()
            .for_each(|track| track.reported = None);
        self.dirty = true;
    }

    /// Another channel goes by the same name, signed with other keys: nothing known is of use in it.
    fn forget_media(&mut self) {
        let assignments: Vec<TrackAssignment> = self
            .tracks
            .iter()
            .map(|track| track.assignment.clone())
            .collect();
        while !self.tracks.is_empty() {
            self.drop_track(0);
        }
        self.master = None;
        assignments
            .into_iter()
            .for_each(|assignment| self.add_track(assignment));
    }

    pub(super) fn on_assignment(&mut self, assignment: Assignment) {
        let generation = assignment.generation;
        let known = self.incarnation == Some(generation.incarnation);
        if !known || generation < self.generation {
            return;
        }
        if generation > self.generation {
            self.generation = generation;
            self.adopt(assignment);
        }
        self.commands.push_back(Command::Acknowledge { generation });
        self.dirty = true;
    }

    fn adopt(&mut self, assignment: Assignment) {
        self.set_upload(assignment.upload_bps);
        self.lease.grant(assignment.cdn_lease, self.now);
        self.children = assignment.children.iter().map(|child| child.peer).collect();
        self.active_children = assignment
            .children
            .into_iter()
            .filter(|child| !child.standby)
            .map(|child| (child.track, child.peer))
            .collect();
        let names: BTreeSet<_> = assignment.tracks.iter().map(|t| t.track.clone()).collect();
        while let Some(t) = self
            .tracks
            .iter()
            .position(|track| !names.contains(&track.name))
        {
            self.drop_track(t);
        }
        for track in assignment.tracks {
            match self
                .tracks
                .iter()
                .position(|known| known.name == track.track)
            {
                Some(t) => self.reassign(t, track),
                None => self.add_track(track),
            }
        }
    }

    fn set_upload(&mut self, upload_bps: u64) {
        let rate = upload_bps.saturating_mul(PACED_TENTHS) / 10;
        self.fragment = serving::fragment_size(upload_bps);
        let at_once = u128::from(rate) * PACED_AT_ONCE.as_millis() / 8_000;
        let burst = u64::try_from(at_once).unwrap_or(u64::MAX);
        let burst = burst.max(self.fragment as u64);
        if self.pacer.rate_bps() == 0 {
            self.pacer = TokenBucket::new(rate, burst, self.now);
        } else {
            self.pacer.configure(rate, burst, self.now);
        }
    }

    fn reassign(&mut self, t: usize, assignment: TrackAssignment) {
        let now = self.now;
        let track = &mut self.tracks[t];
        if track.assignment.source != assignment.source {
            let new = assignment.source.and_then(Source::peer);
            let active = track.decision.active.and_then(Source::peer);
            let kept = active.filter(|peer| {
                assignment.make_before_break
                    && Some(*peer) != new
                    && track.subscribed.contains_key(peer)
            });
            track.previous = kept;
            track.previous_root = new.is_some() && track.root_since.is_some();
            track.assigned_at = now;
        }
        track.assignment = assignment;
    }

    fn add_track(&mut self, assignment: TrackAssignment) {
        let mut track = Track::new(assignment, self.now);
        if let Some(master) = self.master_header() {
            track.resolve(master);
        }
        self.tracks.push(track);
        self.tracks.sort_by(|a, b| a.name.cmp(&b.name));
        self.take_spare();
    }

    fn drop_track(&mut self, t: usize) {
        let track = self.tracks.remove(t);
        // Its statements are forgotten, and must be taken again if the track comes back.
        self.verified.clear();
        let Some(index) = track.index else { return };
        let peers: Vec<PeerId> = track.subscribed.keys().copied().collect();
        for peer in peers {
            self.send_unsubscribe(peer, index);
        }
        let fetches: Vec<_> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.object.track == index)
            .map(|(id, _)| *id)
            .collect();
        for id in fetches {
            self.cancel_fetch(id);
        }
        for link in self.links.values_mut() {
            link.downstream.drop_track(index);
        }
        for object in self.ring.forget_track(index) {
            self.publish(crate::Publication::Evicted { object });
        }
    }
}
