//! Where the programs under test and the system's tools are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What to run when a program of ours is missing.
const BUILD: &str = "cargo build --release -p espalier-orchestrator -p espalier-signer \
                     -p espalier-peer -p espalier-cli";

/// The directory that holds the programs under test: the one that the test itself was built into.
///
/// # Errors
/// The test's own path cannot be read.
pub fn directory() -> Result<PathBuf> {
    let test = env::current_exe().context("the test's own path")?;
    let parent = test.parent().context("the test's own directory")?;
    Ok(if parent.ends_with("deps") {
        parent
            .parent()
            .context("the target directory")?
            .to_path_buf()
    } else {
        parent.to_path_buf()
    })
}

/// The path of one of our programs.
///
/// # Errors
/// It is not built yet; the error says what to run.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = directory()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: build the programs first, with: {BUILD}",
            path.display()
        );
    }
    Ok(path)
}

/// The path of a tool of the system.
///
/// # Errors
/// It is not installed; the error says which Debian package has it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    found.with_context(|| {
        format!(
            "{name} is missing: apt-get install {} (cargo xtask test does it)",
            package(name)
        )
    })
}

fn package(tool: &str) -> &str {
    match tool {
        "ffmpeg" | "ffprobe" => "ffmpeg",
        "nginx" => "nginx-light",
        "ip" | "tc" | "ss" => "iproute2",
        "strace" => "strace",
        _ => "util-linux",
    }
}

/// Where figures and the logs of failed scenarios are kept: `target/e2e`.
///
/// # Errors
/// The target directory is not known.
pub fn report_directory() -> Result<PathBuf> {
    let release = directory()?;
    Ok(release.parent().unwrap_or(Path::new(".")).join("e2e"))
}
