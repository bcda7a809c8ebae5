//! Proves that the pure crates stay pure: what they are built from reaches no runtime and no socket.

use anyhow::{Context, Result, ensure};

use crate::cargo::cargo;
use crate::console::say;

/// Crates that decide and do not act.
const PURE: [&str; 3] = [
    "espalier-media",
    "espalier-orchestrator-core",
    "espalier-peer-core",
];

/// What none of them may reach, however indirectly.
const IMPURE: &[&str] = &[
    "tokio", "mio", "actix", "actix-rt", "tonic", "hyper", "reqwest", "axum", "sled", "webrtc",
    "rtc", "socket2", "rand",
];

/// What one of them may not reach beside that.
const MORE: [(&str, &str); 1] = [("espalier-orchestrator-core", "espalier-proto")];

/// Asks cargo for each crate's dependencies and refuses those that do not belong there.
///
/// # Errors
///
/// Every offence, with the command that shows the way it came.
pub(crate) fn check() -> Result<()> {
    let mut offences = Vec::new();
    for package in PURE {
        let output = cargo([
            "tree",
            "--package",
            package,
            "--edges=normal",
            "--prefix=none",
        ])
        .output()
        .context("cargo tree did not run")?;
        ensure!(
            output.status.success(),
            "cargo tree for {package}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let tree = String::from_utf8_lossy(&output.stdout);
        offences.extend(impure(package, &tree).into_iter().map(|reached| {
            format!("{package} reaches {reached}: cargo tree -p {package} -e normal -i {reached}")
        }));
        say(format!("{package}: {} crates", names(&tree).len()));
    }
    ensure!(
        offences.is_empty(),
        "{}",
        offences.join(
            "
"
        )
    );
    Ok(())
}

fn impure<'a>(package: &str, tree: &'a str) -> Vec<&'a str> {
    names(tree)
        .into_iter()
        .filter(|name| IMPURE.contains(name) || MORE.contains(&(package, name)))
        .collect()
}

/// The crates in the output of `cargo tree --prefix=none`, each once.
fn names(tree: &str) -> Vec<&str> {
    let mut names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offenders_are_named_and_look_alikes_are_not() {
        let tree = "espalier-media v0.1.0 (/x)\nbytes v1.12.0\ntokio v1.54.1\ntokio v1.54.1 (*)\n\
                    tokio-stream v0.1.0\n\nespalier-proto v0.1.0";
        assert_eq!(impure("espalier-media", tree), ["tokio"]);
        assert_eq!(
            impure(
                "espalier-orchestrator-core",
                "espalier-proto v0.1.0\nsha2 v0.10.9"
            ),
            ["espalier-proto"]
        );
    }
}
