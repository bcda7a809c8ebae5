//! A replica as openraft's state machine.
//!
//! Invariants: entries are applied in order, each once; membership is stored with the state; readers
//! and snapshots get a clone, so they never wait for more than one entry. What a replica cannot read
//! halts the group here.
//!
//! Not here: when a snapshot is due (the keeper decides that by the log's bytes).

use std::io;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use openraft::async_runtime::WatchSender;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotOf, WatchSenderOf};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::shelf::{Shelf, lock};
use crate::types::{LogId, SnapshotMeta, StoredMembership, position};
use crate::{Answer, LogPosition, Replica, SnapshotStore, Types};

/// The state with its place in the log.
pub(crate) struct Applied<Rt: AsyncRuntime, R> {
    pub(crate) last: Option<LogId<Rt>>,
    pub(crate) membership: StoredMembership<Rt>,
    pub(crate) replica: R,
    /// Bytes of the commands applied since the latest snapshot's place.
    pub(crate) log_bytes: u64,
}

impl<Rt: AsyncRuntime, R: Clone> Applied<Rt, R> {
    pub(crate) fn freeze(&self) -> (SnapshotMeta<Rt>, R) {
        let meta = SnapshotMeta::<Rt> {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        };
        (meta, self.replica.clone())
    }
}

/// What the machine and the group's handle share.
pub(crate) struct Shared<Rt: AsyncRuntime, R, S> {
    pub(crate) state: Mutex<Applied<Rt, R>>,
    pub(crate) shelf: Shelf<S>,
}

/// The state machine of one group on one node.
pub struct Machine<Rt: AsyncRuntime, R, S> {
    shared: Arc<Shared<Rt, R, S>>,
    /// In a mutex because not every runtime's sender may be shared.
    applied: Mutex<WatchSenderOf<Types<Rt>, Option<LogPosition>>>,
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Machine<Rt, R, S> {
    pub(crate) fn new(
        replica: R,
        snapshots: S,
        applied: WatchSenderOf<Types<Rt>, Option<LogPosition>>,
    ) -> (Self, Arc<Shared<Rt, R, S>>) {
        let state = Applied {
            last: None,
            membership: StoredMembership::<Rt>::default(),
            replica,
            log_bytes: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            shelf: Shelf::new(snapshots),
        });
        (
            Machine {
                shared: Arc::clone(&shared),
                applied: Mutex::new(applied),
            },
            shared,
        )
    }

    fn announce(&self) {
        let at = lock(&self.shared.state).last.as_ref().map(position::<Rt>);
        lock(&self.applied).send_if_different(at);
    }

    fn apply_one(
        &self,
        entry: openraft::type_config::alias::EntryOf<Types<Rt>>,
    ) -> io::Result<Answer> {
        let mut state = lock(&self.shared.state);
        let answer = match entry.payload {
            EntryPayload::Blank => Answer::default(),
            EntryPayload::Normal(command) => {
                state.log_bytes += command.0.len() as u64;
                let at = position::<Rt>(&entry.log_id);
                Answer(
                    state
                        .replica
                        .apply(at, &command.0)
                        .map_err(io::Error::other)?,
                )
            }
            EntryPayload::Membership(membership) => {
                state.membership = StoredMembership::<Rt>::new(Some(entry.log_id), membership);
                Answer::default()
            }
        };
        state.last = Some(entry.log_id);
        Ok(answer)
    }
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> RaftStateMachine<Types<Rt>>
    for Machine<Rt, R, S>
{
    type SnapshotData = S::File;
    type SnapshotBuilder = Builder<Rt, R, S>;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<Rt>>, StoredMembership<Rt>), io::Error> {
        let state = lock(&self.shared.state);
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types<Rt>>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let answer = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        self.announce();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<Rt, R, S> {
        Builder {
            shared: Arc::clone(&self.shared),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<Rt>,
        snapshot: S::File,
    ) -> Result<(), io::Error> {
        let like = lock(&self.shared.state).replica.clone();
        let replica = self
            .shared
            .shelf
            .install::<Rt, R>(meta.clone(), snapshot, like)
            .await?;
        {
            let mut state = lock(&self.shared.state);
            state.last = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.replica = replica;
            state.log_bytes = 0;
        }
        self.announce();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types<Rt>, S::File>>, io::Error> {
        let latest = self.shared.shelf.latest::<Rt>().await?;
        Ok(latest.map(|(meta, snapshot)| SnapshotOf::<Types<Rt>, S::File> { meta, snapshot }))
    }
}

/// Hands openraft the snapshot that the keeper has published; writes one only where there is none.
pub struct Builder<Rt: AsyncRuntime, R, S> {
    shared: Arc<Shared<Rt, R, S>>,
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> RaftSnapshotBuilder<Types<Rt>>
    for Builder<Rt, R, S>
{
    type SnapshotData = S::File;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types<Rt>, S::File>, io::Error> {
        let shelf = &self.shared.shelf;
        if let Some((meta, snapshot)) = shelf.latest::<Rt>().await? {
            return Ok(SnapshotOf::<Types<Rt>, S::File> { meta, snapshot });
        }
        let (meta, frozen) = lock(&self.shared.state).freeze();
        shelf.write::<Rt, R>(meta, frozen).await?;
        let gone = || io::Error::other("the snapshot that was just published is gone");
        let (meta, snapshot) = shelf.latest::<Rt>().await?.ok_or_else(gone)?;
        Ok(SnapshotOf::<Types<Rt>, S::File> { meta, snapshot })
    }
}
