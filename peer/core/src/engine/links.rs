//! Links: who is wanted, who is greeted, who lives.
//!
//! One link a pair of peers, whatever it carries. This peer offers where the other is a source or a
//! standby of its own; if each is the other's child in some track, the lower id offers.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::command::{Command, LinkSide, LinkState};
use crate::event::LinkDown;
use crate::frame::{Frame, Hello, OutgoingFrame, Ping, VERSIONS};
use crate::ids::PeerId;
use crate::link::{Link, Phase};
use crate::liveness::{Health, Liveness};
use crate::stripe::Stripe;

use super::RelayEngine;

/// How long a link stays that is no longer assigned but in use: the other end may not know yet.
const CLOSING_GRACE: Duration = Duration::from_secs(10);
/// How long no link is made to a peer that sent something false.
const SEPARATION: Duration = Duration::from_secs(60);
/// The first and the longest pause before another attempt.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// How long after a link opened the other end may take to say Hello.
const GREETING_PATIENCE: Duration = Duration::from_secs(2);
/// The most small frames that wait for room on a link; a link that is so full is of no use.
const MAX_OUTBOX: usize = 256;

impl RelayEngine {
    /// Makes links exist exactly where they are wanted.
    pub(super) fn sync_links(&mut self) {
        let wanted = self.wanted_links();
        let surplus: Vec<PeerId> = self
            .links
            .keys()
            .filter(|peer| !wanted.contains_key(peer))
            .copied()
            .collect();
        for peer in surplus {
            self.close_unwanted(peer);
        }
        for (peer, side) in wanted {
            match self.links.get_mut(&peer) {
                None => self.open_link(peer, side),
                Some(link) => {
                    link.closing_at = None;
                    if link.side != side && link.phase != Phase::Up {
                        self.commands.push_back(Command::Disconnect { peer });
                        self.open_link(peer, side);
                    }
                }
            }
        }
    }

    fn wanted_links(&self) -> BTreeMap<PeerId, LinkSide> {
        let mut wanted: BTreeMap<PeerId, LinkSide> = self
            .children
            .iter()
            .map(|peer| (*peer, LinkSide::Await))
            .collect();
        for track in &self.tracks {
            for peer in track.stripes.iter().flat_map(Stripe::peers) {
                let lower = !self.children.contains(&peer) || self.config.peer < peer;
                let side = if lower {
                    LinkSide::Offer
                } else {
                    LinkSide::Await
                };
                wanted.insert(peer, side);
            }
        }
        wanted.remove(&self.config.peer);
        wanted.retain(|peer, _| !self.separated.contains_key(peer));
        wanted
    }

    fn open_link(&mut self, peer: PeerId, side: LinkSide) {
        self.links.insert(peer, Link::new(side, self.now));
        self.commands.push_back(Command::Connect { peer, side });
    }

    fn close_unwanted(&mut self, peer: PeerId) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let in_use = !link.downstream.subscriptions().is_empty();
        let at = *link
            .closing_at
            .get_or_insert(if in_use { now + CLOSING_GRACE } else { now });
        if in_use && now < at {
            return;
        }
        if link.phase == Phase::Up {
            self.send(
                peer,
                &Frame::Bye {
                    reason: "not needed any more".into(),
                },
            );
            self.report_link(peer, LinkState::Closed, "not assigned any more");
        }
        self.forget_link(peer);
        self.links.remove(&peer);
        self.commands.push_back(Command::Disconnect { peer });
    }

    /// Pings, deaths, new attempts.
    pub(super) fn tend_links(&mut self) {
        let now = self.now;
        self.separated.retain(|_, until| now < *until);
        let peers: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in peers {
            let nonce = self.random();
            let is_source = self.tracks.iter().any(|track| track.is_had_from(peer));
            let Some(link) = self.links.get_mut(&peer) else {
                continue;
            };
            match link.phase {
                Phase::Up if link.health(now) == Health::Dead => {
                    self.fail_link(peer, LinkState::Dead, "nothing was heard for four seconds");
                }
                // Without it, nothing can be asked for: a link that lost it is of no use.
                Phase::Up if !link.greeted && now >= link.since + GREETING_PATIENCE => {
                    self.fail_link(peer, LinkState::Dead, "no Hello came");
                }
                Phase::Up => {
                    link.liveness.set_source(is_source);
                    if let Some(bytes) = link.liveness.take_ping(nonce, now) {
                        self.commands.push_back(Command::SendPing { peer, bytes });
                    }
                }
                Phase::Waiting(at) if now >= at => {
                    link.reset(Phase::Opening, now);
                    let side = link.side;
                    self.commands.push_back(Command::Connect { peer, side });
                }
                Phase::Waiting(_) | Phase::Opening => {}
            }
        }
    }

    pub(super) fn on_link_up(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(&peer) else {
            // Nobody wants it any more: the shell was quicker than the command to give it up.
            self.commands.push_back(Command::Disconnect { peer });
            return;
        };
        link.reset(Phase::Up, self.now);
        link.was_up = true;
        link.attempts = 0;
        link.liveness = Liveness::new(self.now);
        self.report_link(peer, LinkState::Up, "");
        let hello = Hello {
            min_version: VERSIONS.0,
            max_version: VERSIONS.1,
            peer: self.config.peer,
            channel: self.config.channel.clone(),
        };
        self.send(peer, &Frame::Hello(hello));
        if let Some(master) = self.master.clone() {
            self.send_statement(peer, &master);
        }
        self.dirty = true;
    }

    pub(super) fn on_link_failed(&mut self, peer: PeerId, reason: String) {
        if self.links.contains_key(&peer) {
            self.retry_link(peer);
            self.report_link(peer, LinkState::Failed, &reason);
        }
    }

    pub(super) fn on_link_down(&mut self, peer: PeerId, reason: LinkDown) {
        if self.links.contains_key(&peer) {
            self.retry_link(peer);
            match reason {
                LinkDown::Closed => self.report_link(peer, LinkState::Closed, "closed over there"),
                LinkDown::Lost => self.report_link(peer, LinkState::Dead, "the transport lost it"),
            }
        }
    }

    /// Ends a link for a cause that this peer saw.
    pub(super) fn fail_link(&mut self, peer: PeerId, state: LinkState, detail: &str) {
        if !self.links.contains_key(&peer) {
            return;
        }
        self.commands.push_back(Command::Disconnect { peer });
        self.report_link(peer, state, detail);
        match state {
            LinkState::Corrupt | LinkState::Invalid => {
                self.separated.insert(peer, self.now + SEPARATION);
                self.forget_link(peer);
                self.links.remove(&peer);
            }
            LinkState::Up
            | LinkState::Failed
            | LinkState::Dead
            | LinkState::Late
            | LinkState::Closed => self.retry_link(peer),
        }
        self.dirty = true;
    }

    /// A link is not there any more, and is tried again while it is wanted.
    fn retry_link(&mut self, peer: PeerId) {
        self.forget_link(peer);
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        let doubled = RETRY.0 * 2_u32.saturating_pow(link.attempts.min(8));
        link.attempts += 1;
        match link.side {
            LinkSide::Offer => link.reset(Phase::Waiting(now + doubled.min(RETRY.1)), now),
            // Waiting costs nothing, so it begins again at once.
            LinkSide::Await => {
                link.reset(Phase::Opening, now);
                self.commands.push_back(Command::Connect {
                    peer,
                    side: LinkSide::Await,
                });
            }
        }
        self.dirty = true;
    }

    /// Nothing is had from a peer any more.
    fn forget_link(&mut self, peer: PeerId) {
        for track in &mut self.tracks {
            track.stale.retain(|(known, _)| *known != peer);
            for stripe in &mut track.stripes {
                stripe.subscribed.remove(&peer);
                stripe.repairing_peers.remove(&peer);
            }
        }
    }

    pub(super) fn report_link(&mut self, peer: PeerId, state: LinkState, detail: &str) {
        self.commands.push_back(Command::ReportLink {
            peer,
            state,
            detail: detail.to_owned(),
        });
    }

    pub(super) fn on_hello(&mut self, peer: PeerId, hello: &Hello) {
        let overlap = hello.min_version <= VERSIONS.1 && hello.max_version >= VERSIONS.0;
        if hello.peer != peer || hello.channel != self.config.channel {
            self.fail_link(peer, LinkState::Invalid, "it names another peer or channel");
        } else if !overlap {
            self.send(
                peer,
                &Frame::Bye {
                    reason: "no common protocol version".into(),
                },
            );
            self.fail_link(peer, LinkState::Invalid, "no common protocol version");
        } else if let Some(link) = self.links.get_mut(&peer) {
            link.greeted = true;
            self.dirty = true;
        }
    }

    pub(super) fn on_bye(&mut self, peer: PeerId, reason: &str) {
        self.commands.push_back(Command::Disconnect { peer });
        self.retry_link(peer);
        self.report_link(peer, LinkState::Closed, reason);
    }

    pub(super) fn on_ping(&mut self, peer: PeerId, bytes: &[u8]) {
        let now = self.now;
        let Some(link) = self
            .links
            .get_mut(&peer)
            .filter(|link| link.phase == Phase::Up)
        else {
            return;
        };
        let was = link.health(now);
        link.liveness.on_bytes(now);
        self.dirty |= was != Health::Alive;
        match Ping::decode(bytes) {
            Ok(Ping::Ping(nonce)) if link.control_allowance.try_take(1, now) => {
                let bytes = Ping::Pong(nonce).encode();
                self.commands.push_back(Command::SendPing { peer, bytes });
            }
            Ok(Ping::Pong(nonce)) => link.liveness.on_pong(nonce, now),
            Ok(Ping::Ping(_)) => self.fail_link(peer, LinkState::Invalid, "too many pings"),
            Err(error) => self.fail_link(peer, LinkState::Invalid, &error.to_string()),
        }
    }

    /// What a child acknowledges it has taken, so it lives; a source shows life by what it brings.
    pub(super) fn on_buffered(&mut self, peer: PeerId, bytes: u64) {
        let now = self.now;
        if let Some(link) = self.links.get_mut(&peer) {
            if bytes < link.in_flight && !link.liveness.is_source() {
                self.dirty |= link.health(now) != Health::Alive;
                link.liveness.on_bytes(now);
            }
            link.in_flight = bytes;
        }
    }

    /// Sends a small frame, at once or as soon as there is room.
    pub(super) fn send(&mut self, peer: PeerId, frame: &Frame) {
        let frame = frame.encode();
        let full = match self
            .links
            .get_mut(&peer)
            .filter(|link| link.phase == Phase::Up)
        {
            None => return,
            Some(link) => {
                link.outbox.push_back(frame);
                link.outbox.len() > MAX_OUTBOX
            }
        };
        if full {
            self.fail_link(peer, LinkState::Dead, "it takes nothing any more");
        } else {
            self.flush_outbox(peer);
        }
    }

    pub(super) fn flush_outbox(&mut self, peer: PeerId) {
        let limit = self.config.link_limit_bytes;
        let Some(link) = self
            .links
            .get_mut(&peer)
            .filter(|link| link.phase == Phase::Up)
        else {
            return;
        };
        let mut ready: Vec<OutgoingFrame> = Vec::new();
        while let Some(frame) = link.outbox.front() {
            if link.in_flight + frame.length() > limit {
                break;
            }
            link.in_flight += frame.length();
            ready.extend(link.outbox.pop_front());
        }
        let sends = ready
            .into_iter()
            .map(|frame| Command::SendFrame { peer, frame });
        self.commands.extend(sends);
    }
}
