//! Snapshots as files in one directory: `<group>-<number>.snapshot`, the highest number is the latest.
//!
//! A file is written under another name, synced, named, and its directory synced. A file that was not
//! finished is removed when the directory is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::key::GroupId;
use crate::sled::engine::free_bytes;
use crate::snapshot::frame::{BlockReader, BlockWriter, read_head, write_head};
use crate::snapshot::{Description, Snapshot, Snapshots};

const SUFFIX: &str = "snapshot";
const UNFINISHED: &str = "unfinished";
/// Bytes between two looks at the free space.
const LOOK_EVERY: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Directory {
    /// The number of each group's latest file.
    latest: BTreeMap<GroupId, u64>,
    /// The number of the file that was begun last.
    begun: u64,
}

/// The directory. Clones share it.
#[derive(Clone, Debug)]
pub struct SnapshotFiles {
    path: Arc<Path>,
    reserve_bytes: u64,
    directory: Arc<Mutex<Directory>>,
}

impl SnapshotFiles {
    /// Opens the directory, or makes it. A snapshot leaves at least `reserve_bytes` of the disk free.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn open(path: &Path, reserve_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let mut found: BTreeMap<GroupId, Vec<u64>> = BTreeMap::new();
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == UNFINISHED)
            {
                std::fs::remove_file(&file)?;
            } else if let Some((group, number)) = parse(&file) {
                found.entry(group).or_default().push(number);
            }
        }
        let mut directory = Directory::default();
        for (group, mut numbers) in found {
            numbers.sort_unstable();
            let Some(latest) = numbers.pop() else {
                continue;
            };
            directory.begun = directory.begun.max(latest);
            directory.latest.insert(group, latest);
            for number in numbers {
                std::fs::remove_file(path.join(name(group, number, SUFFIX)))?;
            }
        }
        Ok(Self {
            path: path.into(),
            reserve_bytes,
            directory: Arc::new(Mutex::new(directory)),
        })
    }

    /// The path of a group's latest snapshot.
    #[must_use]
    pub fn latest_path(&self, group: GroupId) -> Option<PathBuf> {
        let number = *self.lock().latest.get(&group)?;
        Some(self.path.join(name(group, number, SUFFIX)))
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(group: GroupId, number: u64, suffix: &str) -> String {
    format!("{group:016x}-{number:016x}.{suffix}")
}

fn parse(path: &Path) -> Option<(GroupId, u64)> {
    let (stem, suffix) = path.file_name()?.to_str()?.split_once('.')?;
    let (group, number) = stem.split_once('-').filter(|_| suffix == SUFFIX)?;
    Some((
        u64::from_str_radix(group, 16).ok()?,
        u64::from_str_radix(number, 16).ok()?,
    ))
}

impl Snapshots for SnapshotFiles {
    type Writer = FileWriter;
    type Reader = FileReader;

    fn begin(&self, description: Description) -> io::Result<FileWriter> {
        let number = {
            let mut directory = self.lock();
            directory.begun += 1;
            directory.begun
        };
        let path = self.path.join(name(description.group, number, UNFINISHED));
        let file = File::create_new(&path)?;
        let mut out = BufWriter::with_capacity(1 << 17, file);
        let unfinished = Unfinished(path);
        write_head(&mut out, &description)?;
        Ok(FileWriter {
            group: description.group,
            number,
            reserve_bytes: self.reserve_bytes,
            since_look: LOOK_EVERY,
            out: BlockWriter::new(out),
            unfinished,
        })
    }

    fn finish(&self, writer: FileWriter) -> io::Result<()> {
        let FileWriter {
            group,
            number,
            out,
            unfinished,
            ..
        } = writer;
        let file = out
            .end()?
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let path = self.path.join(name(group, number, SUFFIX));
        let mut directory = self.lock();
        let before = directory.latest.get(&group).copied();
        if before.is_some_and(|before| before > number) {
            // One that was begun later has been finished earlier, and is newer.
            return Ok(());
        }
        std::fs::rename(&unfinished.0, &path)?;
        File::open(&*self.path)?.sync_all()?;
        directory.latest.insert(group, number);
        drop(directory);
        if let Some(before) = before {
            std::fs::remove_file(self.path.join(name(group, before, SUFFIX)))?;
        }
        Ok(())
    }

    fn latest(&self, group: GroupId) -> io::Result<Option<Snapshot<FileReader>>> {
        // Under the lock, so that the file is not removed between its choice and its opening.
        let directory = self.lock();
        let Some(number) = directory.latest.get(&group) else {
            return Ok(None);
        };
        let file = File::open(self.path.join(name(group, *number, SUFFIX)))?;
        drop(directory);
        let end = file.metadata()?.len();
        let mut from = BufReader::with_capacity(1 << 17, file);
        let description = read_head(&mut from)?;
        if description.group != group {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the snapshot of group {group} says it is of group {}",
                    description.group
                ),
            ));
        }
        let blocks = BlockReader::new(from, end)?;
        Ok(Some(Snapshot {
            covers: description.covers,
            meta: description.meta,
            length: blocks.length(),
            body: FileReader(blocks),
        }))
    }
}

/// A file that goes away unless it was renamed.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone already if it was renamed; if removing fails, the next opening removes it.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Writes one snapshot; see [`Snapshots::finish`].
pub struct FileWriter {
    group: GroupId,
    number: u64,
    reserve_bytes: u64,
    since_look: u64,
    out: BlockWriter<BufWriter<File>>,
    unfinished: Unfinished,
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.since_look >= LOOK_EVERY {
            // The log needs the room more: without it nothing is acknowledged.
            let free = free_bytes(self.unfinished.0.parent().unwrap_or(Path::new(".")))?;
            if free < self.reserve_bytes + LOOK_EVERY {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!("{free} bytes are free, too few for a snapshot"),
                ));
            }
            self.since_look = 0;
        }
        let written = self.out.write(bytes)?;
        self.since_look += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads one snapshot's body.
#[derive(Debug)]
pub struct FileReader(BlockReader<BufReader<File>>);

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}
