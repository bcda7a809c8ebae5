//! One run: the cluster, its audience, its callers and what goes wrong, from the first boot until everything has
//! come to rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_orchestrator_core::{ChannelId, PeerId, TrackIndex, TrackInfo};
use espalier_shards::reset::LinkEvent;
use espalier_shards::{NodeId, NodeInfo, Settings};
use futures::StreamExt as _;
use futures::channel::mpsc;
use openraft::AsyncRuntime as _;
use openraft::async_runtime::Select2;

use crate::audience::Audience;
use crate::audit::Audit;
use crate::clients::{self, Clients};
use crate::context::{Agenda, Context, Event, Mail};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::faults::Plan;
use crate::node::{Clock, Me, Node, NodeEvent, start_group};
use crate::planted::Bug;
use crate::rest;
use crate::runtime::{Life, NodeRuntime, now, spawn_in};
use crate::sky::Sky;
use crate::wires::{End, Pumped, Wires};

/// How long the first leader may take.
const SETUP: Duration = Duration::from_secs(20);
/// How long a healed world may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long callers and peers go on when everything works again.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How often the replicated state is looked at.
const LOOK: Duration = Duration::from_millis(150);

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) context: Context,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) audience: Audience,
    clients: Clients,
    seed: Dice,
    pub(crate) disks: BTreeMap<NodeId, Disk>,
    pub(crate) lives: BTreeMap<NodeId, Arc<Life>>,
    boots: BTreeMap<NodeId, u64>,
    channels: Vec<ChannelId>,
    pub(crate) healed_at: Option<Duration>,
    mails: mpsc::UnboundedReceiver<Mail>,
    fatal: mpsc::UnboundedReceiver<NodeId>,
}

/// How a run went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) applied: u64,
    pub(crate) operations: usize,
    pub(crate) virtual_time: Duration,
}

impl World {
    pub(crate) fn new(seed: &Dice, plan: Plan, bug: Option<Bug>, audit: &Audit) -> Self {
        let (mail, mails) = mpsc::unbounded();
        let (dying, fatal) = mpsc::unbounded();
        let channels = channels();
        let tracks = channels.iter().map(|id| (id.clone(), tracks(id)));
        let watched = channels[..2].to_vec();
        let context = Context {
            now: Duration::ZERO,
            agenda: Agenda::default(),
            wires: Wires::new(seed.stream("wires", 0)),
            sky: Sky::new(plan.weather.fair(), seed.stream("sky", 0), dying),
            audit: audit.clone(),
            mail,
            dice: seed.stream("world", 0),
            bug,
            boots: BTreeMap::new(),
            tracks: tracks.collect(),
        };
        let disk = |node: NodeId| (node, Disk::new(seed.stream("disk", node), plan.disk, bug));
        let nodes = plan.all_nodes();
        Self {
            disks: nodes.iter().map(|node| disk(*node)).collect(),
            audience: Audience::new(nodes, watched, plan.peers, seed.stream("audience", 0)),
            clients: Clients::new(plan.clients, channels.clone(), seed.stream("clients", 0)),
            seed: seed.clone(),
            plan,
            context,
            nodes: BTreeMap::new(),
            lives: BTreeMap::new(),
            boots: BTreeMap::new(),
            channels,
            healed_at: None,
            mails,
            fatal,
        }
    }

    /// Plays the run until it has come to rest, or something is violated.
    pub(crate) async fn run(mut self) -> Tally {
        for node in self.plan.all_nodes() {
            self.boot(node);
        }
        if self.set_up().await {
            self.begin();
            while self.context.audit.violation().is_none() && !self.is_over() {
                self.step().await;
            }
        }
        self.clients.check(&self.context.audit);
        for node in self.nodes.values() {
            self.context.audit.note(0, || node.describe());
        }
        Tally {
            applied: self.context.audit.last_applied().unwrap_or(0),
            operations: self.clients.count(),
            virtual_time: now(),
        }
    }

    /// Makes the cluster and its channels.
    async fn set_up(&mut self) -> bool {
        let mut made = false;
        while now() < SETUP && self.context.audit.violation().is_none() {
            self.step_until(now() + Duration::from_millis(20)).await;
            let all = self.plan.all_nodes();
            if self.nodes.len() < all.len() {
                continue;
            }
            if !made {
                made = true;
                let members = all
                    .iter()
                    .map(|node| (*node, NodeInfo::default()))
                    .collect();
                let first = &self.nodes[&1].me;
                let group = first.group.clone();
                spawn_in(Some(Arc::clone(&first.life)), async move {
                    // If it fails, no leader is ever there, which is found.
                    drop(group.initialize(members).await);
                });
            }
            let leader = self
                .nodes
                .values()
                .find(|node| node.leadership.leading_term().is_some());
            let Some(group) = leader.map(|node| node.me.group.clone()) else {
                continue;
            };
            if clients::create(&group, &self.channels).await == Ok(true) {
                return true;
            }
        }
        let detail = "no leader, no channels".to_owned();
        self.context.audit.violated("a cluster can be made", detail);
        false
    }

    fn begin(&mut self) {
        let from = now();
        self.context.now = from;
        self.context.sky.set_weather(self.plan.weather);
        for (at, event) in self.plan.faults(&self.seed, from) {
            self.context.agenda.at(at, event);
        }
        self.context.agenda.at(from, Event::Arrival);
        self.context.agenda.at(from, Event::Look);
        for client in 0..self.plan.clients {
            self.context.agenda.at(from, Event::Client(client));
        }
    }

    fn is_over(&mut self) -> bool {
        let Some(healed) = self.healed_at else {
            return false;
        };
        if now() < healed + AFTERMATH {
            return false;
        }
        self.audience.calm = true;
        self.clients.resting = true;
        let restless = rest::restless(self);
        if let (Some(why), true) = (&restless, now() > healed + PATIENCE) {
            self.context
                .audit
                .violated("a healed cluster comes to rest", why.clone());
        }
        restless.is_none()
    }

    async fn step(&mut self) {
        // The end is looked for now and then, not after every event.
        let until = now() + Duration::from_millis(100);
        self.step_until(until).await;
    }

    async fn step_until(&mut self, until: Duration) {
        while now() < until && self.context.audit.violation().is_none() {
            self.context.now = now();
            while let Ok(node) = self.fatal.try_recv() {
                self.crash_voter(node);
            }
            while let Ok(mail) = self.mails.try_recv() {
                self.take(mail);
            }
            while let Some(event) = self.context.agenda.pop_due(self.context.now) {
                self.happen(event);
                if self.context.audit.violation().is_some() {
                    return;
                }
            }
            let due = self.context.agenda.next_due().unwrap_or(until).min(until);
            let wait = due.saturating_sub(now());
            let sleep = NodeRuntime::sleep(wait);
            let mails = futures::future::select(self.mails.next(), self.fatal.next());
            match NodeRuntime::select2(mails, sleep).await {
                Select2::First(futures::future::Either::Left((Some(mail), _))) => {
                    self.context.now = now();
                    self.take(mail);
                }
                Select2::First(futures::future::Either::Right((Some(node), _))) => {
                    self.context.now = now();
                    self.crash_voter(node);
                }
                Select2::First(_) | Select2::Second(()) => {}
            }
        }
    }

    fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Started(life, group) => {
                if !life.is_over() {
                    self.started(life, group);
                }
            }
            Mail::Node(life, event) => {
                if !life.is_over()
                    && let Some(node) = self.nodes.get_mut(&life.node)
                {
                    node.handle(event, &mut self.context);
                }
            }
            Mail::Client(client, answer) => self.clients.answered(client, &answer, &self.context),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pump(wire, side) => {
                let (now, sky) = (self.context.now, self.context.sky.clone());
                match self.context.wires.pump(wire, side, now, &sky) {
                    Pumped::Nothing => {}
                    Pumped::Later(at) => self.context.agenda.at(at, Event::Pump(wire, side)),
                    Pumped::Deliver(End::Peer(peer), payload) => {
                        self.audience.hear(peer, wire, payload, &mut self.context);
                    }
                    Pumped::Deliver(End::Node(node, boot), payload) => {
                        let there = self.nodes.get_mut(&node);
                        match there.filter(|node| node.me.life.boot == boot) {
                            Some(node) => {
                                let event = NodeEvent::Wire(wire, side, payload);
                                node.handle(event, &mut self.context);
                            }
                            None => self.context.close(wire, side),
                        }
                    }
                }
            }
            Event::Keepalive(wire) => {
                if self.context.wires.is_stopped(wire, &self.context.sky) {
                    self.context.break_wire(wire);
                }
            }
            Event::Node(node, boot) => {
                let there = self.nodes.get_mut(&node);
                if let Some(node) = there.filter(|node| node.me.life.boot == boot) {
                    node.tick(&mut self.context);
                }
            }
            Event::ToNode(node, event) => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.handle(event, &mut self.context);
                }
            }
            Event::Boot(node) => self.boot(node),
            Event::Fault(fault) => self.go_wrong(fault),
            Event::Peer(peer) => self.audience.turn(peer, &mut self.context),
            Event::Flow(peer) => self.audience.flow(peer, &mut self.context),
            Event::Attach(peer) => self.audience.attach(peer, &mut self.context),
            Event::Arrival => self.audience.arrive(&mut self.context),
            Event::Client(client) => self.client(client),
            Event::Late(client, number) => self.clients.late(client, number),
            Event::Look => {
                rest::look(self);
                self.context.after(LOOK, Event::Look);
            }
        }
    }

    /// A caller asks a node: mostly one that leads as far as it knows itself, else any.
    fn client(&mut self, client: u32) {
        let leads = |node: &&Node| node.leadership.leading_term().is_some();
        let leaders: Vec<NodeId> = self
            .nodes
            .values()
            .filter(leads)
            .map(|node| node.me.life.node)
            .collect();
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        let of = if self.context.dice.chance(900) && !leaders.is_empty() {
            &leaders
        } else {
            &all
        };
        let node = self
            .context
            .dice
            .pick(of)
            .and_then(|node| self.nodes.get(node));
        self.clients
            .turn(client, node.map(|node| &node.me), &mut self.context);
    }

    fn boot(&mut self, node: NodeId) {
        if self.lives.contains_key(&node) {
            return;
        }
        let boot = self.boots.entry(node).or_insert(0);
        *boot += 1;
        let life = Life::new(node, *boot);
        self.lives.insert(node, Arc::clone(&life));
        self.context.audit.note(node << 8, || {
            format!("node {node} starts, process {}", life.boot)
        });
        let settings = Settings {
            snapshot_log_bytes: self.plan.snapshot_log_bytes,
            kept_entries: self.plan.kept_entries,
            ..Settings::default()
        };
        let (disk, pipelined) = (self.disks[&node].clone(), self.plan.pipelined);
        let (sky, audit) = (self.context.sky.clone(), self.context.audit.clone());
        let (mail, bug) = (self.context.mail.clone(), self.context.bug);
        spawn_in(Some(Arc::clone(&life)), async move {
            let started = start_group(node, (settings, pipelined), &sky, &disk, &audit, bug).await;
            if let Some(group) = started {
                // The world is gone only when the run is over.
                drop(mail.unbounded_send(Mail::Started(life, group)));
            }
        });
    }

    fn started(&mut self, life: Arc<Life>, group: crate::node::ShardGroup) {
        let node = life.node;
        self.context.sky.attach(Arc::clone(&life), group.inbound());
        self.context.boots.insert(node, life.boot);
        let dice = &mut self.context.dice;
        let offset = dice.millis(0, 3_600_000);
        let rate = 1_000_000 + dice.below(2 * self.plan.skew + 1) - self.plan.skew;
        let clock = Clock::new(self.context.now, offset, rate);
        let others: Vec<NodeId> = self.nodes.keys().copied().collect();
        let me = Me { life, group, clock };
        let started = Node::new(me, &mut self.context);
        self.nodes.insert(node, started);
        self.context
            .agenda
            .at(self.context.now, Event::Node(node, self.boots[&node]));
        for other in others {
            self.line(other, node, LinkEvent::OpenedToAnother);
            self.line(node, other, LinkEvent::Opened);
        }
    }

    /// The peers of a channel, as they are in truth.
    pub(crate) fn present(&self, channel: &ChannelId) -> Vec<PeerId> {
        let of = self
            .audience
            .peers
            .iter()
            .filter(|(_, peer)| peer.channel == *channel);
        of.map(|(id, _)| *id).collect()
    }

    pub(crate) fn channels(&self) -> &[ChannelId] {
        &self.channels
    }
}

/// Two channels with an audience, and one that only callers touch.
fn channels() -> Vec<ChannelId> {
    let names = ["alpha", "beta", "register"];
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

fn tracks(channel: &ChannelId) -> Vec<TrackInfo> {
    let count = if channel.as_str() == "alpha" { 2 } else { 1 };
    let track = |index: u32| {
        Some(TrackInfo {
            index: TrackIndex(index),
            name: format!("v{index}").parse().ok()?,
            rate_bps: 600_000 * (u64::from(index) + 1),
            default: index == 0,
        })
    };
    (0..count).filter_map(track).collect()
}
