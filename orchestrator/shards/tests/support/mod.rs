//! A cluster in memory, on any runtime: an adding machine as the replica, logs that survive a restart.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use espalier_shards::memory::{Fabric, MemorySnapshots};
use espalier_shards::{
    Group, GroupId, Halt, LogId, LogPosition, NodeId, NodeInfo, Placement, Replica, Settings,
    Types, Vote,
};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::alias::EntryOf;
use openraft::{AsyncRuntime, RaftLogReader};

pub(crate) const GROUP: GroupId = GroupId(1);

/// Remembers every command with its place; refuses the empty one, halts on `halt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) entries: Vec<(LogPosition, Vec<u8>)>,
}

impl Replica for Journal {
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt> {
        if command == b"halt" {
            return Err(Halt {
                reason: "told to".into(),
            });
        }
        if command.is_empty() {
            return Ok(Bytes::from_static(b"refused"));
        }
        self.entries.push((at, command.to_vec()));
        Ok(Bytes::from(self.entries.len().to_string()))
    }

    fn write_snapshot(&self, out: &mut dyn Write) -> io::Result<()> {
        for (at, command) in &self.entries {
            out.write_all(&at.term.to_be_bytes())?;
            out.write_all(&at.index.to_be_bytes())?;
            out.write_all(&(command.len() as u64).to_be_bytes())?;
            out.write_all(command)?;
        }
        Ok(())
    }

    fn read_snapshot(&self, input: &mut dyn Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        let mut rest = &bytes[..];
        let number = |rest: &mut &[u8]| {
            let (head, tail) = rest.split_first_chunk::<8>().unwrap();
            *rest = tail;
            u64::from_be_bytes(*head)
        };
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let at = LogPosition {
                term: number(&mut rest),
                index: number(&mut rest),
            };
            let size = usize::try_from(number(&mut rest)).unwrap();
            let (command, tail) = rest.split_at(size);
            entries.push((at, command.to_vec()));
            rest = tail;
        }
        Ok(Journal { entries })
    }

    fn hash(&self) -> u128 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u128;
        for byte in format!("{:?}", self.entries).bytes() {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash
    }
}

/// A log that keeps what it acknowledged.
pub(crate) struct MemoryLog<Rt: AsyncRuntime> {
    state: Arc<Mutex<LogContent<Rt>>>,
}

pub(crate) struct LogContent<Rt: AsyncRuntime> {
    vote: Option<Vote<Rt>>,
    committed: Option<LogId<Rt>>,
    purged: Option<LogId<Rt>>,
    entries: BTreeMap<u64, EntryOf<Types<Rt>>>,
}

impl<Rt: AsyncRuntime> Clone for MemoryLog<Rt> {
    fn clone(&self) -> Self {
        MemoryLog {
            state: Arc::clone(&self.state),
        }
    }
}

impl<Rt: AsyncRuntime> Default for MemoryLog<Rt> {
    fn default() -> Self {
        let state = LogContent {
            vote: None,
            committed: None,
            purged: None,
            entries: BTreeMap::new(),
        };
        MemoryLog {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl<Rt: AsyncRuntime> RaftLogReader<Types<Rt>> for MemoryLog<Rt> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<Types<Rt>>>>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + Send,
    {
        let state = self.state.lock().unwrap();
        Ok(state
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote<Rt>>> {
        Ok(self.state.lock().unwrap().vote)
    }
}

impl<Rt: AsyncRuntime> RaftLogStorage<Types<Rt>> for MemoryLog<Rt> {
    type LogReader = MemoryLog<Rt>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<Rt>>> {
        let state = self.state.lock().unwrap();
        let last = state.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: last.or(state.purged),
        })
    }

    async fn get_log_reader(&mut self) -> MemoryLog<Rt> {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<Rt>) -> io::Result<()> {
        self.state.lock().unwrap().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId<Rt>>) -> io::Result<()> {
        self.state.lock().unwrap().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId<Rt>>> {
        Ok(self.state.lock().unwrap().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types<Rt>>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types<Rt>>> + Send,
        I::IntoIter: Send,
    {
        {
            let mut state = self.state.lock().unwrap();
            state.entries.extend(
                entries
                    .into_iter()
                    .map(|entry| (entry.log_id.index(), entry)),
            );
        }
        done.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId<Rt>>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index() + 1);
        self.state.lock().unwrap().entries.split_off(&next);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<Rt>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.entries = state.entries.split_off(&(upto.index() + 1));
        state.purged = Some(upto);
        Ok(())
    }
}

pub(crate) type JournalGroup<Rt> = Group<Rt, Journal, MemorySnapshots>;

/// What a node keeps over a restart.
pub(crate) struct Disk<Rt: AsyncRuntime> {
    pub(crate) log: MemoryLog<Rt>,
    pub(crate) snapshots: MemorySnapshots,
}

pub(crate) struct Cluster<Rt: AsyncRuntime> {
    pub(crate) fabric: Fabric<Rt, MemorySnapshots>,
    pub(crate) disks: BTreeMap<NodeId, Disk<Rt>>,
    pub(crate) running: BTreeMap<NodeId, JournalGroup<Rt>>,
    pub(crate) settings: Settings,
}

impl<Rt: AsyncRuntime> Cluster<Rt> {
    /// Nodes 1..=`nodes`, all voters, with a leader.
    pub(crate) async fn start(nodes: u64, settings: Settings) -> Self {
        let fabric = Fabric::new(Duration::from_millis(1));
        let mut cluster = Cluster {
            fabric,
            disks: BTreeMap::new(),
            running: BTreeMap::new(),
            settings,
        };
        for node in 1..=nodes {
            cluster.boot(node).await;
        }
        let members = (1..=nodes).map(|node| (node, info(node))).collect();
        cluster.running[&1].initialize(members).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Starts a node with what its disk holds.
    pub(crate) async fn boot(&mut self, node: NodeId) {
        let disk = self.disks.entry(node).or_insert_with(|| Disk {
            log: MemoryLog::default(),
            snapshots: MemorySnapshots::default(),
        });
        let placement = Placement {
            node,
            group: GROUP,
            settings: self.settings,
        };
        let network = self.fabric.network(node, GROUP);
        let (log, snapshots) = (disk.log.clone(), disk.snapshots.clone());
        let group = Group::start(placement, network, log, snapshots, Journal::default())
            .await
            .unwrap();
        self.fabric.attach(node, group.inbound());
        self.running.insert(node, group);
    }

    /// Stops a node as a crash does for the others.
    pub(crate) async fn kill(&mut self, node: NodeId) {
        self.fabric.detach(node);
        self.running.remove(&node).unwrap().shutdown().await;
    }

    /// Waits until a running node leads, and returns it with its term.
    pub(crate) async fn leader(&self) -> (NodeId, u64) {
        self.until("a leader", |cluster| cluster.leads()).await
    }

    pub(crate) fn leads(&self) -> Option<(NodeId, u64)> {
        let mut leaders: Vec<_> = self
            .running
            .iter()
            .filter_map(|(node, group)| Some((group.current_leadership().leading_term()?, *node)))
            .collect();
        leaders.sort_unstable();
        leaders.pop().map(|(term, node)| (node, term))
    }

    /// Waits until all running nodes have applied up to `index`, and their states are equal.
    pub(crate) async fn converged(&self, index: u64) {
        let applied =
            |group: &JournalGroup<Rt>| group.read(|at, _| at.is_some_and(|at| at.index >= index));
        self.until("convergence", |cluster| {
            cluster.running.values().all(applied).then_some(())
        })
        .await;
        let hashes: Vec<_> = self
            .running
            .values()
            .map(|group| group.read(|at, journal| (at, journal.hash())))
            .collect();
        assert!(
            hashes.windows(2).all(|pair| pair[0] == pair[1]),
            "{hashes:?}"
        );
    }

    /// Waits for a condition, at most 20 s of the runtime's time.
    pub(crate) async fn until<T>(&self, what: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..4_000 {
            if let Some(found) = check(self) {
                return found;
            }
            Rt::sleep(Duration::from_millis(5)).await;
        }
        let seen: Vec<_> = self
            .running
            .iter()
            .map(|(node, group)| (node, group.current_leadership()))
            .collect();
        panic!("waited in vain for {what}: {seen:?}");
    }

    /// Proposes under the leader of the moment.
    pub(crate) async fn write(&self, command: &'static str) -> LogPosition {
        let (leader, term) = self.leader().await;
        let (at, _) = self.running[&leader]
            .propose(term, Bytes::from(command))
            .await
            .unwrap();
        at
    }
}

pub(crate) fn info(node: NodeId) -> NodeInfo {
    NodeInfo {
        cluster_address: format!("node{node}:7301"),
        public_address: String::new(),
    }
}
