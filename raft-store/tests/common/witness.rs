//! A writer that says what was acknowledged to it, and the judge of what is found later.
//!
//! The writer names a truncation or a purge before it can be seen, and an append or a vote after it was
//! acknowledged; whatever moment a store is stopped at, what was said is what must be there.

use std::collections::BTreeMap;
use std::path::Path;

use espalier_raft_store::Store;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{GroupStore, append_later, body, entry, log_id, options, read, vote};

/// The groups that are written.
pub const GROUPS: u64 = 4;

/// What an entry carries: enough to know it again.
pub fn payload(group: u64, term: u64, index: u64) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(group << 48 ^ term << 24 ^ index);
    let length = if random.random_ratio(1, 50) {
        30_000
    } else {
        random.random_range(0..600)
    };
    (0..length).map(|_| random.random()).collect()
}

/// Writes to a group, so many rounds.
pub async fn write_group(
    mut log: GroupStore,
    group: u64,
    term: u64,
    rounds: u64,
    say: impl Fn(&str),
) {
    let mut random = SmallRng::seed_from_u64(term << 8 | group);
    log.save_vote(&vote(term)).await.expect("saved");
    say(&format!("vote {group} {term}"));
    let state = log.get_log_state().await.expect("a state");
    let mut next = state.last_log_id.map_or(0, |id| id.index + 1);
    let first = state.last_purged_log_id.map_or(0, |id| id.index + 1);
    // A new leader cuts what the old one did not get committed.
    if next > first + 20 {
        let from = next - random.random_range(1..10);
        say(&format!("cut {group} {from}"));
        let before = read(&mut log, from - 1..from).await;
        log.truncate_after(Some(before[0].log_id))
            .await
            .expect("cut");
        next = from;
    }
    for _ in 0..rounds {
        let mut waiting = Vec::new();
        for _ in 0..random.random_range(1..4) {
            let count = random.random_range(1..20);
            let entries = (next..next + count).map(|i| entry(term, i, payload(group, term, i)));
            let acknowledged = append_later(&mut log, entries.collect())
                .await
                .expect("entered");
            waiting.push((next, count, acknowledged));
            next += count;
        }
        for (first, count, acknowledged) in waiting {
            acknowledged.await.expect("acknowledged");
            say(&format!("have {group} {term} {first} {count}"));
        }
        log.save_committed(Some(log_id(term, next - 1)))
            .await
            .expect("entered");
        if random.random_ratio(1, 8) && next > 400 {
            let upto = next - 200;
            let id = read(&mut log, upto..upto + 1).await;
            if let Some(entry) = id.first() {
                say(&format!("purge {group} {upto}"));
                log.purge(entry.log_id).await.expect("entered");
            }
        }
    }
}

/// What must be there.
#[derive(Default)]
pub struct Expected {
    pub votes: BTreeMap<u64, u64>,
    /// Term by group and index.
    pub entries: BTreeMap<u64, BTreeMap<u64, u64>>,
    pub acknowledged: usize,
}

impl Expected {
    /// Takes a line of a writer's.
    pub fn learn(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        match words[0] {
            "open" => {}
            "vote" => {
                self.votes.insert(number(1), number(2));
            }
            "have" => {
                let entries = self.entries.entry(number(1)).or_default();
                entries.extend((number(3)..number(3) + number(4)).map(|i| (i, number(2))));
                self.acknowledged += usize::try_from(number(4)).expect("few");
            }
            "cut" => {
                self.entries
                    .entry(number(1))
                    .or_default()
                    .split_off(&number(2));
            }
            "purge" => {
                let entries = self.entries.entry(number(1)).or_default();
                *entries = entries.split_off(&(number(2) + 1));
            }
            other => panic!("the child said {other}"),
        }
    }

    /// Opens the store and compares.
    pub async fn check(&self, dir: &Path) -> Result<(), String> {
        let store = Store::open(dir, &options()).map_err(|error| error.to_string())?;
        for group in 1..=GROUPS {
            let mut log: GroupStore = store.group(group).await.map_err(|e| e.to_string())?;
            let mut reader = log.get_log_reader().await;
            let found = reader.read_vote().await.map_err(|e| e.to_string())?;
            let found = found.map_or(0, |vote| vote.leader_id.term);
            let acknowledged = self.votes.get(&group).copied().unwrap_or(0);
            if found < acknowledged {
                return Err(format!(
                    "group {group} voted in {acknowledged}, found {found}"
                ));
            }
            let found = read(&mut log, 0..u64::MAX).await;
            let found: BTreeMap<u64, _> = found.iter().map(|e| (e.log_id.index, e)).collect();
            for (index, term) in self.entries.get(&group).into_iter().flatten() {
                let entry = found
                    .get(index)
                    .ok_or_else(|| format!("entry {index} of group {group} is missing"))?;
                if entry.log_id.leader_id.term != *term
                    || body(entry) != payload(group, *term, *index)
                {
                    return Err(format!("entry {index} of group {group} is another"));
                }
            }
        }
        Ok(())
    }
}
