//! `espalier-sim`: plays clusters from seeds and says what they violated; plays audiences and says how near the
//! planner comes to what is possible.

mod run_command;

use std::io::{IsTerminal as _, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use espalier_sim::{Batch, Bug, Run, Summary};
use indicatif::{ProgressBar, ProgressStyle};

/// Clusters, audiences and faults from seeds, on virtual time
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  espalier-sim run steady --report steady.json --plots plots
  espalier-sim run region-loss --peers 100000 --compare
  espalier-sim cluster --seeds 1..500
  espalier-sim cluster --seeds 1..1000000 --minutes 10 --jobs 2 --report soak.json
  espalier-sim cluster --seed 57
  espalier-sim planted --seeds 1..2000";

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a scenario with the planner and an audience of up to millions
    Run(run_command::RunArguments),
    /// Play a cluster with its audience and its faults, once for each seed
    Cluster(ClusterArguments),
    /// Plant each known bug and say after how many seeds it is found
    Planted {
        /// The seeds to try for each bug
        #[arg(long, default_value = "1..2000", value_parser = parse_seeds)]
        seeds: Range<u64>,
        /// Runs at a time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
}

#[derive(Debug, Args)]
struct ClusterArguments {
    /// The seeds, first and end
    #[arg(long, default_value = "1..500", value_parser = parse_seeds, conflicts_with = "seed")]
    seeds: Range<u64>,
    /// One seed, with its last events
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes; without it the seed says so
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: Option<u64>,
    /// Begin no run after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Plant a bug
    #[arg(long)]
    planted: Option<Bug>,
    /// Runs at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Write a summary to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed terminal leaves only the exit code.
            drop(error.print());
            return if error.use_stderr() {
                ExitCode::from(64)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let sound = match arguments.command {
        Command::Run(arguments) => run_command::run(&arguments, say),
        Command::Cluster(arguments) => match arguments.seed {
            Some(seed) => replay(seed, &arguments),
            None => cluster(&arguments),
        },
        Command::Planted { seeds, jobs } => planted(&seeds, jobs),
    };
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn cluster(arguments: &ClusterArguments) -> bool {
    let batch = Batch {
        seeds: arguments.seeds.clone(),
        run: run(arguments),
        jobs: arguments.jobs,
        limit: arguments
            .minutes
            .map(|minutes| Duration::from_secs(60 * minutes)),
        first_failure_ends: false,
    };
    let summary = play(&batch);
    for failure in &summary.failures {
        say(format!(
            "seed {}: {}: {}",
            failure.seed, failure.rule, failure.detail
        ));
        say(format!(
            "  again: espalier-sim cluster --seed {}{}",
            failure.seed,
            flags(arguments)
        ));
    }
    say(format!(
        "{} runs, {} of them violated something; {:.0} a minute; {} entries, {} calls of the API, {:.0} s of virtual time",
        summary.runs,
        summary.failures.len(),
        per_minute(&summary),
        summary.entries,
        summary.operations,
        summary.virtual_seconds,
    ));
    if let Some(file) = &arguments.report {
        let text = serde_json::to_vec_pretty(&summary).unwrap_or_default();
        if let Err(error) = std::fs::write(file, text) {
            say(format!(
                "the report could not be written to {}: {error}",
                file.display()
            ));
            return false;
        }
    }
    summary.failures.is_empty()
}

fn replay(seed: u64, arguments: &ClusterArguments) -> bool {
    let outcome = Run {
        seed,
        recording: true,
        ..run(arguments)
    }
    .play();
    for event in &outcome.events {
        say(event);
    }
    match &outcome.violation {
        Some(violation) => say(format!(
            "seed {seed}: {}: {}",
            violation.rule, violation.detail
        )),
        None => say(format!("seed {seed}: nothing was violated")),
    }
    say(format!(
        "history {:016x}: {} entries, {} calls of the API, {:.1} s",
        outcome.history,
        outcome.applied,
        outcome.operations,
        outcome.virtual_time.as_secs_f64()
    ));
    outcome.violation.is_none()
}

fn planted(seeds: &Range<u64>, jobs: usize) -> bool {
    let mut all = true;
    for bug in Bug::ALL {
        let run = Run {
            bug: Some(bug),
            ..Run::of(0)
        };
        let batch = Batch {
            seeds: seeds.clone(),
            run,
            jobs,
            limit: None,
            first_failure_ends: true,
        };
        let summary = play(&batch);
        match summary.failures.first() {
            Some(found) => say(format!(
                "{bug:?}: found after {} seeds: {}: {:.300}",
                summary.runs, found.rule, found.detail
            )),
            None => say(format!("{bug:?}: not found in {} seeds", summary.runs)),
        }
        all &= !summary.failures.is_empty();
    }
    all
}

fn play(batch: &Batch) -> Summary {
    let count = batch.seeds.end.saturating_sub(batch.seeds.start);
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(count)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {msg}") {
        bar.set_style(style);
    }
    let summary = batch.play(|summary| {
        bar.set_position(summary.runs);
        if !summary.failures.is_empty() {
            bar.set_message(format!("{} failed", summary.failures.len()));
        }
    });
    bar.finish_and_clear();
    summary
}

fn run(arguments: &ClusterArguments) -> Run {
    Run {
        nodes: arguments.nodes,
        bug: arguments.planted,
        ..Run::of(0)
    }
}

/// The arguments beside the seed that a run depends on.
fn flags(arguments: &ClusterArguments) -> String {
    let nodes = arguments.nodes.map(|nodes| format!(" --nodes {nodes}"));
    let bug = arguments
        .planted
        .and_then(|bug| clap::ValueEnum::to_possible_value(&bug));
    let bug = bug.map(|bug| format!(" --planted {}", bug.get_name()));
    nodes.unwrap_or_default() + &bug.unwrap_or_default()
}

fn per_minute(summary: &Summary) -> f64 {
    let runs = u32::try_from(summary.runs).unwrap_or(u32::MAX);
    f64::from(runs) * 60.0 / summary.seconds.max(0.001)
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(first, end)| {
        let (first, end) = (first.parse::<u64>().ok()?, end.parse::<u64>().ok()?);
        (first < end).then_some(first..end)
    });
    parts.ok_or_else(|| format!("{text:?} is not like 1..500"))
}

fn say(text: impl std::fmt::Display) {
    // Without a reader there is nobody to say it to.
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn seeds_are_a_range() {
        assert_eq!(parse_seeds("1..500"), Ok(1..500));
        for wrong in ["", "5", "5..5", "6..5", "a..b", "1..-2"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }
}
