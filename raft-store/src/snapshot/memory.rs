//! Snapshots in memory, for simulations: finished ones outlive a crash, unfinished ones don't.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::key::GroupId;
use crate::snapshot::{Description, Snapshot, Snapshots};

type Kept = (Description, Arc<[u8]>);

/// See the module. Clones share what is kept.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshots(Arc<Mutex<BTreeMap<GroupId, Kept>>>);

/// Writes one snapshot.
#[derive(Debug)]
pub struct MemoryWriter {
    description: Description,
    body: Vec<u8>,
}

/// Reads one snapshot's body.
pub type MemoryReader = Cursor<Arc<[u8]>>;

impl MemorySnapshots {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Snapshots for MemorySnapshots {
    type Writer = MemoryWriter;
    type Reader = MemoryReader;

    fn begin(&self, description: Description) -> io::Result<MemoryWriter> {
        Ok(MemoryWriter {
            description,
            body: Vec::new(),
        })
    }

    fn finish(&self, writer: MemoryWriter) -> io::Result<()> {
        let MemoryWriter { description, body } = writer;
        self.lock()
            .insert(description.group, (description, body.into()));
        Ok(())
    }

    fn latest(&self, group: GroupId) -> io::Result<Option<Snapshot<MemoryReader>>> {
        Ok(self.lock().get(&group).map(|(description, body)| Snapshot {
            covers: description.covers,
            meta: description.meta.clone(),
            length: body.len() as u64,
            body: Cursor::new(Arc::clone(body)),
        }))
    }
}
