//! The world goes wrong: nodes die, lines are down, disks stall, and one day everything works again.

use std::sync::Arc;

use espalier_shards::NodeId;
use espalier_shards::reset::LinkEvent;

use crate::context::Event;
use crate::faults::{Fault, Suspicion};
use crate::node::{Node, NodeEvent};
use crate::runtime::spawn_in;
use crate::world::World;

impl World {
    /// A node's idle connection to another tells something, soon, unless the line is down.
    pub(crate) fn line(&mut self, at: NodeId, of: NodeId, event: LinkEvent) {
        if self.context.sky.is_cut(at, of) || self.context.sky.is_cut(of, at) {
            return;
        }
        let wait = self.context.sky.delay();
        self.context
            .after(wait, Event::ToNode(at, NodeEvent::Line(of, event)));
    }

    fn crash(&mut self, node: NodeId, lose_all: bool) {
        let Some(life) = self.lives.remove(&node) else {
            return;
        };
        life.end();
        self.context.sky.detach(node);
        self.context.boots.remove(&node);
        let lost = self.disks[&node].crash(lose_all);
        self.context.audit.note(node << 16 ^ lost as u64, || {
            format!("node {node} dies, {lost} writes are lost")
        });
        for (wire, side) in self.context.wires.of(node, life.boot) {
            self.context.close(wire, side);
        }
        if let Some(node) = self.nodes.remove(&node) {
            // Its tasks keep their handles: nothing of it is shut down.
            drop(node);
        }
        let others: Vec<NodeId> = self.nodes.keys().copied().collect();
        for other in others {
            self.line(other, node, LinkEvent::Broken);
            self.line(other, node, LinkEvent::Refused);
        }
    }

    pub(crate) fn crash_voter(&mut self, node: NodeId) {
        if self.healed_at.is_none() {
            self.crash(node, true);
            // It is back before the election is over, to be asked once more.
            let back = self.context.dice.millis(0, 15);
            self.context.after(back, Event::Boot(node));
        }
    }

    pub(crate) fn go_wrong(&mut self, fault: Fault) {
        self.context.audit.note(0xfa017, || format!("{fault:?}"));
        match fault {
            Fault::Crash(node, back) => {
                self.crash(node, false);
                self.context.after(back, Event::Boot(node));
            }
            Fault::CrashAll(back) => {
                for node in self.plan.all_nodes() {
                    self.crash(node, false);
                    let back = back + self.context.dice.millis(0, 300);
                    self.context.after(back, Event::Boot(node));
                }
            }
            Fault::Cut(lines, _) => self.cut(lines),
            Fault::Mend => self.context.sky.heal(),
            Fault::Stall(node, lasts) => {
                let until = self.context.now + lasts;
                self.disks[&node].stall(until);
            }
            Fault::Suspect(suspicion) => self.suspect(&suspicion),
            Fault::Storm(_) => {
                let mut weather = self.plan.weather;
                weather.slowest *= 20;
                self.context.sky.set_weather(weather);
            }
            Fault::Lull => {
                if self.healed_at.is_none() {
                    self.context.sky.set_weather(self.plan.weather);
                }
            }
            Fault::Break(count) => {
                for wire in self.context.wires.some(count) {
                    self.context.break_wire(wire);
                }
            }
            Fault::Transfer(to) => self.transfer(to),
            Fault::Snapshot(node) => {
                if let Some(node) = self.nodes.get(&node) {
                    let group = node.me.group.clone();
                    spawn_in(Some(Arc::clone(&node.me.life)), async move {
                        // A group that has stopped is found elsewhere.
                        drop(group.snapshot().await);
                    });
                }
            }
            Fault::Heal => self.heal(),
        }
    }

    fn cut(&mut self, lines: Vec<(NodeId, NodeId)>) {
        for (from, to) in lines {
            self.context.sky.cut(from, to);
        }
        self.context.watch_stopped();
    }

    /// Some believe that a node is dead. Perhaps they soon hear nothing of it indeed, and it nothing of them: then
    /// it goes on as a leader beside another one.
    fn suspect(&mut self, suspicion: &Suspicion) {
        let leader = self.leader().map(|node| node.me.life.node);
        let Some(whom) = suspicion.whom.or(leader) else {
            return;
        };
        let others: Vec<NodeId> = self
            .nodes
            .keys()
            .copied()
            .filter(|node| *node != whom)
            .collect();
        for at in &others {
            if self.context.dice.chance(suspicion.share) {
                self.line(*at, whom, LinkEvent::Refused);
                let wait = self.context.dice.millis(20, 1_500);
                let event = NodeEvent::Line(whom, LinkEvent::Opened);
                self.context.after(wait, Event::ToNode(*at, event));
            }
        }
        if let Some((wait, lasts)) = suspicion.cut {
            let pairs = others
                .iter()
                .flat_map(|other| [(*other, whom), (whom, *other)]);
            let cut = Fault::Cut(pairs.collect(), lasts);
            self.context.after(wait, Event::Fault(cut));
            self.context.after(wait + lasts, Event::Fault(Fault::Mend));
        }
    }

    fn leader(&self) -> Option<&Node> {
        let leads = |node: &&Node| node.leadership.leading_term().is_some();
        self.nodes.values().find(leads)
    }

    fn transfer(&self, to: NodeId) {
        if let Some(node) = self.leader() {
            let group = node.me.group.clone();
            spawn_in(Some(Arc::clone(&node.me.life)), async move {
                // A group that has stopped is found elsewhere.
                drop(group.transfer(to).await);
            });
        }
    }

    fn heal(&mut self) {
        self.healed_at = Some(self.context.now);
        self.context.sky.heal();
        self.context.sky.set_weather(self.plan.weather.fair());
        for node in self.plan.all_nodes() {
            let soon = self.context.dice.millis(0, 200);
            self.context.after(soon, Event::Boot(node));
        }
    }
}
