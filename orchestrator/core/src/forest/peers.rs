//! The peers as such: who they are, whether they can be told things, and who must not meet.

use core::time::Duration;
use std::collections::BTreeMap;

use super::Forest;
use super::node::{Peer, PeerRef};
use crate::events::PeerRole;
use crate::ids::PeerId;

impl Forest {
    /// Adds a peer without nodes; see [`Forest::want`].
    pub(crate) fn add_peer(&mut self, id: PeerId, role: PeerRole, upload_bps: u64) -> PeerRef {
        let peer = self.peers.insert(Peer {
            id,
            role,
            upload_bps,
            session: true,
            quarantined: false,
            distrusted: false,
            shunned_until: None,
            wanted: Vec::new(),
            nodes: BTreeMap::new(),
        });
        self.by_id.insert(id, peer);
        self.changes.joined.insert(id, role);
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

    /// Plans nothing between the two until then; their edges of now are another matter.
    pub(crate) fn part(&mut self, one: PeerId, other: PeerId, until: Duration) {
        self.pairs.part(one, other, until);
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
