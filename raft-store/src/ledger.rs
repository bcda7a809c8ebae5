//! What lies in the database, known without reading it: the writer's pure part.
//!
//! The ledger turns operations into the writes of a batch and keeps the store's sum, each group's range of
//! entries and what is still to be deleted after a purge.
//!
//! Invariants: a group's live entries are contiguous; deletions after a purge are spread over batches, at
//! most [`DELETES_PER_BATCH`] in each (a large delete stalls the store for longer than an election), or a quarter
//! more than the batch puts, so that deletions keep up with any load; the seal of a batch is the sum of exactly the records that stand after it.
//!
//! It does no input or output, and decodes no body.

mod run;

use std::collections::{BTreeMap, VecDeque};

use crate::batch::{Batch, Seal};
use crate::key::{GroupId, KEY_BYTES, Key, Kind};
use crate::record::{Decoded, Record, TooLong};
use run::{Known, Run};

/// Most deletions in a batch that puts little.
pub const DELETES_PER_BATCH: usize = 256;

/// A change of one group's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write the vote.
    Vote(Vec<u8>),
    /// Write the committed log id.
    Committed(Vec<u8>),
    /// Append entries from this index on.
    Append {
        /// Index of the first.
        first: u64,
        /// Their bodies.
        bodies: Vec<Vec<u8>>,
    },
    /// Delete the entries from this index on.
    Truncate {
        /// The first to go.
        from: u64,
    },
    /// Write the purge mark; delete the entries up to this index, inclusive, in the background.
    Purge {
        /// The last to go.
        upto: u64,
        /// The purge mark.
        mark: Vec<u8>,
    },
    /// Change nothing: it is done when all before it is.
    Barrier,
}

impl Op {
    /// About how many bytes it writes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 64;
        match self {
            Self::Vote(body) | Self::Committed(body) | Self::Purge { mark: body, .. } => {
                OVERHEAD + body.len()
            }
            Self::Append { bodies, .. } => bodies.iter().map(|body| OVERHEAD + body.len()).sum(),
            Self::Truncate { .. } | Self::Barrier => OVERHEAD,
        }
    }
}

/// Why an operation cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An append that would leave a hole, or overwrite.
    #[error("the log of group {group} goes on at {expected}, not at {found}")]
    NotContiguous {
        /// The group.
        group: GroupId,
        /// The index that comes next.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// A body that is too long for a record.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// Whether an operation was done in this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was; go on with the group's next.
    Done,
    /// Some is left for the next batch; the group's later operations must wait.
    Partly,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    singles: BTreeMap<Kind, Known>,
    live: Run,
    doomed: VecDeque<Run>,
}

/// The state of all groups' records. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    seal: Seal,
    /// Bytes of all records that stand, keys included, the header not.
    live_bytes: u64,
    groups: BTreeMap<GroupId, Group>,
    /// The group whose deletions come first in the next batch, so that all get their turn.
    turn: GroupId,
}

impl Ledger {
    /// The seal of the last batch.
    #[must_use]
    pub fn seal(&self) -> Seal {
        self.seal
    }

    /// The groups that have records.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// First and last index of a group's live entries.
    #[must_use]
    pub fn range(&self, group: GroupId) -> Option<(u64, u64)> {
        let live = &self.groups.get(&group)?.live;
        Some((live.first, live.next()? - 1))
    }

    /// Entries that are purged and not deleted yet, of all groups.
    #[must_use]
    pub fn doomed(&self) -> usize {
        let runs = self.groups.values().flat_map(|group| &group.doomed);
        runs.map(|run| run.checksums.len()).sum()
    }

    /// Bytes of all records that stand.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    fn gain(&mut self, known: Known) {
        self.seal.sum = self.seal.sum.wrapping_add(known.checksum);
        self.live_bytes += room(known);
    }

    fn lose(&mut self, known: Known) {
        self.seal.sum = self.seal.sum.wrapping_sub(known.checksum);
        self.live_bytes -= room(known);
    }

    /// Takes over the seal that was found in the database.
    pub(crate) fn found_seal(&mut self, sequence: u64) {
        self.seal.sequence = sequence;
    }

    /// Takes over a record that was found in the database.
    ///
    /// # Errors
    ///
    /// An entry that is not the next of its group.
    pub(crate) fn found(&mut self, record: &Decoded) -> Result<(), LedgerError> {
        let Key {
            kind,
            group: id,
            index,
            ..
        } = record.key;
        let known = Known::new(record.checksum, record.stored_bytes(), record.parts);
        self.gain(known);
        let group = self.groups.entry(id).or_default();
        match kind {
            Kind::Entry => {
                let expected = group.live.next().unwrap_or(index);
                if expected != index {
                    return Err(LedgerError::NotContiguous {
                        group: id,
                        expected,
                        found: index,
                    });
                }
                group.live.push(index, known);
            }
            Kind::Header | Kind::Vote | Kind::Committed | Kind::Purged => {
                group.singles.insert(kind, known);
            }
        }
        Ok(())
    }

    /// Takes over an entry that was found below its group's purge mark, for deletion.
    pub(crate) fn found_doomed(&mut self, record: &Decoded) {
        let Key { group, index, .. } = record.key;
        let known = Known::new(record.checksum, record.stored_bytes(), record.parts);
        self.gain(known);
        let doomed = &mut self.groups.entry(group).or_default().doomed;
        if doomed.back().and_then(Run::next) != Some(index) {
            doomed.push_back(Run::default());
        }
        if let Some(run) = doomed.back_mut() {
            run.push(index, known);
        }
    }

    /// Adds an operation's writes to a batch. A truncation takes several batches if it deletes much; the
    /// caller hands the same operation over again until it is done.
    ///
    /// # Errors
    ///
    /// The operation is refused and nothing of it is in the batch.
    pub fn apply(
        &mut self,
        id: GroupId,
        op: &Op,
        batch: &mut Batch,
    ) -> Result<Progress, LedgerError> {
        match op {
            Op::Vote(body) => self.put_single(Key::single(Kind::Vote, id), body, batch)?,
            Op::Committed(body) => {
                self.put_single(Key::single(Kind::Committed, id), body, batch)?;
            }
            Op::Append { first, bodies } => self.append(id, *first, bodies, batch)?,
            Op::Truncate { from } => return Ok(self.truncate(id, *from, batch)),
            Op::Purge { upto, mark } => {
                self.put_single(Key::single(Kind::Purged, id), mark, batch)?;
                self.groups.entry(id).or_default().doom(*upto);
            }
            Op::Barrier => {}
        }
        Ok(Progress::Done)
    }

    /// Adds deletions of purged entries, as many as the batch has room for, and seals it.
    ///
    /// # Errors
    ///
    /// Never in practice: the header is short.
    pub fn seal_batch(&mut self, batch: &mut Batch) -> Result<(), LedgerError> {
        self.sweep(batch);
        self.seal.sequence += 1;
        batch.seal = self.seal;
        batch.put(
            Key::HEADER,
            Record::encode(Key::HEADER, &self.seal.to_bytes())?,
        );
        Ok(())
    }

    fn put_single(&mut self, key: Key, body: &[u8], batch: &mut Batch) -> Result<(), LedgerError> {
        let record = Record::encode(key, body)?;
        let known = Known::of(&record);
        let group = self.groups.entry(key.group).or_default();
        if let Some(before) = group.singles.insert(key.kind, known) {
            self.lose(before);
        }
        self.gain(known);
        batch.put(key, record);
        Ok(())
    }

    fn append(
        &mut self,
        id: GroupId,
        first: u64,
        bodies: &[Vec<u8>],
        batch: &mut Batch,
    ) -> Result<(), LedgerError> {
        let live = &self.groups.entry(id).or_default().live;
        let expected = live.next().unwrap_or(first);
        if expected != first {
            return Err(LedgerError::NotContiguous {
                group: id,
                expected,
                found: first,
            });
        }
        let records = (first..)
            .map(|index| Key::entry(id, index))
            .zip(bodies)
            .map(|(key, body)| Ok((key, Record::encode(key, body)?)))
            .collect::<Result<Vec<_>, TooLong>>()?;
        for (key, record) in records {
            let known = Known::of(&record);
            self.gain(known);
            self.groups
                .entry(id)
                .or_default()
                .live
                .push(key.index, known);
            batch.put(key, record);
        }
        Ok(())
    }

    fn truncate(&mut self, id: GroupId, from: u64, batch: &mut Batch) -> Progress {
        // From the end backwards, so that no hole is left between two batches.
        loop {
            let live = &mut self.groups.entry(id).or_default().live;
            if live.next().is_none_or(|next| next <= from) {
                return Progress::Done;
            }
            if batch.deletes >= deletes_allowed(batch) {
                return Progress::Partly;
            }
            let Some((index, known)) = live.pop_back() else {
                return Progress::Done;
            };
            self.lose(known);
            batch.delete(Key::entry(id, index), known.parts);
        }
    }

    fn sweep(&mut self, batch: &mut Batch) {
        let later = self.groups.range(self.turn..).map(|(id, _)| *id);
        let earlier = self.groups.range(..self.turn).map(|(id, _)| *id);
        for id in later.chain(earlier).collect::<Vec<_>>() {
            while let Some(doomed) = self.next_doomed(id) {
                self.lose(doomed.1);
                batch.delete(Key::entry(id, doomed.0), doomed.1.parts);
                if batch.deletes >= deletes_allowed(batch) {
                    self.turn = id.wrapping_add(1);
                    return;
                }
            }
        }
        self.turn = 0;
    }

    fn next_doomed(&mut self, id: GroupId) -> Option<(u64, Known)> {
        let doomed = &mut self.groups.get_mut(&id)?.doomed;
        loop {
            let next = doomed.front_mut()?.pop_front();
            if next.is_some() {
                return next;
            }
            doomed.pop_front();
        }
    }
}

/// What a record takes: its parts and their keys.
fn room(known: Known) -> u64 {
    u64::from(known.bytes) + u64::from(known.parts) * KEY_BYTES as u64
}

/// How many deletions a batch may hold.
fn deletes_allowed(batch: &Batch) -> usize {
    let puts = batch.writes.len() - batch.deletes;
    DELETES_PER_BATCH.max(puts + puts / 4)
}

impl Group {
    fn doom(&mut self, upto: u64) {
        let run = self.live.split_front(upto);
        if !run.checksums.is_empty() {
            self.doomed.push_back(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database as the batches leave it.
    #[derive(Default)]
    struct Played(BTreeMap<Key, Vec<u8>>);

    impl Played {
        fn commit(&mut self, ledger: &mut Ledger, ops: &[(GroupId, Op)]) -> Vec<Progress> {
            let mut batch = Batch::default();
            let done = ops
                .iter()
                .map(|(group, op)| ledger.apply(*group, op, &mut batch));
            let done = done.collect::<Result<_, _>>().expect("applied");
            ledger.seal_batch(&mut batch).expect("sealed");
            for (key, value) in batch.writes {
                match value {
                    Some(value) => self.0.insert(key, value),
                    None => self.0.remove(&key),
                };
            }
            done
        }

        fn entries(&self, group: GroupId) -> Vec<u64> {
            let keys = self
                .0
                .keys()
                .filter(|key| key.kind == Kind::Entry && key.group == group);
            keys.filter(|key| key.part == 0)
                .map(|key| key.index)
                .collect()
        }
    }

    fn append(first: u64, count: usize) -> Op {
        Op::Append {
            first,
            bodies: vec![vec![7; 10]; count],
        }
    }

    #[test]
    fn a_purge_is_spread_over_batches_and_all_groups_get_their_turn() {
        let (mut ledger, mut played) = (Ledger::default(), Played::default());
        played.commit(&mut ledger, &[(1, append(0, 1000)), (2, append(0, 300))]);
        let purge = |upto| Op::Purge { upto, mark: vec![] };
        played.commit(&mut ledger, &[(1, purge(899)), (2, purge(199))]);
        assert_eq!(
            ledger.range(1),
            Some((900, 999)),
            "what is purged is not live any more"
        );
        let mut left = vec![played.entries(1).len() + played.entries(2).len()];
        while ledger.doomed() > 0 {
            played.commit(&mut ledger, &[]);
            left.push(played.entries(1).len() + played.entries(2).len());
        }
        assert_eq!(left, [1044, 788, 532, 276, 200]);
        assert_eq!(played.entries(1), (900..1000).collect::<Vec<_>>());
        assert_eq!(played.entries(2), (200..300).collect::<Vec<_>>());
    }

    #[test]
    fn deletions_keep_up_with_large_batches() {
        let (mut ledger, mut played) = (Ledger::default(), Played::default());
        let mut next = 0;
        for _ in 0..50 {
            let purge = Op::Purge {
                upto: next,
                mark: vec![],
            };
            played.commit(&mut ledger, &[(1, append(next, 2000)), (1, purge)]);
            next += 2000;
            assert!(
                ledger.doomed() < 6000,
                "{} entries wait for deletion",
                ledger.doomed()
            );
        }
    }

    #[test]
    fn a_long_truncation_takes_several_batches_from_the_end_backwards() {
        let (mut ledger, mut played) = (Ledger::default(), Played::default());
        played.commit(&mut ledger, &[(1, append(5, 600))]);
        let cut = [(1, Op::Truncate { from: 10 })];
        for left in [344, 88, 5] {
            let progress = played.commit(&mut ledger, &cut);
            let expected = if left == 5 {
                Progress::Done
            } else {
                Progress::Partly
            };
            assert_eq!(progress, [expected]);
            assert_eq!(
                played.entries(1),
                (5..5 + left).collect::<Vec<_>>(),
                "no hole"
            );
        }
        assert_eq!(
            played.commit(&mut ledger, &[(1, append(10, 1))]),
            [Progress::Done]
        );
    }

    #[test]
    fn a_hole_and_an_overwrite_are_refused_and_leave_no_trace() {
        let mut ledger = Ledger::default();
        Played::default().commit(&mut ledger, &[(1, append(3, 2))]);
        let before = ledger.clone();
        for first in [0, 4, 6] {
            let mut batch = Batch::default();
            let error = ledger
                .apply(1, &append(first, 1), &mut batch)
                .expect_err("refused");
            assert_eq!(
                error,
                LedgerError::NotContiguous {
                    group: 1,
                    expected: 5,
                    found: first
                }
            );
            assert_eq!((&ledger, batch), (&before, Batch::default()));
        }
    }

    #[test]
    fn after_a_purge_past_the_end_the_log_goes_on_behind_it() {
        let (mut ledger, mut played) = (Ledger::default(), Played::default());
        let purge = Op::Purge {
            upto: 99,
            mark: vec![],
        };
        played.commit(
            &mut ledger,
            &[(1, append(0, 5)), (1, purge), (1, append(100, 2))],
        );
        played.commit(&mut ledger, &[]);
        assert_eq!(played.entries(1), [100, 101]);
        assert_eq!(ledger.range(1), Some((100, 101)));
    }

    #[test]
    fn the_sum_is_that_of_the_records_that_stand() {
        let (mut ledger, mut played) = (Ledger::default(), Played::default());
        let ops = [
            (1, append(0, 20)),
            (1, Op::Vote(vec![1])),
            (
                2,
                Op::Append {
                    first: 4,
                    bodies: vec![vec![1; 20_000]; 3],
                },
            ),
            (1, Op::Vote(vec![2])),
            (1, Op::Truncate { from: 15 }),
            (
                1,
                Op::Purge {
                    upto: 4,
                    mark: vec![9],
                },
            ),
            (2, Op::Truncate { from: 6 }),
            (2, Op::Committed(vec![5])),
        ];
        for op in ops {
            played.commit(&mut ledger, &[op]);
            let mut again = Ledger::default();
            let parts = played.0.iter().map(|(key, value)| (*key, value.as_slice()));
            for record in crate::record::decode_all(parts).expect("whole") {
                if record.key.kind != Kind::Header {
                    again.found(&record).expect("contiguous");
                }
            }
            assert_eq!(again.seal().sum, ledger.seal().sum);
            assert_eq!(again.live_bytes(), ledger.live_bytes());
        }
    }
}
