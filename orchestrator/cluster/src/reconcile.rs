//! From the nodes as they are wanted to the groups as they are: the next step of one group, and what the
//! meta group then knows of the nodes.
//!
//! Each group's leader asks for its group's next step, takes it, and asks again; everything it needs is
//! replicated, so another leader goes on where one died. Invariants: a node gets its vote only when it
//! holds (nearly) the whole log; a node that leaves loses its vote first; nothing is done while a change
//! is on its way, nor before the cluster is made.

use std::collections::{BTreeMap, BTreeSet};

use espalier_orchestrator_core::NodeId as CoreNodeId;
use espalier_orchestrator_core::state::{Membership, MetaOp, MetaState, NodePhase, NodeRecord};
use espalier_shards::{GroupStatus, NodeId, NodeInfo};

/// With no more entries than this to come, a learner may vote.
const NEARLY_ALL: u64 = 256;

/// One change of a group's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sends the log to a further node.
    AddLearner(NodeId, NodeInfo),
    /// A member is elsewhere now.
    SetAddress(NodeId, NodeInfo),
    /// These shall vote.
    SetVoters(BTreeSet<NodeId>),
    /// Sends the log there no more.
    RemoveLearner(NodeId),
}

/// What a member's addresses are, as the groups keep them.
pub(crate) fn info(record: &NodeRecord) -> NodeInfo {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    NodeInfo {
        cluster_address: first(&record.addresses.cluster),
        public_address: first(&record.addresses.public),
    }
}

/// The nodes that are to be in the groups, and whether they are to vote.
fn wanted(state: &MetaState) -> BTreeMap<NodeId, (NodeInfo, bool)> {
    let nodes = state.nodes().iter();
    nodes
        .filter(|(_, record)| record.phase != NodePhase::Leaving)
        .filter_map(|(id, record)| match record.membership {
            Membership::Voter => Some((id.0, (info(record), true))),
            Membership::Learner => Some((id.0, (info(record), false))),
            Membership::Gateway => None,
        })
        .collect()
}

/// The next step of a group that this node leads.
pub(crate) fn next_step(state: &MetaState, group: &GroupStatus) -> Option<Step> {
    let wanted = wanted(state);
    if state.cluster().is_none() || group.changing || !wanted.values().any(|(_, votes)| *votes) {
        return None;
    }
    for (node, (info, _)) in &wanted {
        match group.members.get(node) {
            None => return Some(Step::AddLearner(*node, info.clone())),
            Some(known) if known.cluster_address != info.cluster_address => {
                return Some(Step::SetAddress(*node, info.clone()));
            }
            Some(_) => {}
        }
    }
    let ready = |node: &NodeId| {
        let holds = group
            .matched
            .get(node)
            .is_some_and(|at| at + NEARLY_ALL >= group.last_log_index);
        group.voters.contains(node) || holds
    };
    let votes = wanted
        .iter()
        .filter(|(_, (_, votes))| *votes)
        .map(|(node, _)| *node);
    let voters: BTreeSet<NodeId> = votes.filter(ready).collect();
    // While a new voter catches up, the ones that leave stay: their votes may be needed.
    let all_ready = voters.len() == wanted.values().filter(|(_, votes)| *votes).count();
    let target = if all_ready {
        voters
    } else {
        voters.union(&group.voters).copied().collect()
    };
    if target != group.voters {
        return Some(Step::SetVoters(target));
    }
    let strangers = group
        .members
        .keys()
        .filter(|node| !wanted.contains_key(node));
    let mut idle = strangers.filter(|node| !group.voters.contains(node));
    idle.next().map(|node| Step::RemoveLearner(*node))
}

fn activate(node: CoreNodeId) -> MetaOp {
    let (from, to) = (NodePhase::Joining, NodePhase::Active);
    MetaOp::TurnNode { node, from, to }
}

/// What the meta group's leader notes of the nodes, given all groups as it sees them itself.
pub(crate) fn note_nodes(state: &MetaState, groups: &[GroupStatus]) -> Vec<MetaOp> {
    let nodes = state.nodes().iter();
    nodes
        .filter_map(|(node, record)| match (record.phase, record.membership) {
            (NodePhase::Joining, Membership::Voter) => {
                let meta = groups.first()?;
                let votes = groups.iter().all(|group| group.voters.contains(&node.0));
                // Of its log only the meta group's leader knows; it is a voter elsewhere because it held that.
                let matched = meta.matched.get(&node.0).is_some_and(|at| *at > 0);
                let holds = matched || meta.leader == Some(node.0);
                (votes && holds).then(|| activate(*node))
            }
            (NodePhase::Joining, Membership::Learner) => {
                let member = groups
                    .iter()
                    .all(|group| group.members.contains_key(&node.0));
                member.then(|| activate(*node))
            }
            (NodePhase::Leaving, _) => {
                let gone = groups
                    .iter()
                    .all(|group| !group.members.contains_key(&node.0));
                gone.then_some(MetaOp::RemoveNode { node: *node })
            }
            (NodePhase::Joining, Membership::Gateway)
            | (NodePhase::Active | NodePhase::Draining, _) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use espalier_orchestrator_core::state::{ClusterRecord, LogPosition, MetaEntry, NodeAddresses};
    use espalier_shards::GroupId;

    use super::*;

    fn record(node: NodeId, phase: NodePhase) -> NodeRecord {
        let addresses = NodeAddresses {
            cluster: vec![format!("n{node}:7301")],
            ..Default::default()
        };
        NodeRecord {
            addresses,
            membership: Membership::Voter,
            phase,
        }
    }

    fn state(nodes: &[(NodeId, NodePhase)]) -> MetaState {
        let cluster = ClusterRecord {
            id: "c".into(),
            version: 1,
            shards: 2,
        };
        let mut ops = vec![MetaOp::Initialise { cluster }];
        ops.extend(nodes.iter().map(|(node, phase)| MetaOp::AddNode {
            node: CoreNodeId(*node),
            record: record(*node, *phase),
        }));
        let mut state = MetaState::default();
        let at = LogPosition { term: 1, index: 1 };
        let outcomes = state.apply(&MetaEntry::new(1, ops), at);
        assert!(outcomes.iter().all(|outcome| outcome.is_applied()));
        state
    }

    fn group(voters: &[NodeId], learners: &[NodeId], matched: &[(NodeId, u64)]) -> GroupStatus {
        let members = voters.iter().chain(learners);
        GroupStatus {
            group: GroupId(1),
            term: 1,
            leader: voters.first().copied(),
            last_log_index: 1_000,
            applied: None,
            snapshot: None,
            purged: None,
            voters: voters.iter().copied().collect(),
            members: members
                .map(|node| (*node, info(&record(*node, NodePhase::Active))))
                .collect(),
            changing: false,
            matched: matched.iter().copied().collect(),
        }
    }

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    use NodePhase::{Active, Joining, Leaving};

    #[test]
    fn what_is_as_wanted_stays() {
        let state = state(&[(1, Active), (2, Active), (3, Active)]);
        assert_eq!(next_step(&state, &group(&[1, 2, 3], &[], &[])), None);
    }

    #[test]
    fn nothing_is_done_before_the_cluster_is_made_nor_during_a_change() {
        assert_eq!(
            next_step(&MetaState::default(), &group(&[1], &[], &[])),
            None
        );
        let mut changing = group(&[1], &[], &[]);
        changing.changing = true;
        assert_eq!(
            next_step(&state(&[(1, Active), (2, Joining)]), &changing),
            None
        );
    }

    #[test]
    fn a_new_node_learns_first_and_votes_when_it_holds_the_log() {
        let state = state(&[(1, Active), (2, Joining)]);
        let added = next_step(&state, &group(&[1], &[], &[(1, 1_000)]));
        assert_eq!(added, Some(Step::AddLearner(2, info(&record(2, Joining)))));
        let behind = group(&[1], &[2], &[(1, 1_000), (2, 100)]);
        assert_eq!(next_step(&state, &behind), None);
        let near = group(&[1], &[2], &[(1, 1_000), (2, 900)]);
        assert_eq!(
            next_step(&state, &near),
            Some(Step::SetVoters(set(&[1, 2])))
        );
    }

    #[test]
    fn who_leaves_stays_until_its_replacement_holds_the_log() {
        let state = state(&[(1, Active), (2, Active), (3, Leaving), (4, Joining)]);
        let behind = group(&[1, 2, 3], &[4], &[(4, 1)]);
        assert_eq!(next_step(&state, &behind), None);
        let near = group(&[1, 2, 3], &[4], &[(4, 999)]);
        assert_eq!(
            next_step(&state, &near),
            Some(Step::SetVoters(set(&[1, 2, 4])))
        );
        let after = group(&[1, 2, 4], &[3], &[]);
        assert_eq!(next_step(&state, &after), Some(Step::RemoveLearner(3)));
    }

    #[test]
    fn a_moved_node_is_told_of() {
        let state = state(&[(1, Active)]);
        let mut moved = group(&[1], &[], &[]);
        moved.members.insert(
            1,
            NodeInfo {
                cluster_address: "old:1".into(),
                ..NodeInfo::default()
            },
        );
        assert_eq!(
            next_step(&state, &moved),
            Some(Step::SetAddress(1, info(&record(1, Active))))
        );
    }

    #[test]
    fn a_node_is_active_when_it_votes_everywhere_and_gone_when_it_is_nowhere() {
        let state = state(&[(1, Active), (2, Joining), (3, Leaving)]);
        let both = [group(&[1, 2], &[3], &[(2, 5)]), group(&[1, 2], &[], &[])];
        assert_eq!(note_nodes(&state, &both), vec![activate(CoreNodeId(2))]);
        let unseen = [group(&[1, 2], &[3], &[]), group(&[1, 2], &[], &[])];
        assert_eq!(note_nodes(&state, &unseen), vec![]);
        let gone = [group(&[1], &[], &[]), group(&[1], &[], &[])];
        assert_eq!(
            note_nodes(&state, &gone),
            vec![MetaOp::RemoveNode {
                node: CoreNodeId(3)
            }]
        );
    }
}
