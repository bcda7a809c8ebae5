//! Snapshots on disk: a group's view of the store's snapshot files.
//!
//! What is received lies in a file without a name until the group takes it: a crash leaves nothing of it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use espalier_raft_store::snapshot::{Description, FileReader, SnapshotFiles, Snapshots};
use espalier_shards::{GroupId, SnapshotFile, SnapshotStore, decode_meta};
use openraft_rt_tokio::TokioRuntime;

/// One group's snapshots.
#[derive(Clone)]
pub struct DiskSnapshots {
    files: SnapshotFiles,
    spool: Arc<Path>,
    group: u64,
}

impl DiskSnapshots {
    /// The snapshots of `group` among these files; what is received is spooled in the directory `spool`.
    #[must_use]
    pub fn new(files: SnapshotFiles, spool: &Path, group: GroupId) -> Self {
        DiskSnapshots {
            files,
            spool: spool.into(),
            group: u64::from(group.0),
        }
    }
}

/// A snapshot that is being received.
pub struct Spool {
    meta: Vec<u8>,
    out: BufWriter<File>,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A snapshot that can be read; it stays readable when a newer one takes its place.
#[derive(Clone)]
pub struct DiskSnapshot {
    meta: Arc<[u8]>,
    size: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Published(Arc<Mutex<FileReader>>),
    Spooled(Arc<Mutex<File>>),
}

impl SnapshotStore for DiskSnapshots {
    type Spool = Spool;
    type File = DiskSnapshot;

    fn spool(&self, meta: &[u8]) -> io::Result<Spool> {
        let file = tempfile::tempfile_in(&self.spool)?;
        Ok(Spool {
            meta: meta.to_vec(),
            out: BufWriter::with_capacity(1 << 17, file),
        })
    }

    fn seal(&self, spool: Spool) -> io::Result<DiskSnapshot> {
        let file = spool
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        let size = file.metadata()?.len();
        let content = Content::Spooled(Arc::new(Mutex::new(file)));
        Ok(DiskSnapshot {
            meta: spool.meta.into(),
            size,
            content,
        })
    }

    fn publish(
        &self,
        meta: &[u8],
        fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let covers = decode_meta::<TokioRuntime>(meta)?
            .last_log_id
            .map_or(0, |last| last.index());
        let description = Description {
            group: self.group,
            covers,
            meta: meta.to_vec(),
        };
        let mut out = self.files.begin(description)?;
        fill(&mut out)?;
        self.files.finish(out)
    }

    fn latest(&self) -> io::Result<Option<DiskSnapshot>> {
        let latest = self.files.latest(self.group)?;
        Ok(latest.map(|snapshot| DiskSnapshot {
            meta: snapshot.meta.into(),
            size: snapshot.length,
            content: Content::Published(Arc::new(Mutex::new(snapshot.body))),
        }))
    }

    async fn offload<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }
}

impl SnapshotFile for DiskSnapshot {
    fn meta(&self) -> &[u8] {
        &self.meta
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.content {
            Content::Published(reader) => buffered(reader),
            Content::Spooled(file) => buffered(file),
        })
    }
}

fn buffered<R: Read + Seek + Send + 'static>(shared: &Arc<Mutex<R>>) -> Box<dyn Read + Send> {
    let cursor = Cursor {
        shared: Arc::clone(shared),
        position: 0,
    };
    Box::new(BufReader::with_capacity(1 << 17, cursor))
}

/// Several may read one file, each from its own place.
struct Cursor<R> {
    shared: Arc<Mutex<R>>,
    position: u64,
}

impl<R: Read + Seek> Read for Cursor<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut reader = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        reader.seek(SeekFrom::Start(self.position))?;
        let read = reader.read(out)?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use espalier_shards::{SnapshotMeta, encode_meta};

    use super::*;

    fn meta() -> Vec<u8> {
        encode_meta::<TokioRuntime>(&SnapshotMeta::<TokioRuntime>::default()).unwrap()
    }

    fn store(dir: &Path) -> DiskSnapshots {
        DiskSnapshots::new(SnapshotFiles::open(dir, 0).unwrap(), dir, GroupId(3))
    }

    fn content(file: &DiskSnapshot) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.open().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_published_is_the_latest_and_older_ones_stay_readable() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        assert!(store.latest().unwrap().is_none());
        let large = vec![7; 300_000];
        store
            .publish(&meta(), &mut |out| out.write_all(&large))
            .unwrap();
        let first = store.latest().unwrap().unwrap();
        store
            .publish(&meta(), &mut |out| out.write_all(b"second"))
            .unwrap();
        assert_eq!(content(&store.latest().unwrap().unwrap()), b"second");
        assert_eq!((content(&first), content(&first)), (large.clone(), large));
        assert_eq!((first.size(), first.meta()), (300_000, &meta()[..]));
    }

    #[test]
    fn a_snapshot_that_cannot_be_written_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        store
            .publish(&meta(), &mut |out| out.write_all(b"first"))
            .unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        store.publish(&meta(), &mut |_| Err(full())).unwrap_err();
        assert_eq!(content(&store.latest().unwrap().unwrap()), b"first");
    }

    #[test]
    fn what_is_received_can_be_read_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let mut spool = store.spool(&meta()).unwrap();
        spool.write_all(b"received").unwrap();
        let file = store.seal(spool).unwrap();
        assert_eq!((content(&file), file.size()), (b"received".to_vec(), 8));
        assert!(store.latest().unwrap().is_none());
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
