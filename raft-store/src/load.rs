//! Reads a whole database once, when it is opened, and checks it.
//!
//! Every record's checksum, the contiguity of each log, and the sum over all records against the sealed
//! one. It repairs nothing.

use std::collections::BTreeMap;

use crate::batch::Seal;
use crate::engine::{ReadError, Reader};
use crate::error::Damage;
use crate::key::{GroupId, Key, Kind};
use crate::ledger::{Ledger, LedgerError};
use crate::record::{Decoded, RecordError, RunReader};

/// Reads the index from a purge mark's body.
///
/// The body begins with it, so that the store knows what to delete without knowing Raft's types.
pub(crate) fn purged_index(body: &[u8]) -> Option<u64> {
    body.first_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) ledger: Ledger,
    /// The index up to which each purged group's log is purged.
    pub(crate) purged: BTreeMap<GroupId, u64>,
}

/// Reads and checks everything.
pub(crate) fn load(reader: &dyn Reader) -> Result<Loaded, Damage> {
    let mut loading = Loading::default();
    let mut run = RunReader::default();
    let mut damage = None;
    let first = Key::HEADER;
    let last = Key {
        kind: Kind::Entry,
        group: u64::MAX,
        index: u64::MAX,
        part: u16::MAX,
    };
    let visited = reader.visit(first, last, &mut |key, value| {
        let taken = run
            .push(key, value)
            .map_err(unreadable)
            .and_then(|done| loading.take(done));
        damage = taken.err();
        damage.is_none()
    });
    if let Some(damage) = damage {
        return Err(damage);
    }
    visited.map_err(|error: ReadError| Damage::Unreadable(error.to_string()))?;
    loading.take(run.end().map_err(unreadable)?)?;
    loading.finish()
}

fn unreadable((key, error): (Key, RecordError)) -> Damage {
    Damage::Record(format!("{key} {error}"))
}

#[derive(Default)]
struct Loading {
    seal: Option<Seal>,
    loaded: Loaded,
}

impl Loading {
    fn take(&mut self, record: Option<Decoded>) -> Result<(), Damage> {
        let Some(record) = record else { return Ok(()) };
        if record.key.kind == Kind::Header {
            self.seal = Seal::from_bytes(&record.body);
            return Ok(());
        }
        if record.key.kind == Kind::Purged {
            let index = purged_index(&record.body)
                .ok_or_else(|| unreadable((record.key, RecordError::Short)))?;
            self.loaded.purged.insert(record.key.group, index);
        }
        // Purge marks come before entries in the order of keys.
        let purged = self.loaded.purged.get(&record.key.group);
        let index = record.key.index;
        if record.key.kind == Kind::Entry && purged.is_some_and(|upto| index <= *upto) {
            self.loaded.ledger.found_doomed(&record);
            return Ok(());
        }
        Ok(self.loaded.ledger.found(&record)?)
    }

    fn finish(mut self) -> Result<Loaded, Damage> {
        let seal = self
            .seal
            .ok_or_else(|| Damage::Record("the store's header is missing".into()))?;
        let found = self.loaded.ledger.seal().sum;
        if found != seal.sum {
            return Err(Damage::Altered {
                sealed: seal.sum,
                found,
            });
        }
        self.loaded.ledger.found_seal(seal.sequence);
        for (group, upto) in &self.loaded.purged {
            let first = self.loaded.ledger.range(*group).map(|(first, _)| first);
            if let Some(found) = first.filter(|first| *first != upto + 1) {
                let expected = upto + 1;
                return Err(LedgerError::NotContiguous {
                    group: *group,
                    expected,
                    found,
                }
                .into());
            }
        }
        Ok(self.loaded)
    }
}
