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
use espalier_media::{ChunkIndex, ObjectKey, ObjectKind, SignedStatement, TrackIndex};

pub(crate) use crate::object::{Object, Status};

/// The most descriptors that are kept of one track.
pub(crate) const MAX_OBJECTS_PER_TRACK: usize = 1_024;

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

    /// Takes a descriptor of a track of so many stripes; one that is no descriptor is a bug of the caller.
    pub(crate) fn insert(
        &mut self,
        key: ObjectKey,
        statement: SignedStatement,
        stripes: u8,
        now: Duration,
    ) -> Inserted {
        if let Some(known) = self.objects.get(&key) {
            let same = known.statement().payload() == statement.payload();
            return if same {
                Inserted::Known
            } else {
                Inserted::Conflict
            };
        }
        self.objects
            .insert(key, Object::new(statement, stripes, now));
        Inserted::New
    }

    /// Divides a track's objects into another number of stripes.
    pub(crate) fn restripe(&mut self, track: TrackIndex, stripes: u8) {
        let objects = self.objects.range_mut(first_key(track)..=last_key(track));
        objects.for_each(|(_, object)| object.restripe(stripes));
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
            .filter(|o| o.status() == Status::Absent)
        else {
            return false;
        };
        if object.missing() == 0 {
            object.set_status(Status::Complete);
        } else {
            object.set_status(Status::Wanted);
            self.wanted.insert(*key);
        }
        true
    }

    /// Gives an object up.
    pub(crate) fn lose(&mut self, key: &ObjectKey) {
        if let Some(object) = self.objects.get_mut(key) {
            object.set_status(Status::Lost);
            self.wanted.remove(key);
            self.drop_chunks(key);
        }
    }

    /// Stores a verified chunk of an object that is being received. Says whether it was missing.
    pub(crate) fn store(&mut self, key: &ObjectKey, index: ChunkIndex, bytes: Bytes) -> bool {
        let Some(object) = self
            .objects
            .get_mut(key)
            .filter(|o| o.status() == Status::Wanted)
        else {
            return false;
        };
        let length = bytes.len() as u64;
        if !object.put(index, bytes) {
            return false;
        }
        self.bytes += length;
        if object.missing() == 0 {
            object.set_status(Status::Complete);
            self.wanted.remove(key);
        }
        true
    }

    fn drop_chunks(&mut self, key: &ObjectKey) {
        if let Some(object) = self.objects.get_mut(key) {
            self.bytes -= object.bytes();
            object.drop_chunks();
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
            object.set_status(Status::Absent);
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
