//! The planner alone, for those who drive it without sessions, entries and assignments: the simulator and
//! the benchmarks.
//!
//! A [`Planner`] is production's forest behind dense slots instead of ids, so that a driver keeps what it
//! knows of a peer in arrays of its own. Events go in with the time; [`Planner::take_changes`] says which
//! edges differ since the last call.
//!
//! Invariant: it decides nothing. The same calls at the same times give the same changes.
//!
//! Not here: who is attached, what is committed, what a peer has been told.

mod records;

use core::time::Duration;

use twox_hash::XxHash3_64;

use crate::events::{PeerRole, TrackInfo};
use crate::forest::node::{Node, NodeRef, Peer, PeerRef, Place, TreeKey};
use crate::forest::{Forest, Tree};
use crate::ids::{PeerId, TrackIndex, TrackName};
use crate::policy::Policy;
use crate::profile::PeerProfile;
use crate::view::Finding;

pub use crate::forest::Work;
pub use crate::sessions::AT_ONCE;

/// How often what is left undone is tried again.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long a pair is kept apart after one of the two said that the link failed.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// A peer's place in the driver's arrays: dense, and used again after a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSlot(pub u32);

/// A tree: one stripe of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId {
    /// Of which track.
    pub track: TrackIndex,
    /// Which of its stripes; 0 where a track has one.
    pub stripe: u8,
}

/// Where a peer takes a tree's data from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceSlot {
    /// It is a root.
    Cdn,
    /// Another peer.
    Peer(PeerSlot),
}

/// A peer that comes.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// Who.
    pub id: PeerId,
    /// What it is willing to do.
    pub role: PeerRole,
    /// Wire bit/s that it offers.
    pub upload_bps: u64,
    /// What else is known of it.
    pub profile: PeerProfile,
    /// By name; empty: the default tracks.
    pub wanted: Vec<TrackName>,
}

/// A peer's edge in one tree, where it differs from what was said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeChange {
    /// Whose.
    pub peer: PeerSlot,
    /// In which tree.
    pub tree: TreeId,
    /// From where now; `None`: it left the tree.
    pub source: Option<SourceSlot>,
    /// From where if that fails.
    pub standby: Option<SourceSlot>,
    /// Its old source was fine: make before break.
    pub planned: bool,
}

impl Work {
    /// Adds everything up.
    pub fn total(self) -> u32 {
        self.examined + self.edges + self.relabelled
    }
}

/// Bytes that the planner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Places in trees, with all their indices.
    pub trees: usize,
    /// What is known of each peer.
    pub records: usize,
    /// From ids to peers.
    pub ids: usize,
}

/// Production's planner behind dense slots.
#[derive(Debug)]
pub struct Planner {
    forest: Forest,
    /// By node: what was said last of its edge.
    said: Vec<Option<(SourceSlot, Option<SourceSlot>)>>,
    gone: Vec<EdgeChange>,
    now: Duration,
    work: Work,
}

impl Planner {
    /// Makes the planner of a channel with these tracks and without peers.
    pub fn new(policy: Policy, tracks: &[TrackInfo], now: Duration) -> Self {
        let mut forest = Forest::new(policy);
        forest.set_tracks(tracks, now);
        drop(forest.take_changes());
        Self {
            forest,
            said: Vec::new(),
            gone: Vec::new(),
            now,
            work: Work::default(),
        }
    }

    /// Takes in a newcomer. Its id must not be in the forest.
    pub fn join(&mut self, newcomer: Newcomer, now: Duration) -> PeerSlot {
        self.pass_time(now);
        let Newcomer {
            id,
            role,
            upload_bps,
            profile,
            wanted,
        } = newcomer;
        let offered = (role, upload_bps, profile);
        let peer = self.forest.add_peer(id, offered, self.now);
        self.forest.want(peer, wanted, self.now);
        self.settle();
        PeerSlot(peer.0)
    }

    /// Peers cannot be told things any more, and get no new children. Of a mass event all are said to be lost
    /// before the first leaves, so that none of them is taken for a rescuer; as in production, where sessions end
    /// before anybody is given up.
    pub fn lose(&mut self, peers: &[PeerSlot], now: Duration) {
        self.pass_time(now);
        for slot in peers {
            if let Some(peer) = self.peer(*slot) {
                self.forest.set_session(peer, false);
            }
        }
        self.work = self.forest.take_work();
    }

    /// Removes peers and repairs what hung on them. The work grows with their number: a mass event is handed over
    /// in slices of at most [`AT_ONCE`], after [`Planner::lose`].
    pub fn leave(&mut self, peers: &[PeerSlot], now: Duration) {
        self.pass_time(now);
        let peers: Vec<_> = peers.iter().filter_map(|slot| self.peer(*slot)).collect();
        for peer in &peers {
            self.say_gone(*peer);
        }
        self.forest.remove_peers(&peers, self.now);
        self.settle();
    }

    fn say_gone(&mut self, peer: PeerRef) {
        for node in self.forest.nodes_of(peer) {
            let tree = id_of(self.forest.tree_of(node));
            self.gone.push(left(PeerSlot(peer.0), tree));
            if let Some(said) = self.said.get_mut(node.index()) {
                *said = None;
            }
        }
    }

    /// Data flows to the peer from the source that it was given.
    pub fn arrived(&mut self, peer: PeerSlot, tree: TreeId, now: Duration) {
        self.pass_time(now);
        if let Some(node) = self.node(peer, tree) {
            let warm = self.forest.node(node).is_warm();
            self.forest.arrived(node);
            if !warm {
                self.forest.raise_relay(node, self.now);
            }
        }
        self.settle();
    }

    /// The child says that its link to the parent is of no use.
    pub fn failed(&mut self, child: PeerSlot, parent: PeerSlot, now: Duration) {
        self.pass_time(now);
        if let (Some(child), Some(parent)) = (self.id(child), self.id(parent)) {
            self.forest.part(child, parent, self.now + AFTER_FAILURE);
            self.forest.break_pair(child, parent, self.now);
        }
        self.settle();
    }

    /// The child says that its link to the parent lives but cannot carry its share.
    pub fn late(&mut self, child: PeerSlot, parent: PeerSlot, now: Duration) {
        self.pass_time(now);
        if let (Some(child), Some(parent)) = (self.id(child), self.id(parent))
            && self.forest.relieve(child, parent, self.now)
        {
            self.forest.part(child, parent, self.now + AFTER_FAILURE);
        }
        self.settle();
    }

    /// The peer's upload is another than was thought.
    pub fn set_upload(&mut self, peer: PeerSlot, upload_bps: u64, now: Duration) {
        self.pass_time(now);
        if let Some(peer) = self.peer(peer) {
            let record = self.forest.peer(peer);
            let offered = (record.role, upload_bps, record.profile);
            self.forest.set_offer(peer, offered, self.now);
        }
        self.settle();
    }

    /// The peer watches these tracks from now on; empty: the defaults.
    pub fn want(&mut self, peer: PeerSlot, tracks: Vec<TrackName>, now: Duration) {
        self.pass_time(now);
        if let Some(peer) = self.peer(peer) {
            let before = self.forest.nodes_of(peer);
            let before = before.map(|node| (node, id_of(self.forest.tree_of(node))));
            let before: Vec<_> = before.collect();
            self.forest.want(peer, tracks, self.now);
            for (node, tree) in before {
                let slot = PeerSlot(peer.0);
                if self.node(slot, tree).is_none() {
                    self.gone.push(left(slot, tree));
                    if let Some(said) = self.said.get_mut(node.index()) {
                        *said = None;
                    }
                }
            }
        }
        self.settle();
    }

    /// The owner wants something else.
    pub fn set_policy(&mut self, policy: Policy, now: Duration) {
        self.pass_time(now);
        self.forest.set_policy(policy, self.now);
        self.settle();
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.pass_time(now);
        self.settle();
    }

    /// Returns when [`Planner::tick`] is due.
    pub fn next_timeout(&self) -> Option<Duration> {
        let occupied = self.forest.peer_count() > 0 && self.forest.has_undone_work();
        let housekeeping = occupied.then(|| self.now + HOUSEKEEPING);
        let due = [self.forest.next_timeout(), housekeeping];
        due.into_iter().flatten().min()
    }

    /// Appends every edge that differs from what was said last.
    pub fn take_changes(&mut self, into: &mut Vec<EdgeChange>) {
        into.append(&mut self.gone);
        let nodes = self.forest.take_changed_nodes();
        for node in &nodes {
            self.say(*node, into);
        }
        self.forest.give_back(nodes);
    }

    fn say(&mut self, node: NodeRef, into: &mut Vec<EdgeChange>) {
        let record = self.forest.node(node);
        let Some(source) = self.source_of(record) else {
            return;
        };
        let standby = record.parent().map(|parent| {
            let standby = self.forest.node(parent).successor();
            let standby = standby.filter(|standby| self.forest.may_meet(node, *standby));
            standby.map_or(SourceSlot::Cdn, |standby| self.slot_of(standby))
        });
        let at = node.index();
        if self.said.len() <= at {
            self.said.resize(at + 1, None);
        }
        let before = self.said[at].replace((source, standby));
        if before == Some((source, standby)) {
            return;
        }
        let former = self
            .forest
            .former(node)
            .map(|former| self.source_at(former.place));
        let before = before.map(|(source, _)| source);
        into.push(EdgeChange {
            peer: PeerSlot(record.peer.0),
            tree: id_of(self.forest.tree_of(node)),
            source: Some(source),
            standby,
            planned: before.is_some() && before != Some(source) && former == Some(before),
        });
    }

    /// Returns where the peer takes the tree's data from.
    pub fn source(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot> {
        self.source_of(self.forest.node(self.node(peer, tree)?))
    }

    /// Returns from where it would take it if that failed.
    pub fn standby(&self, peer: PeerSlot, tree: TreeId) -> Option<SourceSlot> {
        let node = self.node(peer, tree)?;
        let parent = self.forest.node(node).parent()?;
        let standby = self.forest.node(parent).successor();
        let standby = standby.filter(|standby| self.forest.may_meet(node, *standby));
        Some(standby.map_or(SourceSlot::Cdn, |standby| self.slot_of(standby)))
    }

    /// Returns the peer's depth: 1 for a root, 0 where it is not in the tree.
    pub fn depth(&self, peer: PeerSlot, tree: TreeId) -> u32 {
        let node = self.node(peer, tree);
        node.map_or(0, |node| self.forest.node(node).depth())
    }

    /// Walks through the peer's children in the tree.
    pub fn children(&self, peer: PeerSlot, tree: TreeId) -> impl Iterator<Item = PeerSlot> {
        let node = self.node(peer, tree);
        let children = node.into_iter().flat_map(|node| self.forest.children(node));
        children.map(|child| self.slot_of_peer(child))
    }

    /// Counts the peers that the CDN feeds.
    pub fn root_count(&self, tree: TreeId) -> u32 {
        self.tree(tree).map_or(0, Tree::root_count)
    }

    /// Counts the tree's members by depth; the first are those without a place.
    pub fn levels(&self, tree: TreeId) -> Vec<u32> {
        let Some(tree) = self.tree(tree) else {
            return Vec::new();
        };
        let deepest = usize::try_from(tree.deepest()).unwrap_or(0);
        tree.depths()[..=deepest].to_vec()
    }

    /// How much the last event made the planner do.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Counts the bytes that the planner holds.
    pub fn bytes(&self) -> Memory {
        let (trees, ids) = self.forest.bytes();
        Memory {
            trees,
            records: self.forest.peer_count() * size_of::<Peer>(),
            ids,
        }
    }

    /// Verifies every invariant of the trees.
    pub fn check(&self) -> Vec<Finding> {
        crate::check::forest(&self.forest)
    }

    /// Returns a hash of who takes what from whom.
    pub fn state_hash(&self) -> u64 {
        let mut bytes = Vec::new();
        for (id, peer) in self.forest.peers() {
            for node in self.forest.nodes_of(peer) {
                let record = self.forest.node(node);
                let TreeKey { track, stripe } = self.forest.tree_of(node).key;
                bytes.extend(id.0.to_le_bytes());
                bytes.extend(track.0.to_le_bytes());
                bytes.push(stripe);
                bytes.extend(record.depth().to_le_bytes());
                bytes.push(u8::from(record.is_warm()));
                match record.place() {
                    Place::Under(parent) => bytes.extend(self.forest.id_of(parent).0.to_le_bytes()),
                    Place::Cdn => bytes.push(1),
                    Place::Nowhere => bytes.push(0),
                }
            }
        }
        XxHash3_64::oneshot(&bytes)
    }

    fn pass_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.forest.pass_time(self.now);
    }

    fn settle(&mut self) {
        self.forest.settle(self.now);
        self.work = self.forest.take_work();
    }

    fn peer(&self, slot: PeerSlot) -> Option<PeerRef> {
        self.forest.peer_at(slot.0)
    }

    fn id(&self, slot: PeerSlot) -> Option<PeerId> {
        self.peer(slot).map(|peer| self.forest.peer(peer).id)
    }

    fn tree(&self, TreeId { track, stripe }: TreeId) -> Option<&Tree> {
        self.forest.find_tree(TreeKey { track, stripe })
    }

    fn node(&self, slot: PeerSlot, TreeId { track, stripe }: TreeId) -> Option<NodeRef> {
        self.forest
            .node_of(self.peer(slot)?, TreeKey { track, stripe })
    }

    fn source_of(&self, node: &Node) -> Option<SourceSlot> {
        self.source_at(node.place())
    }

    fn source_at(&self, place: Place) -> Option<SourceSlot> {
        match place {
            Place::Nowhere => None,
            Place::Cdn => Some(SourceSlot::Cdn),
            Place::Under(parent) => Some(self.slot_of(parent)),
        }
    }

    fn slot_of(&self, node: NodeRef) -> SourceSlot {
        SourceSlot::Peer(self.slot_of_peer(node))
    }

    fn slot_of_peer(&self, node: NodeRef) -> PeerSlot {
        PeerSlot(self.forest.node(node).peer.0)
    }
}

fn left(peer: PeerSlot, tree: TreeId) -> EdgeChange {
    EdgeChange {
        peer,
        tree,
        source: None,
        standby: None,
        planned: false,
    }
}

fn id_of(tree: &Tree) -> TreeId {
    let TreeKey { track, stripe } = tree.key;
    TreeId { track, stripe }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyDraft;

    const TREE: TreeId = TreeId {
        track: TrackIndex(0),
        stripe: 0,
    };

    fn planner() -> Planner {
        let track = TrackInfo {
            index: TrackIndex(0),
            name: "v0".parse().unwrap(),
            rate_bps: 1_000_000,
            default: true,
        };
        let policy = Policy::validate(&PolicyDraft::default()).unwrap();
        Planner::new(policy, &[track], Duration::ZERO)
    }

    fn newcomer(id: u64, upload_bps: u64) -> Newcomer {
        let role = if upload_bps > 0 {
            PeerRole::Contributor
        } else {
            PeerRole::Consumer
        };
        Newcomer {
            id: PeerId(id),
            role,
            upload_bps,
            profile: PeerProfile::default(),
            wanted: Vec::new(),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn changes_say_where_everybody_is_and_slots_are_used_again() {
        let mut planner = planner();
        let root = planner.join(newcomer(1, 10_000_000), at(0));
        planner.arrived(root, TREE, at(1));
        let child = planner.join(newcomer(2, 0), at(2));
        planner.arrived(child, TREE, at(3));
        let mut changes = Vec::new();
        planner.take_changes(&mut changes);
        let sources: Vec<_> = changes.iter().map(|c| (c.peer, c.source)).collect();
        assert!(sources.contains(&(root, Some(SourceSlot::Cdn))));
        assert!(sources.contains(&(child, Some(SourceSlot::Peer(root)))));
        assert_eq!(planner.children(root, TREE).collect::<Vec<_>>(), [child]);
        assert_eq!(
            (planner.depth(child, TREE), planner.root_count(TREE)),
            (2, 1)
        );
        assert_eq!(planner.levels(TREE), [0, 1, 1]);

        planner.leave(&[root], at(4));
        changes.clear();
        planner.take_changes(&mut changes);
        let moved = changes.iter().find(|change| change.peer == child).unwrap();
        assert_eq!(
            (moved.source, moved.planned),
            (Some(SourceSlot::Cdn), false)
        );
        let left = |change: &EdgeChange| change.peer == root && change.source.is_none();
        assert!(changes.iter().any(left));
        assert_eq!(planner.join(newcomer(3, 0), at(5)), root);
        assert_eq!(planner.check(), []);
    }

    #[test]
    fn a_move_from_a_source_that_was_fine_is_planned() {
        let mut planner = planner();
        let first = planner.join(newcomer(1, 10_000_000), at(0));
        let second = planner.join(newcomer(2, 10_000_000), at(0));
        // Neither could serve yet, so the CDN feeds both.
        assert_eq!(planner.root_count(TREE), 2);
        let mut changes = Vec::new();
        planner.take_changes(&mut changes);
        changes.clear();
        planner.arrived(first, TREE, at(1));
        planner.take_changes(&mut changes);
        planner.arrived(second, TREE, at(1));
        for second in 2..60 {
            planner.tick(at(second));
            planner.take_changes(&mut changes);
        }
        let moved: Vec<_> = changes.iter().filter(|change| change.planned).collect();
        assert_eq!(moved.len(), 1, "{changes:?}");
        assert_eq!(planner.root_count(TREE), 1);
    }

    /// A small generator; the audience is the same in every run.
    struct Lots(u64);

    impl Lots {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % limit
        }
    }

    /// An audience that is never at rest: who joins arrives two seconds later, and each second some leave.
    fn play(seconds: u64, each_second: u64, stay: u64) -> (Planner, Vec<PeerSlot>) {
        let mut planner = planner();
        let mut lots = Lots(7);
        let mut here: Vec<PeerSlot> = Vec::new();
        let mut to_arrive: Vec<(u64, PeerSlot)> = Vec::new();
        let mut changes = Vec::new();
        for second in 1..=seconds {
            for number in 0..each_second {
                let upload = [0, 0, 1, 2, 4, 8, 9][usize::try_from(lots.below(7)).unwrap()];
                let mut newcomer = newcomer(second * 1000 + number, upload * 1_250_000);
                let locality = &mut newcomer.profile.locality;
                locality.region = u16::try_from(lots.below(3)).unwrap();
                locality.lan = lots.below(4000);
                let slot = planner.join(newcomer, at(second));
                here.push(slot);
            }
            while u64::try_from(here.len()).unwrap() > stay {
                let gone = usize::try_from(lots.below(stay)).unwrap();
                let slot = here.swap_remove(gone);
                to_arrive.retain(|(_, other)| *other != slot);
                planner.leave(&[slot], at(second));
            }
            planner.tick(at(second));
            changes.clear();
            planner.take_changes(&mut changes);
            for change in &changes {
                to_arrive.retain(|(_, other)| *other != change.peer);
                if change.source.is_some() {
                    to_arrive.push((second + 2, change.peer));
                }
            }
            let (due, later) = to_arrive.into_iter().partition(|(when, _)| *when <= second);
            to_arrive = later;
            let due: Vec<(u64, PeerSlot)> = due;
            for (_, slot) in due {
                planner.arrived(slot, TREE, at(second));
            }
            assert_eq!(planner.check(), [], "second {second}");
        }
        (planner, here)
    }

    #[test]
    fn a_large_audience_that_comes_and_goes_has_legal_and_shallow_trees() {
        let (planner, here) = play(240, 20, 600);
        let levels = planner.levels(TREE);
        let nodes = levels.iter().sum::<u32>();
        assert_eq!(nodes as usize, here.len());
        assert!(levels.len() <= 8, "{levels:?}");
        assert!(planner.root_count(TREE) <= 2, "{levels:?}");
    }

    #[test]
    fn a_planner_from_a_snapshot_has_the_same_trees_and_so_has_another() {
        let (live, _) = play(60, 20, 400);
        let snapshot = live.snapshot();
        let rebuilt = || Planner::from_snapshot(&snapshot, at(60)).unwrap();
        let (mut one, mut other) = (rebuilt(), rebuilt());
        assert_eq!(one.check(), []);
        assert_eq!(one.state_hash(), live.state_hash());
        assert_eq!(one.snapshot(), snapshot, "and says the same of itself");
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        let mut changes = Vec::new();
        one.take_changes(&mut changes);
        assert_eq!(changes, [], "nobody has moved");
        // Both go on the same.
        for planner in [&mut one, &mut other] {
            for number in 0..50 {
                let slot = planner.join(newcomer(900_000 + number, 5_000_000), at(61));
                planner.arrived(slot, TREE, at(62));
            }
            (63..90).for_each(|second| planner.tick(at(second)));
            assert_eq!(planner.check(), []);
        }
        assert_eq!(one.state_hash(), other.state_hash());
        assert_ne!(one.state_hash(), live.state_hash());
    }

    #[test]
    fn the_same_calls_give_the_same_trees() {
        let hash = || play(60, 20, 400).0.state_hash();
        assert_eq!(hash(), hash());
    }
}
