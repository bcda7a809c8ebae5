//! Which node of which cluster this is: kept beside its data, written once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use espalier_shards::NodeId;
use serde::{Deserialize, Serialize};

const FILE: &str = "node.json";

/// Which node of which cluster this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// The node's id, never another's.
    pub node: NodeId,
    /// How many shards the cluster has; fixed when it is made.
    pub shards: u32,
    /// Its groups have begun: from then on its data must be there, or it may not run under this id.
    #[serde(default)]
    pub has_data: bool,
}

/// The identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}")]
pub struct IdentityError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl IdentityError {
    pub(crate) fn of(path: &Path, source: io::Error) -> Self {
        IdentityError {
            path: path.to_owned(),
            source,
        }
    }
}

impl Identity {
    /// A node that has not begun yet.
    #[must_use]
    pub fn new(cluster: String, node: NodeId, shards: u32) -> Self {
        Identity {
            cluster,
            node,
            shards,
            has_data: false,
        }
    }

    /// The identity that is kept in a directory, if there is one.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let found = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        found.map_err(|source| IdentityError { path, source })
    }

    /// Keeps the identity: it survives a power cut when this returns.
    pub(crate) fn keep(&self, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(FILE);
        let written = || {
            let unfinished = dir.join("node.json.unfinished");
            let mut file = File::create(&unfinished)?;
            file.write_all(&serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(dir)?.sync_all()
        };
        written().map_err(|source| IdentityError {
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_a_damaged_one_is_no_new_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
        let identity = Identity::new("c0ffee".into(), 3, 16);
        identity.keep(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity));
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Identity::load(dir.path()).is_err());
    }
}
