//! A group's handle against a much simpler model, on the simulated disk, with crashes.
//!
//! The model is a list of states, one for each operation; what a crash leaves must be one of those from the
//! last acknowledged on.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Config, Entry, GroupStore, append_later, entry, log_id, read, vote};
use espalier_raft_store::memory::{Faults, MemoryDisk};
use espalier_raft_store::{QueueLimits, Store};
use openraft::RaftLogReader;
use openraft::impls::TokioRuntime;
use openraft::storage::RaftLogStorage;
use proptest::prelude::*;

const GROUPS: u64 = 2;

#[derive(Clone, Debug)]
enum Op {
    Append {
        group: u64,
        count: u64,
        bytes: usize,
        wait: bool,
    },
    Cut {
        group: u64,
        back: u64,
    },
    Purge {
        group: u64,
        keep: u64,
    },
    Vote {
        group: u64,
    },
    Committed {
        group: u64,
    },
    Read {
        group: u64,
        from: u64,
        count: u64,
        limited: bool,
    },
    Handle {
        group: u64,
    },
    Close,
    Crash {
        keep: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let group = 0..GROUPS;
    let op = prop_oneof![
        6 => (group.clone(), 1..9_u64, 0..300_usize, any::<bool>())
            .prop_map(|(group, count, bytes, wait)| Op::Append { group, count, bytes, wait }),
        2 => (group.clone(), 0..12_u64).prop_map(|(group, back)| Op::Cut { group, back }),
        1 => (group.clone(), 0..20_u64).prop_map(|(group, keep)| Op::Purge { group, keep }),
        1 => group.clone().prop_map(|group| Op::Vote { group }),
        1 => group.clone().prop_map(|group| Op::Committed { group }),
        4 => (group.clone(), 0..60_u64, 0..30_u64, any::<bool>())
            .prop_map(|(group, from, count, limited)| Op::Read { group, from, count, limited }),
        1 => group.prop_map(|group| Op::Handle { group }),
        1 => Just(Op::Close),
        1 => (0..3_usize).prop_map(|keep| Op::Crash { keep }),
    ];
    prop::collection::vec(op, 1..80)
}

/// What one group holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    entries: BTreeMap<u64, Entry>,
    purged: Option<u64>,
    vote: u64,
    next: u64,
}

/// All states since the last that is known to be durable, and that one first.
#[derive(Debug)]
struct History {
    states: Vec<State>,
    committed: Option<u64>,
    term: u64,
}

impl History {
    fn now(&self) -> &State {
        self.states.last().expect("never empty")
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.now().clone();
        change(&mut state);
        self.states.push(state);
    }

    fn settle(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }
}

struct Run {
    disk: MemoryDisk,
    store: Store,
    logs: Vec<GroupStore>,
    model: Vec<History>,
}

async fn open(disk: &MemoryDisk) -> (Store, Vec<GroupStore>) {
    let engine = disk.engine::<TokioRuntime>(|_| Duration::from_millis(3));
    let (store, writer) =
        Store::with_engine(engine, QueueLimits::default(), 700).expect("undamaged");
    tokio::spawn(writer);
    let mut logs = Vec::new();
    for group in 0..GROUPS {
        logs.push(store.group(group).await.expect("a group"));
    }
    (store, logs)
}

async fn state_of(log: &mut GroupStore) -> State {
    let found = log.get_log_state().await.expect("a state");
    let mut reader = log.get_log_reader().await;
    let entries = reader.try_get_log_entries(..).await.expect("readable");
    State {
        entries: entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect(),
        purged: found.last_purged_log_id.map(|id| id.index),
        vote: reader
            .read_vote()
            .await
            .expect("readable")
            .map_or(0, |vote| vote.leader_id.term),
        next: found.last_log_id.map_or(0, |id| id.index + 1),
    }
}

impl Run {
    async fn new() -> Self {
        let disk = MemoryDisk::new();
        let (store, logs) = open(&disk).await;
        let history = || History {
            states: vec![State::default()],
            committed: None,
            term: 1,
        };
        Self {
            disk,
            store,
            logs,
            model: (0..GROUPS).map(|_| history()).collect(),
        }
    }

    fn at(&mut self, group: u64) -> (&mut GroupStore, &mut History) {
        let at = usize::try_from(group).expect("small");
        (&mut self.logs[at], &mut self.model[at])
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Append {
                group,
                count,
                bytes,
                wait,
            } => {
                let (log, model) = self.at(group);
                append(log, model, count, bytes, wait).await;
            }
            Op::Cut { group, back } => {
                let (log, model) = self.at(group);
                cut(log, model, back).await;
            }
            Op::Purge { group, keep } => {
                let (log, model) = self.at(group);
                purge(log, model, keep).await;
            }
            Op::Vote { group } => {
                let (log, model) = self.at(group);
                model.term += 1;
                let term = model.term;
                log.save_vote(&vote(term)).await.expect("saved");
                model.change(|state| state.vote = term);
                // A vote is durable when it returns, and all that its group entered before it.
                model.settle();
            }
            Op::Committed { group } => {
                let (log, model) = self.at(group);
                if let Some(entry) = model.now().entries.values().last().cloned() {
                    model.committed = Some(entry.log_id.index);
                    log.save_committed(Some(entry.log_id))
                        .await
                        .expect("entered");
                }
            }
            Op::Read {
                group,
                from,
                count,
                limited,
            } => {
                let (log, model) = self.at(group);
                compare_read(log, model.now(), from, count, limited).await;
            }
            Op::Handle { group } => {
                let again = self.store.group(group).await.expect("a group");
                let (log, model) = self.at(group);
                let stale = std::mem::replace(log, again);
                model.settle();
                compare_after_opening(log, model).await;
                let mut stale = stale;
                assert!(
                    stale.save_vote(&vote(99)).await.is_err(),
                    "an old handle still works"
                );
            }
            Op::Close => {
                self.store.close();
                // The writer is a task here: wait until it has written what had entered.
                while self.store.health() != espalier_raft_store::Health::Closed {
                    self.store.health_changed(self.store.health()).await;
                }
                self.model.iter_mut().for_each(History::settle);
                self.reopen().await;
            }
            Op::Crash { keep } => {
                self.disk.crash(keep.min(self.disk.unsynced()));
                self.reopen().await;
            }
        }
    }

    async fn reopen(&mut self) {
        (self.store, self.logs) = open(&self.disk).await;
        for (log, model) in self.logs.iter_mut().zip(&mut self.model) {
            compare_after_opening(log, model).await;
        }
    }
}

async fn append(log: &mut GroupStore, model: &mut History, count: u64, bytes: usize, wait: bool) {
    let next = model.now().next;
    let entries: Vec<Entry> = (next..next + count)
        .map(|index| {
            entry(
                model.term,
                index,
                vec![u8::try_from(index % 251).expect("small"); bytes],
            )
        })
        .collect();
    let acknowledged = append_later(log, entries.clone()).await.expect("entered");
    model.change(|state| {
        state.next += count;
        state
            .entries
            .extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
    });
    if wait {
        acknowledged.await.expect("acknowledged");
        model.settle();
    }
}

async fn cut(log: &mut GroupStore, model: &mut History, back: u64) {
    let state = model.now();
    let first = state.purged.map_or(0, |purged| purged + 1);
    // Raft never cuts what is committed.
    let first = first.max(model.committed.map_or(0, |committed| committed + 1));
    let from = state.next.saturating_sub(back).max(first);
    let after = match from
        .checked_sub(1)
        .and_then(|last| state.entries.get(&last))
    {
        Some(entry) => Some(entry.log_id),
        None => from
            .checked_sub(1)
            .filter(|last| Some(*last) == state.purged)
            .map(|_| log_id(1, from - 1)),
    };
    // Entries after a cut are another leader's.
    model.term += 1;
    log.truncate_after(after).await.expect("entered");
    model.change(|state| {
        state.entries.split_off(&from);
        state.next = from;
    });
}

async fn purge(log: &mut GroupStore, model: &mut History, keep: u64) {
    let Some(upto) = model.now().next.checked_sub(keep + 1) else {
        return;
    };
    let Some(entry) = model.now().entries.get(&upto) else {
        return;
    };
    log.purge(entry.log_id).await.expect("entered");
    model.change(|state| {
        state.entries = state.entries.split_off(&(upto + 1));
        state.purged = Some(upto);
    });
}

async fn compare_read(log: &mut GroupStore, state: &State, from: u64, count: u64, limited: bool) {
    let wanted: Vec<&Entry> = state
        .entries
        .range(from..from + count)
        .map(|(_, e)| e)
        .collect();
    if limited {
        let mut reader = log.get_log_reader().await;
        let found = reader
            .limited_get_log_entries(from, from + count)
            .await
            .expect("readable");
        assert!(!found.is_empty() || wanted.is_empty());
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted[..found.len()]);
    } else {
        let found = read(log, from..from + count).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
    }
}

async fn compare_after_opening(log: &mut GroupStore, model: &mut History) {
    let found = state_of(log).await;
    let Some(at) = model.states.iter().rposition(|state| *state == found) else {
        panic!("found {found:?}, which is none of {:?}", model.states);
    };
    model.states = vec![model.states.swap_remove(at)];
    let committed = log
        .read_committed()
        .await
        .expect("readable")
        .map(|id| id.index);
    assert!(
        committed <= model.committed,
        "committed {committed:?} of {:?}",
        model.committed
    );
    model.committed = committed;
}

fn simulated<F: Future<Output = ()>>(run: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(run);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_group_is_what_the_model_says_whenever_the_power_goes(ops in ops()) {
        simulated(async {
            let mut run = Run::new().await;
            for op in &ops {
                run.step(op).await;
            }
            run.step(&Op::Close).await;
        });
    }
}

/// The simulated disk can lie, and then something is lost: otherwise it would find no bug.
#[test]
fn the_simulated_disk_loses_what_planted_bugs_acknowledge_too_early() {
    let table = [
        (
            Faults {
                acknowledge_before_sync: true,
                ..Faults::default()
            },
            0,
            2,
        ),
        (
            Faults {
                votes_without_sync: true,
                ..Faults::default()
            },
            1,
            0,
        ),
        (Faults::default(), 1, 2),
    ];
    for (faults, entries, voted) in table {
        simulated(async move {
            let disk = MemoryDisk::new();
            let (_store, mut logs) = open(&disk).await;
            disk.set_faults(faults);
            logs[0].save_vote(&vote(2)).await.expect("saved");
            if !faults.votes_without_sync {
                let kept = append_later(&mut logs[0], vec![entry(2, 0, vec![])]).await;
                kept.expect("entered").await.expect("acknowledged");
            }
            disk.crash(0);
            let (_store, mut logs) = open(&disk).await;
            let found = state_of(&mut logs[0]).await;
            assert_eq!(found.vote, voted, "{faults:?}");
            let expected = if faults.votes_without_sync {
                0
            } else {
                entries
            };
            assert_eq!(found.entries.len(), expected, "{faults:?}");
        });
    }
}

/// A full simulated disk stops and goes on like a real one.
#[test]
fn a_full_simulated_disk_delays_and_loses_nothing() {
    simulated(async {
        let disk = MemoryDisk::new();
        let (store, mut logs) = open(&disk).await;
        disk.set_full(true);
        let late = append_later(&mut logs[0], vec![entry(1, 0, vec![])])
            .await
            .expect("entered");
        let health = store
            .health_changed(espalier_raft_store::Health::Well)
            .await;
        assert!(matches!(health, espalier_raft_store::Health::Full(_)));
        disk.set_full(false);
        late.await.expect("acknowledged");
        assert_eq!(store.health(), espalier_raft_store::Health::Well);
    });
}

#[test]
fn what_waits_is_bounded() {
    simulated(async {
        let disk = MemoryDisk::new();
        let limits = QueueLimits {
            waiting_bytes: 10_000,
            batch_bytes: 4_000,
        };
        let engine = disk.engine::<TokioRuntime>(|_| Duration::from_millis(3));
        let (store, writer) = Store::with_engine(engine, limits, 700).expect("undamaged");
        tokio::spawn(writer);
        let mut log: espalier_raft_store::GroupStore<Config> =
            store.group(1).await.expect("a group");
        disk.set_full(true);
        for index in 0..10 {
            let room = append_later(&mut log, vec![entry(1, index, vec![0; 999])]);
            let entered = tokio::time::timeout(Duration::from_secs(1), room).await;
            if entered.is_err() {
                assert!(store.figures().waiting_bytes >= 10_000);
                disk.set_full(false);
                return;
            }
        }
        // 10 × (999 + 64 and a little) is more than the bound.
        let room = append_later(&mut log, vec![entry(1, 10, vec![0; 999])]);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), room)
                .await
                .is_err(),
            "unbounded"
        );
    });
}
