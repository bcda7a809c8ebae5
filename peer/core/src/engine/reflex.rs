//! Carries out what `upstream` decides: subscriptions, the feed, what children and orchestrator are told.

use core::time::Duration;

use espalier_media::{ChunkIndex, ObjectKey, TrackIndex};

use crate::command::{Command, LinkState, Provenance, SourceReport};
use crate::frame::{Cursor, Frame, Subscribe};
use crate::ids::{PeerId, Source};
use crate::link::Phase;
use crate::liveness::Health;
use crate::track::{Subscribed, Track};
use crate::upstream::{self, Candidate, Condition, Facts};

use super::RelayEngine;

/// How long a link may take to open before its peer counts as gone.
const OPENING_PATIENCE: Duration = Duration::from_secs(5);
/// How long a new subscription is watched before it counts as one that leaves nothing to be desired.
const SETTLING: Duration = Duration::from_millis(500);
/// How long children are told that a repair takes.
const EXPECTED_REPAIR_MS: u32 = 3_000;
/// After this many objects in a row that came late the source is reported, and how often at most.
const LATE_OBJECTS: u32 = 2;
const LATE_REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The most runs that a new subscription is told to leave out.
const MAX_CANCELS: usize = 32;

impl RelayEngine {
    /// Takes a track from where it is best taken now.
    pub(super) fn reflect(&mut self, t: usize) {
        let now = self.now;
        self.tracks[t].refused.retain(|_, until| now < *until);
        let decision = upstream::decide(&self.facts(t));
        let track = &mut self.tracks[t];
        track.decision = decision;
        if !decision.keep_previous {
            track.previous = None;
        }
        track.previous_root &= decision.root;
        match (decision.root, track.root_since) {
            (true, None) => {
                track.root_since = Some(now);
                track.cdn_flowed = false;
            }
            (false, Some(_)) => track.root_since = None,
            (true, Some(_)) | (false, None) => {}
        }
        self.resubscribe(t);
        self.tell_children(t);
    }

    fn facts(&self, t: usize) -> Facts {
        let track = &self.tracks[t];
        let candidate = |source: Option<Source>| {
            source
                .and_then(Source::peer)
                .map(|peer| self.candidate(track, peer))
        };
        Facts {
            assigned: track.assignment.source,
            source: candidate(track.assignment.source),
            standby: candidate(track.assignment.standby).map(|standby| Candidate {
                flowed: standby.flowed || self.settled(track, standby.peer),
                ..standby
            }),
            previous: track.previous.map(|peer| self.candidate(track, peer)),
            previous_root: track.previous_root,
            cdn_flowed: track.cdn_flowed,
        }
    }

    /// Whether a subscription made a moment ago leaves nothing to be desired, though no chunk came by
    /// it yet because none was due.
    fn settled(&self, track: &Track, peer: PeerId) -> bool {
        let made = track
            .subscribed
            .get(&peer)
            .map(|subscribed| subscribed.since);
        let idle = track
            .index
            .is_some_and(|index| self.ring.wanted_of(index).next().is_none());
        made.is_some_and(|at| self.now >= at + SETTLING) && idle && !track.is_overdue(self.now)
    }

    fn candidate(&self, track: &Track, peer: PeerId) -> Candidate {
        Candidate {
            peer,
            condition: self.condition(track, peer),
            repairing: track.repairing_peers.contains_key(&peer),
            flowed: track
                .subscribed
                .get(&peer)
                .is_some_and(|subscribed| subscribed.flowed),
        }
    }

    fn condition(&self, track: &Track, peer: PeerId) -> Condition {
        let repairs_too_long = track
            .repairing_peers
            .get(&peer)
            .is_some_and(|(_, until)| self.now >= *until);
        if track.refused.contains_key(&peer) || repairs_too_long {
            return Condition::Gone;
        }
        let Some(link) = self.links.get(&peer) else {
            return Condition::Gone;
        };
        let opening = self.now < link.since.max(track.assigned_at) + OPENING_PATIENCE;
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
    fn resubscribe(&mut self, t: usize) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        let wanted = self.tracks[t].decision.subscribe;
        let surplus: Vec<PeerId> = self.tracks[t]
            .subscribed
            .keys()
            .filter(|peer| !wanted.contains(&Some(**peer)))
            .copied()
            .collect();
        for peer in surplus {
            self.tracks[t].subscribed.remove(&peer);
            self.send_unsubscribe(peer, index);
        }
        for peer in wanted.into_iter().flatten() {
            let ready = self.links.get(&peer).is_some_and(|link| link.is_ready());
            if ready && !self.tracks[t].subscribed.contains_key(&peer) {
                self.subscribe(t, index, peer);
            }
        }
    }

    fn subscribe(&mut self, t: usize, track: TrackIndex, peer: PeerId) {
        let cursor = self.cursor(t, track);
        let subscribed = Subscribed {
            since: self.now,
            resumed: self.now,
            from: cursor.map(|cursor| cursor.object),
            stated: None,
            flowed: false,
        };
        self.tracks[t].subscribed.insert(peer, subscribed);
        self.tracks[t].begin(self.now);
        self.send(
            peer,
            &Frame::Subscribe(Subscribe {
                track,
                stripe: 0,
                stripes: 1,
                cursor,
            }),
        );
        if let Some(cursor) = cursor {
            for (object, first, count) in self.had_behind(track, &cursor) {
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

    /// Moves every subscription to where this peer is now: what it played in bypass is not sent again.
    pub(super) fn move_on(&mut self, t: usize) {
        let Some(index) = self.tracks[t].index else {
            return;
        };
        let peers: Vec<PeerId> = self.tracks[t].subscribed.keys().copied().collect();
        for peer in peers {
            self.subscribe(t, index, peer);
        }
    }

    /// The next chunk that this peer wants from a source, in order: the first that is missing and not
    /// on its way from the CDN, or else what comes behind the newest segment.
    fn cursor(&self, t: usize, track: TrackIndex) -> Option<Cursor> {
        let start = self.tracks[t].start?;
        let missing = self
            .ring
            .wanted_of(track)
            .filter(|key| **key >= start)
            .filter_map(|key| self.ring.get(key).map(|object| (key, object)))
            .find(|(_, object)| object.fetch.is_none())
            .and_then(|(key, object)| Some((*key, object.first_missing()?)));
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

    /// What this peer has, or gets from the CDN, behind a place.
    fn had_behind(&self, track: TrackIndex, cursor: &Cursor) -> Vec<(ObjectKey, u32, u32)> {
        let mut had = Vec::new();
        for (key, object) in self
            .ring
            .of_track(track)
            .filter(|(key, _)| **key >= cursor.object)
        {
            if object.fetch.is_some() {
                had.push((*key, 0, 0));
            } else {
                had.extend(
                    object
                        .held_runs()
                        .into_iter()
                        .map(|(first, count)| (*key, first, count)),
                );
            }
            if had.len() >= MAX_CANCELS {
                break;
            }
        }
        had
    }

    pub(super) fn send_unsubscribe(&mut self, peer: PeerId, track: TrackIndex) {
        self.send(peer, &Frame::Unsubscribe { track, stripe: 0 });
    }

    /// Says to the children when this peer loses its source and when it has one again, so that they
    /// wait for it rather than all run to the CDN.
    fn tell_children(&mut self, t: usize) {
        let track = &mut self.tracks[t];
        let repairing = track.decision.repairing;
        let Some(index) = track.index.filter(|_| repairing != track.told_repairing) else {
            return;
        };
        track.told_repairing = repairing;
        let children: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_ready() && link.takes(index))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in children {
            self.send_upstream(peer, index, repairing);
        }
    }

    pub(super) fn send_upstream(&mut self, peer: PeerId, track: TrackIndex, repairing: bool) {
        let expected_ms = if repairing { EXPECTED_REPAIR_MS } else { 0 };
        self.send(
            peer,
            &Frame::Upstream {
                track,
                repairing,
                expected_ms,
            },
        );
    }

    pub(super) fn report_source(&mut self, t: usize) {
        let track = &mut self.tracks[t];
        let Some(state) = track.state() else { return };
        let current = (track.decision.active, state);
        if track.reported == Some(current) {
            return;
        }
        track.reported = Some(current);
        let report = SourceReport {
            track: track.name.clone(),
            source: track.decision.active,
            state,
            generation: self.generation,
        };
        self.commands.push_back(Command::ReportSource(report));
    }

    /// Opens the feed where a track has no flowing parent, and closes it when all have.
    pub(super) fn tend_feed(&mut self) {
        let now = self.now;
        let needs = |track: &Track| {
            let decision = &track.decision;
            decision.root
                || track.bypass.active
                || track.is_overdue(now) && !decision.patient
                || !decision.flowing && !decision.patient
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

    /// A source that lives but brings too little is reported: the tree must change, not the player.
    /// `arrived` is when the object's descriptor came: a source is not to be blamed for what was left
    /// undone before it had something to send, nor for the time that it takes to make up for that.
    pub(super) fn judge_source(&mut self, t: usize, from: Provenance, arrived: Duration) {
        let now = self.now;
        let track = &mut self.tracks[t];
        let Some(Source::Peer(peer)) = track.decision.active else {
            return;
        };
        let begun = track
            .subscribed
            .get(&peer)
            .map(|subscribed| subscribed.resumed);
        let answers_for = begun.is_some_and(|begun| arrived >= begun + track.target());
        let steady = track.decision.flowing && track.assignment.source == Some(Source::Peer(peer));
        if !steady || !answers_for || from.parent_bytes == from.total() {
            track.late_objects = 0;
            return;
        }
        track.late_objects += 1;
        let quiet = track
            .late_reported
            .is_none_or(|at| now >= at + LATE_REPORT_INTERVAL);
        if track.late_objects >= LATE_OBJECTS && quiet {
            track.late_reported = Some(now);
            self.report_link(
                peer,
                LinkState::Late,
                "chunks had to come from elsewhere in time",
            );
        }
    }
}
