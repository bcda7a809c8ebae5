//! The peers as such: who they are, whether they can be told things, and who must not meet.

use core::time::Duration;
use std::collections::BTreeMap;

use super::Forest;
use super::node::{Peer, PeerRef};
use crate::events::PeerRole;
use crate::ids::PeerId;
use crate::pairs::Change;

impl Forest {
    /// Adds a peer without nodes; see [`Forest::want`].
    pub(crate) fn add_peer(
        &mut self,
        id: PeerId,
        role: PeerRole,
        upload_bps: u64,
        now: Duration,
    ) -> PeerRef {
        let peer = self.peers.insert(Peer {
            id,
            role,
            upload_bps,
            session: true,
            quarantined: false,
            distrusted: false,
            shunned_until: None,
            wanted: Vec::new(),
            joined_at: now,
            nodes: BTreeMap::new(),
        });
        self.by_id.insert(id, peer);
        self.changes.joined.insert(id);
        self.changes.offers.insert(id);
        peer
    }

    /// Takes in whether the peer can be told things; without a session it gets no new children.
    pub(crate) fn set_session(&mut self, peer: PeerRef, session: bool) {
        self.peer_mut(peer).session = session;
        self.reindex_peer(peer);
    }

    /// Gives a peer no new children for a while.
    pub(crate) fn shun(&mut self, peer: PeerRef, until: Duration) {
        if let Some(old) = self.peer(peer).shunned_until {
            self.shunned.remove(&(old, peer));
        }
        self.peer_mut(peer).shunned_until = Some(until);
        self.shunned.insert((until, peer));
        self.reindex_peer(peer);
    }

    /// Plans nothing between the two until then; their edges of now are another matter. Ends are whole
    /// seconds, so that what is said ten times in a second is one change.
    pub(crate) fn part(&mut self, one: PeerId, other: PeerId, until: Duration) {
        let whole = Duration::from_secs(until.as_secs());
        let up = Duration::from_secs(u64::from(whole < until));
        let change = self.pairs.part(one, other, whole + up);
        self.note_parting(change, one, other);
    }

    /// Plans nothing between the two for good.
    pub(crate) fn separate(&mut self, one: PeerId, other: PeerId) {
        let change = self.pairs.separate(one, other);
        self.note_parting(change, one, other);
    }

    fn note_parting(&mut self, change: Change, one: PeerId, other: PeerId) {
        self.changes.parted.extend(change.added);
        self.touched(one);
        self.touched(other);
    }

    /// Ends what has only been for a while.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some((until, peer)) = self.shunned.first().copied().filter(|(at, _)| *at <= now) {
            self.shunned.remove(&(until, peer));
            self.peer_mut(peer).shunned_until = None;
            self.reindex_peer(peer);
        }
        for ((one, other), _) in self.pairs.expire(now) {
            self.touched(one);
            self.touched(other);
        }
    }

    /// Returns when [`Forest::expire`] or [`Forest::give_up`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let shunned = self.shunned.first().map(|(at, _)| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        [shunned, deadline, self.pairs.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}
