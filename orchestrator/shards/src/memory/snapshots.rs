//! Snapshots in memory. They survive what a test calls a crash as long as the store is kept.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::shelf::lock;
use crate::{SnapshotFile, SnapshotStore};

/// The snapshots of one group on one node.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshots {
    latest: Arc<Mutex<Option<MemorySnapshot>>>,
}

/// A snapshot in memory.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    meta: Arc<[u8]>,
    content: Arc<[u8]>,
}

/// A snapshot that is being received into memory.
#[derive(Debug)]
pub struct MemorySpool {
    meta: Vec<u8>,
    content: Vec<u8>,
}

impl Write for MemorySpool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotStore for MemorySnapshots {
    type Spool = MemorySpool;
    type File = MemorySnapshot;

    fn spool(&self, meta: &[u8]) -> io::Result<MemorySpool> {
        Ok(MemorySpool {
            meta: meta.to_vec(),
            content: Vec::new(),
        })
    }

    fn seal(&self, spool: MemorySpool) -> io::Result<MemorySnapshot> {
        Ok(MemorySnapshot {
            meta: spool.meta.into(),
            content: spool.content.into(),
        })
    }

    fn publish(
        &self,
        meta: &[u8],
        fill: &mut dyn FnMut(&mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut content = Vec::new();
        fill(&mut content)?;
        *lock(&self.latest) = Some(MemorySnapshot {
            meta: meta.into(),
            content: content.into(),
        });
        Ok(())
    }

    fn latest(&self) -> io::Result<Option<MemorySnapshot>> {
        Ok(lock(&self.latest).clone())
    }

    async fn offload<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        work()
    }
}

impl SnapshotFile for MemorySnapshot {
    fn meta(&self) -> &[u8] {
        &self.meta
    }

    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(Arc::clone(&self.content))))
    }
}
