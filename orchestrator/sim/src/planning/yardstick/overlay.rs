//! A yardstick is driven as the planner is.

use std::time::Duration;

use espalier_orchestrator_core::TrackName;
use espalier_orchestrator_core::planner::{
    EdgeChange, Memory, Newcomer, PeerSlot, SourceSlot, TreeId, Work,
};

use super::{Node, Place, ROUND, Rule, Yardstick};
use crate::planning::overlay::Overlay;

impl Overlay for Yardstick {
    fn join(&mut self, newcomer: Newcomer, now: Duration) -> PeerSlot {
        self.work = Work::default();
        let at = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        let capacity = u32::try_from(newcomer.upload_bps / self.cost_bps).unwrap_or(u32::MAX);
        *self.node_mut(at) = Node {
            here: true,
            capacity: capacity.min(self.most),
            born: now,
            ..Node::default()
        };
        self.place(at, false);
        PeerSlot(at)
    }

    fn leave(&mut self, peers: &[PeerSlot], _: Duration) {
        self.work = Work::default();
        let mut orphans = Vec::new();
        for peer in peers {
            let at = peer.0;
            for child in self.node(at).children.clone() {
                self.detach(child);
                orphans.push(child);
            }
            self.detach(at);
            self.close(at);
            let depth = self.node(at).depth as usize;
            self.levels[depth] -= 1;
            *self.node_mut(at) = Node::default();
            self.say(at, false);
        }
        for orphan in orphans {
            if self.node(orphan).here {
                self.place(orphan, false);
            }
        }
        self.free.extend(peers.iter().map(|peer| peer.0));
    }

    fn arrived(&mut self, peer: PeerSlot, _: TreeId, _: Duration) {
        self.work = Work::default();
        self.node_mut(peer.0).warm = true;
        self.reindex(peer.0);
        self.gather(peer.0);
    }

    fn failed(&mut self, child: PeerSlot, parent: PeerSlot, _: Duration) {
        self.work = Work::default();
        if self.node(child.0).place == Place::Under(parent.0) {
            self.detach(child.0);
            self.attach(child.0, Place::Cdn, false);
        }
    }

    fn late(&mut self, _: PeerSlot, _: PeerSlot, _: Duration) {}
    fn set_upload(&mut self, _: PeerSlot, _: u64, _: Duration) {}
    fn want(&mut self, _: PeerSlot, _: TrackName, _: Duration) {}

    /// Looks at a few: roots that are too many go under others, and in ROST the strong rise.
    fn tick(&mut self, now: Duration) {
        self.work = Work::default();
        let all = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let part = all / 30 + 1;
        for _ in 0..part {
            self.cursor = if self.cursor + 1 < all {
                self.cursor + 1
            } else {
                0
            };
            if self
                .nodes
                .get(self.cursor as usize)
                .is_some_and(|node| node.here)
            {
                self.gather(self.cursor);
                if self.rule == Rule::Rost {
                    self.rise(self.cursor, now);
                }
            }
        }
        self.turned = now;
    }

    fn next_timeout(&self) -> Option<Duration> {
        Some(self.turned + ROUND / 30)
    }

    fn take_changes(&mut self, into: &mut Vec<EdgeChange>) {
        into.append(&mut self.changes);
    }

    fn source(&self, peer: PeerSlot, _: TreeId) -> Option<SourceSlot> {
        match self.nodes.get(peer.0 as usize)?.place {
            Place::Nowhere => None,
            Place::Cdn => Some(SourceSlot::Cdn),
            Place::Under(parent) => Some(SourceSlot::Peer(PeerSlot(parent))),
        }
    }

    fn standby(&self, _: PeerSlot, _: TreeId) -> Option<SourceSlot> {
        Some(SourceSlot::Cdn)
    }

    fn children(&self, peer: PeerSlot, _: TreeId, into: &mut Vec<PeerSlot>) {
        into.extend(
            self.node(peer.0)
                .children
                .iter()
                .map(|child| PeerSlot(*child)),
        );
    }

    fn root_count(&self, _: TreeId) -> u32 {
        self.roots()
    }

    fn levels(&self, _: TreeId) -> Vec<u32> {
        self.levels.clone()
    }

    fn work(&self) -> Work {
        self.work
    }

    fn bytes(&self) -> Memory {
        Memory {
            trees: self.nodes.len() * size_of::<Node>(),
            ..Memory::default()
        }
    }

    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (at, node) in (0_u32..).zip(&self.nodes).filter(|(_, node)| node.here) {
            let depth = match node.place {
                Place::Nowhere => 0,
                Place::Cdn => 1,
                Place::Under(parent) => self.node(parent).depth + 1,
            };
            let known = match node.place {
                Place::Under(parent) => self.node(parent).children.contains(&at),
                Place::Cdn | Place::Nowhere => true,
            };
            if node.depth != depth || depth == 0 || !known {
                findings.push(format!(
                    "{at}: depth {} and {depth}, {:?}",
                    node.depth, node.place
                ));
            }
            if node.children.len() > node.capacity as usize
                || node.open_at.is_some() != self.is_open(at)
            {
                findings.push(format!(
                    "{at}: {} children of {}",
                    node.children.len(),
                    node.capacity
                ));
            }
        }
        findings
    }

    fn state_hash(&self) -> u64 {
        let mut hash = 0;
        for (at, node) in (0_u64..).zip(&self.nodes) {
            let place = match node.place {
                Place::Nowhere => 0,
                Place::Cdn => 1,
                Place::Under(parent) => u64::from(parent) + 2,
            };
            hash = crate::dice::mix(hash ^ (at << 32) ^ place);
        }
        hash
    }
}
