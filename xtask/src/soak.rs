//! Fresh seeds for the simulator, for as long as somebody has patience.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::cargo::cargo;
use crate::console::say;

/// How long, how many, and from where.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// Begin no run after so many minutes
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// At most so many seeds
    #[arg(long, default_value_t = 1_000_000)]
    seeds: u64,
    /// The first seed; without it, one that nobody has played before
    #[arg(long)]
    base: Option<u64>,
    /// Runs at a time
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Write a summary to this file, as JSON
    #[arg(long)]
    report: Option<String>,
}

/// Plays fresh seeds; every one can be played again by its number.
///
/// # Errors
///
/// If one of them violates something, or the simulator does not run.
pub(crate) fn run(args: &SoakArgs) -> Result<()> {
    let base = match args.base {
        Some(base) => base,
        None => fresh_base()?,
    };
    let seeds = format!("{base}..{}", base.saturating_add(args.seeds));
    let (minutes, jobs) = (args.minutes.to_string(), args.jobs.to_string());
    let mut words = vec![
        "run",
        "--release",
        "--package",
        "espalier-sim",
        "--",
        "cluster",
    ];
    words.extend(["--seeds", &seeds, "--minutes", &minutes, "--jobs", &jobs]);
    if let Some(report) = &args.report {
        words.extend(["--report", report]);
    }
    say(format!("seeds {seeds}: cargo {}", words.join(" ")));
    let status = cargo(words).status().context("cargo run did not run")?;
    ensure!(status.success(), "a seed of {seeds} violated something");
    Ok(())
}

/// Far from the small seeds of the tests, and another one each microsecond.
fn fresh_base() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.context("the clock is before 1970")?.as_micros();
    u64::try_from(micros).context("the clock is too far ahead")
}
