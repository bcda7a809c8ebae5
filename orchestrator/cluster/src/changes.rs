//! The changes of a cluster that an operator asks for: nodes in and out, draining, who leads.
//!
//! Each is checked against the cluster's current state and against which nodes this one reaches, and then
//! written as what is wanted; the steward of whoever leads works towards it. Invariants: a node's id is
//! committed before the node is told of it, so that no two nodes get the same; nothing is wanted that would
//! leave no living majority, as far as this node can tell.

use std::collections::BTreeSet;
use std::time::Duration;

use espalier_orchestrator_core::NodeId as CoreNodeId;
use espalier_orchestrator_core::state::{
    Membership, MetaOp, MetaState, NodeAddresses, NodePhase, NodeRecord, Refusal,
};
use espalier_proto::cluster::v1 as proto;
use espalier_shards::{GroupId, GroupStatus, NodeId};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::error::MetaError;
use crate::handle::ClusterHandle;
use crate::network::lines::client;
use crate::standing::may_lead;
use crate::steward::CAUGHT_UP;

/// How often another id is tried when somebody else took the one that was free.
const ID_ATTEMPTS: usize = 8;
/// How long a leadership may take to move.
const TRANSFER: Duration = Duration::from_secs(3);
/// How often it is looked whether it has moved, and how often it is asked for again.
const LOOK: Duration = Duration::from_millis(20);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The cluster's state was not changed, or cannot be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// There is no such node.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// There is no such group.
    #[error("there is no group {0}")]
    UnknownGroup(GroupId),
    /// The address is a node's already.
    #[error("{address} is node {node}'s address already")]
    Present {
        /// Whose.
        node: NodeId,
        /// Which.
        address: String,
    },
    /// Nobody that could be added answers at the address.
    #[error("no node answers at {address}: {reason}")]
    Unanswered {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The node at the address cannot be added.
    #[error("the node at {address} cannot be added: {reason}")]
    Unfit {
        /// Where.
        address: String,
        /// Why not.
        reason: String,
    },
    /// What would be left could decide nothing.
    #[error(
        "without node {node} the cluster has {voters} nodes, of which {living} can be reached: that is no majority"
    )]
    NoMajority {
        /// Without whom.
        node: NodeId,
        /// How many would be left.
        voters: usize,
        /// How many of them are there.
        living: usize,
    },
    /// There is no other node to take over.
    #[error("no other node is there that could take over from node {0}")]
    NobodyElse(NodeId),
    /// The node is not in service.
    #[error("node {node} {problem}")]
    NotInService {
        /// Which.
        node: NodeId,
        /// What it is instead.
        problem: &'static str,
    },
    /// The node cannot lead the group.
    #[error("node {node} cannot lead {group}: {problem}")]
    CannotLead {
        /// Which.
        node: NodeId,
        /// What.
        group: GroupId,
        /// Why not.
        problem: &'static str,
    },
    /// Another node leads the group, or none.
    #[error("this node does not lead {0}")]
    NotLeader(GroupId),
    /// The other node does not lead in time.
    #[error("node {node} does not lead {group} yet")]
    NotMoved {
        /// Which.
        node: NodeId,
        /// What.
        group: GroupId,
    },
}

impl ClusterHandle {
    /// Adds the node that waits at this address and returns its id; it catches up afterwards. Asked again
    /// while it joins, this changes nothing.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn add_node(&self, address: &str) -> Result<NodeId, ChangeError> {
        let mut asked = false;
        for _ in 0..ID_ATTEMPTS {
            let state = self.current_meta().await?;
            if state.cluster().is_none() {
                // Its founders have no ids yet: theirs would be given away.
                return Err(MetaError::Unavailable.into());
            }
            let node = match joining(&state, address)? {
                Some(node) => node,
                None => {
                    if !asked {
                        // A node that cannot be added costs no id.
                        self.invite(0, address).await?;
                        asked = true;
                    }
                    let node = state.unused_node_id();
                    match self.change(vec![new_node(node, address)]).await {
                        Ok(()) => node,
                        Err(MetaError::Refused(Refusal::AlreadyExists | Refusal::NodeIdUsed)) => {
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            self.invite(node.0, address).await?;
            return Ok(node.0);
        }
        Err(MetaError::Unavailable.into())
    }

    async fn invite(&self, node: NodeId, address: &str) -> Result<(), ChangeError> {
        let unanswered = |reason: String| ChangeError::Unanswered {
            address: address.to_owned(),
            reason,
        };
        let endpoint = self.desk.lines.endpoint(address).map_err(MetaError::from)?;
        let line = endpoint.connect().await;
        let line = line.map_err(|error| unanswered(innermost(&error)))?;
        let invitation = proto::Invitation {
            cluster: self.identity.cluster.clone(),
            node,
            shards: self.identity.shards,
        };
        match client(line).invite(invitation).await {
            Ok(_) => Ok(()),
            Err(status)
                if matches!(
                    status.code(),
                    Code::FailedPrecondition | Code::AlreadyExists
                ) =>
            {
                Err(ChangeError::Unfit {
                    address: address.to_owned(),
                    reason: status.message().to_owned(),
                })
            }
            Err(status) => Err(unanswered(status.message().to_owned())),
        }
    }

    /// Wants a node out for good.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn remove_node(&self, node: NodeId) -> Result<(), ChangeError> {
        let state = self.current_meta().await?;
        let phase = record(&state, node)?.phase;
        if phase == NodePhase::Leaving {
            return Ok(());
        }
        may_leave(&state, node, &self.living())?;
        self.turn(node, phase, NodePhase::Leaving).await
    }

    /// Wants a node to lead nothing and to hold no sessions, or takes that back.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn drain_node(&self, node: NodeId, undo: bool) -> Result<(), ChangeError> {
        let state = self.current_meta().await?;
        let phase = record(&state, node)?.phase;
        let wanted = match (phase, undo) {
            (NodePhase::Leaving, _) => return Err(leaving(node)),
            (NodePhase::Joining, false) => {
                let problem = "is still joining";
                return Err(ChangeError::NotInService { node, problem });
            }
            (NodePhase::Draining, false) | (NodePhase::Joining | NodePhase::Active, true) => {
                return Ok(());
            }
            (NodePhase::Active, false) => NodePhase::Draining,
            (NodePhase::Draining, true) => NodePhase::Active,
        };
        if wanted == NodePhase::Draining && !self.others_may_lead(&state, node) {
            return Err(ChangeError::NobodyElse(node));
        }
        self.turn(node, phase, wanted).await
    }

    /// Has another node lead a group that this node leads; returns when it does.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`].
    pub async fn transfer(&self, group: GroupId, to: NodeId) -> Result<GroupStatus, ChangeError> {
        let tended = self.groups.iter().find(|it| it.group() == group);
        let tended = tended.ok_or(ChangeError::UnknownGroup(group))?;
        let until = Instant::now() + TRANSFER;
        let mut asked = false;
        loop {
            let status = tended.status();
            if status.leader == Some(to) {
                return Ok(status);
            }
            if status.leader == Some(self.identity.node) {
                self.may_take(&status, to)?;
                tended.transfer(to).await;
            } else if !asked || status.leader.is_some() {
                return Err(ChangeError::NotLeader(group));
            }
            asked = true;
            let again = Instant::now() + ASK_AGAIN;
            while tended.status().leader != Some(to) && Instant::now() < again {
                sleep(LOOK).await;
            }
            if Instant::now() > until {
                return Err(ChangeError::NotMoved { node: to, group });
            }
        }
    }

    fn may_take(&self, status: &GroupStatus, to: NodeId) -> Result<(), ChangeError> {
        let cannot = |problem| ChangeError::CannotLead {
            node: to,
            group: status.group,
            problem,
        };
        let state = self.meta().read(|_, state| state.clone());
        if !status.voters.contains(&to) {
            return Err(cannot("it does not vote in it"));
        }
        let own = self.standing.borrow().clone();
        let me = (self.identity.node, &own);
        if !may_lead(&state, me, &self.neighbours.borrow()).contains(&to) {
            return Err(cannot(
                "it cannot be reached, or is to lead nothing (draining, leaving, about to stop)",
            ));
        }
        if !status.caught_up(CAUGHT_UP).contains(&to) {
            return Err(cannot("it lacks too much of the log"));
        }
        Ok(())
    }

    /// Whether a node other than this may lead.
    fn others_may_lead(&self, state: &MetaState, node: NodeId) -> bool {
        let own = self.standing.borrow().clone();
        let me = (self.identity.node, &own);
        let able = may_lead(state, me, &self.neighbours.borrow());
        able.iter().any(|other| *other != node)
    }

    /// This node and those that it reaches.
    fn living(&self) -> BTreeSet<NodeId> {
        let neighbours = self.neighbours.borrow();
        let reachable = neighbours.iter().filter(|(_, it)| it.reachable);
        let others = reachable.map(|(node, _)| *node);
        others.chain([self.identity.node]).collect()
    }

    async fn turn(&self, node: NodeId, from: NodePhase, to: NodePhase) -> Result<(), ChangeError> {
        let turn = MetaOp::TurnNode {
            node: CoreNodeId(node),
            from,
            to,
        };
        match self.change(vec![turn]).await {
            Err(MetaError::Refused(Refusal::UnknownNode)) => Err(ChangeError::UnknownNode(node)),
            Err(MetaError::Refused(Refusal::Lifecycle)) => {
                let problem = "was changed by somebody else at the same time: look, and ask again";
                Err(ChangeError::NotInService { node, problem })
            }
            other => Ok(other?),
        }
    }
}

fn record(state: &MetaState, node: NodeId) -> Result<&NodeRecord, ChangeError> {
    let record = state.nodes().get(&CoreNodeId(node));
    record.ok_or(ChangeError::UnknownNode(node))
}

fn leaving(node: NodeId) -> ChangeError {
    let problem = "is on its way out of the cluster";
    ChangeError::NotInService { node, problem }
}

fn new_node(node: CoreNodeId, address: &str) -> MetaOp {
    let addresses = NodeAddresses {
        cluster: vec![address.to_owned()],
        ..Default::default()
    };
    let record = NodeRecord {
        addresses,
        membership: Membership::Voter,
        phase: NodePhase::Joining,
    };
    MetaOp::AddNode { node, record }
}

/// The node that is joining at an address, if there is one.
fn joining(state: &MetaState, address: &str) -> Result<Option<CoreNodeId>, ChangeError> {
    let at = |record: &NodeRecord| record.addresses.cluster.iter().any(|it| it == address);
    let mut known = state.nodes().iter().filter(|(_, record)| at(record));
    let Some((node, record)) = known.next() else {
        return Ok(None);
    };
    match record.phase {
        NodePhase::Joining => Ok(Some(*node)),
        NodePhase::Leaving => Err(leaving(node.0)),
        NodePhase::Active | NodePhase::Draining => Err(ChangeError::Present {
            node: node.0,
            address: address.to_owned(),
        }),
    }
}

/// Whether the others can decide without a node.
fn may_leave(
    state: &MetaState,
    node: NodeId,
    living: &BTreeSet<NodeId>,
) -> Result<(), ChangeError> {
    let voting = |record: &NodeRecord| {
        record.membership == Membership::Voter && record.phase != NodePhase::Leaving
    };
    let nodes = state.nodes().iter();
    let left = nodes.filter(|(other, record)| other.0 != node && voting(record));
    let left: Vec<NodeId> = left.map(|(node, _)| node.0).collect();
    let alive = left.iter().filter(|node| living.contains(node)).count();
    if alive * 2 > left.len() {
        return Ok(());
    }
    Err(ChangeError::NoMajority {
        node,
        voters: left.len(),
        living: alive,
    })
}

/// What is at the bottom of an error: the layers above say no more than that there was one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use espalier_orchestrator_core::state::{ClusterRecord, LogPosition, MetaEntry};

    use super::*;
    use NodePhase::{Active, Draining, Joining, Leaving};

    fn state(nodes: &[(NodeId, NodePhase)]) -> MetaState {
        let cluster = ClusterRecord {
            id: "c".into(),
            version: 1,
            shards: 2,
        };
        let mut ops = vec![MetaOp::Initialise { cluster }];
        for (node, phase) in nodes {
            let node = CoreNodeId(*node);
            let address = format!("n{node}:7301");
            ops.push(new_node(node, &address));
            let (from, to) = (Joining, *phase);
            ops.push(MetaOp::TurnNode { node, from, to });
        }
        let mut state = MetaState::default();
        let at = LogPosition { term: 1, index: 1 };
        let outcomes = state.apply(&MetaEntry::new(1, ops), at);
        assert!(outcomes.iter().all(|outcome| outcome.is_applied()));
        state
    }

    #[test]
    fn nobody_leaves_who_would_leave_no_living_majority() {
        let three = state(&[(1, Active), (2, Active), (3, Draining)]);
        let check = |state: &MetaState, node, living: &[NodeId], expect: bool| {
            let living = living.iter().copied().collect();
            let may = may_leave(state, node, &living).is_ok();
            assert_eq!(may, expect, "node {node}, living {living:?}");
        };
        check(&three, 3, &[1, 2, 3], true);
        // A dead node may go, and that is how it is replaced.
        check(&three, 3, &[1, 2], true);
        check(&three, 2, &[1, 2], false);
        check(&three, 1, &[1], false);
        check(&state(&[(1, Active)]), 1, &[1], false);
        check(&state(&[(1, Active), (2, Leaving)]), 1, &[1, 2], false);
        let five = state(&[
            (1, Active),
            (2, Active),
            (3, Active),
            (4, Active),
            (5, Joining),
        ]);
        check(&five, 1, &[1, 2, 3, 4], true);
        check(&five, 1, &[1, 2, 3], false);
    }

    #[test]
    fn an_address_is_joined_once() {
        let state = state(&[(1, Active), (2, Joining), (3, Leaving)]);
        assert_eq!(joining(&state, "n2:7301").unwrap(), Some(CoreNodeId(2)));
        assert_eq!(joining(&state, "n9:7301").unwrap(), None);
        let present = joining(&state, "n1:7301");
        assert!(matches!(present, Err(ChangeError::Present { node: 1, .. })));
        let leaving = joining(&state, "n3:7301");
        assert!(matches!(
            leaving,
            Err(ChangeError::NotInService { node: 3, .. })
        ));
    }
}
