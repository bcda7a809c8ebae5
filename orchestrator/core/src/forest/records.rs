//! A node as its record has it.

use super::Forest;
use super::node::{NodeRef, Place};
use crate::state::Edge;

impl Forest {
    /// Returns what the next entry would say of the node's edge; nothing of a node without a place.
    pub(crate) fn edge_of(&self, node: NodeRef) -> Option<Edge> {
        let record = self.node(node);
        let source = self.source_at(record.place())?;
        let former = self.former(node);
        let held = self.holds.get(&node).copied();
        let before = self.decided(node);
        Some(Edge {
            source,
            moving_from: former.and_then(|former| self.source_at(former.place)),
            evicted: former.is_some_and(|former| former.evicted),
            successor: record
                .successor
                .get()
                .map(|successor| self.id_of(successor)),
            warm: record.is_warm(),
            deadline: self.deadline(node),
            // A hold that is over is forgotten here, and stands in the record as it was.
            hold_until: held
                .or(before.map(|before| before.hold_until))
                .unwrap_or_default(),
            root_since: match record.place() {
                Place::Cdn => self.root_since.get(&node).copied().unwrap_or_default(),
                Place::Under(_) | Place::Nowhere => 0,
            },
        })
    }
}
