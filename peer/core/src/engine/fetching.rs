//! Requests to the CDN: made, read chunk by chunk, verified or kept until they can be.

use core::time::Duration;

use bytes::Bytes;
use espalier_media::{ByteRange, ChunkIndex, ObjectKey};
use sha2::{Digest as _, Sha256};

use crate::cdn::{Body, Fetch, Purpose, TooLong};
use crate::command::{Command, FetchRequest, Publication};
use crate::event::FetchUpdate;
use crate::ids::FetchId;
use crate::track::Unsigned;

use super::RelayEngine;
use super::receive::Via;

/// The most requests at a time.
const MAX_FETCHES: usize = 6;
/// A request without news for this long is given up and made again.
const FETCH_SILENCE: Duration = Duration::from_secs(3);
/// The pause after a failed request: doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

type HashedChunks = Vec<(Bytes, [u8; 32])>;

impl RelayEngine {
    pub(super) fn can_fetch(&self) -> bool {
        self.fetches.len() < MAX_FETCHES
    }

    /// Asks the CDN for chunks of an object that has a descriptor.
    pub(super) fn fetch_chunks(&mut self, key: ObjectKey, first: u32, count: u32) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        let descriptor = object.descriptor();
        let all = first == 0 && count >= descriptor.chunk_count();
        let range = if all {
            descriptor.byte_range
        } else {
            descriptor.resource_range(ChunkIndex(first), count)
        };
        let body = Body::run(descriptor.byte_range, descriptor.length, first, count);
        let uri = descriptor.uri.clone();
        let id = self.fetch(key, uri, range, Purpose::Verified, body);
        if let Some(object) = self.ring.get_mut(&key) {
            object.begin_reading(id, first, count);
        }
    }

    /// Asks the CDN for an object that has no descriptor.
    pub(super) fn fetch_unsigned(&mut self, t: usize, key: ObjectKey) {
        let Some(unsigned) = self.tracks[t].unsigned.get_mut(&key) else {
            return;
        };
        unsigned.chunks.clear();
        let (uri, range) = (unsigned.uri.clone(), unsigned.byte_range);
        let id = self.fetch(key, uri, range, Purpose::Unsigned, Body::whole(range, None));
        if let Some(unsigned) = self.tracks[t].unsigned.get_mut(&key) {
            unsigned.fetch = Some(id);
        }
    }

    fn fetch(
        &mut self,
        object: ObjectKey,
        uri: String,
        range: Option<ByteRange>,
        purpose: Purpose,
        body: Body,
    ) -> FetchId {
        self.next_fetch += 1;
        let id = FetchId(self.next_fetch);
        self.fetches.insert(
            id,
            Fetch {
                object,
                purpose,
                body,
                ranged: range.is_some(),
                active: self.now,
            },
        );
        self.counters.cdn_requests += 1;
        self.commands.push_back(Command::Fetch(FetchRequest {
            id,
            object,
            uri,
            range,
        }));
        id
    }

    /// The origin lists an object that is not signed yet: a root begins to read it.
    pub(super) fn on_announce(&mut self, key: ObjectKey, uri: String, range: Option<ByteRange>) {
        let Some(t) = self.track_of(key.track) else {
            return;
        };
        let track = &self.tracks[t];
        let new = self.ring.get(&key).is_none() && !track.unsigned.contains_key(&key);
        let behind = track.start.is_some_and(|start| key < start);
        // Where the chunks of one stripe end is not known before the object's length is.
        if !track.is_root() || !new || behind || !self.can_fetch() {
            return;
        }
        self.tracks[t]
            .unsigned
            .insert(key, Unsigned::new(uri, range));
        self.fetch_unsigned(t, key);
        self.bound_unsigned(t);
    }

    pub(super) fn on_fetch(&mut self, id: FetchId, update: FetchUpdate) {
        let now = self.now;
        let Some(fetch) = self.fetches.get_mut(&id) else {
            return;
        };
        fetch.active = now;
        match update {
            FetchUpdate::Started { partial, length: _ } => {
                fetch.body.start(partial);
                self.on_started(id, partial);
            }
            FetchUpdate::Body(bytes) => self.on_body(id, &bytes),
            FetchUpdate::End => self.on_end(id),
            FetchUpdate::Failed { .. } => self.on_fetch_failed(id),
        }
    }

    /// An answer begins. One that is whole although a part was asked for makes the object's other
    /// requests superfluous.
    fn on_started(&mut self, id: FetchId, partial: bool) {
        let Some(fetch) = self.fetches.get(&id) else {
            return;
        };
        let (key, ranged) = (fetch.object, fetch.ranged);
        if ranged {
            self.ignores_ranges = !partial;
        }
        if partial || fetch.purpose == Purpose::Unsigned {
            return;
        }
        let object = self.ring.get_mut(&key);
        for other in object.map_or(Vec::new(), |object| object.reads_all(id)) {
            self.cancel_fetch(other);
        }
    }

    fn on_body(&mut self, id: FetchId, bytes: &Bytes) {
        self.counters.bytes_from_cdn += bytes.len() as u64;
        self.first_cdn_byte.get_or_insert(self.now);
        let Some(fetch) = self.fetches.get_mut(&id) else {
            return;
        };
        let mut chunks = Vec::new();
        match fetch
            .body
            .push(bytes, |index, bytes| chunks.push((index, bytes)))
        {
            Ok(()) => self.take_chunks(id, chunks),
            Err(TooLong) => {
                self.commands.push_back(Command::CancelFetch { id });
                self.on_fetch_failed(id);
            }
        }
    }

    fn take_chunks(&mut self, id: FetchId, chunks: Vec<(ChunkIndex, Bytes)>) {
        for (index, bytes) in chunks {
            // A chunk may end its own request: by completing the object, or by not being what it was.
            let Some(fetch) = self.fetches.get(&id) else {
                return;
            };
            let (key, purpose) = (fetch.object, fetch.purpose);
            let Some(t) = self.track_of(key.track) else {
                return;
            };
            match purpose {
                Purpose::Verified => self.verify_fetched(t, key, index, bytes),
                Purpose::Unsigned => {
                    let hash = Sha256::digest(&bytes).into();
                    if let Some(unsigned) = self.tracks[t].unsigned.get_mut(&key) {
                        unsigned.chunks.push((bytes, hash));
                    }
                    self.bound_unsigned(t);
                }
            }
        }
    }

    fn verify_fetched(&mut self, t: usize, key: ObjectKey, index: ChunkIndex, bytes: Bytes) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        if object.chunk(index).is_some() {
            self.counters.duplicate_bytes += bytes.len() as u64;
        } else if object.descriptor().verify_chunk(index, &bytes).is_ok() {
            self.accept(t, key, index, bytes, Via::Cdn);
        } else {
            self.on_mismatch(t, key, None);
        }
    }

    fn on_end(&mut self, id: FetchId) {
        let Some(fetch) = self.fetches.get_mut(&id) else {
            return;
        };
        let mut last = Vec::new();
        let whole = fetch.body.end(|index, bytes| last.push((index, bytes)));
        let (key, purpose) = (fetch.object, fetch.purpose);
        if !whole {
            self.on_fetch_failed(id);
            return;
        }
        self.take_chunks(id, last);
        let Some(t) = self
            .track_of(key.track)
            .filter(|_| self.fetches.remove(&id).is_some())
        else {
            return;
        };
        self.dirty = true;
        match purpose {
            Purpose::Verified => {
                if let Some(object) = self.ring.get_mut(&key) {
                    object.end_reading(id);
                }
            }
            Purpose::Unsigned => {
                if let Some(unsigned) = self.tracks[t].unsigned.get_mut(&key) {
                    unsigned.fetch = None;
                    unsigned.whole = true;
                }
                self.play_unsigned(t, key);
            }
        }
    }

    fn on_fetch_failed(&mut self, id: FetchId) {
        let now = self.now;
        let Some(fetch) = self.fetches.remove(&id) else {
            return;
        };
        self.counters.cdn_failures += 1;
        self.dirty = true;
        if let Some(object) = self.ring.get_mut(&fetch.object)
            && object.end_reading(id)
            && now >= object.retry_at
        {
            object.failed_fetches += 1;
            object.retry_at = now + pause(object.failed_fetches);
        }
        let Some(t) = self.track_of(fetch.object.track) else {
            return;
        };
        if let Some(unsigned) = self.tracks[t].unsigned.get_mut(&fetch.object)
            && unsigned.fetch == Some(id)
        {
            unsigned.fetch = None;
            unsigned.failures += 1;
            unsigned.retry_at = now + pause(unsigned.failures);
        }
    }

    /// Gives a request up that is not needed any more, without counting that as its failure. One whose
    /// bytes all came is left to end by itself, so that its connection can be used again.
    pub(super) fn cancel_fetch(&mut self, id: FetchId) {
        if self
            .fetches
            .get(&id)
            .is_some_and(|fetch| !fetch.body.is_done())
        {
            self.fetches.remove(&id);
            self.commands.push_back(Command::CancelFetch { id });
        }
    }

    /// The CDN has other bytes than those that were signed: they are played, and relayed to nobody.
    pub(super) fn on_mismatch(&mut self, t: usize, key: ObjectKey, body: Option<HashedChunks>) {
        self.counters.origin_mismatches += 1;
        let Some(object) = self.ring.get_mut(&key) else {
            return;
        };
        let readings = object.take_readings();
        let descriptor = object.descriptor();
        let (uri, byte_range) = (descriptor.uri.clone(), descriptor.byte_range);
        let published = object.published_unverified;
        self.ring.lose(&key);
        for id in readings {
            if self.fetches.remove(&id).is_some() {
                self.commands.push_back(Command::CancelFetch { id });
            }
        }
        self.dirty = true;
        if published {
            return;
        }
        let mut unsigned = Unsigned::new(uri, byte_range);
        unsigned.mismatched = true;
        unsigned.whole = body.is_some();
        unsigned.chunks = body.unwrap_or_default();
        self.tracks[t].unsigned.insert(key, unsigned);
        self.play_unsigned(t, key);
    }

    /// Gives the player a whole object that is to be played without a signature.
    pub(super) fn play_unsigned(&mut self, t: usize, key: ObjectKey) {
        let now = self.now;
        let track = &mut self.tracks[t];
        let Some(unsigned) = track
            .unsigned
            .get_mut(&key)
            .filter(|u| u.whole && !u.published)
        else {
            return;
        };
        if unsigned.bypass.is_none() && !unsigned.mismatched {
            return;
        }
        unsigned.published = true;
        let body = unsigned
            .chunks
            .iter()
            .map(|(bytes, _)| bytes.clone())
            .collect();
        let mut descriptor = unsigned.bypass.clone();
        if let Some(described) = &mut descriptor {
            std::sync::Arc::make_mut(described).length = unsigned.bytes();
        }
        if unsigned.mismatched {
            track.unsigned.remove(&key);
        } else {
            track.bypassed.insert(key);
            if track.bypassed.len() > 64 {
                track.bypassed.pop_first();
            }
            self.counters.bypassed_objects += 1;
        }
        track.playout.make_available(&key, now);
        self.publish(Publication::Unverified {
            object: key,
            descriptor,
            body,
        });
    }

    /// Requests that hang, objects without a signature that failed, and those that are too old.
    pub(super) fn tend_fetches(&mut self) {
        let now = self.now;
        let hanging: Vec<FetchId> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| now >= fetch.active + FETCH_SILENCE)
            .map(|(id, _)| *id)
            .collect();
        for id in hanging {
            self.commands.push_back(Command::CancelFetch { id });
            self.on_fetch_failed(id);
        }
        for t in 0..self.tracks.len() {
            self.tend_unsigned(t);
        }
    }

    fn tend_unsigned(&mut self, t: usize) {
        let now = self.now;
        let needed = self.tracks[t].is_root() || self.tracks[t].bypass.active;
        let due: Vec<ObjectKey> = self.tracks[t]
            .unsigned
            .iter()
            .filter(|(_, unsigned)| !unsigned.whole && unsigned.fetch.is_none())
            .filter(|(_, unsigned)| now >= unsigned.retry_at)
            .filter(|(_, unsigned)| needed || unsigned.mismatched)
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            if self.can_fetch() {
                self.fetch_unsigned(t, key);
            }
        }
        // What was signed long ago without this object ever being so is not waited for.
        let Some(newest) = self.tracks[t].newest else {
            return;
        };
        let old: Vec<ObjectKey> = self.tracks[t]
            .unsigned
            .keys()
            .filter(|key| key.epoch < newest.epoch || key.sequence + 8 < newest.sequence)
            .copied()
            .collect();
        old.into_iter().for_each(|key| self.drop_unsigned(t, key));
    }

    /// Drops the oldest while there are too many bytes of them.
    fn bound_unsigned(&mut self, t: usize) {
        let limit = self.config.prefetch_bytes;
        let track = &self.tracks[t];
        let bytes: u64 = track.unsigned.values().map(Unsigned::bytes).sum();
        if bytes > limit
            && let Some(key) = track.unsigned.keys().next().copied()
        {
            self.drop_unsigned(t, key);
        }
    }

    fn drop_unsigned(&mut self, t: usize, key: ObjectKey) {
        let removed = self.tracks[t].unsigned.remove(&key);
        if let Some(id) = removed.and_then(|unsigned| unsigned.fetch)
            && self.fetches.remove(&id).is_some()
        {
            self.commands.push_back(Command::CancelFetch { id });
        }
    }
}

fn pause(failures: u32) -> Duration {
    (RETRY.0 * 2_u32.saturating_pow(failures.saturating_sub(1).min(8))).min(RETRY.1)
}
