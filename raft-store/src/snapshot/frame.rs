//! The bytes of a snapshot file.
//!
//! `magic (8) | format (4) | group (8) | covers (8) | length of meta (4) | meta | checksum (8)`, then blocks
//! of 64 KiB, each followed by its checksum; the last one is shorter, and empty if need be, so the end of the
//! file is always a checksum. A block's checksum is seeded with its number and whether it is the last, so a
//! file that was cut at a block's end is found too.

use std::io::{self, Read, Seek, SeekFrom, Write};

use twox_hash::XxHash3_64;

use crate::snapshot::Description;

/// Bytes of a whole block.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
const CHECKSUM_BYTES: usize = 8;
const STORED_BYTES: u64 = (BLOCK_BYTES + CHECKSUM_BYTES) as u64;
const MAGIC: &[u8; 8] = b"ESPASNAP";
const FORMAT: u32 = 1;
const MAX_META_BYTES: u32 = 1 << 20;
const FIXED_BYTES: usize = 8 + 4 + 8 + 8 + 4;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot {what}"))
}

fn block_checksum(number: u64, last: bool, block: &[u8]) -> [u8; CHECKSUM_BYTES] {
    XxHash3_64::oneshot_with_seed(number * 2 + u64::from(last), block).to_be_bytes()
}

/// Writes a snapshot's head; returns its length.
pub(super) fn write_head(out: &mut impl Write, description: &Description) -> io::Result<()> {
    let meta_bytes = u32::try_from(description.meta.len())
        .ok()
        .filter(|bytes| *bytes <= MAX_META_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "more than 1 MiB of meta"))?;
    let mut head = Vec::with_capacity(FIXED_BYTES + description.meta.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&FORMAT.to_be_bytes());
    head.extend_from_slice(&description.group.to_be_bytes());
    head.extend_from_slice(&description.covers.to_be_bytes());
    head.extend_from_slice(&meta_bytes.to_be_bytes());
    head.extend_from_slice(&description.meta);
    out.write_all(&head)?;
    out.write_all(&XxHash3_64::oneshot(&head).to_be_bytes())
}

/// Reads a snapshot's head.
pub(super) fn read_head(from: &mut impl Read) -> io::Result<Description> {
    let short = |error: io::Error| {
        let cut = error.kind() == io::ErrorKind::UnexpectedEof;
        if cut { damaged("is cut short") } else { error }
    };
    let mut head = vec![0; FIXED_BYTES];
    from.read_exact(&mut head).map_err(short)?;
    if &head[..8] != MAGIC {
        return Err(damaged("does not begin as one"));
    }
    let number = |at: usize| -> u64 {
        head[at..at + 8]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let half = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (format, group, covers, meta_bytes) = (half(8), number(12), number(20), half(28));
    if format != FORMAT {
        return Err(damaged(&format!(
            "has format {format}; this version reads {FORMAT}"
        )));
    }
    if meta_bytes > MAX_META_BYTES {
        return Err(damaged("promises too much meta"));
    }
    let mut meta = vec![0; meta_bytes as usize];
    from.read_exact(&mut meta).map_err(short)?;
    head.extend_from_slice(&meta);
    let mut checksum = [0; CHECKSUM_BYTES];
    from.read_exact(&mut checksum).map_err(short)?;
    if XxHash3_64::oneshot(&head).to_be_bytes() != checksum {
        return Err(damaged("fails the checksum of its head"));
    }
    Ok(Description {
        group,
        covers,
        meta,
    })
}

/// Cuts a body into blocks.
pub(super) struct BlockWriter<W> {
    out: W,
    block: Vec<u8>,
    number: u64,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            block: Vec::with_capacity(BLOCK_BYTES),
            number: 0,
        }
    }

    /// Writes the last block.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.write_block(true)?;
        Ok(self.out)
    }

    fn write_block(&mut self, last: bool) -> io::Result<()> {
        self.out.write_all(&self.block)?;
        self.out
            .write_all(&block_checksum(self.number, last, &self.block))?;
        self.block.clear();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last block is shorter than a whole one, so a whole one may go as soon as it is full.
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.write_block(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a body out of its blocks, each checked before any byte of it is given.
#[derive(Debug)]
pub(super) struct BlockReader<R> {
    from: R,
    /// Where the blocks begin.
    base: u64,
    length: u64,
    position: u64,
    /// The block that is in memory, if any, and its number.
    block: Vec<u8>,
    loaded: Option<u64>,
}

impl<R: Read + Seek> BlockReader<R> {
    /// Starts after the head, where `from` stands; `end` is the file's length.
    pub(super) fn new(mut from: R, end: u64) -> io::Result<Self> {
        let base = from.stream_position()?;
        let stored = end
            .checked_sub(base)
            .ok_or_else(|| damaged("is cut short"))?;
        let last = (stored % STORED_BYTES)
            .checked_sub(CHECKSUM_BYTES as u64)
            .ok_or_else(|| damaged("is cut short"))?;
        let length = stored / STORED_BYTES * BLOCK_BYTES as u64 + last;
        let mut this = Self {
            from,
            base,
            length,
            position: 0,
            block: Vec::new(),
            loaded: None,
        };
        // The last block's checksum says whether the file ends where it should.
        this.load(length / BLOCK_BYTES as u64)?;
        Ok(this)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    fn load(&mut self, number: u64) -> io::Result<()> {
        if self.loaded == Some(number) {
            return Ok(());
        }
        self.loaded = None;
        let last = number == self.length / BLOCK_BYTES as u64;
        let bytes = if last {
            usize::try_from(self.length % BLOCK_BYTES as u64).unwrap_or(0)
        } else {
            BLOCK_BYTES
        };
        self.from
            .seek(SeekFrom::Start(self.base + number * STORED_BYTES))?;
        self.block.resize(bytes, 0);
        self.from.read_exact(&mut self.block)?;
        let mut checksum = [0; CHECKSUM_BYTES];
        self.from.read_exact(&mut checksum)?;
        if block_checksum(number, last, &self.block) != checksum {
            return Err(damaged("fails a checksum"));
        }
        self.loaded = Some(number);
        Ok(())
    }
}

impl<R: Read + Seek> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.length || out.is_empty() {
            return Ok(0);
        }
        self.load(self.position / BLOCK_BYTES as u64)?;
        let at = usize::try_from(self.position % BLOCK_BYTES as u64).unwrap_or(0);
        let count = out.len().min(self.block.len() - at);
        out[..count].copy_from_slice(&self.block[at..at + count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for BlockReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a seek to before the beginning",
            )
        })?;
        Ok(self.position)
    }
}
