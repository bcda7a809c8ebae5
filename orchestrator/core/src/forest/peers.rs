//! The peers as such: who they are, whether they can be told things, and who must not meet.

use core::time::Duration;

use super::Forest;
use super::node::{Link, Peer, PeerRef};
use crate::events::PeerRole;
use crate::ids::PeerId;
use crate::pairs::Change;
use crate::profile::PeerProfile;

/// What a peer is willing to do, how much it uploads, and what it is.
pub(crate) type Offered = (PeerRole, u64, PeerProfile);

impl Forest {
    /// Adds a peer without nodes; see [`Forest::want`].
    pub(crate) fn add_peer(
        &mut self,
        id: PeerId,
        (role, upload_bps, profile): Offered,
        now: Duration,
    ) -> PeerRef {
        let record = Peer {
            id,
            role,
            upload_bps,
            profile,
            session: true,
            quarantined: false,
            distrusted: false,
            shunned_until: None,
            wanted: Vec::new(),
            joined_at: now,
            first_node: Link::NONE,
            housemates: [None; 2],
        };
        let peer = match self.free_peers.pop() {
            Some(peer) => {
                self.peers[peer.index()] = Some(record);
                peer
            }
            None => {
                let index = u32::try_from(self.peers.len());
                self.peers.push(Some(record));
                PeerRef(index.expect("invariant: fewer than 2^32 peers"))
            }
        };
        self.by_id.insert(id, peer);
        self.move_in(peer);
        self.changes.joined.push(id);
        self.changes.offers.push(id);
        peer
    }

    /// Takes in whether the peer can be told things; without a session it gets no new children.
    pub(crate) fn set_session(&mut self, peer: PeerRef, session: bool) {
        self.peer_mut(peer).session = session;
        self.refresh_peer(peer);
    }

    /// Gives a peer no new children for a while.
    pub(crate) fn shun(&mut self, peer: PeerRef, until: Duration) {
        if let Some(old) = self.peer(peer).shunned_until {
            self.shunned.remove(&(old, peer));
        }
        self.peer_mut(peer).shunned_until = Some(until);
        self.shunned.insert((until, peer));
        self.refresh_peer(peer);
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
            self.refresh_peer(peer);
        }
        self.expire_holds(now);
        for ((one, other), _) in self.pairs.expire(now) {
            self.touched(one);
            self.touched(other);
        }
    }

    /// Returns when [`Forest::expire`] or [`Forest::give_up`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let shunned = self.shunned.first().map(|(at, _)| *at);
        let deadline = self.due.first().map(|(at, _)| *at);
        [shunned, deadline, self.pairs.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}
