//! One node's part in one Raft group.
//!
//! Invariants: a command is appended only under the term that its proposer names; reads are current by
//! the read index, never by a lease, because the reset path voids leases.
//!
//! Not here: the network and the log's storage, which are given; what commands mean.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::network::NetSnapshot;
use openraft::raft::{ClientWriteResult, TransferLeaderRequest};
use openraft::storage::RaftLogStorage;
use openraft::type_config::alias::{OneshotReceiverOf, WatchReceiverOf};
use openraft::vote::{RaftLeaderId, RaftVote};
use openraft::{AsyncRuntime, Raft, RaftNetworkFactory, RaftTypeConfig, ReadPolicy};

use crate::errors::{MembershipError, ProposeError, ReadError, StartError, Stopped};
use crate::machine::{Machine, Shared};
use crate::reset::SeenVote;
use crate::settings::MAX_COMMAND;
use crate::shelf::lock;
use crate::types::{Vote, position};
use crate::{
    Command, GroupId, Leadership, LogPosition, NodeId, NodeInfo, Replica, Settings, SnapshotStore,
    Types, keeper,
};

/// A leader's id as a log entry carries it.
type CommittedLeader<Rt> = openraft::type_config::alias::CommittedLeaderIdOf<Types<Rt>>;
/// The vote's identity.
type LeaderId<Rt> = openraft::type_config::alias::LeaderIdOf<Types<Rt>>;

/// A node's handle to one group. Clones are handles to the same.
pub struct Group<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> {
    pub(crate) inner: Arc<Inner<Rt, R, S>>,
}

pub(crate) struct Inner<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    pub(crate) raft: Raft<Types<Rt>, Machine<Rt, R, S>>,
    pub(crate) shared: Arc<Shared<Rt, R, S>>,
    pub(crate) applied: WatchReceiverOf<Types<Rt>, Option<LogPosition>>,
    leadership: WatchReceiverOf<Types<Rt>, Leadership>,
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Clone for Group<Rt, R, S> {
    fn clone(&self) -> Self {
        Group {
            inner: Arc::clone(&self.inner),
        }
    }
}

/// Where and as whom a group runs.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// This node.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// How it behaves.
    pub settings: Settings,
}

impl<Rt: AsyncRuntime, R: Replica, S: SnapshotStore> Group<Rt, R, S> {
    /// Starts this node's part, from what its storage holds; `replica` is the state before any entry.
    ///
    /// # Errors
    ///
    /// When the settings contradict each other or the storage cannot be read.
    pub async fn start<N, L>(
        placement: Placement,
        network: N,
        log: L,
        snapshots: S,
        replica: R,
    ) -> Result<Self, StartError>
    where
        N: RaftNetworkFactory<Types<Rt>>,
        N::Network: NetSnapshot<Types<Rt>, SnapshotData = S::File>,
        L: RaftLogStorage<Types<Rt>>,
    {
        let config = placement.settings.config(placement.group.to_string());
        let config = config.map_err(|error| StartError::Settings(Box::new(error)))?;
        Self::start_with(placement, config, network, log, snapshots, replica).await
    }

    /// As [`Group::start`], under another configuration of openraft than the settings give. A door for
    /// simulators that plant bugs.
    ///
    /// # Errors
    ///
    /// When the storage cannot be read.
    #[cfg(feature = "planted")]
    pub async fn start_planted<N, L>(
        placement: Placement,
        config: openraft::Config,
        network: N,
        log: L,
        snapshots: S,
        replica: R,
    ) -> Result<Self, StartError>
    where
        N: RaftNetworkFactory<Types<Rt>>,
        N::Network: NetSnapshot<Types<Rt>, SnapshotData = S::File>,
        L: RaftLogStorage<Types<Rt>>,
    {
        Self::start_with(placement, config, network, log, snapshots, replica).await
    }

    async fn start_with<N, L>(
        placement: Placement,
        config: openraft::Config,
        network: N,
        log: L,
        snapshots: S,
        replica: R,
    ) -> Result<Self, StartError>
    where
        N: RaftNetworkFactory<Types<Rt>>,
        N::Network: NetSnapshot<Types<Rt>, SnapshotData = S::File>,
        L: RaftLogStorage<Types<Rt>>,
    {
        let Placement {
            node,
            group: id,
            settings,
        } = placement;
        let (applied_tx, applied) = watch::<Rt, _>(None);
        let (machine, shared) = Machine::new(replica, snapshots, applied_tx);
        let raft = Raft::new(node, Arc::new(config), network, log, machine)
            .await
            .map_err(|error| StartError::Storage(error.to_string()))?;
        let (leadership_tx, leadership) = watch::<Rt, _>(Leadership::Unknown);
        let inner = Arc::new(Inner {
            id,
            node,
            raft,
            shared,
            applied,
            leadership,
        });
        keeper::spawn(&inner, settings, leadership_tx);
        Ok(Group { inner })
    }

    /// Which group this is.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Which node this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Makes a new group of these voters; on a group that exists already it changes nothing. Several
    /// nodes may call it with the same members.
    ///
    /// # Errors
    ///
    /// When the node is not among them, or the group has stopped.
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, NodeInfo>,
    ) -> Result<(), MembershipError> {
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                Err(MembershipError::Refused(error.to_string()))
            }
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
        }
    }

    /// Hands a command to the log, if this node leads in `term`, and returns at once; the ticket is
    /// answered when it is committed and applied here. Commands are appended in the order of the calls.
    ///
    /// # Errors
    ///
    /// When the command is too large or the group has stopped.
    pub async fn submit(&self, term: u64, command: Bytes) -> Result<Ticket<Rt>, ProposeError> {
        if command.len() > MAX_COMMAND {
            return Err(ProposeError::TooLarge {
                size: command.len(),
                limit: MAX_COMMAND,
            });
        }
        let (responder, answer) = ProgressResponder::complete_only();
        let write = self.inner.raft.write(Command(command));
        let write = write.with_leader(committed_leader::<Rt>(term, self.inner.node));
        write
            .responder(responder)
            .await
            .map_err(|_| ProposeError::NotLeader { leader: None })?;
        Ok(Ticket { answer })
    }

    /// Proposes a command and waits for its answer.
    ///
    /// # Errors
    ///
    /// See [`ProposeError`]: only `Unknown` leaves open whether it is or will be committed.
    pub async fn propose(
        &self,
        term: u64,
        command: Bytes,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        self.submit(term, command).await?.await
    }

    /// Waits until the state here holds everything that was committed anywhere before this call, and
    /// returns up to where it was read; only the leader can say that.
    ///
    /// # Errors
    ///
    /// When another node leads, or no majority answers.
    pub async fn read_index(&self) -> Result<LogPosition, ReadError> {
        self.read_by(ReadPolicy::ReadIndex).await
    }

    /// As [`Group::read_index`], trusting the leader's lease, which the reset path voids: this is wrong. A door
    /// for simulators that plant bugs.
    ///
    /// # Errors
    ///
    /// See [`Group::read_index`].
    #[cfg(feature = "planted")]
    pub async fn read_lease(&self) -> Result<LogPosition, ReadError> {
        self.read_by(ReadPolicy::LeaseRead).await
    }

    async fn read_by(&self, policy: ReadPolicy) -> Result<LogPosition, ReadError> {
        match self.inner.raft.ensure_linearizable(policy).await {
            Ok(read) => Ok(position::<Rt>(read.log_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(other))) => {
                Err(ReadError::NotLeader {
                    leader: other.leader_id,
                })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
        }
    }

    /// Looks at the state as it is here and now; it may be behind (see [`Group::read_index`]). Applying
    /// waits meanwhile, so the look is short; for more take [`Group::state`].
    pub fn read<T>(&self, look: impl FnOnce(Option<LogPosition>, &R) -> T) -> T {
        let state = lock(&self.inner.shared.state);
        look(state.last.as_ref().map(position::<Rt>), &state.replica)
    }

    /// A copy of the state with its place in the log, consistent with each other.
    #[must_use]
    pub fn state(&self) -> (Option<LogPosition>, R) {
        self.read(|at, replica| (at, replica.clone()))
    }

    /// Follows who leads.
    #[must_use]
    pub fn leadership(&self) -> WatchReceiverOf<Types<Rt>, Leadership> {
        self.inner.leadership.clone()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn current_leadership(&self) -> Leadership {
        *self.inner.leadership.borrow_watched()
    }

    /// Follows up to where entries are applied here.
    #[must_use]
    pub fn applied(&self) -> WatchReceiverOf<Types<Rt>, Option<LogPosition>> {
        self.inner.applied.clone()
    }

    /// Follows the vote and the voters that this node holds, for the reset path.
    pub fn votes(&self) -> impl futures::Stream<Item = (SeenVote, Vec<NodeId>)> + Send + 'static {
        let metrics = self.inner.raft.server_metrics();
        futures::stream::unfold((metrics, false), |(mut metrics, begun)| async move {
            if begun && metrics.changed().await.is_err() {
                return None;
            }
            let seen = {
                let metrics = metrics.borrow_and_update();
                let id = metrics.vote.leader_id();
                let (term, candidate) = (id.term(), *id.node_id());
                let vote = SeenVote {
                    term,
                    candidate,
                    committed: metrics.vote.is_committed(),
                };
                (vote, metrics.membership_config.voter_ids().collect())
            };
            Some((seen, (metrics, true)))
        })
    }

    /// Drops this node's lease of exactly this vote; if the vote has changed since, nothing happens.
    ///
    /// # Errors
    ///
    /// When the group has stopped.
    pub async fn drop_lease(&self, seen: SeenVote) -> Result<(), Stopped> {
        let id = LeaderId::<Rt>::new(seen.term, seen.candidate);
        let vote = <Vote<Rt> as RaftVote>::from_leader_id(id, seen.committed);
        // Addressed to the lost leader itself: this node only drops its lease and elects nobody yet.
        let request = TransferLeaderRequest::new(vote, seen.candidate, None);
        match self.inner.raft.handle_transfer_leader(request).await {
            Ok(_) => Ok(()),
            Err(fatal) => Err(stopped(&fatal)),
        }
    }

    /// Asks for an election, a pre-vote first; while a lease runs, nothing happens.
    ///
    /// # Errors
    ///
    /// When the group has stopped.
    pub async fn elect(&self) -> Result<(), Stopped> {
        self.inner
            .raft
            .trigger()
            .elect(true)
            .await
            .map_err(|fatal| stopped(&fatal))
    }

    /// Asks the leader, if this node is it, to hand over to `to`; a few milliseconds when that node has
    /// the whole log. Watch the leadership for the outcome.
    ///
    /// # Errors
    ///
    /// When the group has stopped.
    pub async fn transfer(&self, to: NodeId) -> Result<(), Stopped> {
        self.inner
            .raft
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|fatal| stopped(&fatal))
    }

    /// Writes and publishes a snapshot now, and lets openraft purge the log behind it.
    ///
    /// # Errors
    ///
    /// As the storage fails; the group goes on without the snapshot.
    pub async fn snapshot(&self) -> std::io::Result<()> {
        keeper::snapshot(&self.inner).await
    }

    /// Stops this node's part. Idempotent.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = %self.inner.id, %error, "the group ended badly");
        }
    }
}

/// A command on its way; resolves to its place in the log and the replica's answer.
pub struct Ticket<Rt: AsyncRuntime> {
    answer: OneshotReceiverOf<Types<Rt>, ClientWriteResult<Types<Rt>>>,
}

impl<Rt: AsyncRuntime> Future for Ticket<Rt> {
    type Output = Result<(LogPosition, Bytes), ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.poll_unpin(cx).map(|answer| match answer {
            Ok(Ok(response)) => Ok((position::<Rt>(&response.log_id), response.data.0)),
            Ok(Err(ClientWriteError::ForwardToLeader(other))) => Err(ProposeError::NotLeader {
                leader: other.leader_id,
            }),
            Ok(Err(ClientWriteError::LogEntryDiscarded(other))) => Err(ProposeError::Unknown {
                leader: other.leader_id,
            }),
            Ok(Err(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ))
            | Err(_) => Err(ProposeError::Unknown { leader: None }),
        })
    }
}

fn committed_leader<Rt: AsyncRuntime>(term: u64, node: NodeId) -> CommittedLeader<Rt> {
    LeaderId::<Rt>::new(term, node).to_committed()
}

pub(crate) fn stopped<Rt: AsyncRuntime>(fatal: &openraft::errors::Fatal<Types<Rt>>) -> Stopped {
    Stopped {
        reason: fatal.to_string(),
    }
}

fn watch<Rt: AsyncRuntime, T: Send + Sync>(
    init: T,
) -> (
    openraft::type_config::alias::WatchSenderOf<Types<Rt>, T>,
    WatchReceiverOf<Types<Rt>, T>,
) {
    use openraft::async_runtime::watch::Watch;
    <<Types<Rt> as RaftTypeConfig>::AsyncRuntime as AsyncRuntime>::Watch::channel(init)
}
