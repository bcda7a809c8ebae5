//! Writes keys and certificates, never over what is there.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use espalier_process::{Failure, OrFail as _};

/// Makes the directory, for its owner alone, unless it is there.
pub(crate) fn directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.or_fail(format!("cannot make {}", path.display()))
}

/// Writes a file that only its owner can read; returns its path as text.
pub(crate) fn write_secret(directory: &Path, name: &str, text: &str) -> Result<String, Failure> {
    write(directory, name, text, 0o600)
}

/// Writes a file that everybody may read; returns its path as text.
pub(crate) fn write_public(directory: &Path, name: &str, text: &str) -> Result<String, Failure> {
    write(directory, name, text, 0o644)
}

fn write(directory: &Path, name: &str, text: &str, mode: u32) -> Result<String, Failure> {
    let path = directory.join(name);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path);
    let mut file = file.map_err(|error| {
        let failure = Failure::failed(format!("cannot write {}", path.display()));
        if error.kind() == ErrorKind::AlreadyExists {
            failure
                .because("it is there already, and nodes may depend on it")
                .next("name another directory, or move the old file away if nothing uses it")
        } else {
            failure.caused_by(&error)
        }
    })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .or_fail(format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}
