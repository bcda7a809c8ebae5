//! What goes to the owner next: the sessions first, then what waits, then reports.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::session::{Session, is_moment};
use super::{GatewayLink, Phase, Reports};
use crate::ids::{ChannelId, PeerId};
use crate::link::message::{Attached, Change, ToOwner};

/// How many changes may be on their way and not acknowledged.
const WINDOW: u64 = 4_096;
/// How far apart the reports of one channel are sent.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How many peers' reports go into one message.
const REPORTS_PER_MESSAGE: usize = 2_048;

impl GatewayLink {
    /// Returns the next message, if the stream may carry one now.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<ToOwner> {
        let stream = self.stream.as_mut()?;
        if matches!(stream.phase, Phase::Opening) {
            stream.phase = Phase::Syncing {
                cursor: None,
                rest: VecDeque::new(),
            };
            return Some(ToOwner::Open {
                gateway: self.gateway,
                boot: self.boot,
                opening: self.openings,
            });
        }
        if stream.sent - stream.acked >= WINDOW {
            return None;
        }
        if let Some(synced) = self.poll_sync() {
            return Some(synced);
        }
        if let Some((channel, change)) = self.waiting.pop_front() {
            return Some(self.number(channel, change));
        }
        self.poll_reports(now)
    }

    /// Returns when [`Self::poll_transmit`] has something that only time brings.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.stream.as_ref()?;
        let waiting = self.reports.values().filter(|of| !of.latest.is_empty());
        waiting
            .map(|of| of.sent_at.map_or(Duration::ZERO, |at| at + REPORT_INTERVAL))
            .min()
    }

    /// The next message of the full set; `None` when all of it has been sent.
    fn poll_sync(&mut self) -> Option<ToOwner> {
        let stream = self.stream.as_mut()?;
        let Phase::Syncing { cursor, rest } = &mut stream.phase else {
            return None;
        };
        if rest.is_empty()
            && let Some((channel, peer, session)) = next_session(&self.channels, cursor)
        {
            *cursor = Some((channel.clone(), peer));
            rest.extend(session.say().map(|change| (channel.clone(), change)));
        }
        let next = rest.pop_front();
        if let Some((channel, change)) = next {
            return Some(self.number(channel, change));
        }
        stream.phase = Phase::Live;
        Some(ToOwner::Synced)
    }

    fn number(&mut self, channel: ChannelId, change: Change) -> ToOwner {
        if let Change::Attached(Attached { session, .. }) = &change {
            let (peer, attachment) = (session.peer, session.attachment);
            if let Some(session) = self.session(&channel, peer, attachment) {
                session.asked = true;
            }
        }
        let mut seq = 0;
        if let Some(stream) = &mut self.stream {
            stream.sent += 1;
            seq = stream.sent;
            if is_moment(&change) {
                let kept = (seq, channel.clone(), change.clone());
                stream.unacked.push_back(kept);
            }
        }
        ToOwner::Change {
            seq,
            channel,
            change,
        }
    }

    fn poll_reports(&mut self, now: Duration) -> Option<ToOwner> {
        let due = |of: &Reports| {
            let last = of.sent_at;
            !of.latest.is_empty() && last.is_none_or(|at| at + REPORT_INTERVAL <= now)
        };
        let (channel, of) = self.reports.iter_mut().find(|(_, of)| due(of))?;
        let mut reports = core::mem::take(&mut of.latest);
        let last = reports.keys().nth(REPORTS_PER_MESSAGE).copied();
        match last {
            // The rest is due still.
            Some(first) => of.latest = reports.split_off(&first),
            None => of.sent_at = Some(now),
        }
        Some(ToOwner::Reports {
            channel: channel.clone(),
            reports: reports.into_iter().collect(),
        })
    }
}

fn next_session<'a>(
    channels: &'a BTreeMap<ChannelId, BTreeMap<PeerId, Session>>,
    cursor: &Option<(ChannelId, PeerId)>,
) -> Option<(ChannelId, PeerId, &'a Session)> {
    let (channel, after) = match cursor {
        None => (Bound::Unbounded, None),
        Some((channel, peer)) => (Bound::Included(channel.clone()), Some((channel, *peer))),
    };
    let rest = channels.range((channel, Bound::Unbounded));
    rest.flat_map(|(channel, sessions)| {
        let from = match after {
            Some((of, peer)) if of == channel => Bound::Excluded(peer),
            Some(_) | None => Bound::Unbounded,
        };
        let of = sessions.range((from, Bound::Unbounded));
        of.map(move |(peer, session)| (channel.clone(), *peer, session))
    })
    .next()
}
