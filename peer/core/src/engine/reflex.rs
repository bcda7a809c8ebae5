//! Carries out what `upstream` decides: subscriptions, the feed, what children and orchestrator are told.

use core::time::Duration;

use espalier_media::{ChunkIndex, ObjectKey, TrackIndex};

use crate::command::Command;
use crate::frame::{Cursor, Frame, Subscribe};
use crate::ids::{PeerId, Source};
use crate::link::{Link, Phase};
use crate::liveness::Health;
use crate::stripe::{Stripe, Subscribed};
use crate::track::Track;
use crate::upstream::{self, Candidate, Condition, Facts};

use super::RelayEngine;

/// How long a link may take to open before its peer counts as gone.
const OPENING_PATIENCE: Duration = Duration::from_secs(5);
/// How long a new subscription is watched before it counts as one that leaves nothing to be desired.
const SETTLING: Duration = Duration::from_millis(500);
/// How long children are told that a repair takes.
const EXPECTED_REPAIR_MS: u32 = 3_000;
/// The most runs that a new subscription is told to leave out.
const MAX_CANCELS: usize = 32;

impl RelayEngine {
    /// Takes a track from where it is best taken now, each stripe for itself.
    pub(super) fn reflect(&mut self, t: usize) {
        for number in 0..self.tracks[t].stripes.len() {
            self.reflect_stripe(t, number);
        }
        self.drop_stale(t);
    }

    fn reflect_stripe(&mut self, t: usize, number: usize) {
        let now = self.now;
        let refused = &mut self.tracks[t].stripes[number].refused;
        refused.retain(|_, until| now < *until);
        let decision = upstream::decide(&self.facts(t, number));
        let stripe = &mut self.tracks[t].stripes[number];
        stripe.decision = decision;
        if !decision.keep_previous {
            stripe.previous = None;
        }
        stripe.previous_root &= decision.root;
        match (decision.root, stripe.root_since) {
            (true, None) => {
                stripe.root_since = Some(now);
                stripe.cdn_flowed = false;
            }
            (false, Some(_)) => stripe.root_since = None,
            (true, Some(_)) | (false, None) => {}
        }
        self.resubscribe(t, number);
        self.tell_children(t, number);
    }

    fn facts(&self, t: usize, number: usize) -> Facts {
        let track = &self.tracks[t];
        let stripe = &track.stripes[number];
        let candidate = |source: Option<Source>| {
            source
                .and_then(Source::peer)
                .map(|peer| self.candidate(stripe, peer))
        };
        Facts {
            assigned: stripe.assigned.source,
            source: candidate(stripe.assigned.source),
            standby: candidate(stripe.assigned.standby).map(|standby| Candidate {
                flowed: standby.flowed || self.settled(track, number, standby.peer),
                ..standby
            }),
            previous: stripe.previous.map(|peer| self.candidate(stripe, peer)),
            previous_root: stripe.previous_root,
            cdn_flowed: stripe.cdn_flowed,
        }
    }

    /// Whether a subscription made a moment ago leaves nothing to be desired, though no chunk came by
    /// it yet because none was due.
    fn settled(&self, track: &Track, number: usize, peer: PeerId) -> bool {
        let subscribed = track.stripes[number].subscribed.get(&peer);
        let made = subscribed.map(|subscribed| subscribed.since);
        let misses = |key: &ObjectKey| {
            let object = self.ring.get(key);
            object.is_some_and(|object| object.share(number).missing() > 0)
        };
        let idle = track
            .index
            .is_some_and(|index| !self.ring.wanted_of(index).any(misses));
        made.is_some_and(|at| self.now >= at + SETTLING) && idle && !track.is_overdue(self.now)
    }

    fn candidate(&self, stripe: &Stripe, peer: PeerId) -> Candidate {
        Candidate {
            peer,
            condition: self.condition(stripe, peer),
            repairing: stripe.repairing_peers.contains_key(&peer),
            flowed: stripe
                .subscribed
                .get(&peer)
                .is_some_and(|subscribed| subscribed.flowed),
        }
    }

    fn condition(&self, stripe: &Stripe, peer: PeerId) -> Condition {
        let repairs_too_long = stripe
            .repairing_peers
            .get(&peer)
            .is_some_and(|(_, until)| self.now >= *until);
        if stripe.refused.contains_key(&peer) || repairs_too_long {
            return Condition::Gone;
        }
        let Some(link) = self.links.get(&peer) else {
            return Condition::Gone;
        };
        let opening = self.now < link.since.max(stripe.assigned_at) + OPENING_PATIENCE;
        match link.phase {
            Phase::Up if !link.greeted && opening => Condition::Opening,
            Phase::Up if !link.greeted => Condition::Gone,
            Phase::Up => match link.health(self.now) {
                Health::Alive => Condition::Usable,
                Health::Silent => Condition::Silent,
                Health::Dead => Condition::Gone,
            },
            Phase::Opening if !link.was_up && link.attempts == 0 && opening => Condition::Opening,
            Phase::Opening | Phase::Waiting(_) => Condition::Gone,
        }
    }

    /// Makes this peer subscribed exactly where it was decided.
    fn resubscribe(&mut self, t: usize, number: usize) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        let stripe = &mut self.tracks[t].stripes[number];
        let wanted = stripe.decision.subscribe;
        let surplus: Vec<PeerId> = stripe
            .subscribed
            .keys()
            .filter(|peer| !wanted.contains(&Some(**peer)))
            .copied()
            .collect();
        for peer in surplus {
            self.tracks[t].stripes[number].subscribed.remove(&peer);
            self.send_unsubscribe(peer, index, number);
        }
        for peer in wanted.into_iter().flatten() {
            let ready = self.links.get(&peer).is_some_and(|link| link.is_ready());
            let subscribed = &self.tracks[t].stripes[number].subscribed;
            if ready && !subscribed.contains_key(&peer) {
                self.subscribe(t, index, number, peer);
            }
        }
    }

    /// Ends the subscriptions to stripes that are cut otherwise now, but for those that were replaced.
    fn drop_stale(&mut self, t: usize) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        for (peer, number) in core::mem::take(&mut self.tracks[t].stale) {
            let stripe = self.tracks[t].stripes.get(number);
            if !stripe.is_some_and(|stripe| stripe.subscribed.contains_key(&peer)) {
                self.send_unsubscribe(peer, index, number);
            }
        }
    }

    fn subscribe(&mut self, t: usize, track: TrackIndex, number: usize, peer: PeerId) {
        let cursor = self.cursor(t, track, number);
        let subscribed = Subscribed {
            since: self.now,
            resumed: self.now,
            from: cursor.map(|cursor| cursor.object),
            stated: None,
            flowed: false,
        };
        let stripe = &mut self.tracks[t].stripes[number];
        stripe.subscribed.insert(peer, subscribed);
        stripe.begin(self.now);
        self.send(
            peer,
            &Frame::Subscribe(Subscribe {
                track,
                stripe: on_the_wire(number),
                stripes: self.tracks[t].stripe_count(),
                cursor,
            }),
        );
        if let Some(cursor) = cursor {
            for (object, first, count) in self.had_behind(track, number, &cursor) {
                self.send(
                    peer,
                    &Frame::Cancel {
                        object,
                        first: ChunkIndex(first),
                        count,
                    },
                );
            }
        }
    }

    /// Takes a subscription up again from the first chunk that is missing: the same source, of which no more is
    /// known than before.
    pub(super) fn subscribe_anew(
        &mut self,
        t: usize,
        track: TrackIndex,
        number: usize,
        peer: PeerId,
    ) {
        let flowed = |track: &Track| {
            let subscribed = track.stripes[number].subscribed.get(&peer);
            subscribed.is_some_and(|subscribed| subscribed.flowed)
        };
        let flowed = flowed(&self.tracks[t]);
        self.subscribe(t, track, number, peer);
        if let Some(subscribed) = self.tracks[t].stripes[number].subscribed.get_mut(&peer) {
            subscribed.flowed = flowed;
        }
    }

    /// Moves every subscription to where this peer is now: what it played in bypass is not sent again.
    pub(super) fn move_on(&mut self, t: usize) {
        self.subscribe_again(t, |_| true);
    }

    /// A newcomer has found its place. Parents of different stripes may have begun at different
    /// objects; now all of them are told where.
    pub(super) fn align(&mut self, t: usize) {
        if self.tracks[t].stripes.len() > 1 {
            self.subscribe_again(t, |subscribed| subscribed.from.is_none());
        }
    }

    fn subscribe_again(&mut self, t: usize, which: impl Fn(&Subscribed) -> bool) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        for number in 0..self.tracks[t].stripes.len() {
            let subscribed = &self.tracks[t].stripes[number].subscribed;
            let again = subscribed
                .iter()
                .filter(|(_, subscribed)| which(subscribed));
            let again: Vec<PeerId> = again.map(|(peer, _)| *peer).collect();
            for peer in again {
                self.subscribe(t, index, number, peer);
            }
        }
    }

    /// The next chunk that this peer wants of a stripe, in order: the first that is missing and not
    /// on its way from the CDN, or else what comes behind the newest segment.
    fn cursor(&self, t: usize, track: TrackIndex, stripe: usize) -> Option<Cursor> {
        let start = self.tracks[t].start?;
        let missing = self
            .ring
            .wanted_of(track)
            .filter(|key| **key >= start)
            .filter_map(|key| self.ring.get(key).map(|object| (key, object)))
            .filter(|(_, object)| !object.share_is_read(stripe))
            .find_map(|(key, object)| Some((*key, object.first_missing(stripe)?)));
        if let Some((object, chunk)) = missing {
            return Some(Cursor { object, chunk });
        }
        let newest = self.tracks[t].newest?;
        let object = ObjectKey::segment(track, newest.epoch, newest.sequence.saturating_add(1));
        Some(Cursor {
            object,
            chunk: ChunkIndex(0),
        })
    }

    /// What this peer has of a stripe, or gets from the CDN, behind a place.
    fn had_behind(
        &self,
        track: TrackIndex,
        stripe: usize,
        cursor: &Cursor,
    ) -> Vec<(ObjectKey, u32, u32)> {
        let mut had = Vec::new();
        for (key, object) in self
            .ring
            .of_track(track)
            .filter(|(key, _)| **key >= cursor.object)
        {
            let runs = object.had_runs(stripe);
            had.extend(runs.into_iter().map(|(first, count)| (*key, first, count)));
            if had.len() >= MAX_CANCELS {
                break;
            }
        }
        had
    }

    pub(super) fn send_unsubscribe(&mut self, peer: PeerId, track: TrackIndex, stripe: usize) {
        let stripe = on_the_wire(stripe);
        self.send(peer, &Frame::Unsubscribe { track, stripe });
    }

    /// Says to the children when this peer loses a stripe's source and when it has one again, so that
    /// they wait for it rather than all run to the CDN.
    fn tell_children(&mut self, t: usize, number: usize) {
        let track = &mut self.tracks[t];
        let count = track.stripe_count();
        let stripe = &mut track.stripes[number];
        let repairing = stripe.decision.repairing;
        let Some(index) = track.index.filter(|_| repairing != stripe.told_repairing) else {
            return;
        };
        stripe.told_repairing = repairing;
        let affected = |link: &Link| {
            let subscriptions = link.downstream.subscriptions().iter();
            let affected = subscriptions.filter(|subscription| {
                let same = usize::from(subscription.stripe) == number;
                subscription.track == index && (same || subscription.stripes != count)
            });
            affected.map(|subscription| subscription.stripe).collect()
        };
        let children: Vec<(PeerId, Vec<u8>)> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_ready())
            .map(|(peer, link)| (*peer, affected(link)))
            .collect();
        for (peer, stripes) in children {
            for stripe in stripes {
                self.send_upstream(peer, index, stripe, repairing);
            }
        }
    }

    pub(super) fn send_upstream(
        &mut self,
        peer: PeerId,
        track: TrackIndex,
        stripe: u8,
        repairing: bool,
    ) {
        let expected_ms = if repairing { EXPECTED_REPAIR_MS } else { 0 };
        self.send(
            peer,
            &Frame::Upstream {
                track,
                stripe,
                repairing,
                expected_ms,
            },
        );
    }

    /// Opens the feed where a track is had from the CDN, or nobody brings its statements, and closes it
    /// when that is over. Statements come with every stripe: one that flows will do.
    pub(super) fn tend_feed(&mut self) {
        let now = self.now;
        let needs = |track: &Track| {
            let decisions = || track.stripes.iter().map(|stripe| &stripe.decision);
            let patient = decisions().all(|decision| decision.patient);
            let unheard = track.is_overdue(now) || decisions().all(|decision| !decision.flowing);
            decisions().any(|decision| decision.root) || track.bypass.active || unheard && !patient
        };
        let wanted =
            self.incarnation.is_some() && (self.tracks.is_empty() || self.tracks.iter().any(needs));
        if wanted == self.feed.wanted {
            return;
        }
        self.feed = super::Feed {
            wanted,
            ..super::Feed::default()
        };
        if wanted {
            self.commands.push_back(Command::OpenFeed);
        } else {
            self.spare.clear();
            self.commands.push_back(Command::CloseFeed);
        }
    }
}

/// A stripe's number as frames and reports carry it.
pub(super) fn on_the_wire(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
