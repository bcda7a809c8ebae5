//! Groups as the node's tasks and its other parts see them: the replica's type, or openraft's channels, out
//! of sight.

use std::sync::Arc;

use espalier_shards::{
    Group, GroupId, GroupStatus, Leadership, MembershipError, NodeId, Replica, Stopped,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::watch;

use crate::reconcile::Step;
use crate::reset_task::Watched;
use crate::snapshots::DiskSnapshots;
use crate::steward::Tended;
use crate::wire::Types;

impl<R: Replica> Tended for Group<TokioRuntime, R, DiskSnapshots> {
    fn group(&self) -> GroupId {
        self.id()
    }

    fn leadership(&self) -> Leadership {
        self.current_leadership()
    }

    fn status(&self) -> GroupStatus {
        Group::status(self)
    }

    fn step(&self, step: Step) -> BoxFuture<'static, Result<(), MembershipError>> {
        let group = self.clone();
        async move {
            match step {
                Step::AddLearner(node, info) => group.add_learner(node, info).await,
                Step::SetAddress(node, info) => group.set_address(node, info).await,
                Step::SetVoters(voters) => group.set_voters(voters).await,
                Step::RemoveLearner(node) => group.remove_learner(node).await,
            }
        }
        .boxed()
    }

    fn transfer(&self, to: NodeId) -> BoxFuture<'static, ()> {
        let group = self.clone();
        async move {
            if let Err(error) = Group::transfer(&group, to).await {
                tracing::warn!(%error, "a leader cannot move");
            }
        }
        .boxed()
    }
}

/// The same values in tokio's own channel, for those that know no other.
pub(crate) fn follow<T: Copy + PartialEq + Send + Sync + 'static>(
    mut from: WatchReceiverOf<Types, T>,
) -> watch::Receiver<T> {
    let (to, followed) = watch::channel(*from.borrow_watched());
    tokio::spawn(async move {
        loop {
            let value = *from.borrow_and_update();
            to.send_if_modified(|known| std::mem::replace(known, value) != value);
            tokio::select! {
                changed = from.changed() => if changed.is_err() { return },
                () = to.closed() => return,
            }
        }
    });
    followed
}

pub(crate) fn watch_group<R: Replica>(group: &Group<TokioRuntime, R, DiskSnapshots>) -> Watched {
    let (dropping, electing) = (group.clone(), group.clone());
    Watched {
        group: group.id(),
        votes: group.votes().boxed(),
        drop_lease: Arc::new(move |vote| {
            let group = dropping.clone();
            async move { log_end(group.drop_lease(vote).await) }.boxed()
        }),
        elect: Arc::new(move || {
            let group = electing.clone();
            async move { log_end(group.elect().await) }.boxed()
        }),
    }
}

fn log_end(outcome: Result<(), Stopped>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "the reset path found a stopped group");
    }
}
