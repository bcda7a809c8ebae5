//! Every built-in scenario, small, with the planner's invariants checked on the way; and that a seed is a run.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use espalier_sim::planning::{PlannerRun, Report, Rule, Scenario, Subject};

fn small(name: &str, peers: u32, seconds: u32) -> Scenario {
    let mut scenario = Scenario::load(name).unwrap().with_peers(peers);
    scenario.seconds = scenario.seconds.min(seconds);
    scenario.warm_seconds = scenario.warm_seconds.min(60);
    scenario.past_seconds = scenario.past_seconds.min(20_000);
    if let Some(day) = &mut scenario.arrivals.day {
        day.seconds = seconds;
    }
    scenario
}

fn play(scenario: Scenario, seed: u64, subject: Subject, check_every: Option<u64>) -> Report {
    let run = PlannerRun {
        scenario,
        seed,
        subject,
        check_every,
        replay_from_snapshot: false,
    };
    run.play(|_| {}).unwrap()
}

#[test]
fn every_scenario_keeps_the_planner_s_invariants() {
    for name in Scenario::built_in() {
        let peers = if name == "flash-warm" || !name.starts_with("flash") {
            300
        } else {
            10
        };
        let report = play(small(name, peers, 180), 3, Subject::Planner, Some(50));
        assert_eq!(report.findings, Vec::<String>::new(), "{name}");
        assert!(report.events.all > 200, "{name}: {:?}", report.events);
        let ratio = report.ratios.mean_depth.unwrap();
        assert!(
            ratio >= 1.0 - 1e-9,
            "{name}: the mean depth is {ratio} of the least"
        );
        // Helpers in trees that they do not watch may feed more than the bound without them; and where NATs
        // part peers, the planner may count on links that fail in a moment.
        let bounded = !["abr", "nat-hostile"].contains(&name);
        let roots = report.ratios.roots.unwrap();
        assert!(
            !bounded || roots >= 0.999,
            "{name}: {roots} of the least roots"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let subjects = [
        Subject::Planner,
        Subject::Yardstick(Rule::Random),
        Subject::Yardstick(Rule::Rost),
    ];
    for subject in subjects {
        let run = |seed| play(small("steady", 400, 120), seed, subject, None);
        let (one, again, other) = (run(5), run(5), run(6));
        assert_eq!(one.without_timings(), again.without_timings());
        assert_ne!(one.state_hash, other.state_hash);
    }
}

#[test]
fn a_planner_from_a_snapshot_is_the_one_that_went_on() {
    for name in ["steady", "region-loss", "abr"] {
        let run = PlannerRun {
            scenario: small(name, 400, 120),
            seed: 5,
            subject: Subject::Planner,
            check_every: None,
            replay_from_snapshot: true,
        };
        let report = run.play(|_| {}).unwrap();
        assert_eq!(report.findings, Vec::<String>::new(), "{name}");
        let replays = report.replays.unwrap();
        assert_eq!(replays.rebuilds, 4, "{name}");
        assert_eq!(replays.second_run, report.state_hash, "{name}");
    }
}

#[test]
fn yardsticks_build_legal_trees_and_are_worse_where_they_should_be() {
    let run = |rule| {
        play(
            small("steady", 2_000, 200),
            1,
            Subject::Yardstick(rule),
            Some(500),
        )
    };
    let (random, shallow) = (run(Rule::Random), run(Rule::MinimumDepth));
    let rost = run(Rule::Rost);
    for report in [&random, &shallow, &rost] {
        assert_eq!(report.findings, Vec::<String>::new(), "{}", report.policy);
    }
    assert!(random.averages.mean_depth > shallow.averages.mean_depth);
    assert!(rost.planned_moves_per_viewer_hour > shallow.planned_moves_per_viewer_hour);
}

#[test]
fn a_region_that_vanishes_is_worked_off_in_slices() {
    let mut scenario = small("region-loss", 2_000, 120);
    let report = play(scenario.clone(), 2, Subject::Planner, Some(1));
    assert_eq!(report.findings, Vec::<String>::new());
    let mass = report.mass_event.unwrap();
    assert!((200..450).contains(&mass.peers), "{mass:?}");
    assert!(
        mass.orphan_heads > 0 && mass.edges + 20 >= mass.orphan_heads,
        "{mass:?}"
    );
    scenario.loss = None;
    let whole = play(scenario, 2, Subject::Planner, None);
    assert!(whole.averages.viewers > report.averages.viewers);
}

#[test]
fn stripes_make_more_of_the_same_uplinks() {
    let mut scenario = small("free-riders", 1_000, 60);
    let one = play(scenario.clone(), 1, Subject::Planner, Some(500));
    scenario.channel.stripes = 4;
    let four = play(scenario, 1, Subject::Planner, Some(500));
    for report in [&one, &four] {
        assert_eq!(report.findings, Vec::<String>::new());
        assert!(
            report
                .ratios
                .mean_depth
                .is_some_and(|ratio| ratio >= 1.0 - 1e-9)
        );
    }
    // What is left of an uplink after whole slots feeds somebody.
    assert!(
        four.averages.offload > one.averages.offload,
        "{:?} {:?}",
        four.averages,
        one.averages
    );
}

#[test]
fn what_nobody_plans_the_cdn_feeds() {
    let report = play(small("steady", 500, 60), 1, Subject::Nobody, None);
    assert!((report.averages.roots - report.averages.viewers).abs() < 20.0);
    assert_eq!(report.stalls_per_viewer_hour, 0.0);
}
