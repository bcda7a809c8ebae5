//! The pages that the node embeds: built before the node, if npm is there.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::workspace;
use crate::console::say;

/// Builds the dashboard. Without npm the node is built without it, and says so where the dashboard would be.
///
/// # Errors
///
/// If npm is there and cannot build it.
pub(crate) fn build() -> Result<()> {
    if Command::new("npm").arg("--version").output().is_err() {
        say("npm is not installed: the dashboard is left out, everything else works");
        return Ok(());
    }
    let dashboard = workspace().join("web/dashboard");
    say("building the dashboard");
    if !dashboard.join("node_modules").exists() {
        npm(&["ci", "--no-audit", "--no-fund"])?;
    }
    npm(&["run", "--silent", "build"])
}

fn npm(arguments: &[&str]) -> Result<()> {
    let status = Command::new("npm")
        .args(arguments)
        .current_dir(workspace().join("web/dashboard"))
        .status()
        .context("npm did not run")?;
    ensure!(
        status.success(),
        "npm {} failed: see above",
        arguments.join(" ")
    );
    Ok(())
}
