//! What neighbours say besides data: a child subscribes, a source repairs its own or does not have an object.

use core::time::Duration;

use espalier_media::{ObjectKey, TrackIndex};

use crate::command::LinkState;
use crate::frame::Subscribe;
use crate::ids::{PeerId, Source};
use crate::ring::Status;

use super::RelayEngine;

/// How long a peer is not taken as a source that takes the same track from here.
const REFUSAL: Duration = Duration::from_secs(10);

impl RelayEngine {
    pub(super) fn on_subscribe(&mut self, peer: PeerId, subscribe: &Subscribe) {
        let track = self.track_of(subscribe.track);
        let object = subscribe.cursor.map(|cursor| cursor.object);
        let place = track.map_or(0, |t| self.tracks[t].log.place_of(object.as_ref()));
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        if !link.downstream.subscribe(subscribe, place) {
            self.fail_link(peer, LinkState::Invalid, "too many subscriptions");
            return;
        }
        let Some(t) = track else { return };
        if let Some(header) = self.tracks[t].header.clone() {
            self.send_statement(peer, &header);
        }
        let stripe = self.tracks[t].stripes.get(usize::from(subscribe.stripe));
        if stripe.is_some_and(|stripe| stripe.told_repairing) {
            self.send_upstream(peer, subscribe.track, subscribe.stripe, true);
        }
        self.break_circle(t, peer, subscribe);
    }

    /// Two peers that take a stripe from each other get it from nobody: one of them must look
    /// elsewhere. It is the one that was not assigned to do so; if neither was, the lower id.
    fn break_circle(&mut self, t: usize, peer: PeerId, subscribe: &Subscribe) {
        let track = &mut self.tracks[t];
        let count = track.stripe_count();
        let Some(stripe) = track.stripes.get_mut(usize::from(subscribe.stripe)) else {
            return;
        };
        let assigned = stripe.assigned.source == Some(Source::Peer(peer));
        let circle = count == subscribe.stripes && stripe.subscribed.contains_key(&peer);
        if assigned || !circle {
            return;
        }
        let child = (track.name.clone(), subscribe.stripe, peer);
        let assigned_child = self.active_children.contains(&child);
        if assigned_child || self.config.peer < peer {
            stripe.refused.insert(peer, self.now + REFUSAL);
            self.dirty = true;
        }
    }

    /// A peer repairs its source of a stripe, and hopes to be done in time; or it has a source again.
    pub(super) fn on_upstream(
        &mut self,
        peer: PeerId,
        track: TrackIndex,
        number: usize,
        repairs: Option<Duration>,
    ) {
        let Some(t) = self.track_of(track) else {
            return;
        };
        let now = self.now;
        let Some(stripe) = self.tracks[t].stripes.get_mut(number) else {
            return;
        };
        let known = &mut stripe.repairing_peers;
        if let Some(expected) = repairs {
            known.entry(peer).or_insert((now, now + expected));
        } else if known.remove(&peer).is_some()
            && let Some(subscribed) = stripe.subscribed.get_mut(&peer)
        {
            subscribed.resumed = now;
            stripe.begin(now);
            self.unite(t, number);
        }
        self.dirty = true;
    }

    pub(super) fn on_unavailable(&mut self, peer: PeerId, key: ObjectKey) {
        let Some(t) = self.track_of(key.track) else {
            return;
        };
        let found = self.ring.get_mut(&key);
        let Some(object) = found.filter(|object| object.status() == Status::Wanted) else {
            return;
        };
        let stripes = &self.tracks[t].stripes;
        for (number, stripe) in stripes.iter().enumerate() {
            // Whoever was asked does not have it: somebody else is asked at once.
            if stripes.len() == 1 || stripe.is_had_from(peer) {
                object.share_mut(number).refuse(peer);
            }
        }
        for number in 0..self.tracks[t].stripes.len() {
            let asked = self.ring.get(&key).and_then(|o| o.share(number).asked);
            if asked.is_some_and(|(asked, _)| asked == peer) {
                self.unite(t, number);
            }
        }
        self.dirty = true;
    }
}
