//! cargo, as it called us.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The programs that users run, by package.
pub(crate) const PROGRAMS: [&str; 4] = [
    "espalier-orchestrator",
    "espalier-signer",
    "espalier-peer",
    "espalier-cli",
];

/// A cargo command, in the workspace's directory.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_this_run(name)) {
        command.env_remove(name);
    }
    if env::var_os("CI").is_some() && env::var_os("CARGO_INCREMENTAL").is_none() {
        // Nobody edits between two builds of a CI run: what incremental builds keep only costs time and space.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Whether cargo set the variable for xtask itself. Build scripts that watch one of them would run again, and
/// everything above them would be built again, at each change between this command and a plain cargo.
fn is_of_this_run(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Where release builds go, wherever the environment or the configuration has it.
pub(crate) fn release_directory() -> Result<PathBuf> {
    let output = cargo(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("cargo metadata did not run")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    let target = metadata["target_directory"]
        .as_str()
        .context("there is no target directory")?;
    Ok(Path::new(target).join("release"))
}
