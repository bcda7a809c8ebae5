//! What peers see: their links and their sources.

use core::time::Duration;

use super::ChannelEngine;
use crate::events::{LinkReport, LinkState, SessionOpened, SourceReport, SourceState};
use crate::forest::node::{Flow, NodeRef, Place};
use crate::ids::{PeerId, Source};

/// How long a pair is kept apart after the child left its parent by itself, or lost the link.
const AFTER_LOSS: Duration = Duration::from_secs(30);
/// How long after a link that never opened, or could not carry its share.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// How long after one broke the protocol.
const AFTER_VIOLATION: Duration = Duration::from_secs(600);
/// How long a peer that a neighbour lost gets no new children.
const SHUNNED: Duration = Duration::from_secs(10);

impl ChannelEngine {
    pub(super) fn take_link_report(&mut self, report: LinkReport) {
        let LinkReport {
            peer,
            neighbour,
            state,
        } = report;
        let waits = self
            .recovery
            .as_ref()
            .is_some_and(|recovery| recovery.holds(peer, neighbour));
        let accuses = waits && state == LinkState::Corrupt;
        if peer == neighbour || !(accuses || self.forest.find(peer).is_some()) {
            return;
        }
        match state {
            LinkState::Up => {}
            LinkState::Failed => self.part(peer, neighbour, AFTER_FAILURE),
            LinkState::Invalid => self.part(peer, neighbour, AFTER_VIOLATION),
            LinkState::Dead => self.take_death(peer, neighbour),
            // The other end of a closed link may just know a newer assignment, or have gone.
            LinkState::Closed => {
                if !self.sessions.is_attached(neighbour) {
                    self.take_death(peer, neighbour);
                }
            }
            LinkState::Late => {
                self.learn_from_lateness(neighbour, peer);
                if self.forest.relieve(peer, neighbour, self.now) {
                    self.forest.part(peer, neighbour, self.now + AFTER_FAILURE);
                }
            }
            LinkState::Corrupt => self.take_accusation(peer, neighbour),
        }
    }

    fn part(&mut self, one: PeerId, other: PeerId, how_long: Duration) {
        self.forest.part(one, other, self.now + how_long);
        self.forest.break_pair(one, other, self.now);
    }

    /// Whether the two have an edge, hold one in reserve, or had one a moment ago.
    pub(super) fn are_acquainted(&self, one: PeerId, other: PeerId) -> bool {
        self.forest.are_linked(one, other)
            || self
                .recovery
                .as_ref()
                .is_some_and(|recovery| recovery.holds(one, other))
            || self.acquainted.contains(&(one, other))
            || self.acquainted.contains(&(other, one))
    }

    /// A neighbour says that it hears nothing of a peer. Together with a lost session that is death;
    /// alone, the pair is planned anew and the peer gets no new children for a while.
    fn take_death(&mut self, peer: PeerId, neighbour: PeerId) {
        let Some(lost) = self.forest.find(neighbour) else {
            return;
        };
        if !self.are_acquainted(peer, neighbour) {
            return;
        }
        if !self.sessions.is_attached(neighbour) {
            self.presume_gone(&[neighbour], true);
            return;
        }
        self.deaths.note(neighbour, self.now);
        self.forest.shun(lost, self.now + SHUNNED);
        self.part(peer, neighbour, AFTER_LOSS);
    }

    pub(super) fn take_source_report(&mut self, report: &SourceReport) {
        if let Some(recovery) = &mut self.recovery {
            recovery.take_report(report);
        }
        let Some(node) = self
            .forest
            .find_node(report.peer, &report.track, report.stripe)
        else {
            return;
        };
        let flows = report.state == SourceState::Flowing;
        self.forest.say(node, flows.then_some(report.source));
        match report.state {
            SourceState::Repairing => self.forest.set_flow(node, Flow::Repairing),
            SourceState::Bypass => self.forest.set_flow(node, Flow::Bypass),
            SourceState::Flowing => self.take_flowing(node, report),
        }
    }

    /// A peer that kept its place has come back: it may have switched by itself meanwhile.
    pub(super) fn take_held(&mut self, opened: &SessionOpened) {
        for held in &opened.held {
            let node = self.forest.find_node(opened.peer, &held.track, held.stripe);
            let Some(node) = node else {
                continue;
            };
            let record = self.forest.node(node);
            let place = self.place_of(node, held.source);
            let former = self.forest.former(node);
            let known = [Some(record.place()), former.map(|former| former.place)];
            let (from, warm) = (record.place(), record.is_warm());
            let knows = self.dispatch.knows_source(
                opened.peer,
                &held.track,
                held.stripe,
                opened.generation,
            );
            if warm && knows && !known.contains(&place) {
                self.adopt_switch(node, from, place);
            }
        }
    }

    fn take_flowing(&mut self, node: NodeRef, report: &SourceReport) {
        let record = self.forest.node(node);
        let (source, warm) = (record.place(), record.is_warm());
        let former = self.forest.former(node);
        let place = self.place_of(node, report.source);
        if place == Some(source) {
            self.forest.arrived(node);
            if !warm {
                self.forest.raise_relay(node, self.now);
            }
        } else if former.is_some_and(|former| Some(former.place) == place) {
            self.forest.set_flow(node, Flow::Flowing);
        } else {
            // A newcomer takes its first objects from the CDN wherever its place is; and who does not
            // know its place yet will go there as soon as it does.
            let starts = !warm && place == Some(Place::Cdn);
            let knows = self.dispatch.knows_source(
                report.peer,
                &report.track,
                report.stripe,
                report.generation,
            );
            if knows && !starts {
                self.adopt_switch(node, source, place);
            }
        }
    }

    fn adopt_switch(&mut self, node: NodeRef, from: Place, to: Option<Place>) {
        if let Place::Under(parent) = from {
            let (one, other) = (self.forest.id_of(node), self.forest.id_of(parent));
            self.forest.part(one, other, self.now + AFTER_LOSS);
        }
        self.forest.adopt_switch(node, to, self.now);
    }

    /// Returns the place that a peer names, if there is such a place in the node's tree.
    fn place_of(&self, node: NodeRef, source: Source) -> Option<Place> {
        match source {
            Source::Cdn => Some(Place::Cdn),
            Source::Peer(parent) => {
                let key = self.forest.tree_of(node).key;
                let parent = self.forest.node_of(self.forest.find(parent)?, key);
                parent.map(Place::Under)
            }
        }
    }
}
