//! Chunks that are missing: whom to ask for them, and when. Each stripe of an object for itself.
//!
//! A root asks the CDN at once. Everybody else waits for the parent while it brings something, asks the
//! standby when it does not, and asks the CDN in time for the play-out deadline, whatever anybody says:
//! the picture never stops because of us. What the CDN gives beyond the assignment is paced by the
//! lease, which never blocks while the buffer is low.

use core::time::Duration;
use std::collections::BTreeSet;

use espalier_media::{ChunkIndex, ObjectKey, ObjectKind};

use crate::frame::{ChunkRun, Frame, MAX_RANGES, MAX_STRIPES};
use crate::ids::{PeerId, Source};
use crate::link::Link;
use crate::liveness::Health;
use crate::object::Share;
use crate::ring::{Object, Status};
use crate::stripe::{Stripe, StripeSet};

use super::RelayEngine;

/// How many objects a look at what is missing goes through.
const MAX_OBJECTS: usize = 32;
/// A newcomer takes at most this many objects from the CDN before the tree flows.
const START_OBJECTS: u32 = 3;
/// A parent that brings nothing for so long while something is missing is helped out by the standby.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How many chunks a neighbour has under way on its link while it sends.
const CHUNKS_UNDER_WAY: u32 = 3;
/// How long an answer to a request is waited for before it is made again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the player waits for an object that was asked of a peer.
const PLAYER_PATIENCE: Duration = Duration::from_millis(700);
/// How long the player waits for the tree to flow, once the newcomer's share of the CDN is used up.
const JOIN_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long before the play-out deadline the CDN is asked: a share of the target duration, in tenths,
/// but not less and not more than these.
const CDN_LEAD_TENTHS: u32 = 6;
const CDN_LEAD: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(3));
/// The same while chunks keep coming: what a slow uplink paces is on its way, and would come twice.
const CDN_LEAD_FLOWING: Duration = Duration::from_millis(400);
/// Chunks keep coming if one came so lately, or within so many of their usual intervals.
const FLOWING: (Duration, u32) = (Duration::from_millis(500), 3);
/// How long an object is listed, in target durations, if no header says it.
const UNLISTED_AFTER: u32 = 8;
/// An object that failed so often and is due is given up.
const MAX_FAILURES: u32 = 5;

/// Where the missing chunks of an object are to come from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// From where they come anyhow.
    Wait,
    /// From this peer, by name.
    Ask(PeerId),
    /// From the CDN.
    Cdn,
    /// From the CDN, as part of a newcomer's start.
    Start,
}

/// Leaves the first missing chunks out of what is asked for: they are under way already.
fn leave_under_way(runs: &mut Vec<ChunkRun>, mut under_way: u32) {
    while let Some(run) = runs.first_mut() {
        if run.count > under_way {
            run.first.0 += under_way;
            run.count -= under_way;
            return;
        }
        under_way -= run.count;
        runs.remove(0);
    }
}

/// Joins runs, in order, where one begins at the end of the one before.
fn merge(runs: Vec<ChunkRun>) -> Vec<ChunkRun> {
    let mut merged: Vec<ChunkRun> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.first.0 + last.count == run.first.0 => last.count += run.count,
            Some(_) | None => merged.push(run),
        }
    }
    merged
}

impl RelayEngine {
    pub(super) fn repair(&mut self, t: usize) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        let wanted: Vec<ObjectKey> = self
            .ring
            .wanted_of(index)
            .take(MAX_OBJECTS)
            .copied()
            .collect();
        // What the source of each stripe has to bring before an object is whole, in chunks.
        let mut backlogs = [0; MAX_STRIPES as usize];
        for key in wanted {
            if self.ring.get(&key).map(Object::status) == Some(Status::Wanted) {
                self.repair_object(t, key, &mut backlogs);
            }
        }
    }

    fn repair_object(&mut self, t: usize, key: ObjectKey, backlogs: &mut [u32]) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        let mut open = StripeSet::default();
        for (stripe, backlog) in (0..self.tracks[t].stripes.len()).zip(&mut *backlogs) {
            let share = object.share(stripe);
            let read = object.share_is_read(stripe);
            let elsewhere = read || share.asked.is_some();
            *backlog += if elsewhere { 1 } else { share.missing() };
            if share.missing() > 0 && (!read || self.is_left_out(t, stripe, object)) {
                open.insert(stripe);
            }
        }
        if open.is_empty() {
            return;
        }
        if !object.is_being_read() && self.is_hopeless(t, key, object) {
            self.give_up(t, key);
            return;
        }
        let (mut ask, mut cdn, mut starts) = (BTreeSet::new(), StripeSet::default(), false);
        for stripe in open.iter() {
            match self.remedy(t, stripe, key, object, backlogs[stripe]) {
                Remedy::Wait => {}
                Remedy::Ask(peer) => drop(ask.insert((peer, stripe))),
                Remedy::Cdn => cdn.insert(stripe),
                Remedy::Start => {
                    starts = true;
                    cdn.insert(stripe);
                }
            }
        }
        self.tracks[t].start_objects += u32::from(starts);
        self.ask_each(t, key, &ask);
        if !cdn.is_empty() {
            self.take_from_cdn(t, key, cdn);
        }
    }

    /// Whether requests to the CDN under way leave out some of what a stripe misses. An undivided track
    /// has one request at a time, which the rest waits for.
    fn is_left_out(&self, t: usize, stripe: usize, object: &Object) -> bool {
        let divided = self.tracks[t].stripes.len() > 1;
        divided && !object.missing_runs(StripeSet::of(stripe)).is_empty()
    }

    fn remedy(
        &self,
        t: usize,
        number: usize,
        key: ObjectKey,
        object: &Object,
        backlog: u32,
    ) -> Remedy {
        let (now, track) = (self.now, &self.tracks[t]);
        let (stripe, share) = (&track.stripes[number], object.share(number));
        if now < object.retry_at {
            return Remedy::Wait;
        }
        if stripe.decision.root {
            return Remedy::Cdn;
        }
        if let Some(since) = object.player_waits
            && !stripe.is_in_flow(&key)
        {
            return self.remedy_for_player(t, number, object, since);
        }
        let left = self.time_left(t, &key);
        let target = track.target();
        let progress = stripe.progress.max(object.arrived);
        let lull = (stripe.chunk_interval * FLOWING.1).max(FLOWING.0);
        let flowing = stripe.decision.flowing && now < progress + lull;
        let lead = if flowing {
            CDN_LEAD_FLOWING
        } else {
            (target * CDN_LEAD_TENTHS / 10).clamp(CDN_LEAD.0, CDN_LEAD.1)
        };
        if left < lead {
            return Remedy::Cdn;
        }
        let stalled = now >= progress + STALLED_AFTER && !stripe.decision.patient;
        // At the pace at which chunks come, this object would not be whole in time.
        let behind = left < stripe.chunk_interval * backlog || left < target && !flowing;
        let late = behind || stalled || share.refusers().next().is_some();
        // What the standby lacks, the parent may still bring.
        let is_awaited =
            |peer| stripe.subscribed.is_empty() || stripe.subscribed.contains_key(&peer);
        match self.helper(stripe, share) {
            Some(helper) if late => Remedy::Ask(helper),
            None if share.refusers().any(is_awaited) => Remedy::Cdn,
            Some(_) | None => Remedy::Wait,
        }
    }

    /// The player waits for this one: it may be older than what flows.
    fn remedy_for_player(
        &self,
        t: usize,
        number: usize,
        object: &Object,
        since: Duration,
    ) -> Remedy {
        let track = &self.tracks[t];
        let (stripe, share) = (&track.stripes[number], object.share(number));
        // As long as chunks of it come, they are waited for, but not for ever.
        let moving = share.last_chunk.min(since + track.target());
        let waited = self.now.saturating_sub(since.max(moving));
        let parent = stripe
            .decision
            .active
            .and_then(Source::peer)
            .filter(|parent| {
                !stripe.decision.repairing && !share.is_refused_by(*parent) && self.can_ask(*parent)
            });
        match (parent, share.asked) {
            (Some(_), Some(_)) if waited < PLAYER_PATIENCE => Remedy::Wait,
            (Some(parent), None) if waited < PLAYER_PATIENCE => Remedy::Ask(parent),
            (Some(_), _) => Remedy::Cdn,
            (None, _) if track.tree_flowed => Remedy::Cdn,
            (None, _) if track.start_objects < START_OBJECTS => Remedy::Start,
            (None, _) if waited >= JOIN_PATIENCE => Remedy::Cdn,
            (None, _) => Remedy::Wait,
        }
    }

    /// The peer to ask for chunks by name: the standby, if it is not what they are awaited from.
    fn helper(&self, stripe: &Stripe, share: &Share) -> Option<PeerId> {
        let standby = stripe.assigned.standby.and_then(Source::peer)?;
        let recently = share
            .asked
            .is_some_and(|(peer, at)| peer == standby && self.now < at + ASK_AGAIN);
        let suitable = !stripe.subscribed.contains_key(&standby)
            && !stripe.repairing_peers.contains_key(&standby)
            && !share.is_refused_by(standby)
            && !recently
            && self.can_ask(standby);
        suitable.then_some(standby)
    }

    fn can_ask(&self, peer: PeerId) -> bool {
        let link = self.links.get(&peer);
        link.is_some_and(|link| link.is_ready() && link.health(self.now) == Health::Alive)
    }

    /// How long until the player needs an object.
    fn time_left(&self, t: usize, key: &ObjectKey) -> Duration {
        let track = &self.tracks[t];
        let left = match key.kind {
            ObjectKind::Segment => track.playout.time_to(key, self.now),
            ObjectKind::Init | ObjectKind::Part => track.playout.time_to_first_from(key, self.now),
        };
        left.unwrap_or(track.target() * 2)
    }

    /// Asks peers for what is missing of an object's stripes. A request replaces the one before about the
    /// same object: what was asked of the same peer lately for other stripes is asked for again with it.
    fn ask_each(&mut self, t: usize, object: ObjectKey, asks: &BTreeSet<(PeerId, usize)>) {
        let peers: BTreeSet<PeerId> = asks.iter().map(|(peer, _)| *peer).collect();
        for peer in peers {
            let mut runs: Vec<ChunkRun> = Vec::new();
            for number in 0..self.tracks[t].stripes.len() {
                let asked = self
                    .ring
                    .get(&object)
                    .and_then(|found| found.share(number).asked)
                    .is_some_and(|(known, at)| known == peer && self.now < at + ASK_AGAIN);
                if asks.contains(&(peer, number)) {
                    runs.extend(self.ask(t, number, object, peer));
                } else if asked {
                    runs.extend(self.missing_of(object, number));
                }
            }
            runs.sort_by_key(|run| run.first);
            let mut ranges = merge(runs);
            ranges.truncate(MAX_RANGES);
            if !ranges.is_empty() {
                self.counters.repair_requests += 1;
                self.send(peer, &Frame::Request { object, ranges });
            }
        }
    }

    /// What to ask a peer for of a stripe of an object; the stripe's source is told to leave it out.
    fn ask(&mut self, t: usize, number: usize, object: ObjectKey, peer: PeerId) -> Vec<ChunkRun> {
        let now = self.now;
        let subscribed = &self.tracks[t].stripes[number].subscribed;
        let others = !subscribed.is_empty() && !subscribed.contains_key(&peer);
        let under_way = if others {
            self.under_way(t, number, object)
        } else {
            0
        };
        let mut runs = self.missing_of(object, number);
        if let Some(found) = self.ring.get_mut(&object) {
            found.share_mut(number).asked = Some((peer, now));
        }
        leave_under_way(&mut runs, under_way);
        runs.truncate(MAX_RANGES);
        if others {
            self.divide(t, number, object, &runs);
        }
        self.disappoint(object);
        runs
    }

    fn missing_of(&self, object: ObjectKey, stripe: usize) -> Vec<ChunkRun> {
        let found = self.ring.get(&object);
        let runs = found.map_or(Vec::new(), |found| {
            found.missing_runs(StripeSet::of(stripe))
        });
        let run = |(first, count)| ChunkRun {
            first: ChunkIndex(first),
            count,
        };
        runs.into_iter().map(run).collect()
    }

    /// How many of a stripe's first missing chunks are not to be asked for by name, for they would come
    /// twice: a link takes chunks up to its limit before a Cancel can stop them.
    fn under_way(&self, t: usize, number: usize, key: ObjectKey) -> u32 {
        let (now, track) = (self.now, &self.tracks[t]);
        let Some(object) = self.ring.get(&key) else {
            return 0;
        };
        let (stripe, share) = (&track.stripes[number], object.share(number));
        let tight = self.time_left(t, &key) < track.target();
        let moving = match share.asked {
            // It was divided before: what is under way now is under way from both.
            Some(_) => now < share.last_chunk + FLOWING.0,
            None => stripe.decision.flowing && now < stripe.progress + FLOWING.0,
        };
        match (moving, share.asked) {
            (true, _) if !tight => CHUNKS_UNDER_WAY,
            (_, None) if share.missing() > 2 => 1,
            (_, None | Some(_)) => 0,
        }
    }

    /// What is asked of the standby the parent need not send: the two share the work. Should the
    /// standby lack it too, they [`unite`](Self::unite).
    fn divide(&mut self, t: usize, number: usize, object: ObjectKey, ranges: &[ChunkRun]) {
        for parent in self.parents(t, number) {
            for run in ranges {
                let ChunkRun { first, count } = *run;
                self.send(
                    parent,
                    &Frame::Cancel {
                        object,
                        first,
                        count,
                    },
                );
            }
        }
    }

    /// The peers that push a stripe.
    fn parents(&self, t: usize, number: usize) -> Vec<PeerId> {
        let subscribed = &self.tracks[t].stripes[number].subscribed;
        subscribed.keys().copied().collect()
    }

    /// What the standby was asked for and lacks, the parents are to send after all, as soon as they can:
    /// they take up again what is missing.
    pub(super) fn unite(&mut self, t: usize, number: usize) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        for parent in self.parents(t, number) {
            let left_out = |key: &ObjectKey| {
                let share = self.ring.get(key).map(|object| object.share(number));
                share.is_some_and(|share| {
                    share.missing() > 0 && share.asked.is_some() && !share.is_refused_by(parent)
                })
            };
            if self.ring.wanted_of(index).any(left_out) {
                self.subscribe_anew(t, index, number, parent);
            }
        }
    }

    /// Whether this peer lacks some of these chunks and had to ask somebody for them by name: those who ask
    /// it for them should not wait for that. Below a parent that failed, all lack the same.
    pub(super) fn asks_for_itself(&self, key: ObjectKey, ranges: &[ChunkRun]) -> bool {
        let Some(object) = self.ring.get(&key) else {
            return false;
        };
        let lacks = |chunk: u32| {
            let asked = object.share(object.stripe_of(chunk)).asked.is_some();
            asked && object.chunk(ChunkIndex(chunk)).is_none()
        };
        let end = |run: &ChunkRun| (run.first.0 + run.count).min(object.chunk_count());
        object.status() == Status::Wanted
            && ranges.iter().any(|run| (run.first.0..end(run)).any(lacks))
    }

    /// Tells those who wait here for an object that this peer asks for it itself.
    fn disappoint(&mut self, object: ObjectKey) {
        let waits = |link: &Link| link.is_ready() && link.downstream.waits_for(object);
        let waiting = self.links.iter().filter(|(_, link)| waits(link));
        let waiting: Vec<PeerId> = waiting.map(|(peer, _)| *peer).collect();
        for peer in waiting {
            self.send(peer, &Frame::Unavailable { object });
        }
    }

    /// Whether an object could not be had, and the origin itself does not list it any more.
    fn is_hopeless(&self, t: usize, key: ObjectKey, object: &Object) -> bool {
        let track = &self.tracks[t];
        let window = track
            .header()
            .map_or(0, |header| u64::from(header.window_segments));
        let listed = match track.newest.filter(|newest| newest.epoch == key.epoch) {
            Some(newest) if window > 0 => key.sequence + window > newest.sequence,
            Some(_) | None => self.now < object.arrived + track.target() * UNLISTED_AFTER,
        };
        let waits = object
            .player_waits
            .is_some_and(|at| self.now < at + track.target() * 4);
        object.failed_fetches >= MAX_FAILURES
            && !listed
            && !waits
            && self.time_left(t, &key).is_zero()
    }

    fn give_up(&mut self, t: usize, key: ObjectKey) {
        self.ring.lose(&key);
        self.counters.objects_missed += 1;
        self.tracks[t].playout.make_available(&key, self.now);
    }
}
