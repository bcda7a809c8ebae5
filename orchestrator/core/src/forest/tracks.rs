//! What there is to carry and how dear it is: tracks, their rates, the policy, and who wants what.
//!
//! These events can touch the whole audience; all others touch a bounded part of it.

use core::time::Duration;
use std::collections::BTreeSet;

use super::Forest;
use super::Tree;
use super::node::{Flags, NodeRef, PeerRef, Place, TreeKey};
use super::peers::Offered;
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
        self.trees()
            .find(|tree| tree.name == *name)
            .map(|tree| tree.key.track)
    }

    /// Returns the tracks as they are planned for.
    pub(crate) fn track_records(&self) -> Vec<TrackRecord> {
        let record = |tree: &Tree| TrackRecord {
            index: tree.key.track,
            name: tree.name.clone(),
            default: tree.default,
            rate_bps: tree.rate_bps,
            measured: tree.measured,
        };
        let tracks = self.trees().filter(|tree| tree.key.stripe == 0);
        tracks.map(record).collect()
    }

    /// Takes in the tracks: trees of those that are gone go, and every peer gets what it wants of the
    /// new ones.
    pub(crate) fn set_tracks(&mut self, tracks: &[TrackInfo], now: Duration) {
        self.changes.tracks = true;
        let same =
            |tree: &Tree, info: &TrackInfo| tree.name == info.name && tree.key.track == info.index;
        let gone = self
            .trees()
            .filter(|tree| !tracks.iter().any(|info| same(tree, info)));
        let gone: Vec<_> = gone.map(|tree| tree.key).collect();
        for key in gone {
            self.remove_tree(key);
        }
        for info in tracks {
            self.add_trees(info);
            for tree in self.trees_of(info.index) {
                self.tree_mut(tree).default = info.default;
            }
            self.set_rate(info.index, info.rate_bps, now);
        }
        for (_, peer) in self.peers() {
            self.take_wanted(peer, now);
        }
    }

    /// Adds the trees of a track that there is not.
    fn add_trees(&mut self, info: &TrackInfo) {
        let taken = self.trees_of(info.index).next().is_some();
        if taken || self.track_named(&info.name).is_some() {
            return;
        }
        for stripe in 0..self.policy.stripes() {
            let track = info.index;
            let key = TreeKey { track, stripe };
            let mut tree = Tree::new(key, info.name.clone(), info.default);
            tree.rate_bps = ASSUMED_RATE_BPS;
            self.plant(tree);
        }
    }

    /// Adds the trees that every track lacks, and removes those that it has too many.
    fn restripe(&mut self, now: Duration) {
        let stripes = self.policy.stripes();
        let surplus = self.by_key.keys().filter(|key| key.stripe >= stripes);
        for key in surplus.copied().collect::<Vec<_>>() {
            self.remove_tree(key);
        }
        let first = self.trees().filter(|tree| tree.key.stripe == 0);
        let first: Vec<_> = first.map(Tree::without_members).collect();
        for model in first {
            for stripe in 1..stripes {
                let key = TreeKey {
                    stripe,
                    ..model.key
                };
                if !self.by_key.contains_key(&key) {
                    let mut tree = model.without_members();
                    tree.key = key;
                    self.plant(tree);
                }
            }
        }
        for (_, peer) in self.peers() {
            self.take_wanted(peer, now);
        }
    }

    /// Adds a tree without members, if there is still room for one.
    pub(super) fn plant(&mut self, mut tree: Tree) {
        tree.cost = self.policy.stripe_cost(tree.rate_bps);
        let free = self.trees.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.trees.len());
        let Ok(number) = u8::try_from(slot) else {
            return;
        };
        if slot == self.trees.len() {
            self.trees.push(None);
        }
        self.by_key.insert(tree.key, number);
        self.trees[slot] = Some(tree);
    }

    /// The trees of a track: one a stripe.
    pub(super) fn trees_of(&self, track: TrackIndex) -> impl Iterator<Item = u8> + use<> {
        let key = |stripe| TreeKey { track, stripe };
        let trees = self.by_key.range(key(0)..=key(u8::MAX));
        trees.map(|(_, slot)| *slot).collect::<Vec<_>>().into_iter()
    }

    /// Nothing is left of the tree, so nothing has to be repaired either.
    fn remove_tree(&mut self, key: TreeKey) {
        let members: Vec<NodeRef> = self.members(key).collect();
        for node in &members {
            self.release_sides(*node);
        }
        for node in members {
            self.touched_by_node(node);
            self.drop_node(node);
        }
        if let Some(slot) = self.by_key.remove(&key) {
            self.trees[usize::from(slot)] = None;
        }
    }

    /// Forgets what lies beside a node whose tree goes.
    fn release_sides(&mut self, node: NodeRef) {
        if let Some(former) = self.formers.remove(&node)
            && let Place::Under(parent) = former.place
        {
            self.leaving.remove(&(parent, node));
        }
        self.root_since.remove(&node);
        let record = self.node_mut(node);
        record.flags.set(Flags::MOVING, false);
        (record.children, record.leaving, record.pledged) = (0, 0, 0);
    }

    /// Takes in a track's measured rate. The planned rate rises at once and falls only when an eighth
    /// is gone, so that a stream that breathes does not move anybody. Zero is no measurement.
    pub(crate) fn set_rate(&mut self, track: TrackIndex, rate_bps: u64, now: Duration) {
        let trees: Vec<_> = self.trees_of(track).collect();
        let Some(first) = trees.first().filter(|_| rate_bps > 0) else {
            return;
        };
        let known = self.tree(*first);
        let falls = rate_bps <= known.rate_bps - known.rate_bps / 8;
        if known.measured && rate_bps <= known.rate_bps && !falls {
            return;
        }
        self.changes.tracks = true;
        let cost = self.policy.stripe_cost(rate_bps);
        let mut peers = BTreeSet::new();
        for slot in trees {
            let tree = self.tree_mut(slot);
            (tree.measured, tree.rate_bps, tree.cost) = (true, rate_bps, cost);
            let key = tree.key;
            peers.extend(self.members(key).map(|node| {
                let peer = self.node(node).peer;
                (self.peer(peer).id, peer)
            }));
        }
        let peers: Vec<_> = peers.into_iter().map(|(_, peer)| peer).collect();
        self.reweigh(&peers, now);
    }

    /// Takes in another policy.
    pub(crate) fn set_policy(&mut self, policy: Policy, now: Duration) {
        if self.policy == policy {
            return;
        }
        let restriped = policy.stripes() != self.policy.stripes();
        self.policy = policy;
        self.changes.policy = true;
        if restriped {
            self.restripe(now);
        }
        for tree in self.trees.iter_mut().flatten() {
            tree.cost = self.policy.stripe_cost(tree.rate_bps);
        }
        let peers: Vec<_> = self.peers().into_iter().map(|(_, peer)| peer).collect();
        self.reweigh(&peers, now);
        let trees: Vec<_> = self.by_key.keys().copied().collect();
        for key in trees {
            self.cut_depth(key, now);
        }
    }

    /// Makes these peers' indices and children fit what an edge costs now.
    fn reweigh(&mut self, peers: &[PeerRef], now: Duration) {
        for peer in peers {
            self.touched(self.peer(*peer).id);
            self.refresh_peer(*peer);
        }
        for peer in peers {
            self.shed(*peer, now);
        }
    }

    /// Moves what is deeper than the policy allows.
    fn cut_depth(&mut self, key: TreeKey, now: Duration) {
        let most = self.policy.max_depth();
        let deepest = |forest: &Self| {
            let slot = forest.by_key.get(&key);
            slot.map_or(0, |slot| forest.tree(*slot).deepest())
        };
        // A subtree that becomes a root's may still be too high; what is too deep in it is next.
        while deepest(self) > most {
            let members: Vec<_> = self.members(key).collect();
            for node in members {
                if self.node(node).depth() == most + 1 {
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
            self.changes.offers.push(id);
        }
        self.take_wanted(peer, now);
    }

    /// Returns the trees of the tracks that the peer wants and the channel has.
    pub(super) fn wanted(&self, peer: PeerRef) -> Vec<u8> {
        let wanted = &self.peer(peer).wanted;
        let takes = |tree: &Tree| {
            if wanted.is_empty() {
                tree.default
            } else {
                wanted.contains(&tree.name)
            }
        };
        let mut trees = Vec::new();
        let mut tracks = 0;
        for (key, slot) in &self.by_key {
            if takes(self.tree(*slot)) {
                tracks += usize::from(key.stripe == 0);
                if tracks > MOST_TRACKS {
                    break;
                }
                trees.push(*slot);
            }
        }
        trees
    }

    pub(super) fn take_wanted(&mut self, peer: PeerRef, now: Duration) {
        let wanted = self.wanted(peer);
        // New trees are joined before old ones are left, so that a switch never has nothing.
        for tree in &wanted {
            if self.node_in(peer, *tree).is_none() {
                let node = self.add_node(peer, *tree);
                self.place_newcomer(node, now);
            }
        }
        let surplus = self
            .nodes_of(peer)
            .filter(|node| !wanted.contains(&self.node(*node).tree));
        for node in surplus.collect::<Vec<_>>() {
            self.remove_node(node, now);
        }
    }

    /// Takes in what a peer says about itself when it comes back.
    pub(crate) fn set_offer(&mut self, peer: PeerRef, offered: Offered, now: Duration) {
        let record = self.peer_mut(peer);
        if (record.role, record.upload_bps, record.profile) == offered {
            return;
        }
        let (role, upload_bps, profile) = offered;
        (record.role, record.upload_bps) = (role, upload_bps);
        self.set_profile(peer, profile);
        let record = self.peer(peer);
        let id = record.id;
        self.touched(id);
        self.changes.offers.push(id);
        if role == PeerRole::Consumer {
            self.bereave(peer, now);
        }
        self.refresh_peer(peer);
        self.shed(peer, now);
    }

    /// Takes in whether the peer is accused by enough others to have no children.
    pub(crate) fn set_quarantined(&mut self, peer: PeerRef, quarantined: bool, now: Duration) {
        self.peer_mut(peer).quarantined = quarantined;
        if quarantined {
            self.bereave(peer, now);
        }
        self.refresh_peer(peer);
    }

    /// Takes in whether the peer accuses too many others to be preferred.
    pub(crate) fn set_distrusted(&mut self, peer: PeerRef, distrusted: bool) {
        self.peer_mut(peer).distrusted = distrusted;
        self.refresh_peer(peer);
    }

    /// Adds up the planned rates of the peer's tracks.
    pub(crate) fn rate_of(&self, peer: PeerRef) -> u64 {
        let nodes = self.nodes_of(peer).map(|node| self.tree_of(node));
        let tracks = nodes.filter(|tree| tree.key.stripe == 0);
        tracks.fold(0, |sum: u64, tree| sum.saturating_add(tree.rate_bps))
    }
}
