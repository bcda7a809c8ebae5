//! What neighbours send: frames in order, chunks verified before anything else is done with them.

use core::time::Duration;

use bytes::Bytes;
use espalier_media::{ChunkIndex, ObjectKey, ObjectKind};

use crate::command::{LinkState, Publication};
use crate::frame::{DataHeader, Frame};
use crate::ids::{PeerId, Source};
use crate::link::Phase;
use crate::liveness::Health;
use crate::ring::Status;

use super::RelayEngine;

/// How long a peer that repairs its source is waited for at the most, whatever it hopes.
const MAX_REPAIR: Duration = Duration::from_secs(4);
/// From where a chunk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Parent(PeerId),
    Standby(PeerId),
    Cdn,
}

impl RelayEngine {
    pub(super) fn on_frame(&mut self, peer: PeerId, bytes: Bytes) {
        let now = self.now;
        let Some(link) = self
            .links
            .get_mut(&peer)
            .filter(|link| link.phase == Phase::Up)
        else {
            return;
        };
        self.dirty |= link.health(now) != Health::Alive;
        link.liveness.on_bytes(now);
        let greeted = link.greeted;
        match Frame::decode(bytes) {
            Err(error) => self.fail_link(peer, LinkState::Invalid, &error.to_string()),
            Ok(Frame::Hello(hello)) if !greeted => self.on_hello(peer, &hello),
            Ok(Frame::Bye { reason }) => self.on_bye(peer, &reason),
            Ok(_) if !greeted => self.fail_link(peer, LinkState::Invalid, "no Hello first"),
            Ok(Frame::Data(header, bytes)) => self.on_data(peer, header, bytes),
            Ok(frame) => {
                let allowed = match &frame {
                    Frame::Statement(_) => &mut link.statement_allowance,
                    Frame::Hello(_)
                    | Frame::Data(..)
                    | Frame::Subscribe(_)
                    | Frame::Unsubscribe { .. }
                    | Frame::Cancel { .. }
                    | Frame::Request { .. }
                    | Frame::Unavailable { .. }
                    | Frame::Upstream { .. }
                    | Frame::Bye { .. } => &mut link.control_allowance,
                };
                if allowed.try_take(1, now) {
                    self.on_control(peer, frame);
                } else {
                    self.fail_link(peer, LinkState::Invalid, "too many frames");
                }
            }
        }
    }

    fn on_control(&mut self, peer: PeerId, frame: Frame) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        match frame {
            Frame::Statement(part) => match link.assemble_statement(part) {
                Ok(Some(encoded)) => self.on_statement(encoded, Some(peer)),
                Ok(None) => {}
                Err(()) => self.fail_link(peer, LinkState::Invalid, "parts of statements mixed up"),
            },
            Frame::Subscribe(subscribe) => self.on_subscribe(peer, &subscribe),
            Frame::Unsubscribe { track, stripe } => link.downstream.unsubscribe(track, stripe),
            Frame::Cancel {
                object,
                first,
                count,
            } => link.cancel(object, first, count),
            Frame::Request { object, ranges } => {
                let room = link.downstream.request(object, &ranges, now);
                if !room || self.asks_for_itself(object, &ranges) {
                    self.send(peer, &Frame::Unavailable { object });
                }
            }
            Frame::Unavailable { object } => self.on_unavailable(peer, object),
            Frame::Upstream {
                track,
                stripe,
                repairing,
                expected_ms,
            } => {
                let expected = Duration::from_millis(u64::from(expected_ms)).min(MAX_REPAIR);
                let expected = repairing.then_some(expected);
                self.on_upstream(peer, track, usize::from(stripe), expected);
            }
            Frame::Hello(_) | Frame::Data(..) | Frame::Bye { .. } => {
                self.fail_link(peer, LinkState::Invalid, "a second Hello");
            }
        }
    }

    fn on_data(&mut self, peer: PeerId, header: DataHeader, bytes: Bytes) {
        let length = bytes.len() as u64;
        let key = header.object;
        self.counters.bytes_from_peers += length;
        let Some(t) = self.track_of(key.track) else {
            self.on_unexpected(peer, length);
            return;
        };
        let number = self.tracks[t].stripe_of(header.chunk);
        let via = self.via(t, number, peer);
        if matches!(via, Via::Standby(_)) {
            self.counters.bytes_from_standby += length;
        }
        let stripe = &mut self.tracks[t].stripes[number];
        if let Some(subscribed) = stripe.subscribed.get_mut(&peer)
            && !subscribed.flowed
        {
            subscribed.flowed = true;
            self.dirty = true;
        }
        self.start_from_data(t, key);
        let Some(object) = self.ring.get(&key) else {
            self.on_unexpected(peer, length);
            return;
        };
        let Some(whole) = object.descriptor().chunk_len(header.chunk) else {
            self.fail_link(
                peer,
                LinkState::Invalid,
                "a chunk that its object does not have",
            );
            return;
        };
        if header.offset as usize + bytes.len() > whole {
            self.fail_link(peer, LinkState::Invalid, "a fragment beyond its chunk");
            return;
        }
        if object.status() != Status::Wanted || object.chunk(header.chunk).is_some() {
            self.counters.duplicate_bytes += length;
            self.on_unexpected(peer, length);
            return;
        }
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let assembled = link.assemble_chunk(key, header.chunk, header.offset, whole, bytes);
        if let Some(chunk) = assembled {
            self.on_chunk(peer, t, key, header.chunk, chunk, via);
        }
    }

    /// A peer that could ask the feed for nothing begins where its parent begins.
    fn start_from_data(&mut self, t: usize, key: ObjectKey) {
        if self.tracks[t].start.is_some() {
            return;
        }
        let start = match key.kind {
            ObjectKind::Segment => Some(key),
            ObjectKind::Init | ObjectKind::Part => self.tracks[t].newest,
        };
        if let Some(start) = start.filter(|start| self.ring.get(start).is_some()) {
            self.start_at(t, start);
        }
    }

    fn via(&self, t: usize, number: usize, peer: PeerId) -> Via {
        let assigned = &self.tracks[t].stripes[number].assigned;
        let source = assigned.source == Some(Source::Peer(peer));
        if assigned.standby == Some(Source::Peer(peer)) && !source {
            Via::Standby(peer)
        } else {
            Via::Parent(peer)
        }
    }

    /// Late chunks after a Cancel are no offence, a stream of them is.
    fn on_unexpected(&mut self, peer: PeerId, length: u64) {
        let now = self.now;
        if let Some(link) = self.links.get_mut(&peer)
            && !link.unexpected_allowance.try_take(length, now)
        {
            self.fail_link(peer, LinkState::Invalid, "sends what nobody asked for");
        }
    }

    fn on_chunk(
        &mut self,
        peer: PeerId,
        t: usize,
        key: ObjectKey,
        index: ChunkIndex,
        bytes: Bytes,
        via: Via,
    ) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        if let Err(error) = object.descriptor().verify_chunk(index, &bytes) {
            self.counters.corrupt_chunks += 1;
            self.fail_link(peer, LinkState::Corrupt, &format!("object {key}: {error}"));
            return;
        }
        self.first_tree_byte.get_or_insert(self.now);
        self.tracks[t].tree_flowed = true;
        self.accept(t, key, index, bytes, via);
    }

    /// Stores a verified chunk, and passes it on.
    pub(super) fn accept(
        &mut self,
        t: usize,
        key: ObjectKey,
        index: ChunkIndex,
        bytes: Bytes,
        via: Via,
    ) {
        if !self.ring.store(&key, index, bytes.clone()) {
            self.counters.duplicate_bytes += bytes.len() as u64;
            return;
        }
        let now = self.now;
        let Some(object) = self.ring.get_mut(&key) else {
            return;
        };
        let number = object.stripe_of(index.0);
        let share = object.share_mut(number);
        share.last_chunk = now;
        let from = match via {
            Via::Parent(_) => &mut share.from.parent_bytes,
            Via::Standby(_) => &mut share.from.standby_bytes,
            Via::Cdn => &mut share.from.cdn_bytes,
        };
        *from += bytes.len() as u64;
        let (complete, silent) = (
            object.status() == Status::Complete,
            object.published_unverified,
        );
        let share_complete = object.share(number).missing() == 0;
        let stripe = &mut self.tracks[t].stripes[number];
        stripe.on_progress(object.arrived, now);
        if via == Via::Cdn && stripe.root_since.is_some() && !stripe.cdn_flowed {
            stripe.cdn_flowed = true;
            self.dirty = true;
        }
        if !silent {
            self.publish(Publication::Chunk {
                object: key,
                index,
                bytes,
            });
        }
        self.cancel_elsewhere(t, key, index, via);
        if share_complete {
            self.complete_share(t, number, key);
        }
        if complete {
            self.complete(t, key);
        }
    }

    /// Tells whoever else would send a chunk that it is here.
    fn cancel_elsewhere(&mut self, t: usize, object: ObjectKey, first: ChunkIndex, via: Via) {
        let giver = match via {
            Via::Parent(peer) | Via::Standby(peer) => Some(peer),
            Via::Cdn => None,
        };
        let number = self.tracks[t].stripe_of(first);
        let subscribed = &self.tracks[t].stripes[number].subscribed;
        let mut others: Vec<PeerId> = match giver {
            // Two that push the same: one of them is about to be left.
            Some(giver) if subscribed.contains_key(&giver) => Vec::new(),
            Some(_) | None => subscribed.keys().copied().collect(),
        };
        let asked = self
            .ring
            .get(&object)
            .and_then(|found| found.share(number).asked)
            .map(|(peer, _)| peer);
        others.extend(asked.filter(|peer| Some(*peer) != giver && !others.contains(peer)));
        for peer in others {
            self.send(
                peer,
                &Frame::Cancel {
                    object,
                    first,
                    count: 1,
                },
            );
        }
    }

    /// A stripe's share of an object is whole.
    fn complete_share(&mut self, t: usize, number: usize, key: ObjectKey) {
        let Some(object) = self.ring.get(&key) else {
            return;
        };
        if key.kind != ObjectKind::Segment {
            return;
        }
        let (from, arrived) = (object.share(number).from, object.arrived);
        let in_turn = object.player_waits.is_none();
        let stripe = &mut self.tracks[t].stripes[number];
        for subscribed in stripe.subscribed.values_mut() {
            subscribed.flowed |= subscribed.stated >= Some(key);
        }
        if in_turn {
            self.judge_source(t, number, from, arrived);
        }
        self.dirty = true;
    }

    /// An object is whole.
    pub(super) fn complete(&mut self, t: usize, key: ObjectKey) {
        let now = self.now;
        let Some(object) = self.ring.get_mut(&key) else {
            return;
        };
        let (from, silent) = (object.from(), object.published_unverified);
        object.player_waits = None;
        let readings = object.take_readings();
        self.counters.objects_completed += 1;
        for id in readings {
            self.cancel_fetch(id);
        }
        if !silent {
            self.publish(Publication::Complete {
                object: key,
                at: now,
                from,
            });
        }
        if key.kind == ObjectKind::Segment {
            self.tracks[t].playout.make_available(&key, now);
        }
        self.dirty = true;
    }
}
