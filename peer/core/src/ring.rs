//! The objects that a peer knows, and the chunks of those that it holds: one store for all children.
//!
//! Each object has a verified descriptor; each chunk in here has been verified against it. Chunks are
//! shared by reference count, so that a child is only a cursor into this ring. Bytes are bounded: the
//! oldest objects lose their chunks first, but never those of the last few target durations unless
//! twice the limit is reached. Descriptors outlive their chunks, up to a number per track, so that an
//! old object can be fetched and verified again.
//!
//! It does not verify, and does not know from whom anything came.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use espalier_media::{
    ChunkIndex, Descriptor, ObjectKey, ObjectKind, SignedStatement, Statement, TrackIndex,
};

use crate::command::Provenance;
use crate::ids::{FetchId, PeerId};

/// The most descriptors that are kept of one track.
pub(crate) const MAX_OBJECTS_PER_TRACK: usize = 1_024;

/// What the peer does about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Only known: not asked for, or held once and evicted.
    Absent,
    /// Being received.
    Wanted,
    /// Held whole.
    Complete,
    /// Given up: it cannot be had as signed.
    Lost,
}

/// One object.
#[derive(Debug)]
pub(crate) struct Object {
    statement: SignedStatement,
    chunks: Vec<Option<Bytes>>,
    missing: u32,
    status: Status,
    /// When its descriptor came.
    pub(crate) arrived: Duration,
    /// Where its chunks came from.
    pub(crate) from: Provenance,
    /// The player has it already, unverified: its chunks are for the children only.
    pub(crate) published_unverified: bool,
    /// Since when the player waits for it though it was not asked for in the ordinary way.
    pub(crate) player_waits: Option<Duration>,
    /// When its last chunk came.
    pub(crate) last_chunk: Duration,
    /// The peer last asked for chunks of it by name, and when.
    pub(crate) asked: Option<(PeerId, Duration)>,
    /// The peer that said last that it does not have it.
    pub(crate) refused_by: Option<PeerId>,
    /// The request to the CDN under way for it.
    pub(crate) fetch: Option<FetchId>,
    /// How many requests to the CDN failed, and when the next may be made.
    pub(crate) failed_fetches: u32,
    /// See `failed_fetches`.
    pub(crate) retry_at: Duration,
}

impl Object {
    fn new(statement: SignedStatement, chunks: u32, arrived: Duration) -> Self {
        Self {
            statement,
            chunks: vec![None; chunks as usize],
            missing: chunks,
            status: Status::Absent,
            arrived,
            from: Provenance::default(),
            published_unverified: false,
            player_waits: None,
            last_chunk: Duration::ZERO,
            asked: None,
            refused_by: None,
            fetch: None,
            failed_fetches: 0,
            retry_at: Duration::ZERO,
        }
    }

    /// What was signed about it.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        match self.statement.statement() {
            Statement::Object(descriptor) => descriptor,
            Statement::Master(_) | Statement::Track(_) => {
                unreachable!("invariant: the ring keeps descriptors only")
            }
        }
    }

    pub(crate) fn statement(&self) -> &SignedStatement {
        &self.statement
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn chunk(&self, index: ChunkIndex) -> Option<&Bytes> {
        self.chunks.get(index.0 as usize)?.as_ref()
    }

    pub(crate) fn chunk_count(&self) -> u32 {
        self.descriptor().chunk_count()
    }

    /// How many chunks are missing.
    pub(crate) fn missing(&self) -> u32 {
        self.missing
    }

    pub(crate) fn holds_any(&self) -> bool {
        (self.missing as usize) < self.chunks.len()
    }

    /// The missing chunks as runs of (first, count), in order.
    pub(crate) fn missing_runs(&self) -> Vec<(u32, u32)> {
        self.runs(false)
    }

    /// The held chunks as runs of (first, count), in order.
    pub(crate) fn held_runs(&self) -> Vec<(u32, u32)> {
        self.runs(true)
    }

    fn runs(&self, held: bool) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (index, chunk) in (0_u32..).zip(&self.chunks) {
            if chunk.is_some() != held {
                continue;
            }
            match runs.last_mut() {
                Some((first, count)) if *first + *count == index => *count += 1,
                Some(_) | None => runs.push((index, 1)),
            }
        }
        runs
    }

    /// The first missing chunk.
    pub(crate) fn first_missing(&self) -> Option<ChunkIndex> {
        (0_u32..)
            .zip(&self.chunks)
            .find(|(_, chunk)| chunk.is_none())
            .map(|(i, _)| ChunkIndex(i))
    }

    fn bytes(&self) -> u64 {
        self.chunks
            .iter()
            .flatten()
            .map(|chunk| chunk.len() as u64)
            .sum()
    }
}

/// What became of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is new.
    New,
    /// It was there.
    Known,
    /// Another one was there, which stays.
    Conflict,
}

/// Every object of every track.
#[derive(Debug)]
pub(crate) struct Ring {
    objects: BTreeMap<ObjectKey, Object>,
    wanted: BTreeSet<ObjectKey>,
    bytes: u64,
    limit: u64,
}

impl Ring {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            wanted: BTreeSet::new(),
            bytes: 0,
            limit,
        }
    }

    /// Bytes of chunks held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a descriptor; one that is no descriptor is a bug of the caller.
    pub(crate) fn insert(
        &mut self,
        key: ObjectKey,
        statement: SignedStatement,
        now: Duration,
    ) -> Inserted {
        if let Some(known) = self.objects.get(&key) {
            let same = known.statement.payload() == statement.payload();
            return if same {
                Inserted::Known
            } else {
                Inserted::Conflict
            };
        }
        let chunks = statement
            .statement()
            .as_object()
            .map_or(0, Descriptor::chunk_count);
        self.objects
            .insert(key, Object::new(statement, chunks, now));
        Inserted::New
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Object> {
        self.objects.get_mut(key)
    }

    /// The first object of the same track at or after a key.
    pub(crate) fn at_or_after(&self, key: &ObjectKey) -> Option<(&ObjectKey, &Object)> {
        self.objects
            .range(*key..)
            .next()
            .filter(|(found, _)| found.track == key.track)
    }

    /// The first object of the same track after a key.
    pub(crate) fn after(&self, key: &ObjectKey) -> Option<(&ObjectKey, &Object)> {
        use core::ops::Bound::{Excluded, Unbounded};
        let mut rest = self.objects.range((Excluded(*key), Unbounded));
        rest.next().filter(|(found, _)| found.track == key.track)
    }

    /// A track's objects, oldest first.
    pub(crate) fn of_track(
        &self,
        track: TrackIndex,
    ) -> impl DoubleEndedIterator<Item = (&ObjectKey, &Object)> {
        self.objects.range(first_key(track)..=last_key(track))
    }

    /// A track's objects that are being received, oldest first.
    pub(crate) fn wanted_of(
        &self,
        track: TrackIndex,
    ) -> impl DoubleEndedIterator<Item = &ObjectKey> {
        self.wanted.range(first_key(track)..=last_key(track))
    }

    /// Whether anything is being received.
    pub(crate) fn wants_any(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Begins to receive an object that is absent; says whether that changed anything. An object
    /// without chunks is complete at once.
    pub(crate) fn want(&mut self, key: &ObjectKey) -> bool {
        let Some(object) = self
            .objects
            .get_mut(key)
            .filter(|o| o.status == Status::Absent)
        else {
            return false;
        };
        if object.missing == 0 {
            object.status = Status::Complete;
        } else {
            object.status = Status::Wanted;
            self.wanted.insert(*key);
        }
        true
    }

    /// Gives an object up.
    pub(crate) fn lose(&mut self, key: &ObjectKey) {
        if let Some(object) = self.objects.get_mut(key) {
            object.status = Status::Lost;
            self.wanted.remove(key);
            self.drop_chunks(key);
        }
    }

    /// Stores a verified chunk of an object that is being received. Says whether it was missing.
    pub(crate) fn store(&mut self, key: &ObjectKey, index: ChunkIndex, bytes: Bytes) -> bool {
        let Some(object) = self
            .objects
            .get_mut(key)
            .filter(|o| o.status == Status::Wanted)
        else {
            return false;
        };
        let Some(slot) = object
            .chunks
            .get_mut(index.0 as usize)
            .filter(|slot| slot.is_none())
        else {
            return false;
        };
        self.bytes += bytes.len() as u64;
        *slot = Some(bytes);
        object.missing -= 1;
        if object.missing == 0 {
            object.status = Status::Complete;
            self.wanted.remove(key);
        }
        true
    }

    fn drop_chunks(&mut self, key: &ObjectKey) {
        if let Some(object) = self.objects.get_mut(key) {
            self.bytes -= object.bytes();
            object.chunks.iter_mut().for_each(|chunk| *chunk = None);
            object.missing = object.chunk_count();
        }
    }

    /// Makes room: drops the chunks of the oldest objects while there are too many bytes, and the
    /// oldest descriptors of a track while there are too many of them. Returns what lost its chunks.
    /// Objects that came after `keep_since` go only at twice the limit; init sections stay.
    pub(crate) fn evict(&mut self, keep_since: Duration) -> Vec<ObjectKey> {
        let mut evicted = Vec::new();
        while self.bytes > self.limit {
            let oldest = self
                .objects
                .iter()
                .filter(|(key, object)| key.kind != ObjectKind::Init && object.holds_any())
                .min_by_key(|(key, object)| (object.arrived, **key))
                .map(|(key, object)| (*key, object.arrived));
            let Some((key, arrived)) = oldest else { break };
            if arrived >= keep_since && self.bytes <= self.limit.saturating_mul(2) {
                break;
            }
            self.evict_one(&key);
            evicted.push(key);
        }
        evicted
    }

    fn evict_one(&mut self, key: &ObjectKey) {
        self.drop_chunks(key);
        self.wanted.remove(key);
        if let Some(object) = self.objects.get_mut(key) {
            object.status = Status::Absent;
            object.player_waits = None;
        }
    }

    /// Forgets the oldest objects of a track beyond the number that is kept, but not the init
    /// sections that younger ones need. Returns what had chunks.
    pub(crate) fn prune(&mut self, track: TrackIndex) -> Vec<ObjectKey> {
        let range = first_key(track)..=last_key(track);
        let surplus = self
            .objects
            .range(range.clone())
            .count()
            .saturating_sub(MAX_OBJECTS_PER_TRACK);
        if surplus == 0 {
            return Vec::new();
        }
        let needed: BTreeSet<ObjectKey> = self
            .objects
            .range(range.clone())
            .skip(surplus)
            .filter_map(|(_, object)| object.descriptor().init_key())
            .collect();
        let old: Vec<ObjectKey> = self
            .objects
            .range(range)
            .take(surplus)
            .map(|(key, _)| *key)
            .filter(|key| !needed.contains(key))
            .collect();
        old.into_iter().filter(|key| self.forget(key)).collect()
    }

    /// Forgets everything about a track. Returns what had chunks.
    pub(crate) fn forget_track(&mut self, track: TrackIndex) -> Vec<ObjectKey> {
        let keys: Vec<ObjectKey> = self.of_track(track).map(|(key, _)| *key).collect();
        keys.into_iter().filter(|key| self.forget(key)).collect()
    }

    fn forget(&mut self, key: &ObjectKey) -> bool {
        self.wanted.remove(key);
        let Some(object) = self.objects.remove(key) else {
            return false;
        };
        self.bytes -= object.bytes();
        object.holds_any()
    }
}

fn first_key(track: TrackIndex) -> ObjectKey {
    ObjectKey {
        track,
        epoch: 0,
        kind: ObjectKind::Init,
        sequence: 0,
        part: 0,
    }
}

fn last_key(track: TrackIndex) -> ObjectKey {
    let (epoch, sequence, part) = (u32::MAX, u64::MAX, u32::MAX);
    ObjectKey {
        track,
        epoch,
        kind: ObjectKind::Segment,
        sequence,
        part,
    }
}

#[cfg(test)]
mod tests;
