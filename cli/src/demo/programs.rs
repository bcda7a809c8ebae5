//! The programs that the demo runs.

use std::path::{Path, PathBuf};

use espalier_process::{Failure, OrFail};

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This one.
    pub(crate) espalier: PathBuf,
    pub(crate) orchestrator: PathBuf,
    pub(crate) peer: PathBuf,
}

impl Programs {
    /// Finds them next to this program.
    ///
    /// # Errors
    ///
    /// If one is not there.
    pub(crate) fn find() -> Result<Self, Failure> {
        let espalier = std::env::current_exe().or_fail("cannot find out where this program is")?;
        let directory = espalier.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self {
            orchestrator: in_directory(&directory, "espalier-orchestrator")?,
            peer: in_directory(&directory, "espalier-peer")?,
            espalier,
        })
    }
}

fn in_directory(directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = directory.join(name);
    if is_program(&path) {
        return Ok(path);
    }
    Err(Failure::failed(format!("{name} is not there"))
        .because(format!(
            "the demo runs the programs beside it, in {}",
            directory.display()
        ))
        .next("build everything with `cargo xtask demo`"))
}

/// Finds a program of the operating system.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path() {
        assert!(in_path("sh").is_some());
        assert!(in_path("no-such-program-anywhere").is_none());
    }

    #[test]
    fn a_missing_program_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("plain-file"), "").unwrap();
        for name in ["absent", "plain-file"] {
            let text = in_directory(directory.path(), name)
                .unwrap_err()
                .to_string();
            assert!(
                text.contains(name) && text.contains("cargo xtask demo"),
                "{text}"
            );
        }
    }
}
