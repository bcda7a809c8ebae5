//! The file `acknowledged`: up to which commit this store has acknowledged.
//!
//! sled takes a damaged tail of its log for an interrupted write and silently goes back to before it. This
//! file lies beside the database and is written after each commit and before its acknowledgement, so a
//! database that went back is found out. It is synced now and then only: it is never newer than the
//! database, because the database's sync comes first, and after a power cut it may be older, which finds
//! less but accuses nobody.
//!
//! Two slots, written in turn, each in a disk sector of its own: a torn write leaves the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::batch::Seal;

/// The file's name in the store's directory.
pub(crate) const MARK_FILE: &str = "acknowledged";
/// The version of the store's format that is written.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"ESPALACK";
const SLOT_BYTES: u64 = 512;
const BODY_BYTES: usize = 8 + 4 + Seal::BYTES;
const RECORD_BYTES: usize = BODY_BYTES + 8;
/// Commits between two syncs of the file.
const SYNC_EVERY: u64 = 256;

/// The open file.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Up to here was acknowledged.
    Acknowledged(Seal),
    /// No slot can be read.
    Unreadable,
    /// A newer program wrote it.
    Newer(u32),
}

impl Mark {
    /// Makes the file, synced, with its first seal.
    pub(crate) fn create(dir: &Path, seal: Seal) -> io::Result<Self> {
        let path = dir.join(MARK_FILE);
        let temporary = dir.join("acknowledged.new");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&temporary)?;
        file.set_len(2 * SLOT_BYTES)?;
        let this = Self {
            file,
            path: path.clone(),
        };
        this.write(seal)?;
        this.file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(this)
    }

    /// Opens the file and reads it.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Found)> {
        let path = dir.join(MARK_FILE);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let slots = [slot(&file, 0)?, slot(&file, 1)?];
        let found = slots.into_iter().flatten().max_by_key(|found| match found {
            Found::Newer(_) => u64::MAX,
            Found::Acknowledged(seal) => seal.sequence,
            Found::Unreadable => 0,
        });
        Ok((Self { file, path }, found.unwrap_or(Found::Unreadable)))
    }

    /// Writes a commit's seal; call it before the commit is acknowledged.
    pub(crate) fn write(&self, seal: Seal) -> io::Result<()> {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(MAGIC);
        record[8..12].copy_from_slice(&FORMAT.to_be_bytes());
        record[12..BODY_BYTES].copy_from_slice(&seal.to_bytes());
        let checksum = XxHash3_64::oneshot(&record[..BODY_BYTES]);
        record[BODY_BYTES..].copy_from_slice(&checksum.to_be_bytes());
        self.file
            .write_all_at(&record, seal.sequence % 2 * SLOT_BYTES)?;
        if seal.sequence.is_multiple_of(SYNC_EVERY) {
            self.sync()
        } else {
            Ok(())
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn slot(file: &File, number: u64) -> io::Result<Option<Found>> {
    let mut record = [0; RECORD_BYTES];
    match file.read_exact_at(&mut record, number * SLOT_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (body, checksum) = record.split_at(BODY_BYTES);
    if &body[..8] != MAGIC || XxHash3_64::oneshot(body).to_be_bytes() != checksum {
        return Ok(None);
    }
    let format = u32::from_be_bytes([body[8], body[9], body[10], body[11]]);
    if format > FORMAT {
        return Ok(Some(Found::Newer(format)));
    }
    Ok(Seal::from_bytes(&body[12..]).map(Found::Acknowledged))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> Found {
        Mark::open(dir).expect("the file is there").1
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let mark = Mark::create(
            dir.path(),
            Seal {
                sequence: 1,
                sum: 10,
            },
        )
        .expect("created");
        for sequence in 2..600 {
            let seal = Seal {
                sequence,
                sum: sequence * 10,
            };
            mark.write(seal).expect("written");
            assert_eq!(read(dir.path()), Found::Acknowledged(seal));
        }
        // 599 is odd: its slot is the second.
        mark.file
            .write_all_at(&[0xff; 30], SLOT_BYTES)
            .expect("written");
        assert_eq!(
            read(dir.path()),
            Found::Acknowledged(Seal {
                sequence: 598,
                sum: 5980
            }),
            "a torn slot leaves the other"
        );
        mark.file.write_all_at(&[0xff; 30], 0).expect("written");
        assert_eq!(read(dir.path()), Found::Unreadable);
        mark.file.set_len(10).expect("truncated");
        assert_eq!(read(dir.path()), Found::Unreadable);
    }
}
