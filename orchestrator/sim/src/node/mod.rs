//! A node: its group, the gateway and the owner round it, the reset path. Thin shells on virtual time over the
//! engines and the groups of production.

mod clock;
mod flights;
mod gateway;
mod owner;
mod running;

use std::sync::Arc;
use std::time::Duration;

use espalier_orchestrator_core::ChannelId;
use espalier_shards::reset::{LinkEvent, ResetCommand, ResetPath, SeenVote};
use espalier_shards::{Group, Leadership, NodeId, Placement, Settings};
use futures::StreamExt as _;
use openraft::async_runtime::WatchReceiver as _;

pub(crate) use clock::Clock;

use self::gateway::Gateway;
use self::owner::Owner;
use crate::audit::Audit;
use crate::context::{Context, Event, Mail};
use crate::disk::{Disk, SimSnapshots};
use crate::planted::Bug;
use crate::replica::Audited;
use crate::runtime::{Life, NodeRuntime, spawn_in};
use crate::sky::{GROUP, Sky};
use crate::wires::{Payload, Side, WireId};

/// How often a node compares the shard's channels with its actors.
const FOLLOW: Duration = Duration::from_millis(50);

/// How often in this time something may be due again at once.
const TICKS: Duration = Duration::from_millis(500);
const MOST_TICKS: u32 = 5_000;

pub(crate) type ShardGroup = Group<NodeRuntime, Audited, SimSnapshots>;

/// What a node is told.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    Leadership(Leadership),
    Vote(SeenVote, Vec<NodeId>),
    Line(NodeId, LinkEvent),
    Wire(WireId, Side, Payload),
    /// Of this run, channel and flight.
    Landed(u64, ChannelId, u64, Option<u64>),
    /// Of this run.
    Settled(u64),
}

/// What both halves of a node need.
pub(crate) struct Me {
    pub(crate) life: Arc<Life>,
    pub(crate) group: ShardGroup,
    pub(crate) clock: Clock,
}

/// One process of a node.
pub(crate) struct Node {
    pub(crate) me: Me,
    pub(crate) leadership: Leadership,
    gateway: Gateway,
    owner: Owner,
    reset: ResetPath,
    follow_at: Duration,
    armed: Option<Duration>,
    /// How often something was due again at once, since when.
    ticks: (Duration, u32),
}

/// Starts a process of a node's group; to be called in a task of its life.
pub(crate) async fn start_group(
    node: NodeId,
    (settings, pipelined): (Settings, bool),
    sky: &Sky,
    disk: &Disk,
    audit: &Audit,
    bug: Option<Bug>,
) -> Option<ShardGroup> {
    let placement = Placement {
        node,
        group: GROUP,
        settings,
    };
    let (log, snapshots) = disk.open();
    let replica = Audited::new(node, audit.clone());
    let network = sky.network(node, pipelined);
    let started = if bug == Some(Bug::LeaderRestore) {
        let mut config = settings.config(GROUP.to_string()).ok()?;
        config.enable_leader_restore = Some(true);
        Group::start_planted(placement, config, network, log, snapshots, replica).await
    } else {
        Group::start(placement, network, log, snapshots, replica).await
    };
    match started {
        Ok(group) => Some(group),
        Err(error) => {
            audit.violated("a node starts", format!("node {node}: {error}"));
            None
        }
    }
}

impl Node {
    /// The shells of a process whose group has started.
    pub(crate) fn new(me: Me, context: &mut Context) -> Self {
        follow(&me, context);
        let (node, boot) = (me.life.node, me.life.boot);
        Self {
            gateway: Gateway::new(node, boot),
            owner: Owner::default(),
            reset: ResetPath::new(node),
            leadership: Leadership::Unknown,
            follow_at: context.now,
            armed: None,
            ticks: (context.now, 0),
            me,
        }
    }

    pub(crate) fn handle(&mut self, event: NodeEvent, context: &mut Context) {
        let me = &self.me;
        match event {
            NodeEvent::Leadership(leadership) => self.lead(leadership, context),
            NodeEvent::Vote(vote, voters) => {
                let now = me.clock.at(context.now);
                self.reset.handle_voters(GROUP, voters);
                self.reset.handle_vote(GROUP, vote, now);
            }
            NodeEvent::Line(node, event) => {
                let now = me.clock.at(context.now);
                self.reset.handle_link(node, event, now);
            }
            NodeEvent::Wire(wire, side, payload) => self.wire(wire, side, payload, context),
            NodeEvent::Landed(run, channel, flight, outcome) => {
                let of = (run, channel, flight);
                self.owner.landed(of, outcome, me, context);
            }
            NodeEvent::Settled(run) => self.owner.settled(run, me, context),
        }
        self.carry_out(context);
        self.arm(context);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, context: &mut Context) {
        self.armed = None;
        let now = self.me.clock.at(context.now);
        self.reset.handle_timeout(now);
        if self.follow_at <= context.now {
            self.follow_at = context.now + FOLLOW;
            self.owner.follow_channels(&self.me, context);
        }
        self.owner.tick(&self.me, context);
        self.gateway.tick(&self.me, context);
        self.carry_out(context);
        self.arm(context);
    }

    fn lead(&mut self, leadership: Leadership, context: &mut Context) {
        let me = &self.me;
        let node = me.life.node;
        context
            .audit
            .note(node, || format!("node {node} is {leadership:?}"));
        self.leadership = leadership;
        let owner = match leadership {
            Leadership::Leader { term } | Leadership::Preparing { term } => {
                context.audit.leads(node, term);
                Some(node)
            }
            Leadership::Follower { leader, term } => {
                context.audit.leads(leader, term);
                Some(leader)
            }
            Leadership::Stopped => {
                let detail = format!("the group of node {node} has stopped");
                context.audit.violated("groups run", detail);
                None
            }
            Leadership::Unknown => None,
        };
        self.owner
            .set_leading(leadership.leading_term(), me, context);
        self.gateway.set_owner(owner, me, context);
    }

    fn wire(&mut self, wire: WireId, side: Side, payload: Payload, context: &mut Context) {
        let me = &self.me;
        match (side, payload) {
            (Side::Called, Payload::ToOwner(message)) => {
                self.owner.hear_gateway(wire, message, me, context);
            }
            (Side::Called, Payload::Up(up)) => self.gateway.hear_peer(wire, up, me, context),
            (Side::Called, Payload::Closed) => {
                context.close(wire, Side::Called);
                self.gateway.peer_closed(wire, me, context);
                self.owner.stream_closed(wire, me, context);
            }
            (Side::Caller, Payload::ToGateway(message)) => {
                self.gateway.hear_owner(wire, message, me, context);
            }
            (Side::Caller, Payload::Closed) => {
                context.close(wire, Side::Caller);
                self.gateway.stream_closed(wire, context);
            }
            (side, payload) => {
                let detail = format!("{payload:?} came to {side:?}");
                context
                    .audit
                    .violated("connections carry what they are for", detail);
            }
        }
    }

    fn carry_out(&mut self, context: &mut Context) {
        while let Some(command) = self.reset.poll_command() {
            let node = self.me.life.node;
            context
                .audit
                .note(node << 4, || format!("node {node}: {command:?}"));
            let group = self.me.group.clone();
            spawn_in(Some(self.me.life.clone()), async move {
                // A group that has stopped is found elsewhere.
                match command {
                    ResetCommand::DropLease { vote, .. } => drop(group.drop_lease(vote).await),
                    ResetCommand::Elect { .. } => drop(group.elect().await),
                }
            });
        }
    }

    fn arm(&mut self, context: &mut Context) {
        let reset = self.reset.poll_timeout();
        let due = [
            reset.map(|due| self.me.clock.when(due)),
            self.owner.due(&self.me),
            self.gateway.due(&self.me),
            Some(self.follow_at),
        ];
        let Some(due) = due.into_iter().flatten().min() else {
            return;
        };
        if context.now > self.ticks.0 + TICKS {
            self.ticks = (context.now, 0);
        }
        self.ticks.1 += u32::from(due < context.now + Duration::from_millis(1));
        if self.ticks.1 > MOST_TICKS {
            let what = (
                self.owner.describe_due(&self.me),
                self.gateway.due(&self.me),
                reset,
            );
            let detail = format!("node {}: {what:?}", self.me.life.node);
            context.audit.violated("what is due gets done", detail);
        }
        let due = due.max(context.now);
        if self.armed.is_none_or(|armed| due < armed) {
            self.armed = Some(due);
            let life = &self.me.life;
            context.agenda.at(due, Event::Node(life.node, life.boot));
        }
    }

    /// The engines that run here, and whether nothing of theirs is on its way to the log.
    pub(crate) fn engines(
        &self,
    ) -> impl Iterator<Item = (&ChannelId, &espalier_orchestrator_core::ChannelEngine, bool)> {
        let running = self.owner.running.iter();
        let actors = running.flat_map(|running| running.actors.iter());
        actors.map(|(channel, actor)| (channel, &actor.engine, actor.flights.is_idle()))
    }

    pub(crate) fn describe(&self) -> String {
        let life = &self.me.life;
        let at = self.me.group.read(|at, _| at);
        format!(
            "node {} process {}: {:?}, applied {at:?}, {}",
            life.node,
            life.boot,
            self.leadership,
            self.gateway.describe()
        )
    }
}

/// Has the group's leadership and votes told to the node.
fn follow(me: &Me, context: &Context) {
    let mut leadership = me.group.leadership();
    let (life, mail) = (me.life.clone(), context.mail.clone());
    spawn_in(Some(me.life.clone()), async move {
        loop {
            let now = *leadership.borrow_and_update();
            // The world is gone only when the run is over.
            drop(mail.unbounded_send(Mail::Node(life.clone(), NodeEvent::Leadership(now))));
            if leadership.changed().await.is_err() {
                return;
            }
        }
    });
    let mut votes = Box::pin(me.group.votes());
    let (life, mail) = (me.life.clone(), context.mail.clone());
    spawn_in(Some(me.life.clone()), async move {
        while let Some((vote, voters)) = votes.next().await {
            let seen = NodeEvent::Vote(vote, voters);
            // The world is gone only when the run is over.
            drop(mail.unbounded_send(Mail::Node(life.clone(), seen)));
        }
    });
}
