//! What the network makes of the planner's decisions: how long a source takes, and what happens without one.

use espalier_orchestrator_core::planner::{EdgeChange, PeerSlot, SourceSlot};

use super::{CDN, Driver, Event, Orphan};
use crate::planning::audience::{NOWHERE, Place, milliseconds};
use crate::planning::overlay::Overlay;
use crate::planning::stopwatch::Kind;

impl<O: Overlay> Driver<O> {
    /// Notes whom a silent peer leaves without a source, and what they see of it.
    pub(super) fn bereave(&mut self, slot: PeerSlot) {
        let died = self.audience.viewer(slot).dies;
        for tree in 0..self.trees.len() {
            let id = self.trees[tree];
            self.below.clear();
            self.overlay.children(slot, id, &mut self.below);
            for at in 0..self.below.len() {
                let child = self.below[at];
                if !self.audience.viewer(child).lives(self.now) {
                    continue;
                }
                let standby = self.overlay.standby(child, id);
                let tree = u8::try_from(tree).unwrap_or(0);
                let lasted = self.outage(child, standby);
                self.delivery.broke(child, tree, died, lasted);
                self.counts.breaks += 1;
                self.counts.break_ms += u64::from(lasted);
                self.counts.longest_break_ms = self.counts.longest_break_ms.max(lasted);
                self.orphans.push(Orphan {
                    slot: child,
                    tree,
                    standby,
                });
            }
        }
    }

    /// So that an orphan is found quickly, also among those of a region.
    pub(super) fn sort_orphans(&mut self) {
        self.orphans
            .sort_unstable_by_key(|orphan| (orphan.slot, orphan.tree));
    }

    /// How long data do not flow to a child whose parent has fallen silent.
    pub(super) fn outage(&self, child: PeerSlot, standby: Option<SourceSlot>) -> u32 {
        let network = &self.scenario.network;
        let more = match standby {
            Some(SourceSlot::Peer(standby)) if self.can_serve(child, standby) => {
                self.there_and_back(child, standby)
            }
            Some(SourceSlot::Peer(_)) => network.standby_patience_ms + network.cdn_ms,
            Some(SourceSlot::Cdn) | None => network.cdn_ms,
        };
        network.detection_ms + more
    }

    pub(super) fn can_serve(&self, child: PeerSlot, parent: PeerSlot) -> bool {
        let (one, other) = (self.audience.viewer(child), self.audience.viewer(parent));
        let geography = self.audience.geography();
        other.lives(self.now) && geography.connects((one.turn, one.spot), (other.turn, other.spot))
    }

    pub(super) fn there_and_back(&self, one: PeerSlot, other: PeerSlot) -> u32 {
        let (one, other) = (self.audience.viewer(one), self.audience.viewer(other));
        let way = self.audience.geography().way_ms(one.spot, other.spot);
        milliseconds(2.0 * way / 1000.0)
    }

    /// Takes in which edges have changed. `bereaved`: some because their source had gone.
    pub(super) fn apply(&mut self, bereaved: bool) {
        let (overlay, changes) = (&mut self.overlay, &mut self.changes);
        changes.clear();
        self.stopwatch
            .measure(Kind::Changes, || overlay.take_changes(changes));
        self.make_changes(bereaved);
    }

    pub(super) fn make_changes(&mut self, bereaved: bool) {
        let changes = core::mem::take(&mut self.changes);
        for change in &changes {
            self.change(change, bereaved);
        }
        self.changes = changes;
    }

    pub(super) fn change(&mut self, change: &EdgeChange, bereaved: bool) {
        let Some(tree) = self.trees.iter().position(|tree| *tree == change.tree) else {
            return;
        };
        let tree = u8::try_from(tree).unwrap_or(0);
        let Place {
            source: before,
            token,
            fed,
        } = *self.audience.place(change.peer, tree);
        let source = match change.source {
            None => NOWHERE,
            Some(SourceSlot::Cdn) => CDN,
            Some(SourceSlot::Peer(parent)) => parent.0,
        };
        if before == source {
            return;
        }
        // What is left for another goes on until that one's data come; what has failed does not.
        self.feed(
            change.peer,
            tree,
            source != NOWHERE && change.planned && fed,
        );
        self.counts.places += u64::from(before == NOWHERE);
        self.counts.places -= u64::from(source == NOWHERE);
        let token = token.wrapping_add(1);
        let place = self.audience.place_mut(change.peer, tree);
        (place.source, place.token) = (source, token);
        self.count_child(before, false);
        self.count_child(source, true);
        if source == NOWHERE {
            return;
        }
        self.counts.edges += 1;
        let moves = before != NOWHERE;
        self.counts.planned += u64::from(moves && change.planned);
        self.counts.repairs += u64::from(moves && !change.planned);
        let mut delay = self.delay(change, tree, bereaved && moves && !change.planned);
        // Whoever feeds it, a newcomer has no link to serve over, and no object to serve, before that.
        delay = delay.max(if moves {
            0
        } else {
            self.scenario.network.setup_ms
        });
        let slot = change.peer.0;
        self.calendar
            .add(self.now + delay, Event::Due { slot, tree, token });
    }

    /// Notes whether the place's data come from another peer.
    pub(super) fn feed(&mut self, slot: PeerSlot, tree: u8, fed: bool) {
        let place = self.audience.place_mut(slot, tree);
        let before = core::mem::replace(&mut place.fed, fed);
        self.counts.fed += u64::from(fed);
        self.counts.fed -= u64::from(before);
    }

    pub(super) fn count_child(&mut self, source: u32, more: bool) {
        if source < CDN {
            let children = &mut self.audience.viewer_mut(PeerSlot(source)).children;
            *children = if more {
                children.saturating_add(1)
            } else {
                children.saturating_sub(1)
            };
        }
    }

    /// When the first byte comes from a new source.
    pub(super) fn delay(&self, change: &EdgeChange, tree: u8, bereaved: bool) -> u32 {
        let network = &self.scenario.network;
        let Some(SourceSlot::Peer(parent)) = change.source else {
            return network.cdn_ms;
        };
        let key = (change.peer, tree);
        let orphan = bereaved.then(|| {
            let found = self
                .orphans
                .binary_search_by_key(&key, |orphan| (orphan.slot, orphan.tree));
            found.ok().map(|at| self.orphans[at].standby)
        });
        // To a standby the link is open already, and its children have gone there by themselves.
        let known = orphan.flatten() == Some(change.source);
        let way = self.there_and_back(change.peer, parent);
        if known { way } else { network.setup_ms + way }
    }
}
