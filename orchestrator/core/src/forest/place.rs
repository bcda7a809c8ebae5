//! Which slot: the shallowest that is legal, so that trees grow wide before deep.
//!
//! Among equals a parent that has children already is preferred to waking a bench node, and both to
//! breaking a reservation. Consumers go as deep as they can without making the tree deeper: the slots
//! above are for those who pass the stream on.
//!
//! Work per search is bounded by [`MOST_EXAMINED`] candidates, whatever the audience's size.

use super::Forest;
use super::node::{NodeRef, OpenKey, Place};
use crate::events::PeerRole;

/// Candidates that one search looks at.
const MOST_EXAMINED: usize = 64;
/// Nodes that one walk towards the CDN visits; more than a legal tree with its moves needs.
const MOST_VISITED: u32 = 512;

impl Forest {
    /// Finds the best legal parent for a node, with all that is below it.
    pub(super) fn find_slot(&mut self, node: NodeRef) -> Option<NodeRef> {
        let record = self.node(node);
        let tree = self.tree(record.track);
        let shallow_first = tree.open.iter().take(MOST_EXAMINED);
        let leaf_for_good =
            self.peer(record.peer).role == PeerRole::Consumer && record.children.is_empty();
        let mut examined = 0;
        let mut suits = |key: &&OpenKey| {
            examined += 1;
            self.serves(key.node) && self.legal(key.node, node)
        };
        let found = if leaf_for_good {
            self.deep_first(node)
                .find(&mut suits)
                .or_else(|| shallow_first.clone().find(suits))
        } else {
            shallow_first.clone().find(suits)
        };
        let found = found.map(|key| key.node);
        self.work.examined += examined;
        found
    }

    /// Open nodes that would not make the tree deeper, the deepest level first.
    fn deep_first(&self, node: NodeRef) -> impl Iterator<Item = &OpenKey> {
        let tree = self.tree(self.node(node).track);
        let levels = (1..tree.deepest()).rev();
        let keys = levels.flat_map(|depth| {
            tree.open
                .range(OpenKey::first_at(depth)..OpenKey::first_at(depth + 1))
        });
        keys.take(MOST_EXAMINED)
    }

    /// Whether the edge keeps every rule that does not depend on the moment.
    pub(super) fn legal(&self, parent: NodeRef, child: NodeRef) -> bool {
        let (above, below) = (self.node(parent), self.node(child));
        above.peer != below.peer
            && below.source != Place::Under(parent)
            && below
                .former
                .is_none_or(|former| former.place != Place::Under(parent))
            && self.fits(parent, child)
    }

    /// As [`Forest::legal`], for a child that may have been there before.
    pub(super) fn fits(&self, parent: NodeRef, child: NodeRef) -> bool {
        self.pairs.allowed(self.id_of(parent), self.id_of(child))
            && self.node(parent).depth + self.node(child).height <= self.policy.max_depth()
            && self.free_at_a_price(parent) > 0
            && self.is_clear_of(parent, child)
    }

    /// Whether the node's way to the CDN is whole and does not lead through `child`, over the edges
    /// that moves are leaving too.
    fn is_clear_of(&self, node: NodeRef, child: NodeRef) -> bool {
        let mut stack = vec![node];
        for _ in 0..MOST_VISITED {
            let Some(at) = stack.pop() else { return true };
            if at == child {
                return false;
            }
            let record = self.node(at);
            match record.source {
                Place::Nowhere => return false,
                Place::Cdn => {}
                Place::Under(parent) => stack.push(parent),
            }
            if let Some(Place::Under(parent)) = record.former.map(|former| former.place) {
                stack.push(parent);
            }
        }
        false
    }

    /// Whether the node is `top` or in its subtree.
    pub(crate) fn is_within(&self, node: NodeRef, top: NodeRef) -> bool {
        self.upwards(node).any(|at| at == top)
    }

    /// The node, its parent, and so on.
    pub(crate) fn upwards(&self, node: NodeRef) -> impl Iterator<Item = NodeRef> {
        core::iter::successors(Some(node), |at| match self.node(*at).source {
            Place::Under(parent) => Some(parent),
            Place::Cdn | Place::Nowhere => None,
        })
    }

    /// Gives a new node its first place.
    pub(super) fn place_newcomer(&mut self, node: NodeRef, now: core::time::Duration) {
        let record = self.node(node);
        let wants_roots = self.tree(record.track).root_count() < self.policy.target_roots();
        let may_be_root = self.capacity(node) > 0;
        let slot = if wants_roots && may_be_root {
            None
        } else {
            self.find_slot(node)
        };
        self.take_slot(node, slot, now);
    }

    /// Attaches a node without a place to the slot, or to the CDN.
    pub(super) fn take_slot(
        &mut self,
        node: NodeRef,
        slot: Option<NodeRef>,
        now: core::time::Duration,
    ) {
        match slot {
            Some(parent) => {
                self.make_room(parent);
                self.attach(node, Place::Under(parent));
                self.set_deadline(node, Some(now + super::moves::PATIENCE));
            }
            None => {
                self.attach(node, Place::Cdn);
                self.set_deadline(node, None);
            }
        }
    }
}
