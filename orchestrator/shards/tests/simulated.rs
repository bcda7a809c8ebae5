//! The same cluster on virtual time: one seed, one history.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use espalier_shards::Settings;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use support::Cluster;

/// Writes through kills and partitions, and returns what was committed and what the scheduler did.
fn history(seed: u64) -> (Vec<String>, Vec<String>) {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(true);
    let journal = runtime.block_on(async {
        let settings = Settings {
            snapshot_log_bytes: 64,
            kept_entries: 2,
            ..Settings::default()
        };
        let mut cluster = Cluster::<SimRuntime>::start(3, settings).await;
        let mut last = 0;
        for round in 0..6_u32 {
            for write in 0..8 {
                let (leader, term) = cluster.leader().await;
                let command = Bytes::from(format!("round {round} write {write}"));
                if let Ok((at, _)) = cluster.running[&leader].propose(term, command).await {
                    last = at.index;
                }
            }
            let (leader, _) = cluster.leader().await;
            if round % 2 == 0 {
                cluster.kill(leader).await;
                cluster.leader().await;
                cluster.boot(leader).await;
            } else {
                let other = leader % 3 + 1;
                cluster.fabric.cut(leader, other);
                SimRuntime::sleep(Duration::from_millis(900)).await;
                cluster.fabric.heal();
            }
        }
        cluster.converged(last).await;
        let (_, journal) = cluster.running[&1].state();
        let lines = journal
            .entries
            .into_iter()
            .map(|(at, command)| format!("{at} {}", String::from_utf8(command).unwrap()));
        lines.collect::<Vec<_>>()
    });
    (journal, runtime.take_trace())
}

#[test]
fn the_same_seed_is_the_same_history() {
    let (journal, trace) = history(7);
    assert!(journal.len() >= 40, "{journal:?}");
    let (again, trace_again) = history(7);
    assert_eq!(journal, again);
    let differs = trace
        .iter()
        .zip(&trace_again)
        .position(|(one, other)| one != other);
    assert_eq!(differs, None, "of {} scheduler events", trace.len());
    assert_eq!(trace.len(), trace_again.len());
}

#[test]
fn another_seed_is_another_history() {
    assert_ne!(history(1).1, history(2).1);
}

#[test]
fn twenty_seeds_keep_every_acknowledged_write() {
    for seed in 100..120 {
        let (journal, _) = history(seed);
        for round in 0..6 {
            let kept = journal
                .iter()
                .filter(|line| line.contains(&format!("round {round}")))
                .count();
            assert!(kept >= 7, "seed {seed}: of round {round} {kept} writes");
        }
    }
}
