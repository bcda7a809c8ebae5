//! A group's background task: follows who leads, and has a snapshot written when the log has grown.
//!
//! Invariants: it ends when the group stops, and says so in the leadership; a snapshot that cannot be
//! written leaves the group running and is tried again when the log has grown by a further eighth.

use std::io;
use std::sync::Arc;

use openraft::async_runtime::{Select2, WatchReceiver, WatchSender};
use openraft::type_config::alias::WatchSenderOf;
use openraft::{AsyncRuntime, ServerState};

use crate::group::Inner;
use crate::shelf::lock;
use crate::{
    Leadership, LogPosition, NodeId, Replica, Settings, SnapshotFile, SnapshotStore, Types,
};

pub(crate) fn spawn<Rt: AsyncRuntime, R: Replica, S: SnapshotStore>(
    inner: &Arc<Inner<Rt, R, S>>,
    settings: Settings,
    leadership: WatchSenderOf<Types<Rt>, Leadership>,
) {
    let inner = Arc::clone(inner);
    // The handle is not awaited: the task ends with the group.
    drop(Rt::spawn(keep(inner, settings, leadership)));
}

async fn keep<Rt: AsyncRuntime, R: Replica, S: SnapshotStore>(
    inner: Arc<Inner<Rt, R, S>>,
    settings: Settings,
    leadership: WatchSenderOf<Types<Rt>, Leadership>,
) {
    // All metrics, because those of the server alone have the vote that is on the disk beside the leader that is
    // known: while the disk is slow, a new leader with the term of an old one.
    let mut metrics = inner.raft.metrics();
    let mut applied = inner.applied.clone();
    let mut due = settings.snapshot_log_bytes.max(latest_size(&inner).await);
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            let applied = *applied.borrow_and_update();
            judge(
                inner.node,
                metrics.state,
                metrics.current_leader,
                metrics.current_term,
                applied,
            )
        };
        leadership.send_if_different(now);
        if lock(&inner.shared.state).log_bytes > due {
            due = match snapshot(&inner).await {
                Ok(()) => settings.snapshot_log_bytes.max(latest_size(&inner).await),
                Err(error) => {
                    tracing::error!(group = %inner.id, %error, "a snapshot could not be written");
                    due + due / 8
                }
            };
        }
        match Rt::select2(metrics.changed(), applied.changed()).await {
            Select2::First(Ok(())) | Select2::Second(Ok(())) => {}
            Select2::First(Err(_)) | Select2::Second(Err(_)) => break,
        }
    }
    leadership.send_if_different(Leadership::Stopped);
}

fn judge(
    me: NodeId,
    state: ServerState,
    leader: Option<NodeId>,
    term: u64,
    applied: Option<LogPosition>,
) -> Leadership {
    if state == ServerState::Leader {
        return match applied {
            Some(at) if at.term == term => Leadership::Leader { term },
            Some(_) | None => Leadership::Preparing { term },
        };
    }
    match leader {
        Some(leader) if leader != me => Leadership::Follower { leader, term },
        Some(_) | None => Leadership::Unknown,
    }
}

/// Writes and publishes a snapshot of the state as it is, then tells openraft of it.
pub(crate) async fn snapshot<Rt: AsyncRuntime, R: Replica, S: SnapshotStore>(
    inner: &Inner<Rt, R, S>,
) -> io::Result<()> {
    let (meta, frozen, covered) = {
        let state = lock(&inner.shared.state);
        let (meta, frozen) = state.freeze();
        (meta, frozen, state.log_bytes)
    };
    if meta.last_log_id.is_none() {
        return Ok(());
    }
    inner.shared.shelf.write::<Rt, R>(meta, frozen).await?;
    {
        let mut state = lock(&inner.shared.state);
        state.log_bytes = state.log_bytes.saturating_sub(covered);
    }
    inner
        .raft
        .trigger()
        .snapshot()
        .await
        .map_err(|error| io::Error::other(error.to_string()))
}

async fn latest_size<Rt: AsyncRuntime, R: Replica, S: SnapshotStore>(
    inner: &Inner<Rt, R, S>,
) -> u64 {
    match inner.shared.shelf.latest::<Rt>().await {
        Ok(latest) => latest.map_or(0, |(_, file)| file.size()),
        Err(error) => {
            tracing::warn!(group = %inner.id, %error, "the latest snapshot cannot be read");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_one_when_its_first_entry_is_applied() {
        let at = |term| Some(LogPosition { term, index: 9 });
        let table = [
            (
                ServerState::Leader,
                Some(1),
                at(5),
                Leadership::Leader { term: 5 },
            ),
            (
                ServerState::Leader,
                Some(1),
                at(4),
                Leadership::Preparing { term: 5 },
            ),
            (
                ServerState::Leader,
                None,
                None,
                Leadership::Preparing { term: 5 },
            ),
            (
                ServerState::Follower,
                Some(2),
                at(5),
                Leadership::Follower { leader: 2, term: 5 },
            ),
            (
                ServerState::Learner,
                Some(2),
                None,
                Leadership::Follower { leader: 2, term: 5 },
            ),
            (ServerState::Candidate, None, at(4), Leadership::Unknown),
            (ServerState::Follower, Some(1), at(4), Leadership::Unknown),
        ];
        for (state, leader, applied, expected) in table {
            assert_eq!(
                judge(1, state, leader, 5, applied),
                expected,
                "{state:?} {leader:?}"
            );
        }
    }
}
