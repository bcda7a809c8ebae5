//! Who takes over: each interior node's successor, outside its subtree, with its budget reserved.
//!
//! A successor is the oldest bench leaf of the right capacity if there is one (its whole budget is free), else
//! an interior node with room. A reservation never keeps a child out: a slot is taken from it when the tree
//! would grow deeper or need another root otherwise. Interior nodes without a successor are asked for again, a
//! few per event; until then their children's standby is the CDN.

use super::Forest;
use super::index::{BENCH, BENCHES, INTERIOR, bench_of};
use super::node::{Flags, Link, NodeRef};

/// Candidates that one search looks at.
const MOST_EXAMINED: u32 = 32;
/// Interior nodes that one event tries to protect.
const MOST_PROTECTED: usize = 4;

impl Forest {
    /// Frees what the node's successor has reserved for it.
    pub(super) fn release_successor(&mut self, node: NodeRef) {
        let record = self.node_mut(node);
        let reserved = core::mem::take(&mut record.reserved);
        let successor = core::mem::replace(&mut record.successor, Link::NONE);
        let Some(successor) = successor.get() else {
            return;
        };
        self.unlink_protected(successor, node);
        self.node_mut(successor).pledged -= reserved;
        self.standbys_changed(node);
        self.touched_by_node(successor);
        self.changed(node);
        self.edges_changed(successor);
        self.note_unprotected(node);
    }

    pub(super) fn note_unprotected(&mut self, node: NodeRef) {
        let record = self.node_mut(node);
        let bare = record.successor == Link::NONE && record.children > 0;
        let was_bare = record.flags.has(Flags::UNPROTECTED);
        if bare == was_bare {
            return;
        }
        record.flags.set(Flags::UNPROTECTED, bare);
        let tree = record.tree;
        let tree = self.tree_mut(tree);
        if bare {
            tree.bare += 1;
            tree.unprotected.push_back(node);
        } else {
            tree.bare -= 1;
        }
    }

    fn standbys_changed(&mut self, node: NodeRef) {
        let mut next = self.node(node).first_child.get();
        while let Some(child) = next {
            next = self.node(child).next_sibling.get();
            self.touched_by_node(child);
        }
    }

    /// Keeps a slot reserved for each of the node's children, or gives the successor up.
    pub(super) fn fit_reservation(&mut self, node: NodeRef) {
        let record = self.node(node);
        let (need, reserved) = (record.children, record.reserved);
        if let Some(successor) = record.successor.get() {
            let more = need.saturating_sub(reserved);
            if need == 0 || self.free(successor) < u32::from(more) {
                self.release_successor(node);
            } else {
                // A child more or less is told to the successor, which accepts its link.
                self.touched_by_node(successor);
                if more > 0 {
                    self.node_mut(node).reserved = need;
                    self.node_mut(successor).pledged += more;
                    self.edges_changed(successor);
                }
            }
        }
        self.note_unprotected(node);
    }

    /// Releases the successors that a subtree's move has brought below those whom they protect.
    pub(super) fn drop_captured_successors(&mut self, moved: NodeRef, parent: NodeRef) {
        let record = self.node(moved);
        if record.children == 0 && record.protects == Link::NONE {
            return;
        }
        let mut at = Some(parent);
        while let Some(node) = at {
            let record = self.node(node);
            at = record.parent();
            let successor = record.successor.get();
            if successor.is_some_and(|successor| self.is_within(successor, moved)) {
                self.release_successor(node);
            }
        }
    }

    /// Finds successors for a few of the interior nodes that lack one.
    pub(crate) fn protect(&mut self) {
        for tree in self.tree_slots() {
            self.protect_in(tree);
        }
    }

    fn protect_in(&mut self, tree: u8) {
        let mut tried = 0;
        let waiting = self.tree(tree).unprotected.len();
        for _ in 0..waiting.min(2 * MOST_PROTECTED) {
            if tried == MOST_PROTECTED {
                return;
            }
            let Some(node) = self.tree_mut(tree).unprotected.pop_front() else {
                return;
            };
            let record = self.node(node);
            if record.tree != tree || !record.flags.has(Flags::UNPROTECTED) {
                continue;
            }
            tried += 1;
            match self.find_successor(node) {
                Some(successor) => self.appoint(node, successor),
                None => self.tree_mut(tree).unprotected.push_back(node),
            }
        }
    }

    /// Makes `successor` the one who takes over the node's children. It must have the room.
    pub(super) fn appoint(&mut self, node: NodeRef, successor: NodeRef) {
        let record = self.node(node);
        // Room for those who may yet come to the node, if there is any, so that they change nothing here.
        let spare = u32::from(record.capacity).min(self.free(successor));
        let need = u32::from(record.children).max(spare);
        let need = u16::try_from(need).unwrap_or(u16::MAX);
        let after = self.node_mut(successor);
        after.pledged += need;
        let others = core::mem::replace(&mut after.protects, Link::to(node));
        let record = self.node_mut(node);
        record.successor = Link::to(successor);
        record.reserved = need;
        record.next_protected = others;
        self.standbys_changed(node);
        self.touched_by_node(successor);
        self.changed(node);
        self.edges_changed(successor);
        self.note_unprotected(node);
    }

    /// Whether `successor` may take over all of the node's children.
    pub(super) fn succeeds(&self, successor: NodeRef, node: NodeRef) -> bool {
        let record = self.node(node);
        let after = self.node(successor);
        after.serves()
            && after.free() >= u32::from(record.children)
            && record.children > 0
            && !self.is_within(successor, node)
            && self
                .children(node)
                .all(|child| self.node(child).peer != after.peer && self.may_meet(child, successor))
    }

    /// Looks at the bench, the strongest and oldest first, then at the deepest interior nodes with room: the
    /// shallow ones are the next newcomers' parents. Prefers one that does not depend on the node's own
    /// parent, so that it survives both.
    pub(super) fn find_successor(&mut self, node: NodeRef) -> Option<NodeRef> {
        let record = self.node(node);
        let (parent, tree) = (record.parent(), record.tree);
        let need = record.children;
        let own = record.area() & !1;
        let index = &self.tree(tree).index;
        let mut examined = 0;
        let mut second = None;
        'areas: for near in [true, false] {
            for area in 0..index.area_count() {
                if (area & !1 == own) != near {
                    continue;
                }
                for class in (bench_of(need)..=BENCHES).chain([INTERIOR]) {
                    let mut deepest = self.tree(tree).deepest();
                    while deepest > 0 {
                        let depth = deepest;
                        deepest -= 1;
                        if index.classes(area, depth) & 1 << class == 0 {
                            continue;
                        }
                        let mut at = index.first(area, depth, class);
                        while let Some(candidate) = at {
                            at = self.node(candidate).next_listed.get();
                            examined += 1;
                            if self.succeeds(candidate, node) {
                                let entangled =
                                    parent.is_some_and(|parent| self.is_within(candidate, parent));
                                if !entangled {
                                    self.work.examined += examined;
                                    return Some(candidate);
                                }
                                second = second.or(Some(candidate));
                            }
                            if examined >= MOST_EXAMINED {
                                break 'areas;
                            }
                            // The oldest few of each list are enough.
                            if class >= BENCH && examined % 4 == 0 {
                                break;
                            }
                        }
                    }
                }
            }
        }
        self.work.examined += examined;
        second
    }
}
