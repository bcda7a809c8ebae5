//! Which leader moves where: groups' leaders spread evenly over the nodes that may lead.
//!
//! Every node computes the same from what it sees and carries out the moves that begin at itself, so
//! differing views cost a superfluous move, never a conflict. Leaders move only when the fullest node
//! leads at least two more than the emptiest: a restart brings balance back, noise moves nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{GroupId, NodeId};

/// A group as the balance sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedGroup {
    /// Which one.
    pub group: GroupId,
    /// Who leads it.
    pub leader: NodeId,
    /// Which voters hold (nearly) all of its log and could take over at once.
    pub caught_up: BTreeSet<NodeId>,
}

/// A leader that is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// In which group.
    pub group: GroupId,
    /// Who leads it.
    pub from: NodeId,
    /// Who is to lead it.
    pub to: NodeId,
}

/// The moves that bring balance, at most `limit` of them. `eligible` are the nodes that may lead: alive
/// and not being drained. Leaders on others are moved away first.
#[must_use]
pub fn plan_moves(groups: &[LedGroup], eligible: &BTreeSet<NodeId>, limit: usize) -> Vec<Move> {
    let mut groups = groups.to_vec();
    groups.sort_by_key(|led| led.group);
    let mut load: BTreeMap<NodeId, usize> = eligible.iter().map(|node| (*node, 0)).collect();
    for led in &groups {
        load.entry(led.leader).and_modify(|count| *count += 1);
    }
    let mut moves = Vec::new();
    while moves.len() < limit {
        let Some((at, to)) =
            evacuation(&groups, eligible, &load).or_else(|| levelling(&groups, &load))
        else {
            break;
        };
        let from = groups[at].leader;
        moves.push(Move {
            group: groups[at].group,
            from,
            to,
        });
        groups[at].leader = to;
        load.entry(from).and_modify(|count| *count -= 1);
        load.entry(to).and_modify(|count| *count += 1);
    }
    moves
}

/// A group whose leader may not lead, and the emptiest node that could.
fn evacuation(
    groups: &[LedGroup],
    eligible: &BTreeSet<NodeId>,
    load: &BTreeMap<NodeId, usize>,
) -> Option<(usize, NodeId)> {
    let mut leaving = groups
        .iter()
        .enumerate()
        .filter(|(_, led)| !eligible.contains(&led.leader));
    leaving.find_map(|(at, led)| Some((at, emptiest(&led.caught_up, load)?)))
}

/// A group of a full node that a node with at least two fewer could lead.
fn levelling(groups: &[LedGroup], load: &BTreeMap<NodeId, usize>) -> Option<(usize, NodeId)> {
    let mut donors: Vec<(usize, NodeId)> =
        load.iter().map(|(node, count)| (*count, *node)).collect();
    donors.sort_by_key(|(count, node)| (std::cmp::Reverse(*count), *node));
    donors.into_iter().find_map(|(count, donor)| {
        let mut own = groups
            .iter()
            .enumerate()
            .filter(|(_, led)| led.leader == donor);
        own.find_map(|(at, led)| {
            let to = emptiest(&led.caught_up, load)?;
            (load[&to] + 2 <= count).then_some((at, to))
        })
    })
}

fn emptiest(candidates: &BTreeSet<NodeId>, load: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    candidates
        .iter()
        .filter_map(|node| Some((load.get(node)?, *node)))
        .min()
        .map(|(_, node)| node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn led(group: u32, leader: NodeId, caught_up: &[NodeId]) -> LedGroup {
        LedGroup {
            group: GroupId(group),
            leader,
            caught_up: caught_up.iter().copied().collect(),
        }
    }

    fn nodes(ids: &[NodeId]) -> BTreeSet<NodeId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_difference_of_one_moves_nothing() {
        let groups = [
            led(0, 1, &[1, 2, 3]),
            led(1, 1, &[1, 2, 3]),
            led(2, 2, &[1, 2, 3]),
        ];
        assert_eq!(plan_moves(&groups, &nodes(&[1, 2]), 8), vec![]);
    }

    #[test]
    fn a_drained_node_gives_everything_away() {
        let groups = [
            led(0, 1, &[1, 2, 3]),
            led(1, 1, &[1, 2, 3]),
            led(2, 2, &[1, 2, 3]),
        ];
        let moves = plan_moves(&groups, &nodes(&[2, 3]), 8);
        assert_eq!(
            moves,
            vec![
                Move {
                    group: GroupId(0),
                    from: 1,
                    to: 3
                },
                Move {
                    group: GroupId(1),
                    from: 1,
                    to: 2
                }
            ]
        );
    }

    #[test]
    fn nobody_takes_over_who_lags() {
        let groups = [led(0, 1, &[1]), led(1, 1, &[1]), led(2, 1, &[1])];
        assert_eq!(plan_moves(&groups, &nodes(&[1, 2, 3]), 8), vec![]);
        assert_eq!(plan_moves(&groups, &nodes(&[2, 3]), 8), vec![]);
    }

    #[test]
    fn a_round_is_bounded() {
        let groups: Vec<_> = (0..17).map(|group| led(group, 1, &[1, 2, 3])).collect();
        assert_eq!(plan_moves(&groups, &nodes(&[1, 2, 3]), 2).len(), 2);
    }

    proptest! {
        #[test]
        fn it_ends_level_and_stays_there(leaders in proptest::collection::vec(1_u64..=5, 1..40)) {
            let all = nodes(&[1, 2, 3, 4, 5]);
            let mut groups: Vec<_> = (0_u32..)
                .zip(&leaders)
                .map(|(group, leader)| led(group, *leader, &[1, 2, 3, 4, 5]))
                .collect();
            for step in plan_moves(&groups, &all, usize::MAX) {
                let group = groups.iter_mut().find(|led| led.group == step.group).unwrap();
                prop_assert_eq!(group.leader, step.from);
                group.leader = step.to;
            }
            let counts: Vec<_> = all
                .iter()
                .map(|node| groups.iter().filter(|led| led.leader == *node).count())
                .collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            prop_assert_eq!(plan_moves(&groups, &all, usize::MAX), vec![]);
        }
    }
}
