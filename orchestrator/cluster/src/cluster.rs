//! A node's part in the cluster: its groups over one store, the network, and the tasks that look after them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_orchestrator_core::state::{MetaOp, MetaState, NodeAddresses, ShardState};
use espalier_raft_store::Store;
use espalier_shards::{Group, GroupId, GroupStatus, Leadership, LogPosition, NodeId};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;

use crate::config::ClusterConfig;
use crate::desk::Desk;
use crate::error::{MetaError, StartError};
use crate::identity::Identity;
use crate::network::incoming::{Incoming, MetaGroup};
use crate::network::lines::Lines;
use crate::reset_task::ResetTask;
use crate::snapshots::DiskSnapshots;
use crate::standing::{Neighbours, Standing};
use crate::start::{
    Starter, found_groups, founders, guest, identity, listen, open_store, prepare, refuse_lost_data,
};
use crate::steward::{Steward, Tended};
use crate::tended::{follow, watch_group};

/// A shard's group in production.
pub type ShardGroup = Group<TokioRuntime, ShardState, DiskSnapshots>;

const LISTENER_END: Duration = Duration::from_secs(1);

/// A node's part in a cluster.
pub struct Cluster {
    identity: Identity,
    store: Arc<Store>,
    meta: MetaGroup,
    shards: Vec<ShardGroup>,
    desk: Desk,
    nodes: watch::Receiver<BTreeMap<NodeId, String>>,
    groups: Arc<[Arc<dyn Tended>]>,
    neighbours: watch::Receiver<Neighbours>,
    standing: watch::Sender<Standing>,
    removed: watch::Receiver<bool>,
    stopping: CancellationToken,
    steward: JoinHandle<()>,
    reset: JoinHandle<()>,
    listener: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Starts the node's part; when this returns, the cluster is made and known here. A founder waits for
    /// a majority of the others, a node that is to be added waits until it is, both at most until
    /// `stopping`. `beside` is served to other nodes on the same listener.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(
        config: ClusterConfig,
        beside: Routes,
        stopping: CancellationToken,
    ) -> Result<Self, StartError> {
        prepare(&config.dir)?;
        let known = identity(&config)?;
        let lines = Lines::new(config.cluster.clone(), config.tls.clone());
        let (invited, invitation) = watch::channel(known);
        let tasks = CancellationToken::new();
        let guest = guest(config.dir.clone(), invited);
        let (standing, said) = watch::channel(Standing::starting());
        let cluster = config.cluster.clone();
        let incoming = Incoming::new(cluster, rand::random(), guest, said, tasks.clone());
        let listener = listen(&config, &incoming, beside, tasks.clone())?;
        let started = Self::start_groups(
            config,
            lines,
            &incoming,
            invitation,
            standing,
            tasks.clone(),
            &stopping,
        );
        match started.await {
            Ok(cluster) => Ok(Cluster {
                listener,
                ..cluster
            }),
            Err(error) => {
                tasks.cancel();
                // Whoever tries again finds the address free.
                if let Some(listener) = listener {
                    listener.abort();
                    let _aborted = listener.await;
                }
                Err(error)
            }
        }
    }

    /// Everything but the listener.
    async fn start_groups(
        config: ClusterConfig,
        lines: Lines,
        incoming: &Incoming,
        mut invitation: watch::Receiver<Option<Identity>>,
        standing: watch::Sender<Standing>,
        tasks: CancellationToken,
        stopping: &CancellationToken,
    ) -> Result<Self, StartError> {
        let identity = tokio::select! {
            found = invitation.wait_for(Option::is_some) => match found {
                Ok(found) => found.clone().ok_or(StartError::Ended)?,
                Err(_) => return Err(StartError::Ended),
            },
            () = stopping.cancelled() => return Err(StartError::Ended),
        };
        let founders = founders(&config, &identity);
        if !identity.has_data {
            refuse_lost_data(&lines, &founders, &identity).await?;
        }
        let store = Arc::new(open_store(&config.dir, !identity.has_data).await?);
        let identity = Identity {
            has_data: true,
            ..identity
        };
        identity.keep(&config.dir)?;
        let starter = Starter {
            config: &config,
            identity: &identity,
            lines: &lines,
            store: &store,
        };
        let meta: MetaGroup = starter.group(GroupId::META, MetaState::default()).await?;
        let mut shards = Vec::new();
        for shard in 1..=identity.shards {
            shards.push(starter.group(GroupId(shard), ShardState::default()).await?);
        }
        incoming.add_meta(meta.clone());
        shards
            .iter()
            .for_each(|shard| incoming.add(shard.inbound()));
        incoming.identify(identity.node);
        if !founders.is_empty() {
            found_groups(&meta, &shards, &founders).await?;
        }
        let cluster = Self::tend(
            config, identity, founders, lines, store, meta, shards, standing, tasks,
        );
        tokio::select! {
            () = cluster.made() => Ok(cluster),
            () = stopping.cancelled() => {
                cluster.shutdown().await;
                Err(StartError::Ended)
            }
        }
    }

    /// Waits until this node knows the cluster's record.
    async fn made(&self) {
        let mut applied = self.applied(GroupId::META);
        while self.meta.read(|_, state| state.cluster().is_none()) {
            // Its sender ends with the group; then somebody waits for `stopping`, not for this.
            if applied.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part that the node has just made"
    )]
    fn tend(
        config: ClusterConfig,
        identity: Identity,
        founders: BTreeMap<NodeId, String>,
        lines: Lines,
        store: Arc<Store>,
        meta: MetaGroup,
        shards: Vec<ShardGroup>,
        standing: watch::Sender<Standing>,
        stopping: CancellationToken,
    ) -> Self {
        let (nodes_tx, nodes) = watch::channel(founders.clone());
        let (neighbours_tx, neighbours) = watch::channel(Neighbours::new());
        let (removed_tx, removed) = watch::channel(false);
        let desk = Desk {
            meta: meta.clone(),
            lines: lines.clone(),
        };
        let reset = ResetTask::new(
            identity.node,
            lines,
            nodes.clone(),
            neighbours_tx,
            removed_tx,
        );
        let mut watched = vec![watch_group(&meta)];
        watched.extend(shards.iter().map(watch_group));
        let mut groups: Vec<Arc<dyn Tended>> = vec![Arc::new(meta.clone())];
        groups.extend(
            shards
                .iter()
                .map(|shard| Arc::new(shard.clone()) as Arc<dyn Tended>),
        );
        let groups: Arc<[Arc<dyn Tended>]> = groups.into();
        let steward = Steward {
            me: identity.node,
            cluster: identity.cluster.clone(),
            shards: identity.shards,
            founders,
            addresses: NodeAddresses {
                cluster: vec![config.advertise],
                public: vec![config.public_address],
                admin: Vec::new(),
            },
            desk: desk.clone(),
            groups: Arc::clone(&groups),
            nodes: nodes_tx,
            neighbours: neighbours.clone(),
            standing: standing.subscribe(),
            stopping: stopping.clone(),
        };
        Cluster {
            identity,
            store,
            meta,
            shards,
            desk,
            nodes,
            groups,
            neighbours,
            standing,
            removed,
            stopping,
            steward: tokio::spawn(steward.run()),
            reset: tokio::spawn(reset.run(watched)),
            listener: None,
        }
    }

    /// What the rest of the node does with the cluster.
    #[must_use]
    pub fn handle(&self) -> crate::ClusterHandle {
        crate::ClusterHandle {
            identity: self.identity.clone(),
            shards: self.shards.clone().into(),
            desk: self.desk.clone(),
            nodes: self.nodes.clone(),
            groups: Arc::clone(&self.groups),
            neighbours: self.neighbours.clone(),
            standing: self.standing.clone(),
            removed: self.removed.clone(),
        }
    }

    /// Which node of which cluster this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The group that holds the directory, the nodes and the cluster's own settings.
    #[must_use]
    pub fn meta(&self) -> &Group<TokioRuntime, MetaState, DiskSnapshots> {
        &self.meta
    }

    /// The groups that hold channels, in the order of their numbers, from 1.
    #[must_use]
    pub fn shards(&self) -> &[ShardGroup] {
        &self.shards
    }

    /// Follows who leads a group; [`Leadership::Stopped`] at once for a group that there is not.
    #[must_use]
    pub fn leadership(&self, group: GroupId) -> watch::Receiver<Leadership> {
        match self.shard(group) {
            Some(shard) => follow(shard.leadership()),
            None if group == GroupId::META => follow(self.meta.leadership()),
            None => watch::channel(Leadership::Stopped).1,
        }
    }

    /// Follows up to where a group's entries are applied here.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> watch::Receiver<Option<LogPosition>> {
        match self.shard(group) {
            Some(shard) => follow(shard.applied()),
            None if group == GroupId::META => follow(self.meta.applied()),
            None => watch::channel(None).1,
        }
    }

    /// One of them.
    #[must_use]
    pub fn shard(&self, group: GroupId) -> Option<&ShardGroup> {
        self.shards
            .get(usize::try_from(group.0).ok()?.checked_sub(1)?)
    }

    /// The store under the groups, for its health and figures.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All nodes, with the addresses at which they serve each other.
    #[must_use]
    pub fn nodes(&self) -> watch::Receiver<BTreeMap<NodeId, String>> {
        self.nodes.clone()
    }

    /// The other nodes, and what they said of themselves.
    #[must_use]
    pub fn neighbours(&self) -> watch::Receiver<Neighbours> {
        self.neighbours.clone()
    }

    /// A connection to what another node serves to nodes; shared, opened when first used.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> Option<Channel> {
        let nodes = self.nodes.borrow();
        Some(self.desk.lines.to(node, nodes.get(&node)?).ok()?.gateways)
    }

    /// Has the cluster's own state changed, at whichever node leads; doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// See [`MetaError`].
    pub async fn change(&self, ops: Vec<MetaOp>) -> Result<(), MetaError> {
        self.desk.change(ops).await
    }

    /// The cluster's own state, with everything in it that was committed before the call.
    ///
    /// # Errors
    ///
    /// When no leader answers in time.
    pub async fn current_meta(&self) -> Result<MetaState, MetaError> {
        self.desk.current().await
    }

    /// Waits until this node knows of every group who leads it.
    pub async fn led(&self) {
        let shards = self.shards.iter().map(Group::id);
        for group in std::iter::once(GroupId::META).chain(shards) {
            let known = |leadership: &Leadership| match leadership {
                Leadership::Leader { .. } | Leadership::Follower { .. } | Leadership::Stopped => {
                    true
                }
                Leadership::Preparing { .. } | Leadership::Unknown => false,
            };
            let mut leadership = self.leadership(group);
            // An error: the group has ended.
            let _led = leadership.wait_for(known).await;
        }
    }

    /// How all groups stand on this node, the meta group first.
    #[must_use]
    pub fn statuses(&self) -> Vec<GroupStatus> {
        self.groups.iter().map(|group| group.status()).collect()
    }

    /// Ends the node's part in order: hands leaderships over, stops the groups, closes the store.
    pub async fn shutdown(self) {
        self.handle().hand_over().await;
        self.stopping.cancel();
        self.meta.shutdown().await;
        for shard in &self.shards {
            shard.shutdown().await;
        }
        for task in [Some(self.steward), Some(self.reset), self.listener]
            .into_iter()
            .flatten()
        {
            let end = task.abort_handle();
            if tokio::time::timeout(LISTENER_END, task).await.is_err() {
                end.abort();
            }
        }
        let store = self.store;
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::error!(%error, "the store ended badly");
        }
    }

    /// Ends without handing anything over, as far as a process can do that to itself: for tests.
    pub fn kill(self) {
        self.stopping.cancel();
        self.steward.abort();
        self.reset.abort();
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}
