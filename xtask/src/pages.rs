//! The packages for browsers: what they depend on, and the pages that the node embeds, which are built before it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::workspace;
use crate::console::say;

/// Where npm runs: the client, the loaders and the player are one workspace, the dashboard is a package of its own.
const PACKAGES: [&str; 2] = ["web", "web/dashboard"];

/// Installs what the packages depend on, as their lock files say, and builds them.
///
/// # Errors
///
/// If npm is missing, or cannot do it.
pub(crate) fn make() -> Result<()> {
    for package in PACKAGES {
        npm(package, INSTALL)?;
        npm(package, BUILD)?;
    }
    Ok(())
}

/// Builds the pages for the demo. Without npm the node is built without them, and says so where they would be.
///
/// # Errors
///
/// If npm is there and cannot build them.
pub(crate) fn make_if_possible() -> Result<()> {
    if Command::new("npm").arg("--version").output().is_err() {
        say("npm is not installed: dashboard and player page are left out, everything else works");
        return Ok(());
    }
    say("building the dashboard and the player page");
    for package in PACKAGES {
        if is_stale(package) {
            npm(package, INSTALL)?;
        }
        npm(package, BUILD)?;
    }
    Ok(())
}

const INSTALL: &[&str] = &["ci", "--prefer-offline", "--no-audit", "--no-fund"];
const BUILD: &[&str] = &["run", "--silent", "build"];

/// Whether the lock file is newer than what was installed by it.
fn is_stale(package: &str) -> bool {
    let changed = |path: PathBuf| path.metadata().and_then(|it| it.modified()).ok();
    let directory = workspace().join(package);
    let installed = changed(directory.join("node_modules/.package-lock.json"));
    installed.is_none() || installed < changed(directory.join("package-lock.json"))
}

fn npm(package: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new("npm")
        .args(arguments)
        .current_dir(workspace().join(package))
        .status()
        .context("npm did not run")?;
    ensure!(
        status.success(),
        "npm {} failed in {package}: see above",
        arguments.join(" ")
    );
    Ok(())
}
