//! How a node's part in the cluster starts: who it is, whether its data are there, its groups, its listener.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use espalier_proto::cluster::v1 as proto;
use espalier_proto::cluster::v1::raft_service_server::RaftServiceServer;
use espalier_raft_store::{Store, StoreOptions};
use espalier_shards::{Group, GroupId, NodeId, NodeInfo, Placement, Replica};
use futures::FutureExt;
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::cluster::ShardGroup;
use crate::config::{ClusterConfig, Formation};
use crate::error::StartError;
use crate::identity::{Identity, IdentityError};
use crate::network::incoming::{Guest, Incoming, MetaGroup, RaftApi};
use crate::network::lines::{Lines, MAX_MESSAGE, client};
use crate::network::outgoing::Outgoing;
use crate::snapshots::DiskSnapshots;
use crate::wire::Types;

const STORE: &str = "raft";
const SPOOL: &str = "spool";
/// How long a starting node waits for another's word on whether it had data. One that is not there costs no
/// more than its connection's time.
const ASK_OTHERS: Duration = Duration::from_secs(3);

/// Starts groups.
pub(crate) struct Starter<'a> {
    pub(crate) config: &'a ClusterConfig,
    pub(crate) identity: &'a Identity,
    pub(crate) lines: &'a Lines,
    pub(crate) store: &'a Store,
}

impl Starter<'_> {
    pub(crate) async fn group<R: Replica>(
        &self,
        group: GroupId,
        replica: R,
    ) -> Result<Group<TokioRuntime, R, DiskSnapshots>, StartError> {
        let log = self.store.group::<Types>(u64::from(group.0)).await?;
        let files = self.store.snapshots().cloned();
        let files = files.expect("invariant: a store on disk has snapshot files");
        let snapshots = DiskSnapshots::new(files, &self.config.dir.join(SPOOL), group);
        let settings = self.config.settings;
        let placement = Placement {
            node: self.identity.node,
            group,
            settings,
        };
        let network = Outgoing::new(self.lines.clone(), group);
        Group::start(placement, network, log, snapshots, replica)
            .await
            .map_err(|source| StartError::Group { group, source })
    }
}

pub(crate) fn prepare(dir: &Path) -> Result<(), StartError> {
    let made = std::fs::create_dir_all(dir.join(SPOOL));
    made.map_err(|source| StartError::Identity(IdentityError::of(dir, source)))
}

/// Who this node is, if that can be known yet.
pub(crate) fn identity(config: &ClusterConfig) -> Result<Option<Identity>, StartError> {
    if let Some(identity) = Identity::load(&config.dir)? {
        if identity.cluster != config.cluster {
            let (found, expected) = (identity.cluster, config.cluster.clone());
            return Err(StartError::OtherCluster { found, expected });
        }
        return Ok(Some(identity));
    }
    let node = match &config.formation {
        Formation::Alone => 1,
        Formation::Join => return Ok(None),
        Formation::Bootstrap(list) => {
            let place = list.iter().position(|address| *address == config.advertise);
            let advertise = config.advertise.clone();
            place.ok_or(StartError::NotInList { advertise })? as NodeId + 1
        }
    };
    Ok(Some(Identity::new(
        config.cluster.clone(),
        node,
        config.shards,
    )))
}

pub(crate) fn founders(config: &ClusterConfig, identity: &Identity) -> BTreeMap<NodeId, String> {
    match &config.formation {
        Formation::Alone => BTreeMap::from([(identity.node, config.advertise.clone())]),
        Formation::Bootstrap(list) => (1..).zip(list.iter().cloned()).collect(),
        Formation::Join => BTreeMap::new(),
    }
}

/// A founder without data asks the others whether it had some: with an empty log under its old id it could
/// help to undo what was acknowledged.
pub(crate) async fn refuse_lost_data(
    lines: &Lines,
    founders: &BTreeMap<NodeId, String>,
    identity: &Identity,
) -> Result<(), StartError> {
    for (node, address) in founders.iter().filter(|(node, _)| **node != identity.node) {
        let Ok(endpoint) = lines.endpoint(address) else {
            continue;
        };
        let ask = async {
            let request = proto::PresenceRequest {
                to: Some(lines.destination(*node, GroupId::META)),
                from: identity.node,
            };
            let mut client = client(endpoint.connect().await.ok()?);
            client
                .presence(request)
                .await
                .ok()?
                .into_inner()
                .message()
                .await
                .ok()?
        };
        if let Ok(Some(reply)) = tokio::time::timeout(ASK_OTHERS, ask).await
            && (reply.had_data || reply.removed)
        {
            let node = identity.node;
            return Err(match reply.removed {
                true => StartError::Removed { node },
                false => StartError::DataLost { node },
            });
        }
    }
    Ok(())
}

pub(crate) async fn open_store(dir: &Path, create: bool) -> Result<Store, StartError> {
    let path = dir.join(STORE);
    let options = StoreOptions {
        create,
        ..StoreOptions::default()
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(&path, &options)).await;
    Ok(opened.map_err(|_| StartError::Ended)??)
}

pub(crate) async fn found_groups(
    meta: &MetaGroup,
    shards: &[ShardGroup],
    founders: &BTreeMap<NodeId, String>,
) -> Result<(), StartError> {
    let info = |address: &String| NodeInfo {
        cluster_address: address.clone(),
        public_address: String::new(),
    };
    let members: BTreeMap<NodeId, NodeInfo> = founders
        .iter()
        .map(|(node, address)| (*node, info(address)))
        .collect();
    meta.initialize(members.clone())
        .await
        .map_err(StartError::Initialise)?;
    for shard in shards {
        shard
            .initialize(members.clone())
            .await
            .map_err(StartError::Initialise)?;
    }
    Ok(())
}

pub(crate) fn guest(dir: PathBuf, invited: watch::Sender<Option<Identity>>) -> Guest {
    Arc::new(move |identity: Identity| {
        let invited = invited.clone();
        let dir = dir.clone();
        async move {
            // The first invitation counts; the same one again is the answer that was lost.
            let known = invited.borrow().clone();
            match known {
                Some(known) if known.node != identity.node => {
                    return Err(Status::already_exists("this node was added already"));
                }
                Some(_) => return Ok(()),
                None => {}
            }
            identity
                .keep(&dir)
                .map_err(|error| Status::internal(error.to_string()))?;
            invited.send_replace(Some(identity));
            Ok(())
        }
        .boxed()
    })
}

pub(crate) fn listen(
    config: &ClusterConfig,
    incoming: &Arc<Incoming>,
    beside: Routes,
    stopping: CancellationToken,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    let failed = |source| StartError::Listen { address, source };
    let bound = TcpIncoming::bind(address)
        .map_err(failed)?
        .with_nodelay(Some(true));
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(4_096);
    if let Some(tls) = &config.tls {
        server = server.tls_config(tls.server()).map_err(StartError::Tls)?;
    }
    let raft = RaftServiceServer::new(RaftApi(Arc::clone(incoming)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let serving = server
        .add_routes(beside.add_service(raft))
        .serve_with_incoming_shutdown(bound, stopping.cancelled_owned());
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the listener for other nodes failed");
        }
    })))
}
