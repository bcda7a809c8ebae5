//! What the store's tests share: a Raft type configuration and a small state machine over snapshot files.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]

pub mod witness;

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use espalier_raft_store::snapshot::{Description, SnapshotFiles, Snapshots};
use espalier_raft_store::{Store, StoreOptions};
use futures::{Stream, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{
    LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder, StoredMembership};
use serde::{Deserialize, Serialize};

/// What the tests' entries carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    pub Config:
        D = Bytes,
        R = (),
        NodeId = u64,
        Node = (),
);

pub type GroupStore = espalier_raft_store::GroupStore<Config>;
pub type Entry = <Config as openraft::RaftTypeConfig>::Entry;
type Meta = SnapshotMetaOf<Config>;

/// A store for tests: small, and purging without snapshots.
pub fn options() -> StoreOptions {
    StoreOptions {
        snapshots_required: false,
        cache_bytes: 16 << 20,
        reserve_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

pub fn log_id(term: u64, index: u64) -> LogIdOf<Config> {
    LogIdOf::<Config>::new(
        <Config as openraft::RaftTypeConfig>::LeaderId::new_committed(term, 1),
        index,
    )
}

pub fn entry(term: u64, index: u64, body: Vec<u8>) -> Entry {
    Entry::new(log_id(term, index), EntryPayload::Normal(Bytes(body)))
}

pub fn vote(term: u64) -> VoteOf<Config> {
    VoteOf::<Config>::new(term, 1)
}

/// The bytes of an entry.
pub fn body(entry: &Entry) -> &[u8] {
    match &entry.payload {
        EntryPayload::Normal(bytes) => &bytes.0,
        EntryPayload::Blank | EntryPayload::Membership(_) => &[],
    }
}

/// Appends and waits until the append is acknowledged.
pub async fn append(group: &mut GroupStore, entries: Vec<Entry>) -> io::Result<()> {
    append_later(group, entries).await?.await
}

/// Appends; the returned future ends when the append is acknowledged.
pub async fn append_later(
    group: &mut GroupStore,
    entries: Vec<Entry>,
) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
    let (told, tell) = Config::oneshot();
    group.append(entries, IOFlushed::signal(told)).await?;
    Ok(async move { tell.await.expect("the store tells every append") })
}

pub async fn read(group: &mut GroupStore, range: std::ops::Range<u64>) -> Vec<Entry> {
    let mut reader = group.get_log_reader().await;
    reader.try_get_log_entries(range).await.expect("readable")
}

/// A state machine that counts, with snapshots in files.
#[derive(Clone, Debug)]
pub struct Counter {
    group: u64,
    files: SnapshotFiles,
    applied: Option<LogIdOf<Config>>,
    membership: StoredMembershipOf<Config>,
    count: u64,
}

impl Counter {
    pub fn new(group: u64, files: SnapshotFiles) -> Self {
        Self {
            group,
            files,
            applied: None,
            membership: StoredMembership::default(),
            count: 0,
        }
    }

    fn meta(&self) -> Meta {
        Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }

    fn write(&self, meta: &Meta, body: &[u8]) -> io::Result<()> {
        let description = Description {
            group: self.group,
            covers: meta.last_log_id.map_or(0, |id| id.index),
            meta: postcard::to_stdvec(meta).map_err(io::Error::other)?,
        };
        let mut writer = self.files.begin(description)?;
        writer.write_all(body)?;
        self.files.finish(writer)
    }

    fn current(&self) -> io::Result<Option<SnapshotOf<Config, Vec<u8>>>> {
        let Some(mut snapshot) = self.files.latest(self.group)? else {
            return Ok(None);
        };
        let mut body = Vec::new();
        snapshot.body.read_to_end(&mut body)?;
        let meta = postcard::from_bytes(&snapshot.meta).map_err(io::Error::other)?;
        Ok(Some(openraft::Snapshot {
            meta,
            snapshot: body,
        }))
    }
}

impl RaftSnapshotBuilder<Config> for Counter {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Config, Vec<u8>>, io::Error> {
        self.write(&self.meta(), &self.count.to_be_bytes())?;
        Ok(self.current()?.expect("just written"))
    }
}

impl RaftStateMachine<Config> for Counter {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Config>>, StoredMembershipOf<Config>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Config>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id());
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.membership = StoredMembership::new(self.applied, membership.clone());
            }
            self.count += 1;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        self.write(meta, &snapshot)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Config, Vec<u8>>>, io::Error> {
        self.current()
    }
}

/// A store in a directory of its own, both gone at the end.
pub struct Scratch {
    pub store: Option<Arc<Store>>,
    pub dir: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), &options()).expect("a new store");
        Self {
            store: Some(Arc::new(store)),
            dir,
        }
    }

    pub fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("open")
    }

    pub fn reopen(&mut self) {
        let store = self.store.take().expect("open");
        store.close();
        drop(store);
        self.store = Some(Arc::new(
            Store::open(self.dir.path(), &options()).expect("reopened"),
        ));
    }
}
