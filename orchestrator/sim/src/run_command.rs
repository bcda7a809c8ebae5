//! `espalier-sim run`: plays a scenario, says what came of it, and writes the report and its plots.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use espalier_sim::planning::{PlannerRun, Report, Rule, Scenario, Subject, draw};
use indicatif::{ProgressBar, ProgressStyle};

/// What to play.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// A scenario's file, or the name of a built-in one
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,
    /// Say which scenarios are built in
    #[arg(long)]
    list: bool,
    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Viewers at the beginning, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    peers: Option<u32>,
    /// Seconds that are measured, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    seconds: Option<u32>,
    /// Seconds of coming and going before that, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    warm_seconds: Option<u32>,
    /// Into how many stripes each track is cut, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    stripes: Option<u8>,
    /// Play random, minimum-depth and ROST trees over the same seed too
    #[arg(long)]
    compare: bool,
    /// Let the CDN feed everyone, to see what the simulator costs by itself
    #[arg(long, conflicts_with = "compare")]
    nobody: bool,
    /// Check the planner's invariants each time so many events have passed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    check_every: Option<u64>,
    /// Rebuild the planner from its snapshot four times on the way and play it all again: every state must be the same
    #[arg(long)]
    replay_from_snapshot: bool,
    /// Write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Draw plots into this directory, as SVG and PNG
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// Plays, and returns whether everything was sound; `say` prints a line.
pub(crate) fn run(arguments: &RunArguments, say: impl Fn(String)) -> bool {
    if arguments.list {
        Scenario::built_in().for_each(|name| say(name.to_owned()));
        return true;
    }
    match play(arguments, &say) {
        Ok(sound) => sound,
        Err(error) => {
            let causes = std::iter::successors(Some(&*error), |error| error.source());
            let causes: Vec<_> = causes.map(ToString::to_string).collect();
            say(format!("error: {}", causes.join(": ")));
            false
        }
    }
}

fn play(
    arguments: &RunArguments,
    say: &impl Fn(String),
) -> Result<bool, Box<dyn std::error::Error>> {
    let mut scenario = Scenario::load(arguments.scenario.as_deref().unwrap_or_default())?;
    if let Some(peers) = arguments.peers {
        scenario = scenario.with_peers(peers);
    }
    scenario.seconds = arguments.seconds.unwrap_or(scenario.seconds);
    scenario.warm_seconds = arguments.warm_seconds.unwrap_or(scenario.warm_seconds);
    scenario.channel.stripes = arguments.stripes.unwrap_or(scenario.channel.stripes);
    let mut reports = Vec::new();
    for subject in subjects(arguments, &scenario) {
        let run = PlannerRun {
            scenario: scenario.clone(),
            seed: arguments.seed,
            subject,
            check_every: arguments.check_every,
            replay_from_snapshot: arguments.replay_from_snapshot,
        };
        let report = with_progress(&run)?;
        summary(&report).into_iter().for_each(say);
        reports.push(report);
    }
    if let Some(file) = &arguments.report {
        std::fs::write(file, json(&reports)?)?;
    }
    if let Some(directory) = &arguments.plots {
        draw(&reports, directory)?;
    }
    Ok(reports.iter().all(|report| report.findings.is_empty()))
}

fn subjects(arguments: &RunArguments, scenario: &Scenario) -> Vec<Subject> {
    if arguments.nobody {
        return vec![Subject::Nobody];
    }
    let mut subjects = vec![Subject::Planner];
    // The yardsticks know one tree.
    if arguments.compare && scenario.is_one_tree() {
        let rules = [Rule::Random, Rule::MinimumDepth, Rule::Rost];
        subjects.extend(rules.map(Subject::Yardstick));
    }
    subjects
}

fn with_progress(run: &PlannerRun) -> Result<Report, Box<dyn std::error::Error>> {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(1000)
    } else {
        ProgressBar::hidden()
    };
    let template = "{msg} {wide_bar} {percent}% {eta}";
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.set_message(format!("{}, {}", run.scenario.name, run.subject.name()));
    let mut per_mille = 0;
    let report = run.play(|part| {
        while f64::from(per_mille) < part * 1000.0 {
            per_mille += 1;
            bar.inc(1);
        }
    })?;
    bar.finish_and_clear();
    Ok(report)
}

/// The first report with all others beside it.
fn json(reports: &[Report]) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = serde_json::to_value(reports.first())?;
    if let Some(map) = value.as_object_mut().filter(|_| reports.len() > 1) {
        let compared = serde_json::to_value(&reports[1..])?;
        map.insert("compared_with".to_owned(), compared);
    }
    serde_json::to_vec_pretty(&value)
}

fn summary(report: &Report) -> Vec<String> {
    let (averages, ratios, speed) = (&report.averages, &report.ratios, &report.speed);
    let by = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
    let mut lines = vec![
        format!(
            "{} with {}, seed {}: {:.0} viewers on average over {} s",
            report.scenario, report.policy, report.seed, averages.viewers, report.seconds
        ),
        format!(
            "  mean depth      {:10.3}   at least {:10.3}   ratio {}   (deepest {})",
            averages.mean_depth,
            averages.least_mean_depth,
            by(ratios.mean_depth),
            averages.max_depth
        ),
        format!(
            "  interruptions/vh{:10.3}   at least {:10.3}   ratio {}   ({:.3} by parents alone)",
            averages.interruptions_per_viewer_hour,
            averages.least_interruptions,
            by(ratios.interruptions),
            averages.least_interruptions_by_parents
        ),
        format!(
            "  roots           {:10.1}   at least {:10.1}   ratio {}   (offload {:.2} %)",
            averages.roots,
            averages.least_roots,
            by(ratios.roots),
            averages.offload * 100.0
        ),
        format!(
            "  per viewer-hour: {:.3} planned moves, {:.3} repairs, {:.5} stalls; a break lasts {:.0} ms, at most {} ms",
            report.planned_moves_per_viewer_hour,
            averages.repairs_per_viewer_hour,
            report.stalls_per_viewer_hour,
            averages.break_to_repair_ms,
            averages.longest_break_ms
        ),
        format!(
            "  latency behind the CDN: {:.0} ms at the median, {:.0} ms for one in a hundred; {:.1} % of edges within a region, {:.1} % within a provider",
            report.latency.p50_ms,
            report.latency.p99_ms,
            report.latency.within_region * 100.0,
            report.latency.within_provider * 100.0
        ),
        format!(
            "  {:.0} events/s, {:.0} of processor time ({:.0} ns planner, {:.0} ns simulator each); join p99 {:.2} us, leave p99 {:.2} us, worst {:.1} us; {} B a place",
            report.events_per_second,
            speed.events_per_processor_second.unwrap_or(f64::NAN),
            speed.planner_ns_per_event,
            speed.simulator_ns_per_event,
            report.join_p99_us,
            report.leave_p99_us,
            report.worst_event_us,
            report
                .bytes_per_peer
                .map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
        ),
        format!("  state {}", report.state_hash),
    ];
    if let Some(replays) = &report.replays {
        lines.push(format!(
            "  state {} in the second run; rebuilt {} times, at most {:.0} ms to read the snapshot and {:.0} ms to make the planner",
            replays.second_run, replays.rebuilds, replays.read_ms, replays.rebuild_ms
        ));
    }
    if let Some(crowd) = &report.crowd {
        let seconds = crowd.seconds_to_twice_the_target;
        lines.push(format!(
            "  crowd: at most {} roots, at least {} needed, ratio {}; within twice the target after {}",
            crowd.peak_roots,
            crowd.least_peak_roots,
            by(ratios.flash_peak),
            seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.1} s")),
        ));
    }
    if let Some(mass) = &report.mass_event {
        lines.push(format!(
            "  mass event: {} gone, {} heads; {} slices of at most {:.2} ms, {:.1} ms together",
            mass.peers, mass.orphan_heads, mass.slices, mass.worst_slice_ms, mass.total_ms
        ));
    }
    lines.extend(
        report
            .findings
            .iter()
            .take(10)
            .map(|finding| format!("  FINDING {finding}")),
    );
    lines
}
