//! One small file: a line that names its format and checksum, then JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Largest file that is read back, bytes. Ours are a few kilobytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why something could not be kept, or read back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{path} is damaged: {problem}. Restore it from a backup, or {remedy}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do without a backup.
        remedy: &'static str,
    },
    /// Another node uses the directory.
    #[error("{path} is in use by another node: stop it, or give this node a data_dir of its own")]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Interrupted,
}

impl StoreError {
    pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}

/// A kind of file: its format's name, and what its loss means to an operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub(super) name: &'static str,
    pub(super) remedy: &'static str,
}

/// Writes `value` to `path`, all or nothing.
pub(super) fn write<T: Serialize>(
    path: &Path,
    format: Format,
    value: &T,
) -> Result<(), StoreError> {
    let body = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::io("encode", path)(io::Error::other(error)))?;
    let header = format!("{} sha256={}\n", format.name, digest(&body));
    write_bytes(path, &[header.as_bytes(), &body, b"\n"].concat())
}

/// Reads what [`write`] wrote; `None` when there is no such file.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    format: Format,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    decode(&bytes, format)
        .map(Some)
        .map_err(|problem| StoreError::Damaged {
            path: path.to_owned(),
            problem,
            remedy: format.remedy,
        })
}

fn decode<T: DeserializeOwned>(bytes: &[u8], format: Format) -> Result<T, String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or("its first line is cut off")?;
    let (header, body) = bytes.split_at(end);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let header = str::from_utf8(header).map_err(|_| "its first line is no text")?;
    let sum = header
        .strip_prefix(format.name)
        .and_then(|rest| rest.strip_prefix(" sha256="))
        .ok_or_else(|| format!("its first line does not say `{}`", format.name))?;
    if sum != digest(body) {
        return Err("its content does not match its checksum".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("its content cannot be read: {error}"))
}

/// Writes bytes to a file that only this user may read, all or nothing.
pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = temporary_name(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StoreError::io("create", &temporary))?;
    file.write_all(bytes)
        .map_err(StoreError::io("write", &temporary))?;
    file.sync_all()
        .map_err(StoreError::io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(StoreError::io("replace", path))?;
    sync_parent(path)
}

/// Reads a whole small file; `None` when there is none.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
        Ok(meta) if meta.len() > MAX_FILE => Err(StoreError::io("read", path)(io::Error::other(
            "it is far larger than anything this node writes",
        ))),
        Ok(_) => fs::read(path)
            .map(Some)
            .map_err(StoreError::io("read", path)),
    }
}

/// Makes a rename or a removal in `path`'s directory durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(StoreError::io("sync", parent))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn digest(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        name: "espalier-test-1",
        remedy: "delete it",
    };

    #[test]
    fn reads_back_what_was_written_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("doc");
        assert_eq!(read::<Vec<u32>>(&path, FORMAT).unwrap(), None);
        write(&path, FORMAT, &vec![1, 2, 3]).unwrap();
        write(&path, FORMAT, &vec![4]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path, FORMAT).unwrap(), Some(vec![4]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("doc");
        write(&path, FORMAT, &vec!["some", "content"]).unwrap();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            fs::write(&path, &bad).unwrap();
            let error = read::<Vec<String>>(&path, FORMAT).unwrap_err();
            assert!(
                matches!(error, StoreError::Damaged { .. }),
                "byte {at}: {error}"
            );
            assert!(error.to_string().contains("delete it"), "{error}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(read::<Vec<String>>(&path, FORMAT).is_err(), "cut at {at}");
        }
        let other = Format {
            name: "espalier-test-2",
            ..FORMAT
        };
        fs::write(&path, &good).unwrap();
        assert!(read::<Vec<String>>(&path, other).is_err());
    }
}
