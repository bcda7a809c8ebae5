//! The gateway's end of the stream to one shard's owner.
//!
//! It holds the sessions of all the shard's channels at this gateway, each with what its peer has by now,
//! so that a stream that opens anew can say all of them. What is no state but a moment (a peer left, a link
//! died) is kept until it is acknowledged. The shell asks [`GatewayLink::poll_transmit`] for the next
//! message whenever the stream has room: nothing is queued twice.

mod command;
mod session;
mod transmit;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

pub use command::{AttachError, GatewayCommand, LinkFull};

use self::session::{Session, is_moment};
use super::held::held_after;
use super::message::{Attached, Change, Said, ToGateway, Whereabouts};
use crate::commands::Assignment;
use crate::events::{PeerReport, SessionOpened};
use crate::ids::{ChannelId, NodeId, PeerId};

/// How many changes may wait for the window, or for a stream.
const MOST_WAITING: usize = 32_768;

/// The sessions of one gateway in one shard, and the stream to its owner.
#[derive(Debug)]
pub struct GatewayLink {
    gateway: NodeId,
    boot: u64,
    openings: u64,
    channels: BTreeMap<ChannelId, BTreeMap<PeerId, Session>>,
    stream: Option<Stream>,
    waiting: VecDeque<(ChannelId, Change)>,
    reports: BTreeMap<ChannelId, Reports>,
    commands: VecDeque<GatewayCommand>,
}

#[derive(Debug)]
struct Stream {
    phase: Phase,
    sent: u64,
    acked: u64,
    /// Moments that were sent and not acknowledged.
    unacked: VecDeque<(u64, ChannelId, Change)>,
}

#[derive(Debug)]
enum Phase {
    /// Nothing has been sent.
    Opening,
    /// The sessions up to the cursor have been sent, but for what is left of the last one.
    Syncing {
        cursor: Option<(ChannelId, PeerId)>,
        rest: VecDeque<(ChannelId, Change)>,
    },
    /// Changes are sent as they come.
    Live,
}

#[derive(Debug, Default)]
struct Reports {
    latest: BTreeMap<PeerId, PeerReport>,
    sent_at: Option<Duration>,
}

impl GatewayLink {
    /// Makes the link of a gateway whose process is `boot`; it has no sessions and no stream.
    pub fn new(gateway: NodeId, boot: u64) -> Self {
        Self {
            gateway,
            boot,
            openings: 0,
            channels: BTreeMap::new(),
            stream: None,
            waiting: VecDeque::new(),
            reports: BTreeMap::new(),
            commands: VecDeque::new(),
        }
    }

    /// Takes in a session; an older one of the same peer is forgotten.
    ///
    /// # Errors
    /// When too much waits, or the peer's session here is not the caller's to take over.
    pub fn attach(
        &mut self,
        channel: &ChannelId,
        opened: SessionOpened,
        proven: bool,
    ) -> Result<(), AttachError> {
        self.has_room()?;
        let peer = opened.peer;
        match self.attachment(channel, peer) {
            Some(_) if !proven => return Err(AttachError::Taken),
            Some(newer) if newer > opened.attachment => return Err(AttachError::Superseded),
            Some(_) | None => {}
        }
        if self.stream.is_some() {
            let attached = Attached {
                session: opened.clone(),
                proven,
                asked: false,
            };
            let change = Change::Attached(attached);
            self.waiting.push_back((channel.clone(), change));
        }
        let session = Session {
            opened,
            proven,
            asked: false,
            sources: BTreeMap::new(),
        };
        let channel = self.channels.entry(channel.clone()).or_default();
        channel.insert(peer, session);
        Ok(())
    }

    /// Takes in the end of a session; returns whether it was the peer's newest here.
    pub fn detach(&mut self, channel: &ChannelId, peer: PeerId, attachment: u64) -> bool {
        let current = self.remove(channel, peer, attachment);
        // A session that was replaced is no news, and a stream that opens says only those that are there.
        if current && self.stream.is_some() {
            let change = Change::Detached { peer, attachment };
            self.waiting.push_back((channel.clone(), change));
        }
        current
    }

    /// Takes in that a peer leaves; returns whether that was for this session to say.
    pub fn leave(&mut self, channel: &ChannelId, peer: PeerId, attachment: u64) -> bool {
        let current = self.remove(channel, peer, attachment);
        if current {
            let change = Change::Left { peer, attachment };
            self.waiting.push_back((channel.clone(), change));
        }
        current
    }

    /// Takes in what a peer says. Words of a session that is not the peer's newest are not heard.
    ///
    /// # Errors
    /// [`LinkFull`] when too much waits.
    pub fn say(
        &mut self,
        channel: &ChannelId,
        peer: PeerId,
        attachment: u64,
        said: Said,
    ) -> Result<(), LinkFull> {
        self.has_room()?;
        let live = self.stream.is_some();
        let Some(session) = self.session(channel, peer, attachment) else {
            return Ok(());
        };
        session.remember(&said);
        // Without a stream, what is remembered goes with the session when one opens.
        if live || matches!(said, Said::Link(_)) {
            let change = Change::Said {
                peer,
                attachment,
                said,
            };
            self.waiting.push_back((channel.clone(), change));
        }
        Ok(())
    }

    /// Takes in a peer's counters; of several, the last is sent.
    pub fn report(
        &mut self,
        channel: &ChannelId,
        peer: PeerId,
        attachment: u64,
        report: PeerReport,
    ) {
        if self.session(channel, peer, attachment).is_some() {
            let reports = self.reports.entry(channel.clone()).or_default();
            reports.latest.insert(peer, report);
        }
    }

    /// Returns whether the session is the peer's newest at this gateway.
    pub fn is_current(&self, channel: &ChannelId, peer: PeerId, attachment: u64) -> bool {
        let session = self.channels.get(channel).and_then(|of| of.get(&peer));
        session.is_some_and(|session| session.opened.attachment == attachment)
    }

    /// Returns the peer's newest attachment at this gateway.
    pub fn attachment(&self, channel: &ChannelId, peer: PeerId) -> Option<u64> {
        let session = self.channels.get(channel)?.get(&peer)?;
        Some(session.opened.attachment)
    }

    /// A stream to an owner is open: everything is said again.
    pub fn stream_opened(&mut self) {
        self.stream_lost();
        self.openings += 1;
        self.stream = Some(Stream {
            phase: Phase::Opening,
            sent: 0,
            acked: 0,
            unacked: VecDeque::new(),
        });
    }

    /// The stream is lost. What the sessions themselves say is not kept besides.
    pub fn stream_lost(&mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        let sent = stream.unacked.into_iter();
        let sent = sent.map(|(_, channel, change)| (channel, change));
        let waited = core::mem::take(&mut self.waiting);
        self.waiting = sent
            .chain(waited)
            .filter(|(_, change)| is_moment(change))
            .collect();
    }

    /// Forgets a channel that has ended, and its sessions.
    pub fn forget(&mut self, channel: &ChannelId) {
        self.channels.remove(channel);
        self.reports.remove(channel);
        self.waiting.retain(|(of, _)| of != channel);
    }

    /// Takes in a message of the owner.
    pub fn receive(&mut self, message: ToGateway) {
        match message {
            ToGateway::Acked { through } => self.take_ack(through),
            ToGateway::Admitted {
                channel,
                peer,
                attachment,
            } => {
                if let Some(session) = self.session(&channel, peer, attachment) {
                    session.proven = true;
                    self.commands.push_back(GatewayCommand::Admit {
                        channel,
                        peer,
                        attachment,
                    });
                }
            }
            ToGateway::Refused {
                channel,
                peer,
                attachment,
                refusal,
            } => {
                // The owner may have been told twice, and have thought otherwise the second time.
                if self.detach(&channel, peer, attachment) {
                    self.commands.push_back(GatewayCommand::Refuse {
                        channel,
                        peer,
                        attachment,
                        refusal,
                    });
                }
            }
            ToGateway::Superseded {
                channel,
                peer,
                by,
                gateway,
            } => self.take_superseded(channel, peer, (by, gateway)),
            ToGateway::Assigned {
                channel,
                peer,
                attachment,
                assignment,
                seats,
            } => {
                self.locate(&channel, seats);
                self.take_assigned(channel, peer, attachment, assignment);
            }
            ToGateway::Seats { channel, seats } => self.locate(&channel, seats),
            ToGateway::Ended { channel } => {
                self.forget(&channel);
                self.commands.push_back(GatewayCommand::End { channel });
            }
        }
    }

    /// Returns the next thing to do.
    pub fn poll_command(&mut self) -> Option<GatewayCommand> {
        self.commands.pop_front()
    }

    /// Returns every session: channel, peer, attachment.
    pub fn sessions(&self) -> impl Iterator<Item = (&ChannelId, PeerId, u64)> {
        self.channels.iter().flat_map(|(channel, sessions)| {
            let of = sessions.iter();
            of.map(move |(peer, session)| (channel, *peer, session.opened.attachment))
        })
    }

    fn has_room(&self) -> Result<(), LinkFull> {
        if self.waiting.len() < MOST_WAITING {
            Ok(())
        } else {
            Err(LinkFull)
        }
    }

    fn session(
        &mut self,
        channel: &ChannelId,
        peer: PeerId,
        attachment: u64,
    ) -> Option<&mut Session> {
        let session = self.channels.get_mut(channel)?.get_mut(&peer)?;
        (session.opened.attachment == attachment).then_some(session)
    }

    fn remove(&mut self, channel: &ChannelId, peer: PeerId, attachment: u64) -> bool {
        let current = self.is_current(channel, peer, attachment);
        if current && let Some(sessions) = self.channels.get_mut(channel) {
            sessions.remove(&peer);
            if sessions.is_empty() {
                self.channels.remove(channel);
                self.reports.remove(channel);
            } else if let Some(reports) = self.reports.get_mut(channel) {
                reports.latest.remove(&peer);
            }
        }
        current
    }

    fn take_ack(&mut self, through: u64) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        stream.acked = stream.acked.max(through.min(stream.sent));
        while stream
            .unacked
            .front()
            .is_some_and(|(seq, ..)| *seq <= stream.acked)
        {
            stream.unacked.pop_front();
        }
    }

    fn take_superseded(&mut self, channel: ChannelId, peer: PeerId, by: (u64, NodeId)) {
        let Some(attachment) = self.attachment(&channel, peer) else {
            return;
        };
        // The owner may have forgotten the newer one since.
        if (attachment, self.gateway) < by && self.detach(&channel, peer, attachment) {
            self.commands.push_back(GatewayCommand::Supersede {
                channel,
                peer,
                attachment,
            });
        }
    }

    fn take_assigned(
        &mut self,
        channel: ChannelId,
        peer: PeerId,
        attachment: u64,
        assignment: Assignment,
    ) {
        let Some(session) = self.session(&channel, peer, attachment) else {
            return;
        };
        session.opened.held = held_after(&assignment);
        session.opened.generation = Some(assignment.generation);
        self.commands.push_back(GatewayCommand::Assign {
            channel,
            peer,
            attachment,
            assignment,
        });
    }

    fn locate(&mut self, channel: &ChannelId, seats: Vec<Whereabouts>) {
        if !seats.is_empty() {
            let channel = channel.clone();
            self.commands
                .push_back(GatewayCommand::Locate { channel, seats });
        }
    }
}
