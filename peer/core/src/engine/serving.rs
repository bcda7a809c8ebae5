//! Serving children: statements as they come, chunks in turn, at the pace of the uplink.
//!
//! One pacer for all children, and a bound on what may be under way to each: a child that takes nothing
//! costs its siblings nothing. The payload of every frame is the ring's own memory.

use bytes::Bytes;
use espalier_media::SignedStatement;

use crate::command::Command;
use crate::downstream::Next;
use crate::frame::{DATA_HEADER_LENGTH, DataHeader, Frame, OutgoingFrame, StatementPart};
use crate::ids::PeerId;
use crate::link::Sending;

use super::RelayEngine;

/// The size of fragments on fast uplinks: whole chunks, for small messages cost 2–4 times the CPU.
pub(super) const WHOLE_CHUNK: usize = espalier_media::CHUNK_SIZE;
/// The size of fragments on slow uplinks, where a whole chunk would hold up everything else for long.
const SMALL_FRAGMENT: usize = 16 << 10;
/// The uplink in bit/s from which on whole chunks are sent.
const FAST_UPLINK: u64 = 10_000_000;
/// What is kept free of a link's limit for statements, and for small frames alone.
const RESERVES: (u64, u64) = (8 << 10, 4 << 10);
/// The longest part of a statement in one frame.
const STATEMENT_PART: usize = espalier_media::CHUNK_SIZE;
/// The most frames that one event may send.
const MAX_FRAMES: usize = 1_024;

pub(super) fn fragment_size(upload_bps: u64) -> usize {
    if upload_bps < FAST_UPLINK {
        SMALL_FRAGMENT
    } else {
        WHOLE_CHUNK
    }
}

/// What a message costs on the wire. The headers of SCTP, DTLS, UDP and IP are 6–8 % of a packet; the
/// lower end is counted, so that a peer whose children were planned to its last bit (at 1.2 times their
/// payload, against 0.9 of its budget here) can still serve them all.
fn wire_cost(length: u64) -> u64 {
    length + length / 16
}

impl RelayEngine {
    /// Sends what can be sent now.
    pub(super) fn pump(&mut self) {
        self.pacer_blocks = false;
        let peers: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in &peers {
            self.flush_outbox(*peer);
            self.send_statements(*peer);
        }
        // Who only asks for a repair gets what the children leave over: were it the other way round, a
        // child that is late would make others late, and those again others.
        let (first, second): (Vec<PeerId>, Vec<PeerId>) = peers
            .into_iter()
            .filter(|peer| self.serves(*peer))
            .partition(|peer| self.depends(*peer));
        if self.serve_in_turn(&first) {
            self.serve_in_turn(&second);
        }
    }

    /// Sends chunks to these children, one fragment at a time each. Says whether nothing is left to
    /// be sent to any of them, for now.
    fn serve_in_turn(&mut self, children: &[PeerId]) -> bool {
        let mut idle = 0;
        let first = children
            .iter()
            .take_while(|peer| **peer <= self.served)
            .count();
        for turn in first..first + MAX_FRAMES {
            if idle >= children.len() {
                return true;
            }
            let peer = children[turn % children.len()];
            if !self.has_data_for(peer) {
                idle += 1;
            } else if self.pacer.is_ready(self.now) {
                idle = 0;
                self.send_fragment(peer);
                self.served = peer;
            } else {
                self.pacer_blocks = true;
                return false;
            }
        }
        // More could go out: go on at the next event, which is asked for at once.
        self.next_tick = self.now;
        false
    }

    /// Whether a child takes a track from here, rather than to hold the link in reserve.
    fn depends(&self, peer: PeerId) -> bool {
        self.active_children
            .iter()
            .any(|(_, _, child)| *child == peer)
            || self
                .links
                .get(&peer)
                .is_some_and(|link| !link.downstream.subscriptions().is_empty())
    }

    /// Whether a peer may take chunks from here: a child by assignment, or one that was until lately.
    fn serves(&self, peer: PeerId) -> bool {
        self.links.get(&peer).is_some_and(|link| {
            link.is_ready() && (self.children.contains(&peer) || link.closing_at.is_some())
        })
    }

    /// Whether there is something to send to a child, and room for it.
    fn has_data_for(&mut self, peer: PeerId) -> bool {
        let (now, fragment) = (self.now, self.fragment);
        let limit = self.config.link_limit_bytes.saturating_sub(RESERVES.0);
        loop {
            let behind = self.is_behind_on_statements(peer);
            let Some(link) = self.links.get_mut(&peer) else {
                return false;
            };
            if let Some(sending) = &link.sending {
                let length = sending.bytes.len().saturating_sub(sending.offset as usize);
                let frame = (length.min(fragment) + DATA_HEADER_LENGTH) as u64;
                return link.in_flight == 0 || link.in_flight + frame <= limit;
            }
            // A statement goes before the data that it is about.
            if behind || link.in_flight > limit {
                return false;
            }
            let Some(next) = link.downstream.next(&self.ring, now) else {
                return false;
            };
            match next {
                Next::Chunk(object, chunk, stripe) => {
                    let held = self.ring.get(&object).and_then(|held| held.chunk(chunk));
                    let Some(bytes) = held.cloned() else {
                        return false;
                    };
                    link.sending = Some(Sending {
                        next,
                        object,
                        chunk,
                        stripe,
                        bytes,
                        offset: 0,
                    });
                }
                Next::Statement(object) => {
                    let statement = self.ring.get(&object).map(|held| held.statement().clone());
                    link.downstream.sent(next);
                    if let Some(statement) = statement {
                        self.send_statement(peer, &statement);
                    }
                }
                Next::Unavailable(object) => {
                    link.downstream.sent(next);
                    self.send(peer, &Frame::Unavailable { object });
                }
            }
        }
    }

    fn send_fragment(&mut self, peer: PeerId) {
        let (now, fragment) = (self.now, self.fragment);
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let Some(mut sending) = link.sending.take() else {
            return;
        };
        let start = sending.offset as usize;
        let end = sending.bytes.len().min(start + fragment);
        let header = DataHeader {
            object: sending.object,
            chunk: sending.chunk,
            offset: sending.offset,
            stripe: sending.stripe,
        };
        let frame = Frame::Data(header, sending.bytes.slice(start..end)).encode();
        link.in_flight += frame.length();
        self.pacer.take(wire_cost(frame.length()), now);
        self.counters.bytes_to_peers += (end - start) as u64;
        if end < sending.bytes.len() {
            sending.offset = u32::try_from(end).unwrap_or(u32::MAX);
            link.sending = Some(sending);
        } else {
            link.downstream.sent(sending.next);
        }
        self.commands.push_back(Command::SendFrame { peer, frame });
    }

    fn is_behind_on_statements(&self, peer: PeerId) -> bool {
        let Some(link) = self.links.get(&peer) else {
            return false;
        };
        link.downstream.subscriptions().iter().any(|subscription| {
            let track = self
                .tracks
                .iter()
                .find(|track| track.index == Some(subscription.track));
            track.is_some_and(|track| track.log.at(subscription.next_statement).is_some())
        })
    }

    /// Sends the statements that a child has not had, while there is room.
    fn send_statements(&mut self, peer: PeerId) {
        let limit = self.config.link_limit_bytes.saturating_sub(RESERVES.1);
        if !self.serves(peer) {
            return;
        }
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let mut frames: Vec<OutgoingFrame> = Vec::new();
        for position in 0..link.downstream.subscriptions().len() {
            let subscription = &link.downstream.subscriptions()[position];
            let (index, mut place) = (subscription.track, subscription.next_statement);
            let track = self.tracks.iter().find(|track| track.index == Some(index));
            let Some(track) = track else { continue };
            while let Some((statement, next)) = track.log.at(place) {
                let length = statement.encoded().len() as u64;
                if link.in_flight > 0 && link.in_flight + length > limit {
                    break;
                }
                for frame in statement_frames(statement) {
                    link.in_flight += frame.length();
                    frames.push(frame);
                }
                link.downstream.stated(index, place, next);
                place = next;
            }
        }
        for frame in frames {
            self.pacer.take(wire_cost(frame.length()), self.now);
            self.commands.push_back(Command::SendFrame { peer, frame });
        }
    }

    /// Sends one statement outside a subscription's order.
    pub(super) fn send_statement(&mut self, peer: PeerId, statement: &SignedStatement) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.outbox.extend(statement_frames(statement));
            self.flush_outbox(peer);
        }
    }
}

fn statement_frames(statement: &SignedStatement) -> impl Iterator<Item = OutgoingFrame> {
    let encoded: Bytes = statement.encoded().clone();
    let total = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    (0..encoded.len())
        .step_by(STATEMENT_PART)
        .map(move |start| {
            let bytes = encoded.slice(start..encoded.len().min(start + STATEMENT_PART));
            let offset = u32::try_from(start).unwrap_or(u32::MAX);
            Frame::Statement(StatementPart {
                offset,
                total,
                bytes,
            })
            .encode()
        })
}
