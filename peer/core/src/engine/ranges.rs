//! What is taken from the CDN of an object that has a descriptor: which ranges, and whether it may be.
//!
//! Whose stripes all come from the CDN asks for the whole object at once; a stripe's root asks for its
//! stripe's chunks and nothing else. What goes beyond the assignment is paced by the lease.

use espalier_media::{CHUNK_SIZE, ChunkIndex, ObjectKey};

use crate::ids::Source;
use crate::stripe::StripeSet;

use super::RelayEngine;

/// Below so many tenths of a target duration of buffer the lease does not block.
const LOW_BUFFER_TENTHS: u32 = 15;

impl RelayEngine {
    /// Asks the CDN for what is missing of some stripes of an object.
    pub(super) fn take_from_cdn(&mut self, t: usize, key: ObjectKey, stripes: StripeSet) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        let mut runs = object.missing_runs(stripes);
        if self.tracks[t].stripes.len() == 1 {
            runs = as_one(&runs).into_iter().collect();
        } else if self.ignores_ranges {
            // Every answer is the whole object: one of them will do.
            runs.truncate(usize::from(!object.is_being_read()));
        }
        for (first, count) in runs {
            let bytes = self.beyond_assignment(t, key, first, count);
            if !self.can_fetch() || !self.may_take(t, bytes) {
                return;
            }
            self.fetch_chunks(key, first, count);
        }
    }

    /// How many bytes of a run belong to stripes that are not assigned to the CDN.
    fn beyond_assignment(&self, t: usize, key: ObjectKey, first: u32, count: u32) -> u64 {
        let Some(object) = self.ring.get(&key) else {
            return 0;
        };
        let track = &self.tracks[t];
        let beyond = |chunk: &ChunkIndex| {
            let assigned = track.stripes[track.stripe_of(*chunk)].assigned;
            assigned.source != Some(Source::Cdn)
        };
        let chunks = (first..first.saturating_add(count)).map(ChunkIndex);
        let lengths = chunks
            .filter(beyond)
            .map(|chunk| object.descriptor().chunk_len(chunk).unwrap_or(CHUNK_SIZE));
        lengths.map(|length| length as u64).sum()
    }

    /// Whether the lease allows it, or the buffer is too low to ask.
    fn may_take(&mut self, t: usize, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let track = &self.tracks[t];
        let low = track.playout.buffer(self.now) < track.target() * LOW_BUFFER_TENTHS / 10;
        if self.lease.try_take(bytes, self.now) {
            return true;
        }
        if low {
            self.counters.cdn_overrun_bytes += bytes;
        }
        low
    }
}

/// One run for all: a request costs more than a few chunks twice. But the first of them alone, if most
/// of what lies between is held.
fn as_one(runs: &[(u32, u32)]) -> Option<(u32, u32)> {
    let ((first, count), last) = (*runs.first()?, runs.last()?);
    let missing: u32 = runs.iter().map(|(_, count)| count).sum();
    let span = last.0 + last.1 - first;
    if span <= missing.saturating_mul(2) {
        Some((first, span))
    } else {
        Some((first, count))
    }
}
