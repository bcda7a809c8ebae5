//! A fixed set of seeds in which nothing may be violated, and planted bugs that must be found.

use std::time::Duration;

use espalier_sim::{Batch, Bug, Run, Summary};

fn play(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> Summary {
    let batch = Batch {
        seeds,
        run: Run { bug, ..Run::of(0) },
        jobs: 1,
        limit: None,
        first_failure_ends: bug.is_some(),
    };
    batch.play(|_| {})
}

fn nothing_is_violated(seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let summary = play(seeds, None);
    assert_eq!(summary.failures, [], "again: espalier-sim cluster --seed N");
    assert_eq!(summary.runs, count);
    // They did something worth checking.
    assert!(summary.entries > 50 * count, "{} entries", summary.entries);
    assert!(
        summary.operations > 30 * count,
        "{} calls",
        summary.operations
    );
}

#[test]
fn fixed_seeds_first_part() {
    nothing_is_violated(1..250);
}

#[test]
fn fixed_seeds_second_part() {
    nothing_is_violated(250..500);
}

#[test]
fn fixed_seeds_third_part() {
    nothing_is_violated(500..750);
}

#[test]
fn fixed_seeds_fourth_part() {
    nothing_is_violated(750..1_000);
}

#[test]
fn the_same_seed_is_the_same_history_wherever_it_is_played() {
    for seed in [3, 57, 140] {
        let once = Run::of(seed).play();
        let recorded = Run {
            recording: true,
            ..Run::of(seed)
        };
        let elsewhere = std::thread::spawn(move || recorded.play());
        let elsewhere = elsewhere.join().unwrap();
        assert!(once.virtual_time > Duration::from_secs(5));
        assert!(!elsewhere.events.is_empty());
        assert_eq!(once.history, elsewhere.history, "seed {seed}");
        assert_eq!(once.applied, elsewhere.applied, "seed {seed}");
    }
    assert_ne!(Run::of(1).play().history, Run::of(2).play().history);
}

fn is_found(bug: Bug, within: u64, rules: &[&str]) {
    let summary = play(1..within + 1, Some(bug));
    let found = summary.failures.first();
    let rule = found.map(|found| found.rule.as_str());
    assert!(
        rule.is_some_and(|rule| rules.contains(&rule)),
        "after {} seeds: {found:?}",
        summary.runs
    );
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    is_found(
        Bug::AckBeforeSync,
        100,
        &[
            "committed entries stay",
            "equal states at equal index",
            "nothing panics",
            "groups run",
        ],
    );
}

#[test]
fn a_restarted_leader_that_resumes_its_term_is_found() {
    is_found(
        Bug::LeaderRestore,
        100,
        &[
            "committed entries stay",
            "equal states at equal index",
            "one actor a generation",
        ],
    );
}

#[test]
fn an_actor_that_outlives_its_term_is_found() {
    is_found(
        Bug::OutlivingActor,
        50,
        &[
            "engines believe the records",
            "a healed cluster comes to rest",
            "one actor a generation",
            "told after the commit",
        ],
    );
}

#[test]
fn reads_under_a_lease_are_found() {
    is_found(Bug::LeaseReads, 600, &["the API is linearizable"]);
}

#[test]
fn a_vote_that_is_answered_before_it_is_on_the_disk_is_found() {
    is_found(
        Bug::UnsyncedVote,
        600,
        &["one leader a term", "committed entries stay"],
    );
}
