//! Taking up what peers hold: after an orchestrator's restart the trees are still there, in the
//! peers; they are read from the top down and kept wherever that is legal.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::Forest;
use super::node::{Link, NodeRef, PeerRef, Place, TreeKey};
use crate::events::{HeldEdge, PeerRole};
use crate::ids::{PeerId, Source, TrackName};
use crate::profile::PeerProfile;

/// A peer that comes back with what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Returning {
    pub(crate) peer: PeerId,
    pub(crate) role: PeerRole,
    pub(crate) upload_bps: u64,
    pub(crate) profile: PeerProfile,
    pub(crate) session: bool,
    pub(crate) wanted: Vec<TrackName>,
    pub(crate) held: Vec<HeldEdge>,
}

/// The claims of one track: who says that it is where.
type Claims = BTreeMap<PeerId, (NodeRef, HeldEdge)>;

impl Forest {
    /// Takes up these peers' edges as they are, where legal, and places the rest. Returns how many
    /// edges were kept.
    pub(crate) fn adopt(&mut self, returning: Vec<Returning>, now: Duration) -> u32 {
        let mut claims: BTreeMap<u8, Claims> = BTreeMap::new();
        let mut peers = Vec::new();
        for one in returning {
            let peer = self.add_peer(one.peer, (one.role, one.upload_bps, one.profile), now);
            self.peer_mut(peer).wanted = one.wanted;
            self.set_session(peer, one.session);
            for (tree, held) in self.held_trees(peer, one.held) {
                let node = self.add_node(peer, tree);
                claims
                    .entry(tree)
                    .or_default()
                    .insert(one.peer, (node, held));
            }
            peers.push(peer);
        }
        let mut kept = 0;
        for (tree, claims) in claims {
            self.shake(tree, now);
            kept += self.adopt_tree(claims, now);
        }
        for peer in peers {
            self.take_wanted(peer, now);
        }
        kept
    }

    /// Pairs what a peer holds with the trees that it belongs to, each at most once.
    fn held_trees(&self, peer: PeerRef, held: Vec<HeldEdge>) -> BTreeMap<u8, HeldEdge> {
        let wanted = self.wanted(peer);
        let held = held.into_iter().filter_map(|edge| {
            let (track, stripe) = (self.track_named(&edge.track)?, edge.stripe);
            let tree = self.by_key.get(&TreeKey { track, stripe })?;
            Some((*tree, edge))
        });
        held.filter(|(tree, _)| wanted.contains(tree)).collect()
    }

    fn adopt_tree(&mut self, mut claims: Claims, now: Duration) -> u32 {
        let mut kept = 0;
        let mut below: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
        for (child, (_, held)) in &claims {
            if let Source::Peer(parent) = held.source {
                below.entry(parent).or_default().insert(*child);
            }
        }
        let standbys: Vec<_> = claims.values().cloned().collect();
        while let Some(head) = next_head(&claims) {
            let mut queue = std::collections::VecDeque::from([head]);
            while let Some(id) = queue.pop_front() {
                let Some((node, held)) = claims.remove(&id) else {
                    continue;
                };
                kept += u32::from(self.adopt_node(node, &held, now));
                queue.extend(below.get(&id).into_iter().flatten().copied());
            }
        }
        for (node, held) in standbys {
            self.adopt_standby(node, held.standby);
        }
        kept
    }

    /// Puts the node where it says that it is, if that is legal; otherwise where it says that it would
    /// go; otherwise anywhere.
    fn adopt_node(&mut self, node: NodeRef, held: &HeldEdge, now: Duration) -> bool {
        self.warm_up(node);
        let kept = match held.source {
            Source::Cdn => Some(Place::Cdn),
            Source::Peer(parent) => self.held_parent(node, parent).map(Place::Under),
        };
        match kept {
            Some(Place::Under(parent)) => {
                self.attach_as_found(node, parent);
            }
            Some(Place::Cdn | Place::Nowhere) => self.attach(node, Place::Cdn),
            None => {
                let standby = match held.standby {
                    Some(Source::Peer(standby)) => self.held_parent(node, standby),
                    Some(Source::Cdn) | None => None,
                };
                self.rehome(node, standby, now);
            }
        }
        kept.is_some()
    }

    fn held_parent(&self, node: NodeRef, parent: PeerId) -> Option<NodeRef> {
        let peer = self.find(parent)?;
        let parent = self.node_in(peer, self.node(node).tree)?;
        let may = self.contributes(self.peer(peer)) && self.legal(parent, node);
        may.then_some(parent)
    }

    /// Appoints the standby that a child holds as its parent's successor, if that is legal.
    fn adopt_standby(&mut self, node: NodeRef, standby: Option<Source>) {
        let (Some(parent), Some(Source::Peer(standby))) = (self.node(node).parent(), standby)
        else {
            return;
        };
        let peer = self.find(standby);
        let Some(standby) = peer.and_then(|peer| self.node_in(peer, self.node(node).tree)) else {
            return;
        };
        if self.node(parent).successor == Link::NONE && self.succeeds(standby, parent) {
            self.appoint(parent, standby);
        }
    }
}

/// The next claim to settle: whoever the CDN feeds, then those whose parents are settled or unknown,
/// and if the rest claim each other in a circle, the first of them.
fn next_head(claims: &Claims) -> Option<PeerId> {
    let feeds = |held: &HeldEdge| held.source == Source::Cdn;
    let free = |held: &HeldEdge| match held.source {
        Source::Cdn => true,
        Source::Peer(parent) => !claims.contains_key(&parent),
    };
    let cdn = claims.iter().find(|(_, (_, held))| feeds(held));
    let loose = || claims.iter().find(|(_, (_, held))| free(held));
    cdn.or_else(loose)
        .or_else(|| claims.first_key_value())
        .map(|(peer, _)| *peer)
}
