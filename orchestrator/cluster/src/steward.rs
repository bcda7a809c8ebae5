//! The shell of membership and balance: one task a node, which looks after the groups that this node leads.
//!
//! It makes the cluster's record where there is none yet, says where this node is, takes the reconciler's
//! next step in each group, and moves leaders. All of it is decided anew from the replicated state each
//! time, so that whoever leads next goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_orchestrator_core::NodeId as CoreNodeId;
use espalier_orchestrator_core::state::{
    ClusterRecord, Membership, MetaOp, MetaState, NodeAddresses, NodePhase, NodeRecord,
};
use espalier_shards::balance::{LedGroup, plan_moves};
use espalier_shards::{GroupId, GroupStatus, Leadership, MembershipError, NodeId};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::reconcile::{Step, next_step, note_nodes};
use crate::standing::{Neighbours, Standing, may_lead};

/// How often the groups are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a step may take before the next look decides anew.
const STEP: Duration = Duration::from_secs(10);
/// How long leadership must have been quiet before leaders are moved for balance.
const QUIET: Duration = Duration::from_secs(3);
/// Leaders that move in one look.
const MOVES: usize = 4;
/// A voter that lacks no more entries than this can take over.
pub(crate) const CAUGHT_UP: u64 = 64;
/// The version of entries that this release writes.
const VERSION: u32 = 1;

/// What the task needs of a group, its replica's type out of sight.
pub(crate) trait Tended: Send + Sync {
    fn group(&self) -> GroupId;
    fn leadership(&self) -> Leadership;
    fn status(&self) -> GroupStatus;
    fn step(&self, step: Step) -> BoxFuture<'static, Result<(), MembershipError>>;
    fn transfer(&self, to: NodeId) -> BoxFuture<'static, ()>;
}

/// What the task knows besides the groups.
pub(crate) struct Steward {
    pub(crate) me: NodeId,
    pub(crate) cluster: String,
    pub(crate) shards: u32,
    /// Who makes the cluster, with their addresses; empty on a node that joined.
    pub(crate) founders: BTreeMap<NodeId, String>,
    /// Where this node is.
    pub(crate) addresses: NodeAddresses,
    pub(crate) desk: Desk,
    /// The meta group first.
    pub(crate) groups: Arc<[Arc<dyn Tended>]>,
    pub(crate) nodes: watch::Sender<BTreeMap<NodeId, String>>,
    pub(crate) neighbours: watch::Receiver<Neighbours>,
    /// What this node says of itself.
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) stopping: CancellationToken,
}

impl Steward {
    pub(crate) async fn run(self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut balance = Balance {
            leaders: Vec::new(),
            since: Instant::now(),
        };
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                _ = looks.tick() => {}
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.look(&mut balance) => {}
            }
        }
    }

    async fn look(&self, balance: &mut Balance) {
        let state = self.desk.meta.state().1;
        let statuses: Vec<GroupStatus> = self.groups.iter().map(|group| group.status()).collect();
        self.tell_nodes(&state, &statuses);
        if state.cluster().is_none() {
            self.found().await;
            return;
        }
        self.register(&state).await;
        if self.groups[0].leadership().leading_term().is_some() {
            let ops = note_nodes(&state, &statuses);
            if !ops.is_empty() {
                self.change(ops).await;
            }
        }
        for (group, status) in self.groups.iter().zip(&statuses) {
            if group.leadership().leading_term().is_some()
                && let Some(step) = next_step(&state, status)
            {
                take(&**group, step).await;
            }
        }
        self.balance(&state, &statuses, balance).await;
    }

    /// All nodes that any group or the cluster's state names, with their addresses.
    fn tell_nodes(&self, state: &MetaState, statuses: &[GroupStatus]) {
        let mut nodes: BTreeMap<NodeId, String> = self.founders.clone();
        let members = statuses.iter().flat_map(|status| &status.members);
        nodes.extend(members.map(|(node, info)| (*node, info.cluster_address.clone())));
        let wanted = state.nodes().iter();
        nodes.extend(
            wanted.map(|(node, record)| (node.0, crate::reconcile::info(record).cluster_address)),
        );
        if state.cluster().is_some() {
            nodes.retain(|node, _| {
                let member = statuses
                    .iter()
                    .any(|status| status.members.contains_key(node));
                member || state.nodes().contains_key(&CoreNodeId(*node))
            });
        }
        self.nodes.send_if_modified(|known| {
            let changed = *known != nodes;
            *known = nodes;
            changed
        });
    }

    /// Writes the cluster's record, and its founders'.
    async fn found(&self) {
        if self.groups[0].leadership().leading_term().is_none() || self.founders.is_empty() {
            return;
        }
        let cluster = ClusterRecord {
            id: self.cluster.clone(),
            version: VERSION,
            shards: self.shards,
        };
        let founders = self.founders.iter().map(|(node, address)| MetaOp::AddNode {
            node: CoreNodeId(*node),
            record: NodeRecord {
                addresses: NodeAddresses {
                    cluster: vec![address.clone()],
                    ..Default::default()
                },
                membership: Membership::Voter,
                phase: NodePhase::Joining,
            },
        });
        let ops = std::iter::once(MetaOp::Initialise { cluster })
            .chain(founders)
            .collect();
        self.change(ops).await;
    }

    /// Says where this node is, if the cluster thinks otherwise.
    async fn register(&self, state: &MetaState) {
        if let Some(op) = self.moved(state) {
            self.change(vec![op]).await;
        }
    }

    fn moved(&self, state: &MetaState) -> Option<MetaOp> {
        let node = CoreNodeId(self.me);
        let known = state.nodes().get(&node)?;
        let addresses = self.addresses.clone();
        let moved = known.addresses != addresses && known.phase != NodePhase::Leaving;
        moved.then_some(MetaOp::MoveNode { node, addresses })
    }

    async fn change(&self, ops: Vec<MetaOp>) {
        if let Err(error) = self.desk.change(ops).await {
            tracing::debug!(%error, "the cluster's state is as it was");
        }
    }

    async fn balance(&self, state: &MetaState, statuses: &[GroupStatus], balance: &mut Balance) {
        let own = self.standing.borrow().clone();
        let eligible = may_lead(state, (self.me, &own), &self.neighbours.borrow());
        let quiet = balance.quiet(statuses);
        if eligible.contains(&self.me) && !quiet {
            return;
        }
        let led: Vec<LedGroup> = statuses
            .iter()
            .filter_map(|status| {
                let leader = status.leader?;
                let caught_up = if leader == self.me {
                    status.caught_up(CAUGHT_UP)
                } else {
                    status.voters.clone()
                };
                Some(LedGroup {
                    group: status.group,
                    leader,
                    caught_up,
                })
            })
            .collect();
        for step in plan_moves(&led, &eligible, MOVES) {
            if step.from == self.me
                && let Some(group) = self.groups.iter().find(|group| group.group() == step.group)
            {
                tracing::info!(group = %step.group, to = step.to, "a leader moves");
                group.transfer(step.to).await;
            }
        }
    }
}

/// Since when the leaders are the same.
struct Balance {
    leaders: Vec<(GroupId, u64, Option<NodeId>)>,
    since: Instant,
}

impl Balance {
    fn quiet(&mut self, statuses: &[GroupStatus]) -> bool {
        let leaders: Vec<_> = statuses
            .iter()
            .map(|status| (status.group, status.term, status.leader))
            .collect();
        if leaders != self.leaders {
            self.leaders = leaders;
            self.since = Instant::now();
        }
        self.since.elapsed() >= QUIET
    }
}

async fn take(group: &dyn Tended, step: Step) {
    tracing::info!(group = %group.group(), ?step, "the group's membership changes");
    match timeout(STEP, group.step(step)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(group = %group.group(), %error, "the step failed"),
        Err(_elapsed) => tracing::warn!(group = %group.group(), "the step takes long"),
    }
}
