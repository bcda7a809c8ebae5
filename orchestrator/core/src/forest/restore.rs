//! The forest again, from its records: every edge as it was, indices and labels made anew.
//!
//! Records say who hangs where; children, depths, heights, reservations and indices follow from that.
//! Invariants: equal records make equal forests; nothing is planned, but that a node whose way to the CDN
//! does not end there (which no planner decides) becomes a root; any records are borne with.
//!
//! It is made in one pass over the records, and nodes lie in the order of their peers' ids.

mod layout;

use core::time::Duration;

use super::node::{Flags, Former, Link, Node, NodeRef, Peer, PeerRef, Place, TreeKey, count};
use super::{Forest, Tree};
use crate::ids::{PeerId, Source};
use crate::state::{ChannelState, EdgeRecord, PeerRecord, TrackRecord};
use layout::{Layout, Reading, moving_from};

impl Forest {
    /// Makes the forest that these records describe. Nobody has a session.
    pub(crate) fn restore(state: &ChannelState, now: Duration) -> Self {
        let mut forest = Self::new(state.policy().clone());
        forest.pairs = state.pairs().clone();
        for track in state.tracks() {
            forest.restore_tree(track, now);
        }
        let mut reading = Reading::with_capacity(state.peer_count());
        for (peer, record) in state.peers() {
            for known in forest.planned(record) {
                reading.push(peer, forest.slot_of(known), &known.edge);
            }
        }
        let layout = reading.into_layout();
        forest.restore_nodes(state, &layout, now);
        forest.restore_formers(&layout);
        forest.restore_successors(&layout);
        forest.restore_indices(&layout);
        forest.newest_root = (forest.roots_so_far, now);
        // Alarms about these roots are out already.
        forest.crossings().clear();
        forest
    }

    fn restore_tree(&mut self, record: &TrackRecord, now: Duration) {
        for stripe in 0..self.policy.stripes() {
            let track = record.index;
            let key = TreeKey { track, stripe };
            let mut tree = Tree::new(key, record.name.clone(), record.default);
            (tree.rate_bps, tree.measured) = (record.rate_bps, record.measured);
            // Whoever has just come to it lets it come to rest first.
            (tree.improved, tree.shaken, tree.credited) = (now, now, now);
            self.plant(tree);
        }
    }

    /// The peer's places in trees that there are.
    fn planned<'a>(&self, record: &'a PeerRecord) -> impl Iterator<Item = &'a EdgeRecord> {
        record.edges.iter().filter(|known| {
            let (track, stripe) = (known.track, known.stripe);
            self.by_key.contains_key(&TreeKey { track, stripe })
        })
    }

    fn slot_of(&self, known: &EdgeRecord) -> u8 {
        let (track, stripe) = (known.track, known.stripe);
        self.by_key[&TreeKey { track, stripe }]
    }

    /// Makes every peer and every node, in the order in which they were read.
    fn restore_nodes(&mut self, state: &ChannelState, layout: &Layout, now: Duration) {
        let mut number = 0;
        self.by_id.reserve(state.peer_count());
        self.peers.reserve(state.peer_count());
        self.nodes.reserve(state.peer_count());
        let mut stranded = Vec::new();
        for (id, record) in state.peers() {
            let at = PeerRef(count(self.peers.len()));
            self.peers.push(Some(restored_peer(id, record)));
            self.by_id.insert(id, at);
            self.move_in(at);
            let mut before = None;
            for known in self.planned(record).collect::<Vec<_>>() {
                let tree = self.slot_of(known);
                let node = NodeRef(number);
                let mut made = restored_node(at, tree, known, number, layout);
                made.born = super::nodes::tenths(record.offer.joined_at);
                made.set_area(self.area_of(at));
                made.flags.set(Flags::HOUSED, self.is_housed(at));
                self.nodes.push(made);
                self.decided.push(Some(known.edge));
                match before.replace(node) {
                    None => self.peer_mut(at).first_node = Link::to(node),
                    Some(before) => {
                        self.node_mut(before).next_of_peer = Link::to(node);
                        self.node_mut(before).set_one_of_several(true);
                        self.node_mut(node).set_one_of_several(true);
                    }
                }
                if layout.is_stranded(number) {
                    stranded.push(node);
                } else {
                    self.restore_sides(node, known, now);
                }
                number += 1;
            }
        }
        for node in stranded {
            self.roots_so_far += 1;
            self.root_since.insert(node, self.roots_so_far);
            self.changed(node);
        }
    }

    /// What lies beside a node's record: its move from the CDN, its deadline, its hold, its number as a root.
    fn restore_sides(&mut self, node: NodeRef, known: &EdgeRecord, now: Duration) {
        let edge = known.edge;
        if let Some(deadline) = edge.deadline {
            self.deadlines.insert(node, deadline);
            self.due.insert((deadline, node));
            self.node_mut(node).flags.set(Flags::TIMED, true);
        }
        if edge.hold_until > now {
            self.holds.insert(node, edge.hold_until);
            self.hold_ends.insert((edge.hold_until, node));
            self.node_mut(node).flags.set(Flags::HELD, true);
        }
        if edge.source == Source::Cdn {
            self.root_since.insert(node, edge.root_since);
            self.roots_so_far = self.roots_so_far.max(edge.root_since);
        }
        if moving_from(&edge) == Some(Source::Cdn) {
            let place = Place::Cdn;
            let evicted = edge.evicted;
            self.formers.insert(node, Former { place, evicted });
            self.node_mut(node).flags.set(Flags::MOVING, true);
        }
    }

    fn restore_formers(&mut self, layout: &Layout) {
        for (node, from) in &layout.formers {
            if layout.is_stranded(*node) {
                continue;
            }
            let (node, from) = (NodeRef(*node), NodeRef(*from));
            let evicted = self.decided(node).is_some_and(|edge| edge.evicted);
            let place = Place::Under(from);
            self.formers.insert(node, Former { place, evicted });
            self.node_mut(node).flags.set(Flags::MOVING, true);
            self.leaving.insert((from, node));
            self.node_mut(from).leaving += 1;
        }
    }

    /// Reserves a slot for each child at the parent's successor. Who has no children needs none.
    fn restore_successors(&mut self, layout: &Layout) {
        for (node, successor) in &layout.successors {
            let (node, successor) = (NodeRef(*node), NodeRef(*successor));
            let need = self.node(node).children;
            if need == 0 {
                self.changed(node);
                continue;
            }
            let after = self.node_mut(successor);
            let others = core::mem::replace(&mut after.protects, Link::to(node));
            after.pledged += need;
            let tree = after.tree;
            self.tree_mut(tree).pledged += u32::from(need);
            let record = self.node_mut(node);
            record.successor = Link::to(successor);
            record.reserved = need;
            record.next_protected = others;
        }
    }

    /// Nobody has a session, so nobody is open to new children.
    fn restore_indices(&mut self, layout: &Layout) {
        for number in 0..count(self.nodes.len()) {
            let node = NodeRef(number);
            let record = self.node(node);
            let (tree, depth, place) = (record.tree, record.depth, record.place());
            let born = u64::from(record.born);
            self.note_unprotected(node);
            let in_tree = self.tree_mut(tree);
            in_tree.members += 1;
            in_tree.births += born;
            in_tree.count_depth(0, depth);
            for (child, next) in layout.children(number).zip(layout.children(number).skip(1)) {
                self.node_mut(NodeRef(child)).next_sibling = Link::to(NodeRef(next));
                self.node_mut(NodeRef(next)).previous_sibling = Link::to(NodeRef(child));
            }
            if place == Place::Cdn {
                self.enroot(node);
            }
        }
        for number in 0..count(self.peers.len()) {
            self.refresh_peer(PeerRef(number));
        }
    }
}

fn restored_peer(id: PeerId, record: &PeerRecord) -> Peer {
    let offer = &record.offer;
    Peer {
        id,
        role: offer.role,
        upload_bps: offer.upload_bps,
        profile: offer.profile,
        session: false,
        quarantined: false,
        distrusted: false,
        shunned_until: None,
        wanted: offer.wanted.clone(),
        joined_at: offer.joined_at,
        first_node: Link::NONE,
        housemates: [None; 2],
    }
}

/// Makes a node as its record has it, but for other nodes that it names beside its parent.
fn restored_node(
    peer: PeerRef,
    tree: u8,
    known: &EdgeRecord,
    number: u32,
    layout: &Layout,
) -> Node {
    let parent = layout.parent(number).map(NodeRef);
    let mut node = Node::new(peer, tree);
    node.source = parent.map_or(Place::Cdn, Place::Under).into();
    let mut children = layout.children(number).map(NodeRef);
    node.first_child = children.next().into();
    let others = u16::try_from(children.count()).unwrap_or(u16::MAX);
    node.children = others + u16::from(node.first_child != Link::NONE);
    node.depth = u8::try_from(layout.depth(number)).unwrap_or(u8::MAX);
    node.flags.set(Flags::WARM, known.edge.warm);
    node
}
