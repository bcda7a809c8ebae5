//! One child: cursors into the ring, and what it asked for by name.
//!
//! A subscription walks through the ring in push order and waits at the newest chunk: nothing is
//! queued, copied or remembered per chunk, so a slow child costs its siblings nothing. Chunks asked for
//! by name go first, for somebody's deadline is near. A chunk that was begun is finished before another
//! begins, so that the other end needs to assemble one at a time.
//!
//! Pacing, and how much may be under way, are not decided here.

use core::time::Duration;
use std::collections::VecDeque;

use espalier_media::{ChunkIndex, ObjectKey, ObjectKind, TrackIndex};

use crate::frame::{ChunkRun, Cursor, Subscribe};
use crate::ring::{Object, Ring, Status};

/// The most subscriptions that one child may hold.
const MAX_SUBSCRIPTIONS: usize = 64;
/// The most runs of chunks that one child may wait for by name.
const MAX_REQUESTS: usize = 128;
/// The most cancelled runs, apart from each other, that are remembered for a subscription; the oldest
/// are forgotten.
const MAX_CANCELLED: usize = 64;
/// How long chunks asked for by name are waited for.
const REQUEST_LIFETIME: Duration = Duration::from_secs(2);
/// The most objects and chunks that one look for the next thing to send passes over.
const MAX_STEPS: usize = 4_096;

/// The next thing to send to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The statement about an object that is older than the subscription.
    Statement(ObjectKey),
    /// A chunk that is held, for the stripe named.
    Chunk(ObjectKey, ChunkIndex, u8),
    /// An object that will not be had.
    Unavailable(ObjectKey),
}

/// Who caused a chunk to be sent: told back when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Request,
    Subscription(TrackIndex, u8),
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    object: ObjectKey,
    next: u32,
    end: u32,
    since: Duration,
}

/// A child's wishes.
#[derive(Debug, Default)]
pub(crate) struct Downstream {
    subscriptions: Vec<Subscription>,
    wishes: VecDeque<Wish>,
    /// The subscription whose turn is next.
    turn: usize,
    cause: Option<Cause>,
}

/// A track (or a stripe of one) on its way to a child.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) track: TrackIndex,
    pub(crate) stripe: u8,
    pub(crate) stripes: u8,
    cursor: Option<Cursor>,
    /// The first entry of the track's statement log that went to the child by this subscription, and the
    /// next one to go.
    first_statement: u64,
    pub(crate) next_statement: u64,
    cancelled: VecDeque<(ObjectKey, u32, u32)>,
    /// The init section that the child has had from here, and the chunk of it that is next.
    init: Option<(ObjectKey, Init)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Init {
    Statement,
    Chunk(u32),
    Sent,
}

impl Downstream {
    /// Begins or moves a subscription; says whether there was room. `next_statement` is where in the
    /// track's statement log the child goes on.
    pub(crate) fn subscribe(&mut self, subscribe: &Subscribe, next_statement: u64) -> bool {
        self.unsubscribe(subscribe.track, subscribe.stripe);
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return false;
        }
        // What a subscription to another stripe brought the child has already.
        let had = self.subscriptions.iter().find(|s| {
            let brought = s.first_statement..s.next_statement;
            s.track == subscribe.track && brought.contains(&next_statement)
        });
        let (first_statement, next_statement) = had
            .map_or((next_statement, next_statement), |had| {
                (had.first_statement, had.next_statement)
            });
        self.subscriptions.push(Subscription {
            track: subscribe.track,
            stripe: subscribe.stripe,
            stripes: subscribe.stripes,
            cursor: subscribe.cursor,
            first_statement,
            next_statement,
            cancelled: VecDeque::new(),
            init: None,
        });
        true
    }

    pub(crate) fn unsubscribe(&mut self, track: TrackIndex, stripe: u8) {
        self.subscriptions
            .retain(|s| (s.track, s.stripe) != (track, stripe));
    }

    /// Ends everything about a track.
    pub(crate) fn drop_track(&mut self, track: TrackIndex) {
        self.subscriptions.retain(|s| s.track != track);
        self.wishes.retain(|wish| wish.object.track != track);
    }

    pub(crate) fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// A statement of a track was sent: subscriptions to other stripes of it that stood at the same place
    /// need not bring it again.
    pub(crate) fn stated(&mut self, track: TrackIndex, place: u64, next: u64) {
        let same = |s: &&mut Subscription| s.track == track && s.next_statement == place;
        for subscription in self.subscriptions.iter_mut().filter(same) {
            subscription.next_statement = next;
        }
    }

    /// Takes note of chunks that the child has from elsewhere.
    pub(crate) fn cancel(&mut self, object: ObjectKey, first: ChunkIndex, count: u32) {
        let end = if count == 0 {
            u32::MAX
        } else {
            first.0.saturating_add(count)
        };
        for subscription in self
            .subscriptions
            .iter_mut()
            .filter(|s| s.track == object.track)
        {
            subscription.cancel(object, first.0, end);
        }
        self.wishes
            .retain(|wish| wish.object != object || wish.next < first.0 || wish.end > end);
    }

    /// Takes note of chunks that the child asks for by name, instead of what it asked of the same object
    /// before; says whether there was room.
    pub(crate) fn request(&mut self, object: ObjectKey, runs: &[ChunkRun], now: Duration) -> bool {
        self.wishes.retain(|wish| wish.object != object);
        for run in runs {
            if self.wishes.len() >= MAX_REQUESTS {
                return false;
            }
            let (next, end) = (run.first.0, run.first.0 + run.count);
            self.wishes.push_back(Wish {
                object,
                next,
                end,
                since: now,
            });
        }
        true
    }

    /// Whether the child waits for chunks of an object by name.
    pub(crate) fn waits_for(&self, object: ObjectKey) -> bool {
        self.wishes.iter().any(|wish| wish.object == object)
    }

    /// What to send next, if anything can be sent now. The same answer comes until
    /// [`Self::sent`] says that it was sent.
    pub(crate) fn next(&mut self, ring: &Ring, now: Duration) -> Option<Next> {
        if let Some(next) = self.next_wish(ring, now) {
            self.cause = Some(Cause::Request);
            return Some(next);
        }
        let count = self.subscriptions.len();
        for offset in 0..count {
            let turn = (self.turn + offset) % count;
            let subscription = &mut self.subscriptions[turn];
            if let Some(next) = subscription.next(ring) {
                self.turn = turn;
                self.cause = Some(Cause::Subscription(subscription.track, subscription.stripe));
                return Some(next);
            }
        }
        None
    }

    fn next_wish(&mut self, ring: &Ring, now: Duration) -> Option<Next> {
        self.wishes
            .retain(|wish| now.saturating_sub(wish.since) < REQUEST_LIFETIME);
        for position in 0..self.wishes.len() {
            let wish = self.wishes[position];
            let object = ring.get(&wish.object);
            let next = match object.map(Object::status) {
                Some(Status::Wanted | Status::Complete) => object
                    .and_then(|object| object.chunk(ChunkIndex(wish.next)))
                    .map(|_| Next::Chunk(wish.object, ChunkIndex(wish.next), 0)),
                Some(Status::Absent | Status::Lost) | None => Some(Next::Unavailable(wish.object)),
            };
            if next.is_some() {
                // Whatever is sent next is at the front.
                self.wishes.swap(0, position);
                return next;
            }
        }
        None
    }

    /// What [`Self::next`] returned was sent whole.
    pub(crate) fn sent(&mut self, next: Next) {
        match self.cause.take() {
            Some(Cause::Request) => self.sent_wish(next),
            Some(Cause::Subscription(track, stripe)) => {
                self.turn = self.turn.wrapping_add(1);
                let mut all = self.subscriptions.iter_mut();
                if let Some(found) = all.find(|s| (s.track, s.stripe) == (track, stripe)) {
                    found.sent(next);
                }
            }
            None => {}
        }
    }

    fn sent_wish(&mut self, next: Next) {
        match next {
            Next::Unavailable(object) => self.wishes.retain(|wish| wish.object != object),
            Next::Chunk(object, index, _) => {
                if let Some(wish) = self.wishes.front_mut()
                    && wish.object == object
                    && wish.next == index.0
                {
                    wish.next += 1;
                    if wish.next >= wish.end {
                        self.wishes.pop_front();
                    }
                }
            }
            Next::Statement(_) => {}
        }
    }
}

impl Subscription {
    /// Remembers a run, together with those that it touches: many small ones push no large one out.
    fn cancel(&mut self, object: ObjectKey, mut first: u32, mut end: u32) {
        self.cancelled.retain(|(known, from, to)| {
            let touches = *known == object && *from <= end && first <= *to;
            if touches {
                (first, end) = (first.min(*from), end.max(*to));
            }
            !touches
        });
        if self.cancelled.len() == MAX_CANCELLED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back((object, first, end));
    }

    fn next(&mut self, ring: &Ring) -> Option<Next> {
        if self.cursor.is_none() {
            self.cursor = newest(ring, self.track);
        }
        for _ in 0..MAX_STEPS {
            let cursor = self.cursor?;
            let (key, object) = ring.at_or_after(&cursor.object)?;
            if *key != cursor.object {
                self.cursor = Some(Cursor {
                    object: *key,
                    chunk: ChunkIndex(0),
                });
                continue;
            }
            match object.status() {
                Status::Absent | Status::Lost => return Some(Next::Unavailable(*key)),
                Status::Wanted | Status::Complete => {}
            }
            if cursor.chunk.0 >= object.chunk_count() {
                // The place behind the last chunk is a place to wait at until another object comes.
                let (next, _) = ring.after(key)?;
                self.cursor = Some(Cursor {
                    object: *next,
                    chunk: ChunkIndex(0),
                });
                continue;
            }
            match self.init_before(ring, *key, object) {
                InitTurn::Send(next) => return Some(next),
                InitTurn::Wait => return None,
                InitTurn::Pass => {}
            }
            if self.skips(*key, cursor.chunk.0) {
                self.cursor = Some(Cursor {
                    chunk: ChunkIndex(cursor.chunk.0 + 1),
                    ..cursor
                });
                continue;
            }
            object.chunk(cursor.chunk)?;
            return Some(Next::Chunk(*key, cursor.chunk, self.stripe));
        }
        None
    }

    /// The first chunk of the subscription's stripe from a chunk on.
    fn first_of_stripe(&self, chunk: u32) -> u32 {
        let (stripe, stripes) = (u32::from(self.stripe), u32::from(self.stripes));
        chunk.saturating_add((stripe + stripes - chunk % stripes) % stripes)
    }

    fn skips(&self, key: ObjectKey, chunk: u32) -> bool {
        let other_stripe = self.first_of_stripe(chunk) != chunk;
        let cancelled = |(object, first, end): &(ObjectKey, u32, u32)| {
            *object == key && (*first..*end).contains(&chunk)
        };
        other_stripe || self.cancelled.iter().any(cancelled)
    }

    /// The init section goes before the first segment that needs it.
    fn init_before(&mut self, ring: &Ring, key: ObjectKey, object: &Object) -> InitTurn {
        let Some(init) = object.descriptor().init_key().filter(|init| *init < key) else {
            return InitTurn::Pass;
        };
        if self.init.is_none_or(|(sent, _)| sent != init) {
            self.init = Some((init, Init::Statement));
        }
        let Some((_, step)) = self.init else {
            return InitTurn::Pass;
        };
        let held = ring.get(&init);
        match (step, held.map(Object::status)) {
            (Init::Sent, _) | (_, None | Some(Status::Absent | Status::Lost)) => InitTurn::Pass,
            (Init::Statement, Some(_)) => InitTurn::Send(Next::Statement(init)),
            (Init::Chunk(chunk), Some(Status::Wanted | Status::Complete)) => {
                let chunk = self.first_of_stripe(chunk);
                let held = held.and_then(|object| object.chunk(ChunkIndex(chunk)));
                match held {
                    Some(_) => InitTurn::Send(Next::Chunk(init, ChunkIndex(chunk), self.stripe)),
                    None if held_whole(ring, &init, chunk) => InitTurn::Pass,
                    None => InitTurn::Wait,
                }
            }
        }
    }

    fn sent(&mut self, next: Next) {
        match next {
            Next::Statement(init) => self.init = Some((init, Init::Chunk(0))),
            Next::Unavailable(object) => self.step_over(object),
            Next::Chunk(object, index, _) => {
                if let Some((init, Init::Chunk(_))) = self.init
                    && init == object
                    && self.cursor.is_some_and(|cursor| cursor.object != object)
                {
                    self.init = Some((init, Init::Chunk(index.0 + 1)));
                } else if let Some(cursor) = &mut self.cursor
                    && cursor.object == object
                {
                    cursor.chunk = ChunkIndex(index.0 + 1);
                    if object.kind == ObjectKind::Init {
                        self.init = Some((object, Init::Sent));
                    }
                }
            }
        }
    }

    /// Goes on behind an object: as no other can lie between, behind its highest possible chunk.
    fn step_over(&mut self, object: ObjectKey) {
        let successor = match object.part.checked_add(1) {
            Some(part) => ObjectKey { part, ..object },
            None => ObjectKey {
                sequence: object.sequence.saturating_add(1),
                part: 0,
                ..object
            },
        };
        self.cursor = Some(Cursor {
            object: successor,
            chunk: ChunkIndex(0),
        });
    }
}

#[derive(Debug)]
enum InitTurn {
    Send(Next),
    Wait,
    Pass,
}

fn held_whole(ring: &Ring, key: &ObjectKey, next: u32) -> bool {
    ring.get(key)
        .is_some_and(|object| next >= object.chunk_count())
}

/// The newest segment that is held or being received.
fn newest(ring: &Ring, track: TrackIndex) -> Option<Cursor> {
    let (key, _) = ring.of_track(track).rev().find(|(key, object)| {
        key.kind == ObjectKind::Segment
            && matches!(object.status(), Status::Wanted | Status::Complete)
    })?;
    Some(Cursor {
        object: *key,
        chunk: ChunkIndex(0),
    })
}
