//! One link: whether it is up, what is under way on it, what is half received.
//!
//! A link is between two peers, whatever it carries: either may be the other's child in some track.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use espalier_media::{ChunkIndex, ObjectKey, TrackIndex};

use crate::command::LinkSide;
use crate::downstream::{Downstream, Next};
use crate::frame::{OutgoingFrame, StatementPart};
use crate::liveness::{Health, Liveness};
use crate::pacer::TokenBucket;

/// Statements that a neighbour may send per second in the long run, and at once, counted as bytes.
const STATEMENT_RATE: (u64, u64) = (200, 20_000);
/// Frames other than DATA and STATEMENT, likewise.
const CONTROL_RATE: (u64, u64) = (1_000, 10_000);
/// Chunk bytes that nobody asked for, likewise: late ones after a Cancel are no offence.
const UNEXPECTED_RATE: (u64, u64) = (1_000_000, 16 << 20);

/// How far the making of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Asked of the shell.
    Opening,
    /// Both channels are open.
    Up,
    /// To be asked again then.
    Waiting(Duration),
}

/// One link to another peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) phase: Phase,
    pub(crate) side: LinkSide,
    /// Whether it was ever up since it was first wanted.
    pub(crate) was_up: bool,
    pub(crate) attempts: u32,
    /// Since when it is being made.
    pub(crate) since: Duration,
    /// Whether the other end's Hello came.
    pub(crate) greeted: bool,
    pub(crate) liveness: Liveness,
    pub(crate) downstream: Downstream,
    pub(crate) sending: Option<Sending>,
    pub(crate) assembly: Option<Assembly>,
    pub(crate) statement: Option<(u32, BytesMut)>,
    /// Sent and not yet acknowledged.
    pub(crate) in_flight: u64,
    /// Small frames that wait for room.
    pub(crate) outbox: VecDeque<OutgoingFrame>,
    pub(crate) statement_allowance: TokenBucket,
    pub(crate) control_allowance: TokenBucket,
    pub(crate) unexpected_allowance: TokenBucket,
    /// No longer wanted: closed then, unless wanted again.
    pub(crate) closing_at: Option<Duration>,
}

/// A chunk on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) next: Next,
    pub(crate) object: ObjectKey,
    pub(crate) chunk: ChunkIndex,
    pub(crate) stripe: u8,
    pub(crate) bytes: Bytes,
    pub(crate) offset: u32,
}

/// A chunk on its way in.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) object: ObjectKey,
    pub(crate) chunk: ChunkIndex,
    pub(crate) bytes: BytesMut,
}

impl Link {
    pub(crate) fn new(side: LinkSide, now: Duration) -> Self {
        let bucket = |(rate, burst): (u64, u64)| TokenBucket::new(rate * 8, burst, now);
        Self {
            phase: Phase::Opening,
            side,
            was_up: false,
            attempts: 0,
            since: now,
            greeted: false,
            liveness: Liveness::new(now),
            downstream: Downstream::default(),
            sending: None,
            assembly: None,
            statement: None,
            in_flight: 0,
            outbox: VecDeque::new(),
            statement_allowance: bucket(STATEMENT_RATE),
            control_allowance: bucket(CONTROL_RATE),
            unexpected_allowance: bucket(UNEXPECTED_RATE),
            closing_at: None,
        }
    }

    /// Forgets everything about the connection that was, for another one.
    pub(crate) fn reset(&mut self, phase: Phase, now: Duration) {
        let kept = (self.side, self.was_up, self.attempts, self.closing_at);
        *self = Self::new(self.side, now);
        (self.side, self.was_up, self.attempts, self.closing_at) = kept;
        self.phase = phase;
    }

    /// Whether frames may be sent and taken: both ends said Hello.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Up && self.greeted
    }

    pub(crate) fn health(&self, now: Duration) -> Health {
        self.liveness.health(now)
    }

    /// Whether the other end takes a stripe of a track that is cut into so many.
    pub(crate) fn takes(&self, track: TrackIndex, stripe: u8, stripes: u8) -> bool {
        let mut subscriptions = self.downstream.subscriptions().iter();
        subscriptions.any(|s| s.track == track && s.stripe == stripe && s.stripes == stripes)
    }

    /// The other end has these chunks, or gets them elsewhere; a count of 0 is all from the first on. One
    /// that was chosen and of which nothing was sent yet is not sent either.
    pub(crate) fn cancel(&mut self, object: ObjectKey, first: ChunkIndex, count: u32) {
        self.downstream.cancel(object, first, count);
        let covers = |chunk: ChunkIndex| {
            let place = chunk.0.checked_sub(first.0);
            place.is_some_and(|place| count == 0 || place < count)
        };
        self.sending.take_if(|sending| {
            sending.offset == 0 && sending.object == object && covers(sending.chunk)
        });
    }

    /// Puts a part of a statement to the others. Gives the whole once it is there.
    ///
    /// # Errors
    /// The part does not follow the one before.
    pub(crate) fn assemble_statement(&mut self, part: StatementPart) -> Result<Option<Bytes>, ()> {
        if part.offset == 0 && part.bytes.len() == part.total as usize {
            self.statement = None;
            return Ok(Some(part.bytes));
        }
        if part.offset == 0 {
            self.statement = Some((part.total, BytesMut::new()));
        }
        let (total, bytes) = self.statement.as_mut().ok_or(())?;
        if *total != part.total || bytes.len() != part.offset as usize || part.bytes.is_empty() {
            return Err(());
        }
        bytes.extend_from_slice(&part.bytes);
        if bytes.len() < *total as usize {
            return Ok(None);
        }
        Ok(self.statement.take().map(|(_, bytes)| bytes.freeze()))
    }

    /// Puts a fragment of a chunk of `length` bytes to the others. Gives the whole once it is there;
    /// a fragment that does not follow the one before is dropped, with what was there of its chunk.
    pub(crate) fn assemble_chunk(
        &mut self,
        object: ObjectKey,
        chunk: ChunkIndex,
        offset: u32,
        length: usize,
        bytes: Bytes,
    ) -> Option<Bytes> {
        if offset == 0 && bytes.len() == length {
            self.assembly = None;
            return Some(bytes);
        }
        if offset == 0 {
            let bytes = BytesMut::with_capacity(length);
            self.assembly = Some(Assembly {
                object,
                chunk,
                bytes,
            });
        }
        let assembly = self.assembly.as_mut()?;
        let follows = assembly.object == object
            && assembly.chunk == chunk
            && assembly.bytes.len() == offset as usize
            && assembly.bytes.len() + bytes.len() <= length;
        if !follows {
            self.assembly = None;
            return None;
        }
        assembly.bytes.extend_from_slice(&bytes);
        if assembly.bytes.len() < length {
            return None;
        }
        self.assembly.take().map(|assembly| assembly.bytes.freeze())
    }
}
