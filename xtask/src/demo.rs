//! `cargo xtask demo`: builds the programs and becomes the demo.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{PROGRAMS, cargo, release_directory};
use crate::console::say;
use crate::{pages, tools};

/// Builds with cargo's own progress, then replaces this process by the demo, so that signals reach it.
///
/// # Errors
///
/// If the build fails, or the demo cannot be started.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !tools::has_ffmpeg() {
        say(
            "ffmpeg is not installed, and not needed: sample media will be looped as the live stream",
        );
    }
    pages::make_if_possible()?;
    say("building the programs in release mode; the first time takes some minutes");
    let packages = PROGRAMS.iter().flat_map(|package| ["--package", *package]);
    let status = cargo(["build", "--release"].into_iter().chain(packages))
        .status()
        .context("cargo build did not run")?;
    ensure!(status.success(), "the build failed: see above");
    let program = release_directory()?.join("espalier");
    let error = Command::new(&program).arg("demo").args(arguments).exec();
    Err(error).with_context(|| format!("{} did not start", program.display()))
}
