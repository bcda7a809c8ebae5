//! Who is attached: the table of a channel's sessions.
//!
//! A peer may attach through any gateway, so news of its sessions can come in any order: each
//! attachment carries a counter and the highest wins. The absence of a session is never death: a peer
//! is presumed gone only after [`SessionTable::grace`], which grows with the number of sessions that
//! were lost together. Tickets are the shell's.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::ids::PeerId;

/// How many are given up in one event.
pub const AT_ONCE: usize = 16;
/// The least time that a peer without a session stays in its place.
const LEAST_GRACE: Duration = Duration::from_secs(10);
/// Sessions that gateways are taken to accept in a second.
const ACCEPTED_PER_SECOND: u64 = 200;

#[derive(Debug, Clone, Copy)]
struct Session {
    attachment: u64,
    lost_at: Option<Duration>,
    /// Its gateway is not heard.
    silent: bool,
}

/// The sessions of one channel.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    sessions: BTreeMap<PeerId, Session>,
    lost: BTreeSet<(Duration, PeerId)>,
}

impl SessionTable {
    /// Takes in an attachment; returns whether it is the peer's newest.
    pub(crate) fn attach(&mut self, peer: PeerId, attachment: u64) -> bool {
        if self
            .sessions
            .get(&peer)
            .is_some_and(|known| known.attachment > attachment)
        {
            return false;
        }
        let old = self.sessions.insert(
            peer,
            Session {
                attachment,
                lost_at: None,
                silent: false,
            },
        );
        if let Some(lost_at) = old.and_then(|old| old.lost_at) {
            self.lost.remove(&(lost_at, peer));
        }
        true
    }

    /// Takes in that the peer has no session; one that is known to the table stays as it is.
    pub(crate) fn miss(&mut self, peer: PeerId, now: Duration) {
        self.sessions.entry(peer).or_insert_with(|| {
            self.lost.insert((now, peer));
            Session {
                attachment: 0,
                lost_at: Some(now),
                silent: false,
            }
        });
    }

    /// Takes in the end of an attachment; returns whether the peer has no session now, and had.
    pub(crate) fn detach(&mut self, peer: PeerId, attachment: u64, now: Duration) -> bool {
        let newest = |known: &&mut Session| known.attachment <= attachment;
        let Some(session) = self.sessions.get_mut(&peer).filter(newest) else {
            return false;
        };
        if session.lost_at.is_some() {
            return false;
        }
        session.lost_at = Some(now);
        self.lost.insert((now, peer));
        true
    }

    /// Takes in that the gateway of the peer's session is not heard.
    pub(crate) fn silence(&mut self, peer: PeerId) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.silent = true;
        }
    }

    /// Whether the peer has a session through which it can be told something now.
    pub(crate) fn is_heard(&self, peer: PeerId) -> bool {
        self.sessions
            .get(&peer)
            .is_some_and(|session| session.lost_at.is_none() && !session.silent)
    }

    /// Whether the peer has a session, as far as anybody knows.
    pub(crate) fn is_attached(&self, peer: PeerId) -> bool {
        self.sessions
            .get(&peer)
            .is_some_and(|session| session.lost_at.is_none())
    }

    pub(crate) fn remove(&mut self, peer: PeerId) {
        if let Some(lost_at) = self
            .sessions
            .remove(&peer)
            .and_then(|session| session.lost_at)
        {
            self.lost.remove(&(lost_at, peer));
        }
    }

    /// Returns how long a peer may be without a session: the time in which all that were lost could
    /// attach twice, and never less than ten seconds.
    pub(crate) fn grace(&self) -> Duration {
        let lost = u64::try_from(self.lost.len()).unwrap_or(u64::MAX);
        LEAST_GRACE.max(Duration::from_millis(
            lost.saturating_mul(2000) / ACCEPTED_PER_SECOND,
        ))
    }

    /// Returns the peers whose grace is over, the longest lost first; of a mass event [`AT_ONCE`] at a time, so
    /// that what one event has to repair is bounded.
    pub(crate) fn expired(&self, now: Duration) -> Vec<PeerId> {
        let grace = self.grace();
        let over = self
            .lost
            .iter()
            .take_while(|(lost_at, _)| *lost_at + grace <= now);
        over.take(AT_ONCE).map(|(_, peer)| *peer).collect()
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.lost
            .first()
            .map(|(lost_at, _)| *lost_at + self.grace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(7);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_late_end_of_an_old_attachment_removes_nobody() {
        let mut table = SessionTable::default();
        assert!(table.attach(PEER, 1));
        assert!(table.attach(PEER, 2));
        assert!(!table.detach(PEER, 1, at(1)));
        assert!(table.is_attached(PEER));
        assert!(
            !table.attach(PEER, 1),
            "an old attachment that comes late is not the newest"
        );
        assert!(table.detach(PEER, 2, at(2)));
        assert!(!table.detach(PEER, 2, at(3)), "it is lost once");
        assert!(!table.is_attached(PEER));
    }

    #[test]
    fn a_lost_peer_has_ten_seconds() {
        let mut table = SessionTable::default();
        table.attach(PEER, 1);
        table.detach(PEER, 1, at(5));
        assert_eq!(table.next_timeout(), Some(at(15)));
        assert_eq!(table.expired(at(14)), []);
        assert_eq!(table.expired(at(15)), [PEER]);
        table.attach(PEER, 2);
        assert_eq!(table.expired(at(99)), []);
        assert_eq!(table.next_timeout(), None);
    }

    #[test]
    fn grace_grows_with_the_number_that_was_lost_together() {
        let mut table = SessionTable::default();
        for peer in 0..4000 {
            table.attach(PeerId(peer), 1);
            table.detach(PeerId(peer), 1, at(0));
        }
        assert_eq!(table.grace(), at(40));
        assert_eq!(table.expired(at(39)), []);
        assert_eq!(table.expired(at(40)).len(), AT_ONCE, "in slices");
        for peer in 0..3990 {
            table.attach(PeerId(peer), 2);
        }
        assert_eq!(
            table.expired(at(10)).len(),
            10,
            "those who are left have ten seconds"
        );
    }

    #[test]
    fn a_removed_peer_leaves_nothing() {
        let mut table = SessionTable::default();
        table.attach(PEER, 9);
        table.detach(PEER, 9, at(0));
        table.remove(PEER);
        assert_eq!(table.next_timeout(), None);
        assert!(table.attach(PEER, 1), "its counter starts anew");
    }
}
