//! Three nodes in one process, on tokio: elections, failover, transfer, snapshots, deposed proposers.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use espalier_shards::reset::SeenVote;
use espalier_shards::{MAX_COMMAND, ProposeError, ReadError, Settings};
use futures::StreamExt;
use openraft::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;
use support::{Cluster, info};

type Tokio = TokioRuntime;

fn on_tokio(test: impl Future<Output = ()>) {
    Tokio::new(2).block_on(test);
}

async fn three() -> Cluster<Tokio> {
    Cluster::start(3, Settings::default()).await
}

#[test]
fn what_is_proposed_is_applied_everywhere_under_its_position() {
    on_tokio(async {
        let cluster = three().await;
        let first = cluster.write("a").await;
        let second = cluster.write("b").await;
        assert_eq!((second.term, second.index), (first.term, first.index + 1));
        cluster.converged(second.index).await;
        let (leader, _) = cluster.leader().await;
        assert!(cluster.running[&leader].read_index().await.unwrap() >= second);
    });
}

#[test]
fn tickets_are_answered_in_the_order_of_submission() {
    on_tokio(async {
        let cluster = three().await;
        let (leader, term) = cluster.leader().await;
        let group = &cluster.running[&leader];
        let mut tickets = Vec::new();
        for number in 0..100_u8 {
            tickets.push(group.submit(term, Bytes::from(vec![number])).await.unwrap());
        }
        let mut last = 0;
        for ticket in tickets {
            let (at, _) = ticket.await.unwrap();
            assert!(at.index > last);
            last = at.index;
        }
    });
}

#[test]
fn what_makes_no_sense_is_refused_in_the_answer() {
    on_tokio(async {
        let cluster = three().await;
        let (leader, term) = cluster.leader().await;
        let (_, answer) = cluster.running[&leader]
            .propose(term, Bytes::new())
            .await
            .unwrap();
        assert_eq!(&answer[..], b"refused");
        let large = Bytes::from(vec![0; MAX_COMMAND + 1]);
        let refused = cluster.running[&leader].propose(term, large).await;
        assert_eq!(
            refused,
            Err(ProposeError::TooLarge {
                size: MAX_COMMAND + 1,
                limit: MAX_COMMAND
            })
        );
    });
}

#[test]
fn a_follower_and_a_wrong_term_append_nothing() {
    on_tokio(async {
        let cluster = three().await;
        let (leader, term) = cluster.leader().await;
        let follower = cluster
            .running
            .keys()
            .copied()
            .find(|node| *node != leader)
            .unwrap();
        let refused = cluster.running[&follower]
            .propose(term, Bytes::from_static(b"x"))
            .await;
        assert_eq!(
            refused,
            Err(ProposeError::NotLeader {
                leader: Some(leader)
            })
        );
        let stale = cluster.running[&leader]
            .propose(term - 1, Bytes::from_static(b"x"))
            .await;
        assert!(
            matches!(stale, Err(ProposeError::NotLeader { .. })),
            "{stale:?}"
        );
        let refused = cluster.running[&follower].read_index().await;
        assert_eq!(
            refused,
            Err(ReadError::NotLeader {
                leader: Some(leader)
            })
        );
        let at = cluster.write("after").await;
        cluster.converged(at.index).await;
        assert_eq!(cluster.running[&leader].state().1.entries.len(), 1);
    });
}

#[test]
fn a_killed_leader_is_replaced_and_returns_as_a_follower() {
    on_tokio(async {
        let mut cluster = three().await;
        let before = cluster.write("before").await;
        let (killed, _) = cluster.leader().await;
        cluster.kill(killed).await;
        let after = cluster.write("after").await;
        assert!(after.term > before.term);
        cluster.boot(killed).await;
        cluster.converged(after.index).await;
        assert_eq!(cluster.running[&killed].state().1.entries.len(), 2);
    });
}

#[test]
fn after_a_refused_connection_the_others_elect_at_once() {
    on_tokio(async {
        let mut cluster = three().await;
        cluster.write("before").await;
        let (killed, term) = cluster.leader().await;
        let vote = SeenVote {
            term,
            candidate: killed,
            committed: true,
        };
        cluster.kill(killed).await;
        let begun = Instant::now();
        for group in cluster.running.values() {
            group.drop_lease(vote).await.unwrap();
        }
        let candidate = cluster.running.values().next().unwrap();
        candidate.elect().await.unwrap();
        cluster.write("after").await;
        let took = begun.elapsed();
        assert!(
            took < Duration::from_millis(300),
            "{took:?}: less than any timeout"
        );
    });
}

#[test]
fn one_refused_follower_elects_nobody() {
    on_tokio(async {
        let cluster = three().await;
        let (leader, term) = cluster.leader().await;
        let suspicious = cluster
            .running
            .iter()
            .find(|(node, _)| **node != leader)
            .unwrap()
            .1;
        suspicious
            .drop_lease(SeenVote {
                term,
                candidate: leader,
                committed: true,
            })
            .await
            .unwrap();
        suspicious.elect().await.unwrap();
        for _ in 0..50 {
            let at = cluster.write("on").await;
            assert_eq!(at.term, term);
        }
        assert_eq!(cluster.leader().await, (leader, term));
    });
}

#[test]
fn a_leader_hands_over() {
    on_tokio(async {
        let cluster = three().await;
        cluster.write("before").await;
        let (leader, term) = cluster.leader().await;
        let to = cluster
            .running
            .keys()
            .copied()
            .find(|node| *node != leader)
            .unwrap();
        cluster.running[&leader].transfer(to).await.unwrap();
        let (_, next) = cluster
            .until("the handover", |cluster| {
                cluster.leads().filter(|(node, _)| *node == to)
            })
            .await;
        assert!(next > term);
        cluster.write("after").await;
    });
}

#[test]
fn a_deposed_leader_commits_nothing() {
    on_tokio(async {
        let cluster = three().await;
        let (old, term) = cluster.leader().await;
        for other in cluster.running.keys().filter(|node| **node != old) {
            cluster.fabric.cut(old, *other);
            cluster.fabric.cut(*other, old);
        }
        let lost = cluster.running[&old]
            .submit(term, Bytes::from_static(b"lost"))
            .await
            .unwrap();
        let refused = cluster.running[&old].read_index().await;
        assert_eq!(refused, Err(ReadError::NoQuorum));
        cluster
            .until("another leader", |cluster| {
                cluster.leads().filter(|(node, _)| *node != old)
            })
            .await;
        let after = cluster.write("kept").await;
        cluster.fabric.heal();
        let outcome = lost.await;
        assert!(
            matches!(outcome, Err(ProposeError::Unknown { .. })),
            "{outcome:?}"
        );
        cluster.converged(after.index).await;
        let commands: Vec<_> = cluster.running[&old]
            .state()
            .1
            .entries
            .into_iter()
            .map(|entry| entry.1)
            .collect();
        assert_eq!(commands, vec![b"kept".to_vec()]);
    });
}

#[test]
fn a_grown_log_is_replaced_by_a_snapshot_that_newcomers_install() {
    on_tokio(async {
        let settings = Settings {
            snapshot_log_bytes: 4_096,
            kept_entries: 4,
            ..Settings::default()
        };
        let mut cluster = Cluster::<Tokio>::start(3, settings).await;
        let (leader, term) = cluster.leader().await;
        let mut last = 0;
        for number in 0..64_u8 {
            let command = Bytes::from(vec![number; 256]);
            last = cluster.running[&leader]
                .propose(term, command)
                .await
                .unwrap()
                .0
                .index;
        }
        cluster
            .until("a purge", |cluster| {
                cluster.running[&leader].status().purged
            })
            .await;
        cluster.boot(4).await;
        cluster.running[&leader]
            .add_learner(4, info(4))
            .await
            .unwrap();
        cluster
            .until("the installation", |cluster| {
                cluster.running[&4]
                    .read(|at, _| at.is_some_and(|at| at.index > last))
                    .then_some(())
            })
            .await;
        cluster.converged(last + 1).await;
        assert!(cluster.running[&4].status().snapshot.is_some());

        // A restart begins from the snapshot and applies the rest of the log.
        cluster.kill(leader).await;
        cluster.boot(leader).await;
        let at = cluster.write("after").await;
        cluster.converged(at.index).await;
    });
}

#[test]
fn a_node_joins_votes_and_leaves() {
    on_tokio(async {
        let mut cluster = three().await;
        cluster.boot(4).await;
        let (leader, _) = cluster.leader().await;
        let gone = cluster
            .running
            .keys()
            .copied()
            .find(|node| *node != leader)
            .unwrap();
        let voters: BTreeSet<_> = (1..=4).filter(|node| *node != gone).collect();
        let group = &cluster.running[&leader];
        group.add_learner(4, info(4)).await.unwrap();
        group.set_voters(voters.clone()).await.unwrap();
        group.remove_learner(gone).await.unwrap();
        cluster
            .until("the new membership", |cluster| {
                let status = cluster.running[&leader].status();
                let settled = status.voters == voters && !status.changing;
                (settled && !status.members.contains_key(&gone)).then_some(())
            })
            .await;
        cluster.kill(gone).await;
        let at = cluster.write("on").await;
        cluster.converged(at.index).await;
    });
}

#[test]
fn what_nobody_can_read_halts_the_group() {
    on_tokio(async {
        let cluster = Cluster::<Tokio>::start(1, Settings::default()).await;
        let (_, term) = cluster.leader().await;
        let group = &cluster.running[&1];
        let outcome = group.propose(term, Bytes::from_static(b"halt")).await;
        assert!(
            matches!(outcome, Err(ProposeError::Unknown { .. })),
            "{outcome:?}"
        );
        cluster
            .until("the end", |cluster| {
                let now = cluster.running[&1].current_leadership();
                (now == espalier_shards::Leadership::Stopped).then_some(())
            })
            .await;
    });
}

#[test]
fn votes_are_followed() {
    on_tokio(async {
        let mut cluster = three().await;
        let (leader, term) = cluster.leader().await;
        let follower = cluster
            .running
            .keys()
            .copied()
            .find(|node| *node != leader)
            .unwrap();
        let mut votes = Box::pin(cluster.running[&follower].votes());
        let (seen, voters) = votes.next().await.unwrap();
        assert_eq!(
            seen,
            SeenVote {
                term,
                candidate: leader,
                committed: true
            }
        );
        assert_eq!(voters, vec![1, 2, 3]);
        cluster.kill(leader).await;
        let later = tokio_deadline(async move {
            loop {
                let (seen, _) = votes.next().await.unwrap();
                if seen.committed && seen.candidate != leader {
                    return seen;
                }
            }
        })
        .await;
        assert!(later.term > term);
    });
}

async fn tokio_deadline<T: Send>(wait: impl Future<Output = T> + Send) -> T {
    Tokio::timeout(Duration::from_secs(20), wait)
        .await
        .expect("in time")
}
