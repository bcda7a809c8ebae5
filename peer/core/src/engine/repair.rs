//! Chunks that are missing: whom to ask for them, and when.
//!
//! A root asks the CDN at once. Everybody else waits for the parent while it brings something, asks the
//! standby when it does not, and asks the CDN in time for the play-out deadline, whatever anybody says:
//! the picture never stops because of us. What the CDN gives beyond the assignment is paced by the
//! lease, which never blocks while the buffer is low.

use core::time::Duration;

use espalier_media::{ChunkIndex, ObjectKey, ObjectKind};

use crate::frame::{ChunkRun, Frame, MAX_RANGES};
use crate::ids::{PeerId, Source};
use crate::liveness::Health;
use crate::ring::{Object, Status};

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
/// Below so many tenths of a target duration of buffer the lease does not block.
const LOW_BUFFER_TENTHS: u32 = 15;
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
fn leave_under_way(runs: &mut Vec<(u32, u32)>, mut under_way: u32) {
    while let Some((first, count)) = runs.first_mut() {
        if *count > under_way {
            *first += under_way;
            *count -= under_way;
            return;
        }
        under_way -= *count;
        runs.remove(0);
    }
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
        // What the source has to bring before an object is whole, in chunks.
        let mut backlog = 0;
        for key in wanted {
            let Some(object) = self.ring.get(&key).filter(|o| o.status() == Status::Wanted) else {
                continue;
            };
            let elsewhere = object.fetch.is_some() || object.asked.is_some();
            backlog += if elsewhere { 1 } else { object.missing() };
            if object.fetch.is_some() {
                continue;
            }
            if self.is_hopeless(t, key, object) {
                self.give_up(t, key);
                continue;
            }
            match self.remedy(t, key, object, backlog) {
                Remedy::Wait => {}
                Remedy::Ask(peer) => self.ask(t, key, peer),
                Remedy::Cdn => self.take_from_cdn(t, key),
                Remedy::Start => {
                    self.tracks[t].start_objects += 1;
                    self.take_from_cdn(t, key);
                }
            }
        }
    }

    fn remedy(&self, t: usize, key: ObjectKey, object: &Object, backlog: u32) -> Remedy {
        let (now, track) = (self.now, &self.tracks[t]);
        if now < object.retry_at {
            return Remedy::Wait;
        }
        if track.decision.root {
            return Remedy::Cdn;
        }
        if let Some(since) = object.player_waits
            && !track.is_in_flow(&key)
        {
            return self.remedy_for_player(t, object, since);
        }
        let left = self.time_left(t, &key);
        let target = track.target();
        let progress = track.progress.max(object.arrived);
        let lull = (track.chunk_interval * FLOWING.1).max(FLOWING.0);
        let flowing = track.decision.flowing && now < progress + lull;
        let lead = if flowing {
            CDN_LEAD_FLOWING
        } else {
            (target * CDN_LEAD_TENTHS / 10).clamp(CDN_LEAD.0, CDN_LEAD.1)
        };
        if left < lead {
            return Remedy::Cdn;
        }
        let stalled = now >= progress + STALLED_AFTER && !track.decision.patient;
        // At the pace at which chunks come, this object would not be whole in time.
        let behind = left < track.chunk_interval * backlog || left < target && !flowing;
        let late = behind || stalled || object.refused_by.is_some();
        match self.helper(t, object) {
            Some(helper) if late => Remedy::Ask(helper),
            None if object.refused_by.is_some() => Remedy::Cdn,
            Some(_) | None => Remedy::Wait,
        }
    }

    /// The player waits for this one: it may be older than what flows.
    fn remedy_for_player(&self, t: usize, object: &Object, since: Duration) -> Remedy {
        let track = &self.tracks[t];
        // As long as chunks of it come, they are waited for, but not for ever.
        let moving = object.last_chunk.min(since + track.target());
        let waited = self.now.saturating_sub(since.max(moving));
        let parent = track
            .decision
            .active
            .and_then(Source::peer)
            .filter(|parent| {
                !track.decision.repairing
                    && object.refused_by != Some(*parent)
                    && self.can_ask(*parent)
            });
        match (parent, object.asked) {
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
    fn helper(&self, t: usize, object: &Object) -> Option<PeerId> {
        let track = &self.tracks[t];
        let standby = track.assignment.standby.and_then(Source::peer)?;
        let recently = object
            .asked
            .is_some_and(|(peer, at)| peer == standby && self.now < at + ASK_AGAIN);
        let suitable = !track.subscribed.contains_key(&standby)
            && !track.repairing_peers.contains_key(&standby)
            && object.refused_by != Some(standby)
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

    fn ask(&mut self, t: usize, object: ObjectKey, peer: PeerId) {
        let now = self.now;
        let others =
            !self.tracks[t].subscribed.is_empty() && !self.tracks[t].subscribed.contains_key(&peer);
        let under_way = if others { self.under_way(t, object) } else { 0 };
        let Some(found) = self.ring.get_mut(&object) else {
            return;
        };
        found.asked = Some((peer, now));
        let mut runs = found.missing_runs();
        leave_under_way(&mut runs, under_way);
        runs.truncate(MAX_RANGES);
        if runs.is_empty() {
            return;
        }
        let ranges: Vec<ChunkRun> = runs
            .into_iter()
            .map(|(first, count)| ChunkRun {
                first: ChunkIndex(first),
                count,
            })
            .collect();
        self.counters.repair_requests += 1;
        if others {
            self.divide(t, object, &ranges);
        }
        self.send(peer, &Frame::Request { object, ranges });
    }

    /// How many of an object's first missing chunks are not to be asked for by name, for they would come
    /// twice: a link takes chunks up to its limit before a Cancel can stop them.
    fn under_way(&self, t: usize, key: ObjectKey) -> u32 {
        let (now, track) = (self.now, &self.tracks[t]);
        let Some(object) = self.ring.get(&key) else {
            return 0;
        };
        let tight = self.time_left(t, &key) < track.target();
        let moving = match object.asked {
            // It was divided before: what is under way now is under way from both.
            Some(_) => now < object.last_chunk + FLOWING.0,
            None => track.decision.flowing && now < track.progress + FLOWING.0,
        };
        match (moving, object.asked) {
            (true, _) if !tight => CHUNKS_UNDER_WAY,
            (_, None) if object.missing() > 2 => 1,
            (_, None | Some(_)) => 0,
        }
    }

    /// What is asked of the standby the parent need not send: the two share the work. Should the
    /// standby fail, the CDN is asked in time.
    fn divide(&mut self, t: usize, object: ObjectKey, ranges: &[ChunkRun]) {
        let parents: Vec<PeerId> = self.tracks[t].subscribed.keys().copied().collect();
        for parent in parents {
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

    fn take_from_cdn(&mut self, t: usize, key: ObjectKey) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        let runs = object.missing_runs();
        let (Some((first, count)), Some(last)) = (runs.first().copied(), runs.last()) else {
            return;
        };
        // A request costs more than a few chunks twice: one range for all, unless most of it is held.
        let missing: u32 = runs.iter().map(|(_, count)| count).sum();
        let span = last.0 + last.1 - first;
        let count = if span <= missing.saturating_mul(2) {
            span
        } else {
            count
        };
        let end = ChunkIndex(first + count - 1);
        let bytes = object.descriptor().chunk_range(end).map_or(0, |range| {
            range.end - u64::from(first) * espalier_media::CHUNK_SIZE as u64
        });
        if self.can_fetch() && self.may_take(t, bytes) {
            self.fetch_chunks(key, first, count);
        }
    }

    /// Whether the lease allows it, or the buffer is too low to ask.
    fn may_take(&mut self, t: usize, bytes: u64) -> bool {
        let track = &self.tracks[t];
        if matches!(track.assignment.source, Some(Source::Cdn)) {
            return true;
        }
        let low = track.playout.buffer(self.now) < track.target() * LOW_BUFFER_TENTHS / 10;
        if self.lease.try_take(bytes, self.now) {
            return true;
        }
        if low {
            self.counters.cdn_overrun_bytes += bytes;
        }
        low
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
