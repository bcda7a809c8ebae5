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
use super::node::{Flags, Flow, Former, NodeRef, Place};
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
        let flags = &mut self.node_mut(node).flags;
        let was_timed = flags.has(Flags::TIMED);
        if deadline.is_none() && !was_timed {
            return;
        }
        flags.set(Flags::TIMED, deadline.is_some());
        self.noted(node);
        let old = match deadline {
            None => self.deadlines.remove(&node),
            Some(deadline) => {
                self.due.insert((deadline, node));
                self.deadlines.insert(node, deadline)
            }
        };
        if let Some(old) = old.filter(|old| Some(*old) != deadline) {
            self.due.remove(&(old, node));
        }
    }

    pub(super) fn set_former(&mut self, node: NodeRef, former: Former) {
        self.node_mut(node).flags.set(Flags::MOVING, true);
        self.formers.insert(node, former);
        if let Place::Under(parent) = former.place {
            self.leaving.insert((parent, node));
            self.node_mut(parent).leaving += 1;
            self.touched_by_node(parent);
            self.edges_changed(parent);
        }
        self.changed(node);
    }

    pub(super) fn release_former(&mut self, node: NodeRef) {
        let Some(former) = self.former(node) else {
            return;
        };
        self.node_mut(node).flags.set(Flags::MOVING, false);
        self.formers.remove(&node);
        if let Place::Under(parent) = former.place {
            self.leaving.remove(&(parent, node));
            self.node_mut(parent).leaving -= 1;
            self.touched_by_node(parent);
            self.edges_changed(parent);
        }
        self.changed(node);
    }

    /// Begins a move; where the data flows from now is kept meanwhile. The caller has made sure that
    /// the new place is legal.
    pub(super) fn move_to(&mut self, node: NodeRef, to: Place, evicted: bool, now: Duration) {
        self.leave_for_another(node, evicted);
        if self.former(node).is_some_and(|former| former.place == to) {
            self.release_former(node);
        }
        match to {
            Place::Under(parent) => self.take_slot(node, Some(parent), now),
            Place::Cdn | Place::Nowhere => {
                self.take_slot(node, None, now);
                let moving = self.node(node).is_moving();
                self.set_deadline(node, moving.then_some(now + PATIENCE));
            }
        }
    }

    /// Takes the node's source away and keeps it as the one that a move leaves.
    pub(super) fn leave_for_another(&mut self, node: NodeRef, evicted: bool) {
        let record = self.node(node);
        let (from, first) = (record.place(), !record.is_moving());
        let flows = record.is_warm() || from == Place::Cdn;
        self.detach(node);
        if first && flows {
            let place = from;
            self.set_former(node, Former { place, evicted });
        }
    }

    /// Data flows from the node's source.
    pub(crate) fn arrived(&mut self, node: NodeRef) {
        self.release_former(node);
        self.set_deadline(node, None);
        self.warm_up(node);
        self.set_flow(node, Flow::Flowing);
    }

    /// Takes in where the peer says that its data flows from.
    pub(crate) fn say(&mut self, node: NodeRef, said: Option<Source>) {
        let here = said.is_some() && said == self.source_at(self.node(node).place());
        let elsewhere = said.filter(|_| !here);
        match elsewhere {
            Some(said) => drop(self.said.insert(node, said)),
            None => drop(self.said.remove(&node)),
        }
        let flags = &mut self.node_mut(node).flags;
        flags.set(Flags::SAID_HERE, here);
        flags.set(Flags::SAID_ELSEWHERE, elsewhere.is_some());
    }

    /// Keeps the peer's word about a source that ceases to be its plan.
    pub(super) fn leave_word(&mut self, node: NodeRef) {
        let record = self.node(node);
        if record.flags.has(Flags::SAID_HERE)
            && let Some(source) = self.source_at(record.place())
        {
            self.said.insert(node, source);
            let flags = &mut self.node_mut(node).flags;
            flags.set(Flags::SAID_HERE, false);
            flags.set(Flags::SAID_ELSEWHERE, true);
        }
    }

    /// Ends the joins and moves of this event to where the peers have said that they are already.
    pub(crate) fn believe(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let nodes: Vec<_> = self.noted_nodes().collect();
        for node in nodes {
            let record = self.node(node);
            if !record.flags.has(Flags::SAID_ELSEWHERE) {
                continue;
            }
            let said = self.said.get(&node).copied();
            if said != self.source_at(record.place()) {
                continue;
            }
            let unsettled = record.is_moving() || !record.is_warm();
            self.say(node, said);
            if unsettled {
                self.arrived(node);
            }
        }
    }

    /// Takes a move back: to the old source if it still has the slot, else to the CDN.
    pub(super) fn go_back(&mut self, node: NodeRef, now: Duration) {
        let former = self.former(node);
        self.release_former(node);
        self.detach(node);
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
        let hold = match self.node(node).place() {
            Place::Cdn => HOLD_AT_CDN,
            Place::Under(_) | Place::Nowhere => HOLD,
        };
        self.hold(node, now + hold);
    }

    pub(super) fn hold(&mut self, node: NodeRef, until: Duration) {
        self.drop_hold(node);
        self.node_mut(node).flags.set(Flags::HELD, true);
        self.holds.insert(node, until);
        self.hold_ends.insert((until, node));
        self.noted(node);
    }

    pub(super) fn drop_hold(&mut self, node: NodeRef) {
        let flags = &mut self.node_mut(node).flags;
        if flags.has(Flags::HELD) {
            flags.set(Flags::HELD, false);
            if let Some(until) = self.holds.remove(&node) {
                self.hold_ends.remove(&(until, node));
            }
        }
    }

    /// Whether the node must be left where it is.
    pub(super) fn is_held(&self, node: NodeRef, now: Duration) -> bool {
        let held = self.node(node).flags.has(Flags::HELD);
        held && self.holds.get(&node).is_some_and(|until| *until > now)
    }

    /// Forgets the holds that are over. That changes no record: it is news for nobody.
    pub(super) fn expire_holds(&mut self, now: Duration) {
        while let Some((_, node)) = self.hold_ends.first().copied().filter(|(at, _)| *at <= now) {
            self.drop_hold(node);
        }
    }

    /// Ends the joins and moves whose time is over.
    pub(crate) fn give_up(&mut self, now: Duration) {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.take(MOST_GIVEN_UP).map(|(_, node)| *node).collect();
        for node in due {
            // What was decided for an earlier one may have settled this one too.
            if self.deadline(node).is_some_and(|at| at <= now) {
                self.give_up_on(node, now);
            }
        }
    }

    fn give_up_on(&mut self, node: NodeRef, now: Duration) {
        self.set_deadline(node, None);
        match self.node(node).parent() {
            // A peer that cannot be told anything is where its own reflexes took it.
            Some(parent) if self.peer(self.node(node).peer).session => {
                self.part(self.id_of(parent), self.id_of(node), now + APART);
                if self.node(node).is_moving() {
                    self.go_back(node, now);
                } else if !self.node(node).is_warm() {
                    self.detach(node);
                    let slot = self.find_slot(node);
                    self.take_slot(node, slot, now);
                }
            }
            Some(_) | None => self.release_former(node),
        }
    }
}
