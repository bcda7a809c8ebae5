//! The orchestrator's word: sessions and assignments.

use std::collections::BTreeMap;

use crate::command::Command;
use crate::event::{Assignment, TrackAssignment, Welcome};
use crate::frame::MAX_STRIPES;
use crate::ids::{Generation, Source, TrackName};
use crate::pacer::TokenBucket;
use crate::stripe::{Assigned, Stripe};
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
        let stripes = self.tracks.iter_mut().flat_map(|track| &mut track.stripes);
        stripes.for_each(|stripe| stripe.reported = None);
        self.dirty = true;
    }

    /// Another channel goes by the same name, signed with other keys: nothing known is of use in it.
    fn forget_media(&mut self) {
        let assigned = |track: &Track| track.stripes.iter().map(|stripe| stripe.assigned).collect();
        let assignments: Vec<(TrackName, Vec<Assigned>)> = self
            .tracks
            .iter()
            .map(|track| (track.name.clone(), assigned(track)))
            .collect();
        while !self.tracks.is_empty() {
            self.drop_track(0);
        }
        self.master = None;
        assignments
            .into_iter()
            .for_each(|(name, stripes)| self.add_track(name, stripes));
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
            .map(|child| (child.track, child.stripe, child.peer))
            .collect();
        let wanted = by_track(&assignment.tracks);
        while let Some(t) = self
            .tracks
            .iter()
            .position(|track| !wanted.contains_key(&track.name))
        {
            self.drop_track(t);
        }
        for (name, stripes) in wanted {
            match self.tracks.iter().position(|known| known.name == name) {
                Some(t) => self.reassign(t, stripes),
                None => self.add_track(name, stripes),
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

    fn reassign(&mut self, t: usize, assigned: Vec<Assigned>) {
        let now = self.now;
        if self.tracks[t].stripes.len() != assigned.len() {
            self.restripe(t, assigned);
            return;
        }
        for (stripe, assigned) in self.tracks[t].stripes.iter_mut().zip(assigned) {
            stripe.reassign(assigned, now);
        }
    }

    /// The track is cut into another number of stripes. Where its chunks came from they go on coming
    /// from, as the new stripes, until the new sources flow.
    fn restripe(&mut self, t: usize, assigned: Vec<Assigned>) {
        let now = self.now;
        let track = &mut self.tracks[t];
        let (root, count) = (track.is_root(), track.stripes.len());
        let renew = |(number, assigned): (usize, Assigned)| {
            let mut stripe = Stripe::new(assigned, now);
            let new = assigned.source.and_then(Source::peer);
            let active = track.stripes[number % count].decision.active;
            let active = active
                .and_then(Source::peer)
                .filter(|_| assigned.make_before_break);
            stripe.previous = active.filter(|peer| Some(*peer) != new);
            stripe.previous_root = root && new.is_some();
            if root {
                (stripe.root_since, stripe.cdn_flowed) = (Some(now), true);
            }
            stripe
        };
        let stripes: Vec<Stripe> = assigned.into_iter().enumerate().map(renew).collect();
        let before = core::mem::replace(&mut track.stripes, stripes);
        for (number, stripe) in before.into_iter().enumerate() {
            let peers = stripe.subscribed.into_keys();
            track.stale.extend(peers.map(|peer| (peer, number)));
        }
        if let Some(index) = track.index {
            self.ring.restripe(index, track.stripe_count());
        }
    }

    fn add_track(&mut self, name: TrackName, stripes: Vec<Assigned>) {
        let mut track = Track::new(name, stripes, self.now);
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
        for (number, stripe) in track.stripes.iter().enumerate() {
            for peer in stripe.subscribed.keys() {
                self.send_unsubscribe(*peer, index, number);
            }
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

/// The stripes of each track, in order. A stripe that is not named comes from nowhere yet: an assignment
/// that leaves one out must not leave a hole in the picture.
fn by_track(assignments: &[TrackAssignment]) -> BTreeMap<TrackName, Vec<Assigned>> {
    let mut tracks: BTreeMap<TrackName, Vec<Assigned>> = BTreeMap::new();
    for assignment in assignments {
        let stripes = tracks.entry(assignment.track.clone()).or_default();
        let count = usize::from(assignment.stripes.clamp(1, MAX_STRIPES));
        if stripes.len() < count {
            stripes.resize(count, Assigned::default());
        }
    }
    for assignment in assignments {
        let stripes = tracks.get_mut(&assignment.track);
        let named = stripes.and_then(|stripes| stripes.get_mut(usize::from(assignment.stripe)));
        if let Some(assigned) = named {
            *assigned = Assigned {
                source: assignment.source,
                standby: assignment.standby,
                make_before_break: assignment.make_before_break,
            };
        }
    }
    tracks
}
