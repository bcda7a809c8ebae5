//! What a disk may hold after the power went: a judgement on recorded events.
//!
//! Bytes that were written and not synced survive sector by sector, each as any of the states that it went
//! through since its last sync. Names (creations, renames, removals) become durable in order, as in a
//! file system's journal: all up to the last sync that includes metadata, and a random number of those after.
//! This is harsher than a page cache, which writes back whole pages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::SmallRng;

use crate::recorder::Event;

const SECTOR: u64 = 512;

type FileId = usize;
type Names = BTreeMap<PathBuf, FileId>;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, FileId),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// The events up to the cut, played on a disk.
#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    live: Names,
    durable: Names,
    pending: Vec<NameChange>,
    /// Syncs of these files do nothing: a planted lie.
    lying: Option<fn(&Path) -> bool>,
}

impl Disk {
    /// An empty disk, which may lie about the syncs of some files.
    pub(crate) fn new(lying: Option<fn(&Path) -> bool>) -> Self {
        Self {
            lying,
            ..Self::default()
        }
    }

    /// Takes an event; returns the note if it is one.
    pub(crate) fn play<'a>(&mut self, event: &'a Event) -> Option<&'a str> {
        match event {
            Event::Write {
                path,
                offset,
                bytes,
            } => {
                let change = Change::Write {
                    offset: *offset,
                    bytes: bytes.clone(),
                };
                self.file(path).pending.push(change);
            }
            Event::Length { path, length } => {
                self.file(path).pending.push(Change::Length(*length));
            }
            Event::Sync { path, metadata } => self.sync(path, *metadata),
            Event::Rename { from, to } => {
                self.change_names(NameChange::Rename(from.clone(), to.clone()));
            }
            Event::Unlink { path } => self.change_names(NameChange::Unlink(path.clone())),
            Event::Note(text) => return Some(text),
        }
        None
    }

    fn file(&mut self, path: &Path) -> &mut File {
        let id = match self.live.get(path) {
            Some(id) => *id,
            None => {
                self.files.push(File::default());
                let id = self.files.len() - 1;
                self.change_names(NameChange::Create(path.to_owned(), id));
                id
            }
        };
        &mut self.files[id]
    }

    fn change_names(&mut self, change: NameChange) {
        apply_names(&mut self.live, &change);
        self.pending.push(change);
    }

    fn sync(&mut self, path: &Path, metadata: bool) {
        if self.lying.is_some_and(|lies| lies(path)) {
            return;
        }
        if let Some(id) = self.live.get(path) {
            let file = &mut self.files[*id];
            for change in std::mem::take(&mut file.pending) {
                apply(&mut file.durable, &change);
            }
        }
        if metadata {
            for change in std::mem::take(&mut self.pending) {
                apply_names(&mut self.durable, &change);
            }
        }
    }

    /// Writes what may be left after a power cut now, from `root` to `image`.
    pub(crate) fn cut(&self, random: &mut SmallRng, root: &Path, image: &Path) {
        let mut names = self.durable.clone();
        let kept = random.random_range(0..=self.pending.len());
        self.pending[..kept]
            .iter()
            .for_each(|change| apply_names(&mut names, change));
        for (path, id) in names {
            let relative = path.strip_prefix(root).expect("under the root");
            let target = image.join(relative);
            std::fs::create_dir_all(target.parent().expect("has one")).expect("made");
            std::fs::write(target, leftover(&self.files[id], random)).expect("written");
        }
    }
}

fn apply_names(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Create(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            // A directory takes along what is in it.
            let moved: Vec<PathBuf> = names
                .keys()
                .filter(|path| path.starts_with(from))
                .cloned()
                .collect();
            for path in moved {
                let Some(id) = names.remove(&path) else {
                    continue;
                };
                let rest = path.strip_prefix(from).expect("starts with it");
                let target = if rest.as_os_str().is_empty() {
                    to.clone()
                } else {
                    to.join(rest)
                };
                names.insert(target, id);
            }
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(usize::try_from(*length).expect("small"), 0),
        Change::Write { offset, bytes: new } => {
            let offset = usize::try_from(*offset).expect("small");
            if bytes.len() < offset + new.len() {
                bytes.resize(offset + new.len(), 0);
            }
            bytes[offset..offset + new.len()].copy_from_slice(new);
        }
    }
}

/// A state that the file may be in.
fn leftover(file: &File, random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = file.durable.clone();
    // A disk seldom loses half of everything: sometimes nearly all survives, sometimes nearly nothing.
    let survival = [0.02, 0.5, 0.98][random.random_range(0..3)];
    let mut lost: BTreeSet<u64> = BTreeSet::new();
    for change in &file.pending {
        match change {
            Change::Length(_) => {
                if random.random_bool(survival) {
                    apply(&mut bytes, change);
                }
            }
            Change::Write { offset, bytes: new } => {
                for (at, piece) in sectors(*offset, new) {
                    // What a sector holds is one of its states: once it is lost, later ones are too.
                    if lost.contains(&(at / SECTOR)) || !random.random_bool(survival) {
                        lost.insert(at / SECTOR);
                    } else {
                        apply(
                            &mut bytes,
                            &Change::Write {
                                offset: at,
                                bytes: piece.to_vec(),
                            },
                        );
                    }
                }
            }
        }
    }
    bytes
}

/// Cuts a write at the sectors' bounds.
fn sectors(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut pieces = Vec::new();
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = usize::try_from(SECTOR - at % SECTOR)
            .expect("small")
            .min(rest.len());
        let (piece, tail) = rest.split_at(count);
        pieces.push((at, piece));
        at += count as u64;
        rest = tail;
    }
    pieces
}
