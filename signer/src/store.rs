//! Keeping a key and a signer's state in files.
//!
//! Invariant: a file is either as it was or as it shall be, whatever happens while it is written; a
//! damaged one is an error that says so, and never silently replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use espalier_media::{KeyError, StatementKey};

use crate::state::SignerState;

/// Why a key or a state could not be loaded or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{} holds no key", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// Others than its owner may read the key.
    #[error("{} may be read by others (mode {mode:03o})", .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no state.
    #[error("{} is damaged", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A key, and whether it was made just now.
#[derive(Debug)]
pub struct LoadedKey {
    /// The key.
    pub key: StatementKey,
    /// Whether the file was made just now.
    pub created: bool,
}

/// Loads a key from a PKCS#8 PEM file, or makes one (mode 0600) if there is no such file.
///
/// # Errors
/// [`StoreError`] if the file cannot be used; one that others may read is refused.
pub fn load_or_create_key(path: &Path) -> Result<LoadedKey, StoreError> {
    match fs::read_to_string(path) {
        Ok(pem) => {
            check_mode(path)?;
            let key = StatementKey::from_pkcs8_pem(&pem);
            let key = key.map_err(|source| StoreError::Key {
                path: path.to_owned(),
                source,
            })?;
            Ok(LoadedKey {
                key,
                created: false,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = StatementKey::from_seed(&rand::random());
            let pem = key.to_pkcs8_pem();
            let pem = pem.map_err(|source| StoreError::Key {
                path: path.to_owned(),
                source,
            })?;
            replace(path, pem.as_bytes())?;
            Ok(LoadedKey { key, created: true })
        }
        Err(source) => Err(StoreError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Loads a state, or the default one if there is no such file.
///
/// # Errors
/// [`StoreError`] if the file cannot be read or is damaged.
pub fn load_state(path: &Path) -> Result<SignerState, StoreError> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map_err(|source| StoreError::State {
            path: path.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SignerState::default()),
        Err(source) => Err(StoreError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Stores a state; it is on disk when this returns.
///
/// # Errors
/// [`StoreError`] if it cannot be written.
pub fn store_state(path: &Path, state: &SignerState) -> Result<(), StoreError> {
    let json = serde_json::to_vec_pretty(state).map_err(|source| StoreError::State {
        path: path.to_owned(),
        source,
    })?;
    replace(path, &json)
}

/// Returns where the state of a signer is stored whose key is in the file given: beside it.
#[must_use]
pub fn state_path(key: &Path) -> PathBuf {
    let mut path = key.as_os_str().to_owned();
    path.push(".state");
    path.into()
}

fn check_mode(path: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(path).map_err(|source| StoreError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(StoreError::Mode {
            path: path.to_owned(),
            mode,
        })
    }
}

/// Writes a new file beside the old one, makes sure that it is on disk, and puts it in its place.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_and_rename(path, bytes).map_err(|source| StoreError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_and_rename(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let made = load_or_create_key(&path).expect("a key");
        assert!(made.created);
        let again = load_or_create_key(&path).expect("a key");
        assert!(!again.created);
        assert_eq!(made.key.public_key(), again.key.public_key());
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        load_or_create_key(&path).expect("a key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("its owner");
        assert!(matches!(
            load_or_create_key(&path),
            Err(StoreError::Mode { mode: 0o644, .. })
        ));
    }

    #[test]
    fn damaged_files_are_errors_and_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, state) = (folder.path().join("key"), folder.path().join("key.state"));
        replace(&key, b"no key").expect("written");
        replace(&state, b"{\"tracks\":").expect("written");
        assert!(matches!(
            load_or_create_key(&key),
            Err(StoreError::Key { .. })
        ));
        assert!(matches!(load_state(&state), Err(StoreError::State { .. })));
        assert_eq!(fs::read(&key).expect("a file"), b"no key");
        assert_eq!(state_path(&key), state);
    }

    #[test]
    fn a_state_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        assert_eq!(load_state(&path).expect("none yet"), SignerState::default());
        let state = SignerState {
            master: Some(crate::MasterState {
                revision: 3,
                digest: "d".to_owned(),
            }),
            tracks: Vec::new(),
        };
        store_state(&path, &state).expect("written");
        assert_eq!(load_state(&path).expect("a state"), state);
    }
}
