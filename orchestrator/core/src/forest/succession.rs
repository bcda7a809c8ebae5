//! Who takes over: each interior node's successor, outside its subtree, with its budget reserved.
//!
//! A successor is a bench leaf if there is one (its whole budget is free), else an interior node with
//! room. A reservation never keeps a child out: a slot is taken from it when the tree would grow
//! deeper or need another root otherwise. Interior nodes without a successor are asked for again, a
//! few per event; until then their children's standby is the CDN.

use super::Forest;
use super::node::{NodeRef, OpenClass, Place, count, turn};

/// Candidates that one search looks at.
const MOST_EXAMINED: usize = 32;
/// Interior nodes that one event tries to protect.
const MOST_PROTECTED: usize = 4;

impl Forest {
    /// Frees what the node's successor has reserved for it.
    pub(super) fn release_successor(&mut self, node: NodeRef) {
        let record = self.node_mut(node);
        let reserved = core::mem::take(&mut record.reserved);
        let Some(successor) = record.successor.take() else {
            return;
        };
        let after = self.node_mut(successor);
        after.protects.remove(&node);
        after.pledged -= reserved;
        self.standbys_changed(node);
        self.touched_by_node(successor);
        self.changed(node);
        self.reindex_peer(self.node(successor).peer);
        self.note_unprotected(node);
    }

    fn note_unprotected(&mut self, node: NodeRef) {
        let record = self.node(node);
        let (track, bare) = (record.track, record.successor.is_none());
        let bare = bare && !record.children.is_empty();
        let tree = self.tree_mut(track);
        if bare {
            tree.unprotected.insert(node);
        } else {
            tree.unprotected.remove(&node);
        }
    }

    fn standbys_changed(&mut self, node: NodeRef) {
        let children: Vec<_> = self.node(node).children.iter().copied().collect();
        for child in children {
            self.touched_by_node(child);
        }
    }

    /// Keeps one slot reserved for each of the node's children, or gives the successor up.
    pub(super) fn fit_reservation(&mut self, node: NodeRef) {
        let record = self.node(node);
        let (need, reserved) = (count(record.children.len()), record.reserved);
        if let Some(successor) = record.successor {
            let more = need.saturating_sub(reserved);
            if need == 0 || self.free(successor) < more {
                self.release_successor(node);
            } else {
                self.node_mut(node).reserved = need;
                let after = self.node_mut(successor);
                after.pledged = after.pledged + need - reserved;
                self.touched_by_node(successor);
                self.reindex_peer(self.node(successor).peer);
            }
        }
        self.note_unprotected(node);
    }

    /// Releases the successors that a subtree's move has brought below those whom they protect.
    pub(super) fn drop_captured_successors(&mut self, moved: NodeRef, parent: NodeRef) {
        let above: Vec<_> = self.upwards(parent).collect();
        for node in above {
            let successor = self.node(node).successor;
            if successor.is_some_and(|successor| self.is_within(successor, moved)) {
                self.release_successor(node);
            }
        }
    }

    /// Finds successors for a few of the interior nodes that lack one.
    pub(crate) fn protect(&mut self) {
        let tracks: Vec<_> = self.trees.keys().copied().collect();
        for track in tracks {
            let tree = self.tree(track);
            let turn: Vec<_> = turn(&tree.unprotected, tree.protect_cursor)
                .take(MOST_PROTECTED)
                .collect();
            self.tree_mut(track).protect_cursor = turn.last().copied();
            for node in turn {
                if let Some(successor) = self.find_successor(node) {
                    self.appoint(node, successor);
                }
            }
        }
    }

    /// Makes `successor` the one who takes over the node's children. It must have the room.
    pub(super) fn appoint(&mut self, node: NodeRef, successor: NodeRef) {
        let need = count(self.node(node).children.len());
        let record = self.node_mut(node);
        record.successor = Some(successor);
        record.reserved = need;
        let after = self.node_mut(successor);
        after.protects.insert(node);
        after.pledged += need;
        self.standbys_changed(node);
        self.touched_by_node(successor);
        self.changed(node);
        self.reindex_peer(self.node(successor).peer);
        self.note_unprotected(node);
    }

    /// Whether `successor` may take over all of the node's children.
    pub(super) fn succeeds(&self, successor: NodeRef, node: NodeRef) -> bool {
        let record = self.node(node);
        self.serves(successor)
            && self.free(successor) >= count(record.children.len())
            && !self.is_within(successor, node)
            && !record.children.is_empty()
            && record.children.iter().all(|child| {
                self.node(*child).peer != self.node(successor).peer
                    && self
                        .pairs
                        .allowed(self.id_of(*child), self.id_of(successor))
            })
    }

    /// Looks among the deepest open nodes: the shallow ones are the next newcomers' parents. Prefers
    /// one that does not depend on the node's own parent, so that it survives both.
    fn find_successor(&mut self, node: NodeRef) -> Option<NodeRef> {
        let record = self.node(node);
        let parent = match record.source {
            Place::Under(parent) => Some(parent),
            Place::Cdn | Place::Nowhere => None,
        };
        let mut best = None;
        let mut examined = 0;
        for key in self
            .tree(record.track)
            .open
            .iter()
            .rev()
            .take(MOST_EXAMINED)
        {
            examined += 1;
            let rank = match key.class {
                OpenClass::Bench => 0,
                OpenClass::Interior => 1,
                OpenClass::Reserved | OpenClass::Distrusted => continue,
            };
            if !self.succeeds(key.node, node) {
                continue;
            }
            let entangled = parent.is_some_and(|parent| self.is_within(key.node, parent));
            let score = (rank, entangled);
            if best.is_none_or(|(found, _)| score < found) {
                best = Some((score, key.node));
            }
            if score == (0, false) {
                break;
            }
        }
        self.work.examined += examined;
        best.map(|(_, successor)| successor)
    }
}
