//! What there is to carry and how dear it is: tracks, their rates, the policy, and who wants what.
//!
//! These events can touch the whole audience; all others touch a bounded part of it.

use core::time::Duration;
use std::collections::BTreeSet;

use super::Forest;
use super::node::{NodeRef, PeerRef, Tree};
use crate::events::{PeerRole, TrackInfo};
use crate::ids::{TrackIndex, TrackName};
use crate::policy::Policy;
use crate::state::TrackRecord;

/// What a track is taken to need before it has been measured.
const ASSUMED_RATE_BPS: u64 = 2_000_000;
/// Tracks that one peer may take.
const MOST_TRACKS: usize = 16;

impl Forest {
    pub(crate) fn track_named(&self, name: &TrackName) -> Option<TrackIndex> {
        self.trees
            .iter()
            .find(|(_, tree)| tree.name == *name)
            .map(|(track, _)| *track)
    }

    /// Returns the tracks as they are planned for.
    pub(crate) fn track_records(&self) -> Vec<TrackRecord> {
        let record = |(index, tree): (&TrackIndex, &Tree)| TrackRecord {
            index: *index,
            name: tree.name.clone(),
            default: tree.default,
            rate_bps: tree.rate_bps,
            measured: tree.measured,
        };
        self.trees.iter().map(record).collect()
    }

    /// Takes in the tracks: trees of those that are gone go, and every peer gets what it wants of the
    /// new ones.
    pub(crate) fn set_tracks(&mut self, tracks: &[TrackInfo], now: Duration) {
        self.changes.tracks = true;
        let same = |tree: &Tree, info: &TrackInfo| tree.name == info.name;
        let gone: Vec<_> = self
            .trees
            .iter()
            .filter(|(index, tree)| !tracks.iter().any(|t| t.index == **index && same(tree, t)))
            .map(|(index, _)| *index)
            .collect();
        for track in gone {
            self.remove_tree(track);
        }
        for info in tracks {
            match self.trees.get_mut(&info.index) {
                Some(tree) => tree.default = info.default,
                None => self.add_tree(info),
            }
            self.set_rate(info.index, info.rate_bps, now);
        }
        let peers: Vec<_> = self.by_id.values().copied().collect();
        for peer in peers {
            self.take_wanted(peer, now);
        }
    }

    fn add_tree(&mut self, info: &TrackInfo) {
        if self.track_named(&info.name).is_some() {
            return;
        }
        let tree = Tree {
            rate_bps: ASSUMED_RATE_BPS,
            cost: self.policy.edge_cost(ASSUMED_RATE_BPS),
            ..Tree::new(info.name.clone(), info.default)
        };
        self.trees.insert(info.index, tree);
    }

    /// Nothing is left of the tree, so nothing has to be repaired either.
    fn remove_tree(&mut self, track: TrackIndex) {
        let members: Vec<NodeRef> = self.tree(track).members.iter().copied().collect();
        for node in &members {
            self.touched_by_node(*node);
            self.set_deadline(*node, None);
            let record = self
                .nodes
                .remove(*node)
                .expect("invariant: the node is in the forest");
            let id = self.peer(record.peer).id;
            self.peer_mut(record.peer).nodes.remove(&track);
            self.changes.nodes.remove(node);
            if record.decided.is_some() {
                self.changes.removed.insert((id, track));
            }
        }
        self.trees.remove(&track);
        let peers: Vec<_> = self.by_id.values().copied().collect();
        for peer in peers {
            self.reindex_peer(peer);
        }
    }

    /// Takes in a track's measured rate. The planned rate rises at once and falls only when an eighth
    /// is gone, so that a stream that breathes does not move anybody. Zero is no measurement.
    pub(crate) fn set_rate(&mut self, track: TrackIndex, rate_bps: u64, now: Duration) {
        let Some(tree) = self.trees.get_mut(&track).filter(|_| rate_bps > 0) else {
            return;
        };
        let falls = rate_bps <= tree.rate_bps - tree.rate_bps / 8;
        if tree.measured && rate_bps <= tree.rate_bps && !falls {
            return;
        }
        self.changes.tracks = true;
        tree.measured = true;
        tree.rate_bps = rate_bps;
        tree.cost = self.policy.edge_cost(rate_bps);
        let members: Vec<_> = tree.members.iter().copied().collect();
        let peers: Vec<_> = members
            .into_iter()
            .map(|node| self.node(node).peer)
            .collect();
        self.reweigh(&peers, now);
    }

    /// Takes in another policy.
    pub(crate) fn set_policy(&mut self, policy: Policy, now: Duration) {
        if self.policy == policy {
            return;
        }
        self.policy = policy;
        self.changes.policy = true;
        for tree in self.trees.values_mut() {
            tree.cost = self.policy.edge_cost(tree.rate_bps);
        }
        let peers: Vec<_> = self.by_id.values().copied().collect();
        self.reweigh(&peers, now);
        let tracks: Vec<_> = self.trees.keys().copied().collect();
        for track in tracks {
            self.cut_depth(track, now);
        }
    }

    /// Makes these peers' indices and children fit what an edge costs now.
    fn reweigh(&mut self, peers: &[PeerRef], now: Duration) {
        for peer in peers {
            self.touched(self.peer(*peer).id);
            self.reindex_peer(*peer);
        }
        for peer in peers {
            self.shed(*peer, now);
        }
    }

    /// Moves what is deeper than the policy allows.
    fn cut_depth(&mut self, track: TrackIndex, now: Duration) {
        let most = self.policy.max_depth();
        // A subtree that becomes a root's may still be too high; what is too deep in it is next.
        while self.tree(track).deepest() > most {
            let members: Vec<_> = self.tree(track).members.iter().copied().collect();
            for node in members {
                if self.node(node).depth == most + 1 {
                    self.evict(node, now);
                }
            }
        }
    }

    /// Takes in what a peer wants; empty: the default tracks.
    pub(crate) fn want(&mut self, peer: PeerRef, mut tracks: Vec<TrackName>, now: Duration) {
        tracks.truncate(MOST_TRACKS);
        let record = self.peer_mut(peer);
        if record.wanted != tracks {
            record.wanted = tracks;
            let id = record.id;
            self.changes.offers.insert(id);
        }
        self.take_wanted(peer, now);
    }

    /// Returns the tracks that the peer wants and the channel has.
    pub(super) fn wanted(&self, peer: PeerRef) -> BTreeSet<TrackIndex> {
        let wanted = &self.peer(peer).wanted;
        let takes = |tree: &Tree| {
            if wanted.is_empty() {
                tree.default
            } else {
                wanted.contains(&tree.name)
            }
        };
        let tracks = self
            .trees
            .iter()
            .filter(|(_, tree)| takes(tree))
            .map(|(track, _)| *track);
        tracks.take(MOST_TRACKS).collect()
    }

    pub(super) fn take_wanted(&mut self, peer: PeerRef, now: Duration) {
        let wanted = self.wanted(peer);
        let has: BTreeSet<_> = self.peer(peer).nodes.keys().copied().collect();
        // New trees are joined before old ones are left, so that a switch never has nothing.
        for track in wanted.difference(&has) {
            let node = self.add_node(peer, *track);
            self.place_newcomer(node, now);
        }
        for track in has.difference(&wanted) {
            let node = self.peer(peer).nodes[track];
            self.remove_node(node, now);
        }
    }

    /// Takes in what a peer says about itself when it comes back.
    pub(crate) fn set_offer(
        &mut self,
        peer: PeerRef,
        role: PeerRole,
        upload_bps: u64,
        now: Duration,
    ) {
        let record = self.peer_mut(peer);
        if (record.role, record.upload_bps) == (role, upload_bps) {
            return;
        }
        (record.role, record.upload_bps) = (role, upload_bps);
        let id = record.id;
        self.touched(id);
        self.changes.offers.insert(id);
        if role == PeerRole::Consumer {
            self.bereave(peer, now);
        }
        self.reindex_peer(peer);
        self.shed(peer, now);
    }

    /// Takes in whether the peer is accused by enough others to have no children.
    pub(crate) fn set_quarantined(&mut self, peer: PeerRef, quarantined: bool, now: Duration) {
        self.peer_mut(peer).quarantined = quarantined;
        if quarantined {
            self.bereave(peer, now);
        }
        self.reindex_peer(peer);
    }

    /// Takes in whether the peer accuses too many others to be preferred.
    pub(crate) fn set_distrusted(&mut self, peer: PeerRef, distrusted: bool) {
        self.peer_mut(peer).distrusted = distrusted;
        self.reindex_peer(peer);
    }

    /// Adds up the planned rates of the peer's tracks.
    pub(crate) fn rate_of(&self, peer: PeerRef) -> u64 {
        let tracks = self.peer(peer).nodes.keys();
        tracks.fold(0, |sum: u64, track| {
            sum.saturating_add(self.tree(*track).rate_bps)
        })
    }
}
