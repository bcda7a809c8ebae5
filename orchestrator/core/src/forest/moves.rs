//! Moves: make before break.
//!
//! A move reserves the new edge and keeps the old one, which costs its parent what it did, until the
//! child reports that data flows from the new source. A move that does not arrive is taken back.
//!
//! ```text
//!   at P ──move_to(Q)──► at Q, formerly P ──arrived──► at Q
//!     ▲                        │
//!     └──────── go_back ◄──────┘  (the link failed, or PATIENCE is over)
//! ```

use core::time::Duration;

use super::Forest;
use super::node::{Flow, Former, NodeRef, Place};
use crate::ids::Source;

/// How long a join or a move may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// How long a node whose move failed is left where it is.
const HOLD: Duration = Duration::from_secs(30);
/// The same for one that the CDN feeds because of that: the pair rests, so that the next attempt is
/// another parent's, and each second at the CDN costs.
const HOLD_AT_CDN: Duration = Duration::from_secs(3);
/// How long two peers that could not connect are not tried again.
const APART: Duration = Duration::from_secs(60);
/// Deadlines that one event works off; the others follow at the next tick.
const MOST_GIVEN_UP: usize = 32;

impl Forest {
    pub(super) fn set_deadline(&mut self, node: NodeRef, deadline: Option<Duration>) {
        let old = core::mem::replace(&mut self.node_mut(node).deadline, deadline);
        self.noted(node);
        old.map(|old| self.deadlines.remove(&(old, node)));
        deadline.map(|new| self.deadlines.insert((new, node)));
    }

    pub(super) fn set_former(&mut self, node: NodeRef, former: Former) {
        self.node_mut(node).former = Some(former);
        if let Place::Under(parent) = former.place {
            self.node_mut(parent).leaving.insert(node);
            self.touched_by_node(parent);
            self.reindex_peer(self.node(parent).peer);
        }
        self.changed(node);
    }

    pub(super) fn release_former(&mut self, node: NodeRef) {
        let Some(former) = self.node_mut(node).former.take() else {
            return;
        };
        if let Place::Under(parent) = former.place {
            self.node_mut(parent).leaving.remove(&node);
            self.touched_by_node(parent);
            self.reindex_peer(self.node(parent).peer);
        }
        self.changed(node);
    }

    /// Begins a move; where the data flows from now is kept meanwhile. The caller has made sure that
    /// the new place is legal.
    pub(super) fn move_to(&mut self, node: NodeRef, to: Place, evicted: bool, now: Duration) {
        let record = self.node(node);
        let (from, flows) = (record.source, record.warm || record.source == Place::Cdn);
        let first = record.former.is_none();
        self.detach(node);
        if first && flows {
            self.set_former(
                node,
                Former {
                    place: from,
                    evicted,
                },
            );
        }
        if self
            .node(node)
            .former
            .is_some_and(|former| former.place == to)
        {
            self.release_former(node);
        }
        match to {
            Place::Under(parent) => self.take_slot(node, Some(parent), now),
            Place::Cdn | Place::Nowhere => {
                self.take_slot(node, None, now);
                let moving = self.node(node).former.is_some();
                self.set_deadline(node, moving.then_some(now + PATIENCE));
            }
        }
    }

    /// Data flows from the node's source.
    pub(crate) fn arrived(&mut self, node: NodeRef) {
        self.release_former(node);
        self.set_deadline(node, None);
        self.warm_up(node);
        self.node_mut(node).flow = Flow::Flowing;
        self.reindex_peer(self.node(node).peer);
    }

    /// Takes in where the peer says that its data flows from.
    pub(crate) fn say(&mut self, node: NodeRef, said: Option<Source>) {
        self.node_mut(node).said = said;
    }

    /// Ends the joins and moves of this event to where the peers have said that they are already.
    pub(crate) fn believe(&mut self) {
        let nodes: Vec<_> = self.changes.nodes.iter().copied().collect();
        for node in nodes {
            let record = self.node(node);
            let there = record.said.is_some() && record.said == self.source_at(record.source);
            if there && (record.former.is_some() || !record.warm) {
                self.arrived(node);
            }
        }
    }

    /// Takes a move back: to the old source if it still has the slot, else to the CDN.
    pub(super) fn go_back(&mut self, node: NodeRef, now: Duration) {
        let former = self.node(node).former;
        self.release_former(node);
        if self.node(node).source != Place::Nowhere {
            self.detach(node);
        }
        let parent = former
            .filter(|former| !former.evicted)
            .map(|former| former.place);
        match parent {
            Some(Place::Under(parent)) if self.fits(parent, node) => {
                self.make_room(parent);
                self.attach(node, Place::Under(parent));
            }
            Some(Place::Under(_) | Place::Cdn | Place::Nowhere) | None => {
                self.attach(node, Place::Cdn);
            }
        }
        self.set_deadline(node, None);
        let hold = match self.node(node).source {
            Place::Cdn => HOLD_AT_CDN,
            Place::Under(_) | Place::Nowhere => HOLD,
        };
        self.hold(node, now + hold);
    }

    pub(super) fn hold(&mut self, node: NodeRef, until: Duration) {
        self.node_mut(node).hold_until = until;
        self.noted(node);
    }

    /// Ends the joins and moves whose time is over.
    pub(crate) fn give_up(&mut self, now: Duration) {
        let due = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(MOST_GIVEN_UP);
        let due: Vec<_> = due.map(|(_, node)| *node).collect();
        for node in due {
            // What was decided for an earlier one may have settled this one too.
            if self.node(node).deadline.is_some_and(|at| at <= now) {
                self.give_up_on(node, now);
            }
        }
    }

    fn give_up_on(&mut self, node: NodeRef, now: Duration) {
        self.set_deadline(node, None);
        let parent = match self.node(node).source {
            Place::Under(parent) => Some(parent),
            Place::Cdn | Place::Nowhere => None,
        };
        match parent {
            // A peer that cannot be told anything is where its own reflexes took it.
            Some(parent) if self.peer(self.node(node).peer).session => {
                self.part(self.id_of(parent), self.id_of(node), now + APART);
                if self.node(node).former.is_some() {
                    self.go_back(node, now);
                } else if !self.node(node).warm {
                    self.detach(node);
                    let slot = self.find_slot(node);
                    self.take_slot(node, slot, now);
                }
            }
            Some(_) | None => self.release_former(node),
        }
    }
}
