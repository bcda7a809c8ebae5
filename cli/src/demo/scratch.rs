//! The directory with everything temporary.
//!
//! A demo that was killed with SIGKILL cannot remove its directory; the next one does. Whether a directory is
//! still in use is told by a lock that the kernel drops with its holder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use espalier_process::{Failure, OrFail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use tempfile::TempDir;

const PREFIX: &str = "espalier-demo-";
const LOCK: &str = "in-use";

/// A temporary directory; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
    _in_use: Flock<File>,
}

impl Scratch {
    /// Makes a directory, after removing those of demos that were killed.
    ///
    /// # Errors
    ///
    /// If there is no place for temporary files.
    pub(crate) fn new() -> Result<Self, Failure> {
        let place = std::env::temp_dir();
        if let Err(error) = sweep(&place) {
            tracing::debug!(%error, "what killed demos left behind stays");
        }
        Self::inside(&place).or_fail("cannot make a temporary directory")
    }

    fn inside(place: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
        let file = File::create(directory.path().join(LOCK))?;
        let in_use = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| io::Error::from(error))?;
        Ok(Self {
            directory,
            _in_use: in_use,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes the directory, and says so if that fails.
    ///
    /// # Errors
    ///
    /// Whatever could not be removed.
    pub(crate) fn close(self) -> io::Result<()> {
        self.directory.close()
    }
}

/// Removes the directories whose demos are gone. One without its lock has just been made, or is none
/// of ours.
fn sweep(place: &Path) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let data = entry.metadata()?;
        if !ours || !data.is_dir() || data.uid() != geteuid().as_raw() {
            continue;
        }
        let Ok(file) = File::open(entry.path().join(LOCK)) else {
            continue;
        };
        if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_killed_demos_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let alive = Scratch::inside(place.path()).unwrap();
        let make = |name: &str, file: &str| {
            let directory = place.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(file), "").unwrap();
            directory
        };
        let killed = make("espalier-demo-killed", LOCK);
        let young = make("espalier-demo-young", "something");
        let foreign = make("other", LOCK);
        sweep(place.path()).unwrap();
        assert!(!killed.exists());
        assert!(alive.path().exists() && young.exists() && foreign.exists());
        let path = alive.path().to_owned();
        alive.close().unwrap();
        assert!(!path.exists());
    }
}
