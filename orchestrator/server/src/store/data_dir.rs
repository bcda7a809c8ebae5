//! The node's data directory: its lock, the cluster's key, the first admin's token, and where the groups lie.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use espalier_token::ClusterKey;

use super::file::{self, StoreError};

/// An open data directory, locked against every other node.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    // Held, never read: closing it releases the lock.
    _lock: File,
}

impl DataDir {
    /// Opens, or makes, the directory, for this user only, and locks it.
    ///
    /// # Errors
    /// When it cannot be made or opened, or another node has it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        make_dir(path)?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(StoreError::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &lock_path)(error)),
        }
    }

    /// Where the node's part in the cluster is kept.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// Reads the key that this node made for itself, or makes it.
    ///
    /// # Errors
    /// When the disk fails, or the file is no key.
    pub(crate) fn own_key(&self) -> Result<ClusterKey, StoreError> {
        let path = self.path.join("cluster.key");
        if let Some(bytes) = file::read(&path)? {
            let damaged = |problem: String| StoreError::Damaged {
                path: path.clone(),
                problem,
                remedy: "move the whole data directory aside: what is in it cannot be read without its key",
            };
            let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text".to_owned()))?;
            return ClusterKey::from_text(&text).map_err(|error| damaged(format!("it {error}")));
        }
        if self.cluster().exists() {
            return Err(StoreError::Damaged {
                path,
                problem: "it is missing, although there is data".to_owned(),
                remedy: "move the whole data directory aside: what is in it cannot be read without its key",
            });
        }
        let (key, token) = ClusterKey::generate();
        // The token first: a crash in between must not leave a key whose token is lost.
        file::write(
            &self.path.join("admin.token"),
            format!("{token}\n").as_bytes(),
        )?;
        file::write(&path, key.to_text().as_bytes())?;
        Ok(key)
    }

    /// Reads the first admin's token, if its file is here.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn admin_token(&self) -> Result<Option<String>, StoreError> {
        let bytes = file::read(&self.path.join("admin.token"))?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.map(|text| text.trim().to_owned()))
    }
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::io("create", path))?;
    let writable = fs::metadata(path).map_err(StoreError::io("read", path))?;
    if !writable.is_dir() {
        return Err(StoreError::io("use", path)(std::io::Error::other(
            "it is no directory",
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_token::TokenHash;

    #[test]
    fn a_reopened_directory_has_the_same_key_and_token_and_is_one_nodes_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let (key, token) = {
            let dir = DataDir::open(temp.path()).unwrap();
            assert!(matches!(
                DataDir::open(temp.path()),
                Err(StoreError::InUse { .. })
            ));
            let key = dir.own_key().unwrap();
            (key, dir.admin_token().unwrap().unwrap())
        };
        assert_eq!(
            key.admin_token_sha256,
            TokenHash::of("admin", &token).sha256
        );
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.own_key().unwrap(), key);
        fs::remove_file(temp.path().join("admin.token")).unwrap();
        assert_eq!(dir.own_key().unwrap(), key);
        assert_eq!(dir.admin_token().unwrap(), None);
    }

    #[test]
    fn a_damaged_or_lost_key_is_reported_with_what_to_do_and_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.own_key().unwrap();
        fs::create_dir(dir.cluster()).unwrap();
        let path = temp.path().join("cluster.key");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = dir.own_key().unwrap_err().to_string();
        assert!(
            error.contains("damaged") && error.contains("move"),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        let error = dir.own_key().unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
        assert!(!path.exists());
    }
}
