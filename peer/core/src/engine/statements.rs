//! Statements: verified once, kept, told to the player and to the children, and acted upon.

use core::hash::{Hash as _, Hasher as _};
use std::hash::DefaultHasher;

use bytes::Bytes;
use espalier_media::{
    Descriptor, MasterHeader, ObjectKey, ObjectKind, SignedStatement, Statement, StatementError,
};

use crate::command::{LinkState, Publication};
use crate::event::FeedEvent;
use crate::ids::PeerId;
use crate::link::Phase;
use crate::ring::{Inserted, Object, Status};
use crate::track::Bypass;

use super::RelayEngine;

/// How many verified statements are remembered, to know copies of them.
const MAX_VERIFIED: usize = 4_096;
/// How many statements about tracks that are not taken are kept while a feed is open.
const MAX_SPARE: usize = 1_024;
/// How many segments before its start a newcomer lists: with the newest, what a player starts with.
const LISTED_BEFORE: usize = 2;

impl RelayEngine {
    pub(super) fn on_feed(&mut self, event: FeedEvent) {
        self.dirty = true;
        match event {
            FeedEvent::Opened => {
                self.feed.open = true;
                self.feed.caught_up = false;
                self.spare.clear();
            }
            FeedEvent::Lost => {
                self.feed.open = false;
                self.feed.caught_up = false;
            }
            FeedEvent::Statement(encoded) => self.on_statement(encoded, None),
            FeedEvent::Announce {
                object,
                uri,
                byte_range,
            } => {
                self.on_announce(object, uri, byte_range);
            }
            FeedEvent::CaughtUp => {
                self.feed.caught_up = true;
                (0..self.tracks.len()).for_each(|t| self.start_at_newest(t));
            }
        }
    }

    /// Takes an encoded statement from a peer, or from the feed.
    pub(super) fn on_statement(&mut self, encoded: Bytes, from: Option<PeerId>) {
        let mut hasher = DefaultHasher::new();
        encoded.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.verified.iter().find(|(known, _)| *known == hash);
        if let Some((_, about)) = known.copied() {
            self.hear_of(about, from);
            return;
        }
        match SignedStatement::decode(encoded, &self.keys) {
            Ok(statement) => {
                let taken = statement
                    .statement()
                    .track()
                    .is_none_or(|t| self.track_of(t).is_some());
                let about = statement.statement().as_object().map(|object| object.key);
                if taken {
                    self.remember(hash, about);
                }
                self.take_statement(statement);
                self.hear_of(about, from);
            }
            // Keys overlap when they change: a neighbour may be ahead, and is not guilty of anything.
            Err(StatementError::UntrustedKey(_)) => {}
            Err(error) => self.on_bad_statement(&error, from),
        }
    }

    fn remember(&mut self, hash: u64, about: Option<ObjectKey>) {
        if self.verified.len() == MAX_VERIFIED {
            self.verified.pop_front();
        }
        self.verified.push_back((hash, about));
    }

    /// A subscription that brings the descriptors of objects that are whole already flows, too: their
    /// chunks were there from elsewhere first, so this peer cancelled them. Or the objects are so short
    /// that none of their chunks belongs to the stripe.
    fn hear_of(&mut self, object: Option<ObjectKey>, from: Option<PeerId>) {
        let (Some(key), Some(peer)) = (object, from) else {
            return;
        };
        let Some(t) = self.track_of(key.track) else {
            return;
        };
        let object = self.ring.get(&key);
        for (number, stripe) in self.tracks[t].stripes.iter_mut().enumerate() {
            let Some(subscribed) = stripe.subscribed.get_mut(&peer) else {
                continue;
            };
            subscribed.stated = subscribed.stated.max(Some(key));
            if object.is_some_and(|object| lacks_nothing(object, number)) && !subscribed.flowed {
                subscribed.flowed = true;
                self.dirty = true;
            }
        }
    }

    fn on_bad_statement(&mut self, error: &StatementError, from: Option<PeerId>) {
        self.counters.bad_statements += 1;
        let Some(peer) = from else { return };
        let state = match error {
            StatementError::Signature => LinkState::Corrupt,
            StatementError::TooLong(_) | StatementError::Encoding => LinkState::Invalid,
            // Signed by a trusted key: the signer's fault, or a newer version.
            StatementError::Invalid(_) | StatementError::UntrustedKey(_) => return,
        };
        self.fail_link(peer, state, &error.to_string());
    }

    fn take_statement(&mut self, statement: SignedStatement) {
        self.dirty = true;
        match statement.statement() {
            Statement::Master(master) => {
                let revision = master.revision;
                self.take_master(statement, revision);
            }
            Statement::Track(header) => match self.track_of(header.track) {
                Some(t) => self.take_header(t, statement),
                None => self.keep_spare(statement),
            },
            Statement::Object(descriptor) => match self.track_of(descriptor.key.track) {
                Some(t) => {
                    let key = descriptor.key;
                    self.take_descriptor(t, key, statement);
                }
                None => self.keep_spare(statement),
            },
        }
    }

    pub(super) fn master_header(&self) -> Option<&MasterHeader> {
        match self.master.as_ref()?.statement() {
            Statement::Master(master) => Some(master),
            Statement::Track(_) | Statement::Object(_) => None,
        }
    }

    fn take_master(&mut self, statement: SignedStatement, revision: u32) {
        if self
            .master_header()
            .is_some_and(|known| known.revision >= revision)
        {
            return;
        }
        self.publish(Publication::Header(statement.shared_statement()));
        self.master = Some(statement.clone());
        if let Statement::Master(master) = statement.statement() {
            self.tracks
                .iter_mut()
                .for_each(|track| track.resolve(master));
        }
        // Whose Hello is still on its way gets it too: this end has said its own already.
        let linked: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(_, link)| link.phase == Phase::Up)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in linked {
            self.send_statement(peer, &statement);
        }
        self.take_spare();
    }

    fn keep_spare(&mut self, statement: SignedStatement) {
        // From a peer nothing comes that was not subscribed to; the feed serves every track.
        if self.spare.len() == MAX_SPARE {
            self.spare.pop_front();
        }
        self.spare.push_back(statement);
    }

    /// A track was added or found its index: it may be in what the feed said before.
    pub(super) fn take_spare(&mut self) {
        for statement in core::mem::take(&mut self.spare) {
            self.take_statement(statement);
        }
        if self.feed.caught_up {
            (0..self.tracks.len()).for_each(|t| self.start_at_newest(t));
        }
    }

    fn take_header(&mut self, t: usize, statement: SignedStatement) {
        let track = &mut self.tracks[t];
        let Statement::Track(header) = statement.statement() else {
            return;
        };
        if track
            .header()
            .is_some_and(|known| !header.supersedes(known))
        {
            return;
        }
        track.header = Some(statement.clone());
        track.log.push(statement.clone());
        self.publish(Publication::Header(statement.shared_statement()));
    }

    fn take_descriptor(&mut self, t: usize, key: ObjectKey, statement: SignedStatement) {
        let stripes = self.tracks[t].stripe_count();
        match self.ring.insert(key, statement.clone(), stripes, self.now) {
            Inserted::Known => return,
            Inserted::Conflict => {
                self.counters.conflicting_statements += 1;
                return;
            }
            Inserted::New => {}
        }
        let bypassed = self.tracks[t].bypass.plays;
        let now = self.now;
        let track = &mut self.tracks[t];
        track.log.push(statement);
        let segment = key.kind == ObjectKind::Segment;
        if segment && track.signed.is_none_or(|signed| key > signed) {
            track.signed = Some(key);
            track.newest = track.newest.max(Some(key));
            track.bypass = Bypass::default();
            let duration = self
                .ring
                .get(&key)
                .map(|object| object.descriptor().duration);
            track.rhythm = Some((now, duration.unwrap_or_default()));
        }
        if self.tracks[t].is_wanted(&key) {
            self.admit(t, key);
        } else if self.feed.caught_up {
            // The channel's very first object comes after the end of the empty windows.
            self.start_at_newest(t);
        }
        self.absorb_unsigned(t, key);
        if bypassed && !self.tracks[t].bypass.active {
            self.move_on(t);
        }
    }

    /// Lists an object that is wanted, and begins to receive it.
    fn admit(&mut self, t: usize, key: ObjectKey) {
        let Some(object) = self.ring.get_mut(&key) else {
            return;
        };
        let descriptor = object.descriptor();
        let (duration, init) = (descriptor.duration, descriptor.init_key());
        let listed = object.statement().shared_statement();
        object.published_unverified = self.tracks[t].bypassed.contains(&key);
        let bypassed = object.published_unverified;
        self.publish(Publication::Listed(listed));
        if key.kind == ObjectKind::Segment {
            self.tracks[t].playout.append(key, duration);
        }
        if bypassed && !self.tracks[t].unsigned.contains_key(&key) {
            return;
        }
        self.begin(t, key);
        if let Some(init) = init {
            self.begin(t, init);
        }
    }

    /// Begins to receive an object that is absent.
    pub(super) fn begin(&mut self, t: usize, key: ObjectKey) {
        if self.ring.want(&key) && self.ring.get(&key).map(|o| o.status()) == Some(Status::Complete)
        {
            self.complete(t, key);
        }
    }

    /// Begins with the newest segment, if nothing was begun yet.
    pub(super) fn start_at_newest(&mut self, t: usize) {
        let Some(newest) = self.tracks[t]
            .newest
            .filter(|_| self.tracks[t].start.is_none())
        else {
            return;
        };
        self.start_at(t, newest);
        let now = self.now;
        let init = self
            .ring
            .get(&newest)
            .and_then(|object| object.descriptor().init_key());
        // The picture waits for nobody: what it begins with is fetched at once, unless it flows.
        for key in [Some(newest), init].into_iter().flatten() {
            if let Some(object) = self.ring.get_mut(&key) {
                object.player_waits = Some(now);
            }
        }
    }

    /// Wants everything from a segment on, and lists a little more.
    pub(super) fn start_at(&mut self, t: usize, start: ObjectKey) {
        self.tracks[t].start = Some(start);
        let segments: Vec<ObjectKey> = self
            .ring
            .of_track(start.track)
            .map(|(key, _)| *key)
            .filter(|key| key.kind == ObjectKind::Segment)
            .collect();
        let older = segments.iter().filter(|key| **key < start).count();
        for key in &segments[older.saturating_sub(LISTED_BEFORE)..] {
            self.list_init_of(*key);
            if *key >= start {
                self.admit(t, *key);
            } else if let Some(object) = self.ring.get(key) {
                let listed = object.statement().shared_statement();
                self.publish(Publication::Listed(listed));
            }
        }
        let target = self.tracks[t].target();
        self.tracks[t].playout.start(target, self.now);
        self.align(t);
    }

    /// Lists the init section of a segment of the start, if that is older than the start.
    fn list_init_of(&mut self, key: ObjectKey) {
        let init = self
            .ring
            .get(&key)
            .and_then(|object| object.descriptor().init_key());
        let listed = init.and_then(|init| self.ring.get(&init));
        if let Some(statement) = listed.map(|object| object.statement().shared_statement()) {
            self.publish(Publication::Listed(statement));
        }
    }

    pub(super) fn on_player_wants(&mut self, key: ObjectKey) {
        let Some(t) = self.track_of(key.track) else {
            return;
        };
        let init = self
            .ring
            .get(&key)
            .and_then(|object| object.descriptor().init_key());
        let now = self.now;
        for key in init.into_iter().chain([key]) {
            // What is being received comes in time for the player by itself: it reads what is listed at
            // once, and waits for the bytes.
            let absent = self.ring.get(&key).map(|object| object.status()) == Some(Status::Absent);
            self.begin(t, key);
            if let Some(object) = self.ring.get_mut(&key).filter(|_| absent) {
                object.player_waits.get_or_insert(now);
            }
        }
        self.dirty = true;
    }

    /// Takes what was read before the descriptor came.
    fn absorb_unsigned(&mut self, t: usize, key: ObjectKey) {
        let Some(mut unsigned) = self.tracks[t].unsigned.remove(&key) else {
            return;
        };
        self.begin(t, key);
        let Some(object) = self.ring.get_mut(&key) else {
            return;
        };
        object.published_unverified = unsigned.published;
        if let Some(id) = unsigned.fetch {
            object.begin_reading(id, 0, object.chunk_count());
        }
        let descriptor = object.descriptor();
        let length = descriptor.length;
        let agrees = unsigned
            .chunks
            .iter()
            .enumerate()
            .all(|(index, (bytes, hash))| agrees(descriptor, index, bytes, hash));
        let count = unsigned.chunks.len();
        if !agrees || (unsigned.whole && count != descriptor.chunk_count() as usize) {
            self.on_mismatch(
                t,
                key,
                unsigned
                    .whole
                    .then(|| core::mem::take(&mut unsigned.chunks)),
            );
            return;
        }
        if let Some(fetch) = unsigned.fetch.and_then(|id| self.fetches.get_mut(&id)) {
            fetch.purpose = crate::cdn::Purpose::Verified;
            fetch.body.limit(length);
        }
        for (index, (bytes, _)) in (0_u32..).zip(unsigned.chunks) {
            self.accept(
                t,
                key,
                espalier_media::ChunkIndex(index),
                bytes,
                super::receive::Via::Cdn,
            );
        }
    }
}

/// Whether no chunk of a stripe is to come any more.
fn lacks_nothing(object: &Object, stripe: usize) -> bool {
    let segment = object.descriptor().key.kind == ObjectKind::Segment;
    object.status() == Status::Complete || segment && object.share(stripe).missing() == 0
}

fn agrees(descriptor: &Descriptor, index: usize, bytes: &Bytes, hash: &[u8; 32]) -> bool {
    let Ok(index) = u32::try_from(index).map(espalier_media::ChunkIndex) else {
        return false;
    };
    descriptor.chunk_len(index) == Some(bytes.len())
        && descriptor.chunk_hashes.get(index) == Some(hash)
}
