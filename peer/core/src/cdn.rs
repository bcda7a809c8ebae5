//! Requests to the CDN: from the bytes of an HTTP body to chunks, and the lease that paces them.
//!
//! A body is bytes of a *resource*; an object is all of it, or a range; a request may be for some
//! chunks of the object only, and the answer may be the whole resource all the same (200 instead of
//! 206). [`Body`] maps all of that to whole chunks by their index. It neither verifies nor stores.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use espalier_media::limits::MAX_OBJECT_LEN;
use espalier_media::{ByteRange, CHUNK_SIZE, ChunkIndex, ObjectKey};

use crate::event::CdnLease;
use crate::pacer::TokenBucket;

const CHUNK: u64 = CHUNK_SIZE as u64;

/// Why a request was made, and so what to do with its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Chunks of an object that has a descriptor: verified one by one.
    Verified,
    /// An object that no descriptor vouches for, or not yet: kept, relayed to nobody.
    Unsigned,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) object: ObjectKey,
    pub(crate) purpose: Purpose,
    pub(crate) body: Body,
    /// Whether a part of the resource was asked for.
    pub(crate) ranged: bool,
    /// When the last news came.
    pub(crate) active: Duration,
}

/// Cuts a body into an object's chunks.
#[derive(Debug)]
pub(crate) struct Body {
    /// Where the object lies in the resource; the end is unknown for a whole resource.
    object_start: u64,
    object_end: Option<u64>,
    /// What was asked for, as places in the resource.
    asked_start: u64,
    asked_end: Option<u64>,
    /// The place in the resource of the next byte of the body; `None` before the head came.
    position: Option<u64>,
    buffer: BytesMut,
    next: u32,
}

/// A body is longer than any object may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Body {
    /// For an object that is a range of its resource, or all of it; its length if known.
    pub(crate) fn whole(byte_range: Option<ByteRange>, length: Option<u64>) -> Self {
        let start = byte_range.map_or(0, |range| range.offset);
        let length = length.or(byte_range.map(|range| range.length));
        let end = length.map(|length| start.saturating_add(length));
        Self {
            object_start: start,
            object_end: end,
            asked_start: start,
            asked_end: end,
            position: None,
            buffer: BytesMut::new(),
            next: 0,
        }
    }

    /// For a run of chunks of it.
    pub(crate) fn run(byte_range: Option<ByteRange>, length: u64, first: u32, count: u32) -> Self {
        let mut body = Self::whole(byte_range, Some(length));
        let end = body.object_start + length;
        body.asked_start = body.object_start + u64::from(first) * CHUNK;
        body.asked_end = Some(end.min(body.asked_start + u64::from(count) * CHUNK));
        body
    }

    /// The object's length became known while its body comes.
    pub(crate) fn limit(&mut self, length: u64) {
        let end = self.object_start.saturating_add(length);
        self.object_end = Some(end);
        self.asked_end = Some(self.asked_end.map_or(end, |asked| asked.min(end)));
    }

    /// The head of the answer came.
    pub(crate) fn start(&mut self, partial: bool) {
        let from = if partial { self.asked_start } else { 0 };
        if !partial {
            // The whole resource comes: the whole object is used.
            self.asked_start = self.object_start;
            self.asked_end = self.object_end;
        }
        self.position = Some(from);
        self.next =
            u32::try_from((self.asked_start - self.object_start) / CHUNK).unwrap_or(u32::MAX);
    }

    /// Whether all bytes came that were asked for.
    pub(crate) fn is_done(&self) -> bool {
        self.asked_end
            .zip(self.position)
            .is_some_and(|(end, position)| position >= end)
    }

    /// Takes the next bytes; gives the chunks that they complete to `emit`.
    pub(crate) fn push(
        &mut self,
        bytes: &Bytes,
        mut emit: impl FnMut(ChunkIndex, Bytes),
    ) -> Result<(), TooLong> {
        let at = self.position.unwrap_or(0);
        let end = at.saturating_add(bytes.len() as u64);
        self.position = Some(end);
        let from = self.asked_start.max(at);
        let to = self.asked_end.unwrap_or(u64::MAX).min(end);
        if from >= to {
            return Ok(());
        }
        if to - self.object_start > MAX_OBJECT_LEN {
            return Err(TooLong);
        }
        let offset = |place: u64| usize::try_from(place - at).unwrap_or(bytes.len());
        let mut rest = bytes.slice(offset(from)..offset(to));
        while !rest.is_empty() {
            let room = self.chunk_length().saturating_sub(self.buffer.len()).max(1);
            let piece = rest.split_to(room.min(rest.len()));
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(CHUNK_SIZE);
            }
            self.buffer.extend_from_slice(&piece);
            if self.buffer.len() >= self.chunk_length() {
                self.emit(&mut emit);
            }
        }
        Ok(())
    }

    /// The body ended: gives out a last, shorter chunk. Says whether all came that was asked for.
    pub(crate) fn end(&mut self, mut emit: impl FnMut(ChunkIndex, Bytes)) -> bool {
        if !self.buffer.is_empty() {
            self.emit(&mut emit);
        }
        let position = self.position.unwrap_or(0);
        self.position.is_some() && self.asked_end.is_none_or(|end| position >= end)
    }

    fn emit(&mut self, emit: &mut impl FnMut(ChunkIndex, Bytes)) {
        emit(ChunkIndex(self.next), self.buffer.split().freeze());
        self.next += 1;
    }

    /// The length of the chunk that is being filled.
    fn chunk_length(&self) -> usize {
        let start = u64::from(self.next) * CHUNK;
        let length = self
            .object_end
            .map_or(u64::MAX, |end| end - self.object_start);
        usize::try_from(length.saturating_sub(start).min(CHUNK)).unwrap_or(CHUNK_SIZE)
    }
}

/// What may be taken from the CDN beyond what is assigned.
#[derive(Debug)]
pub(crate) struct Lease {
    default: CdnLease,
    bucket: TokenBucket,
    expires: Option<Duration>,
}

impl Lease {
    pub(crate) fn new(default: CdnLease) -> Self {
        let bucket = TokenBucket::new(default.rate_bps, default.burst_bytes, Duration::ZERO);
        Self {
            default,
            bucket,
            expires: None,
        }
    }

    /// The orchestrator grants another lease, or none.
    pub(crate) fn grant(&mut self, lease: Option<CdnLease>, now: Duration) {
        let granted = lease.unwrap_or(self.default);
        self.bucket
            .configure(granted.rate_bps, granted.burst_bytes, now);
        self.expires = lease.and_then(|lease| now.checked_add(lease.lifetime));
    }

    /// Takes bytes out of the lease; says whether they were there. An expired lease gives way to the
    /// default, never to nothing: a viewer's fallback needs nobody's leave.
    pub(crate) fn try_take(&mut self, bytes: u64, now: Duration) -> bool {
        if self.expires.is_some_and(|at| now >= at) {
            self.grant(None, now);
        }
        self.bucket.try_take(bytes, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resource(length: usize) -> Bytes {
        (0..length)
            .map(|i| u8::try_from(i % 251).expect("small"))
            .collect::<Vec<_>>()
            .into()
    }

    fn feed(
        body: &mut Body,
        partial: bool,
        bytes: &Bytes,
        step: usize,
    ) -> (Vec<(u32, Bytes)>, bool) {
        let mut chunks = Vec::new();
        body.start(partial);
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(step.min(rest.len()));
            body.push(&piece, |index, bytes| chunks.push((index.0, bytes)))
                .expect("short");
        }
        let whole = body.end(|index, bytes| chunks.push((index.0, bytes)));
        (chunks, whole)
    }

    #[test]
    fn a_truncated_body_is_not_whole() {
        let bytes = resource(100);
        let mut body = Body::whole(None, Some(101));
        let (chunks, whole) = feed(&mut body, false, &bytes, 7);
        assert!(!whole);
        assert_eq!(chunks, vec![(0, bytes)]);
    }

    #[test]
    fn a_body_beyond_any_object_is_refused() {
        let mut body = Body::whole(None, None);
        body.start(false);
        let piece = Bytes::from(vec![0; 1 << 20]);
        let refused = (0..100).find_map(|_| body.push(&piece, |_, _| ()).err());
        assert_eq!(refused, Some(TooLong));
    }

    proptest! {
        #[test]
        fn every_answer_gives_the_right_chunks(
            length in 1_usize..300_000,
            before in 0_usize..100_000,
            ranged in any::<bool>(),
            partial in any::<bool>(),
            first in 0_u32..5,
            count in 1_u32..5,
            step in 1_usize..100_000,
        ) {
            let before = if ranged { before } else { 0 };
            let resource = resource(before + length + if ranged { 5_000 } else { 0 });
            let object = resource.slice(before..before + length);
            let range = ByteRange { offset: before as u64, length: length as u64 };
            let chunks = u32::try_from(length.div_ceil(CHUNK_SIZE)).expect("small");
            let first = first.min(chunks - 1);
            let mut body = Body::run(ranged.then_some(range), length as u64, first, count);
            let from = before + first as usize * CHUNK_SIZE;
            let to = (before + length).min(from + count as usize * CHUNK_SIZE);
            let answer = if partial { resource.slice(from..to) } else { resource.clone() };
            let (got, whole) = feed(&mut body, partial, &answer, step);
            prop_assert!(whole);
            let asked = if partial { first..chunks.min(first + count) } else { 0..chunks };
            prop_assert_eq!(got.iter().map(|(i, _)| *i).collect::<Vec<_>>(), asked.collect::<Vec<_>>());
            for (index, bytes) in got {
                let start = index as usize * CHUNK_SIZE;
                prop_assert_eq!(bytes, object.slice(start..length.min(start + CHUNK_SIZE)));
            }
        }
    }
}
