//! A running node: starts everything in order, ends it in order.

use core::time::Duration;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use espalier_cluster::{Cluster, ClusterConfig, ClusterHandle, DEFAULT_SHARDS, Formation};
use espalier_proto::cluster::v1::gateway_link_service_server::GatewayLinkServiceServer;
use espalier_proto::v1;
use espalier_proto::v1::channel_service_server::ChannelServiceServer;
use espalier_proto::v1::cluster_service_server::ClusterServiceServer;
use espalier_proto::v1::peer_service_server::PeerServiceServer;
use espalier_proto::v1::signer_service_server::SignerServiceServer;
use espalier_proto::v1::topology_service_server::TopologyServiceServer;
use espalier_shards::Settings;
use espalier_signer::{ServiceLimits, StatementService};
use espalier_token::{ClusterKey, IssuerKey, VerifierKey};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::access::Access;
use crate::admin::{self, Admin};
use crate::api::{
    ChannelApi, ClusterApi, GuardedSigner, MAX_PEER_MESSAGE, MAX_REQUEST, PeerApi, PeerNode,
    Router, TopologyApi,
};
use crate::api_token::{ApiTokens, TokenHash};
use crate::channel::Arbiters;
use crate::config::{NodeConfig, StunConfig};
use crate::directory::Directory;
use crate::gateway::Locator;
use crate::late_routes::LateRoutes;
use crate::layers::GateLayer;
use crate::link_service::LinkService;
use crate::metrics;
use crate::moving::Mover;
use crate::ownership::{Clustered, Ownership};
use crate::pages;
use crate::readiness::Readiness;
use crate::registry::{NodeSecrets, Registry, SecretsError};
use crate::store::{DataDir, StoreError, on_disk};
use crate::stun::StunPorts;
use crate::ticket::TicketKey;
use crate::web;

/// How long a peer is told that it has when there is no other node to go to.
const DRAIN: Duration = Duration::from_secs(2);
/// How long open calls may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// How long a starting node waits for every shard's owner before it serves without.
const SETTLE: Duration = Duration::from_secs(10);
/// How often an idle connection is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// More streams than this on one connection were seen to lose messages under load.
const MAX_STREAMS_PER_CONNECTION: u32 = 1_000;
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// A running node. Dropped without [`Node::shutdown`], it is cut off rather than ended in order.
pub struct Node {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    tls: bool,
    admin_token: Option<String>,
    running: Running,
    // Removed last.
    _temporary: Option<TempDir>,
}

/// Who owns what, as a test has it, in place of the node's own groups.
pub(crate) struct Membership {
    pub(crate) ownership: Arc<dyn Ownership>,
    /// Where the other nodes are served.
    pub(crate) listener: Option<TcpIncoming>,
}

struct Running {
    directory: Arc<Directory>,
    cluster: Cluster,
    readiness: Readiness,
    stopping: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    stop_grace: Duration,
    // Held until everything that writes into it has ended.
    _data: DataDir,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    Store(#[from] StoreError),
    /// There is no place for temporary data.
    #[error("no temporary directory can be made")]
    Temporary(#[source] io::Error),
    /// The node's part in the cluster did not start.
    #[error("the node's part in the cluster did not start")]
    Cluster(#[from] espalier_cluster::StartError),
    /// The secrets that the nodes share cannot be used.
    #[error("the secrets that the nodes share cannot be used")]
    Secrets(#[from] SecretsError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("the certificate or its key cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// The operating system gives no thread.
    #[error("no thread for the actors")]
    Threads(#[source] io::Error),
    /// The node's issuer key cannot be used.
    #[error("the node's issuer key cannot be used: {0}")]
    Issuer(String),
    /// The descriptors that reflection serves cannot be used.
    #[error("server reflection cannot be set up")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl Node {
    /// Starts a node; when this returns, it serves.
    ///
    /// # Errors
    /// When the data directory, an address, a certificate or the node's part in the cluster cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_as(config, None).await
    }

    /// Starts a node whose ownership is as told rather than as its groups say.
    pub(crate) async fn start_as(
        config: NodeConfig,
        told: Option<Membership>,
    ) -> Result<Self, StartError> {
        let (path, temporary) = data_path(&config)?;
        let given = config.cluster.as_ref().map(|place| place.key.clone());
        let (data, key, admin_token) = on_disk(move || {
            let data = DataDir::open(&path)?;
            let key = given.map_or_else(|| data.own_key(), Ok)?;
            let token = data.admin_token()?;
            Ok((data, key, token))
        })
        .await?;
        let incoming = listen(config.listen)?;
        let address = local_address(&incoming, config.listen)?;
        let admin_listener = bind_admin(config.admin_listen).await?;
        let admin_address = admin_listener.as_ref().and_then(|it| it.local_addr().ok());
        let stun = bind_stun(config.stun.as_ref()).await?;
        let arbiters = Arbiters::start().map_err(StartError::Threads)?;
        let (readiness, stopping) = (Readiness::new(), CancellationToken::new());

        let (late, beside) = LateRoutes::new();
        let membership = membership(&config, &data, &key, address);
        let cluster = Box::pin(Cluster::start(membership, beside, stopping.clone())).await?;
        let place = cluster.handle();
        let registry = Arc::new(Registry::new(place.clone(), &key.seal));
        let secrets = registry.secrets().await?;
        let own = Clustered::new(place.clone(), Arc::clone(&registry));
        let own_groups = told.is_none();
        let (ownership, nodes) = match told {
            Some(told) => (told.ownership, told.listener),
            None => (Arc::new(own) as Arc<dyn Ownership>, None),
        };
        let limits = config.limits.clone();
        let directory = Arc::new(Directory::new(registry, arbiters, ownership, limits));
        directory.run_shards(&stopping).await;
        let settled = async {
            cluster.led().await;
            if own_groups {
                directory.settled().await;
            }
        };
        tokio::select! {
            settled = tokio::time::timeout(SETTLE, settled) => if settled.is_err() {
                tracing::warn!(
                    "some shards have no owner yet; what belongs to them is refused until they have"
                );
            },
            () = place.removed() => return Err(removed(&place)),
        }

        let tls = config.tls.is_some();
        let mover = Mover::new(
            Arc::clone(&directory),
            place.clone(),
            readiness.clone(),
            config.limits.moves_per_second,
        );
        let moving = stopping.clone();
        tokio::spawn(async move { moving.run_until_cancelled(mover.run()).await });
        let shared = Serving {
            cluster: &place,
            directory: &directory,
            readiness: &readiness,
            stopping: &stopping,
            stun: stun.as_ref().map(StunPorts::told).unwrap_or_default(),
        };
        let first_admin = TokenHash {
            name: "admin".to_owned(),
            sha256: key.admin_token_sha256,
        };
        let served = routes(&config, secrets, first_admin, &shared)?;
        late.serve(served.nodes.clone());
        let mut servers = vec![serve(&config, served.public, incoming, &shared).await?];
        servers.extend(nodes.map(|nodes| serve_nodes(served.nodes, nodes, &stopping)));
        servers.extend(stun.map(|stun| tokio::spawn(stun.serve(stopping.clone()))));
        if let Some(listener) = admin_listener {
            let directory = Arc::clone(&directory);
            let admin = Admin {
                directory,
                readiness: readiness.clone(),
                metrics: metrics::install(),
            };
            servers.push(serve_admin(listener, admin, stopping.clone()));
        }
        let running = Running {
            directory,
            cluster,
            readiness,
            stopping,
            servers,
            stop_grace: config.limits.stop_grace,
            _data: data,
        };
        Ok(Self {
            address,
            admin_address,
            tls,
            admin_token,
            running,
            _temporary: temporary,
        })
    }

    /// Where peers and the API are served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and probes are served, if they are.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The endpoint as a client on this machine writes it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// The admin's API token; `None` once the operator has removed its file.
    #[must_use]
    pub fn admin_token(&self) -> Option<&str> {
        self.admin_token.as_deref()
    }

    /// Waits until another node says that this one is out of its cluster for good.
    pub async fn removed(&self) {
        self.running.cluster.handle().removed().await;
    }

    /// Ends in order: has other nodes own what it owns, so that the trees are looked after all the time; sends
    /// its peers to other nodes; ends the sessions, the signers, the actors, the listeners; removes temporary
    /// data.
    pub async fn shutdown(self) {
        let Running {
            directory,
            cluster,
            readiness,
            stopping,
            servers,
            stop_grace,
            _data,
        } = self.running;
        readiness.set(false).await;
        cluster.handle().hand_over().await;
        moved_away(&directory, stop_grace).await;
        if !has_elsewhere(&directory) {
            let within_ms = u32::try_from(DRAIN.as_millis()).unwrap_or(u32::MAX);
            let drain = v1::notice::Kind::Drain(v1::Drain { within_ms });
            for channel in directory.all() {
                channel.board.broadcast(v1::Notice { kind: Some(drain) });
            }
        }
        // From here on nobody new is let in; who is in hears what is queued.
        stopping.cancel();
        heard(&directory).await;
        directory.stop().await;
        for server in servers {
            let abort = server.abort_handle();
            if tokio::time::timeout(END_WITHIN, server).await.is_err() {
                abort.abort();
            }
        }
        cluster.shutdown().await;
    }
}

/// The node's part in its cluster, which may be one of one.
fn membership(
    config: &NodeConfig,
    data: &DataDir,
    key: &ClusterKey,
    address: SocketAddr,
) -> ClusterConfig {
    let alone = ClusterConfig {
        dir: data.cluster(),
        cluster: key.cluster.clone(),
        listen: None,
        // Nobody connects to it; it is the same after a restart at another port.
        advertise: "localhost:0".to_owned(),
        public_address: address.to_string(),
        formation: Formation::Alone,
        shards: DEFAULT_SHARDS,
        tls: None,
        settings: Settings::default(),
    };
    match &config.cluster {
        None => alone,
        Some(place) => ClusterConfig {
            listen: Some(place.listen),
            advertise: place.advertise.clone(),
            public_address: place.public_uri.clone(),
            formation: place.formation.clone(),
            tls: place.tls.clone(),
            ..alone
        },
    }
}

/// Whether there is another node that peers can go to.
fn has_elsewhere(directory: &Directory) -> bool {
    !directory.ownership().endpoints().is_empty()
}

/// Waits until what was said to everybody is on its way, which ending the sessions would hold up.
async fn heard(directory: &Directory) {
    let sent = async {
        let channels = directory.all();
        while channels.iter().any(|channel| channel.board.is_behind()) {
            tokio::time::sleep(DRAIN / 400).await;
        }
    };
    // Whoever does not read is not waited for.
    let _late = tokio::time::timeout(DRAIN, sent).await;
}

/// Waits until the peers have gone to other nodes, as they are told to; until there are no others, because all
/// of them are about to stop; or until the peers' time is up.
async fn moved_away(directory: &Directory, grace: Duration) {
    let gone = async {
        while directory.sessions() > 0 && has_elsewhere(directory) {
            tokio::time::sleep(DRAIN / 40).await;
        }
    };
    if tokio::time::timeout(grace, gone).await.is_err() {
        let sessions = directory.sessions();
        tracing::warn!(sessions, "some peers have not gone to another node in time");
    }
}

fn removed(place: &ClusterHandle) -> StartError {
    let node = place.identity().node;
    StartError::Cluster(espalier_cluster::StartError::Removed { node })
}

fn data_path(config: &NodeConfig) -> Result<(PathBuf, Option<TempDir>), StartError> {
    if let Some(path) = &config.data_dir {
        return Ok((path.clone(), None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("espalier-dev-")
        .tempdir()
        .map_err(StartError::Temporary)?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

fn listen(address: SocketAddr) -> Result<TcpIncoming, StartError> {
    TcpIncoming::bind(address)
        .map(|incoming| incoming.with_nodelay(Some(true)))
        .map_err(|source| StartError::Listen { address, source })
}

fn local_address(incoming: &TcpIncoming, address: SocketAddr) -> Result<SocketAddr, StartError> {
    incoming
        .local_addr()
        .map_err(|source| StartError::Listen { address, source })
}

async fn bind_admin(
    address: Option<SocketAddr>,
) -> Result<Option<tokio::net::TcpListener>, StartError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bound = tokio::net::TcpListener::bind(address).await;
    bound
        .map(Some)
        .map_err(|source| StartError::Listen { address, source })
}

async fn bind_stun(config: Option<&StunConfig>) -> Result<Option<StunPorts>, StartError> {
    let Some(config) = config else {
        return Ok(None);
    };
    let bound = StunPorts::bind(config).await;
    bound
        .map(Some)
        .map_err(|(address, source)| StartError::Listen { address, source })
}

fn serve_admin(
    listener: tokio::net::TcpListener,
    admin: Admin,
    stopping: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let served = axum::serve(listener, admin::router(admin))
            .with_graceful_shutdown(stopping.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin listener failed");
        }
    })
}

/// What the listeners share with the node.
struct Serving<'a> {
    cluster: &'a ClusterHandle,
    directory: &'a Arc<Directory>,
    readiness: &'a Readiness,
    stopping: &'a CancellationToken,
    /// What peers are told of the node's own STUN: host and ports.
    stun: (String, Vec<u32>),
}

async fn serve(
    config: &NodeConfig,
    public: tonic::service::Routes,
    incoming: TcpIncoming,
    shared: &Serving<'_>,
) -> Result<JoinHandle<()>, StartError> {
    let gate = GateLayer::new(&config.limits);
    let public =
        web::public(public, gate.clone(), config.web_origins.clone()).merge(pages::router());
    let mut server = Server::builder()
        // gRPC-Web of browsers without TLS.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .tcp_keepalive(Some(KEEPALIVE * 3))
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_BYTES);
    if let Some(tls) = &config.tls {
        let identity = Identity::from_pem(&tls.certificate_pem, &tls.key_pem);
        let tls = ServerTlsConfig::new().identity(identity);
        server = server.tls_config(tls).map_err(StartError::Tls)?;
    }
    shared.readiness.set(true).await;
    let server = server
        .add_routes(tonic::service::Routes::from(public))
        .serve_with_incoming_shutdown(incoming, shared.stopping.clone().cancelled_owned());
    let stopping = shared.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = gate.tidy() => {}
        }
    });
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(
                error = crate::error_chain(&error),
                "the public listener failed"
            );
        }
    }))
}

/// Serves other nodes apart from the cluster's own listener.
fn serve_nodes(
    routes: tonic::service::Routes,
    incoming: TcpIncoming,
    stopping: &CancellationToken,
) -> JoinHandle<()> {
    let server = Server::builder()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
    tokio::spawn(async move {
        if let Err(error) = server.await {
            let error = crate::error_chain(&error);
            tracing::error!(error, "the listener for other nodes failed");
        }
    })
}

/// What is served where.
struct Served {
    /// To everybody.
    public: tonic::service::Routes,
    /// To the other nodes, which have checked the callers whose calls they forward.
    nodes: tonic::service::Routes,
}

fn routes(
    config: &NodeConfig,
    secrets: NodeSecrets,
    first_admin: TokenHash,
    shared: &Serving<'_>,
) -> Result<Served, StartError> {
    let directory = shared.directory;
    let issuer = issuer_key(&secrets)?;
    let own_key = VerifierKey::from_ed25519(&secrets.issuer_key.verifying_key().to_bytes());
    let viewer_keys = std::iter::once(own_key)
        .chain(config.issuers.iter().cloned())
        .collect();
    let api_tokens = std::iter::once(first_admin)
        .chain(config.api_tokens.iter().cloned())
        .collect();
    let access = Arc::new(Access::new(ApiTokens::new(api_tokens), viewer_keys));

    let router = Router::new(Arc::clone(directory.ownership()));
    let channels = ChannelApi::new(Arc::clone(directory), router.clone(), issuer);
    let channels = ChannelServiceServer::new(channels).max_decoding_message_size(MAX_REQUEST);
    let topology = TopologyServiceServer::new(TopologyApi::new(Arc::clone(directory), router))
        .max_decoding_message_size(MAX_REQUEST);
    let cluster = ClusterServiceServer::from_arc(Arc::new(ClusterApi::new(
        shared.cluster.clone(),
        shared.stopping.clone(),
    )))
    .max_decoding_message_size(MAX_REQUEST);
    let statements = StatementService::new(Arc::clone(directory), ServiceLimits::default());
    let signer = SignerServiceServer::new(GuardedSigner::new(statements, Arc::clone(&access)))
        .max_decoding_message_size(MAX_REQUEST);
    let peers = PeerServiceServer::new(PeerApi::new(PeerNode {
        ownership: Arc::clone(directory.ownership()),
        directory: Arc::clone(directory),
        access: Arc::clone(&access),
        tickets: TicketKey::new(secrets.ticket_key),
        limits: config.limits.clone(),
        stun_uris: config.stun_uris.clone(),
        stun: shared.stun.clone(),
        locator: Locator::new(config.locality.clone(), secrets.ticket_key),
    }))
    .max_decoding_message_size(MAX_PEER_MESSAGE);
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(shared.readiness.health()),
    );
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(espalier_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(StartError::Reflection)?;

    let api_only = InterceptorLayer::new(move |request: tonic::Request<()>| {
        access.api(request.metadata())?;
        Ok(request)
    });
    use tower::Layer as _;
    let links = GatewayLinkServiceServer::new(LinkService::new(Arc::clone(directory)));
    let mut nodes = tonic::service::Routes::builder();
    nodes
        .add_service(links)
        // What attached peers say, when it reached another node than the one that holds their stream.
        .add_service(peers.clone())
        .add_service(channels.clone())
        .add_service(topology.clone())
        .add_service(cluster.clone());
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(api_only.layer(channels))
        .add_service(api_only.layer(topology))
        .add_service(api_only.layer(cluster))
        .add_service(signer)
        .add_service(peers)
        .add_service(health)
        .add_service(reflection);
    Ok(Served {
        public: routes.routes(),
        nodes: nodes.routes(),
    })
}

fn issuer_key(secrets: &NodeSecrets) -> Result<IssuerKey, StartError> {
    let pem = secrets
        .issuer_key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|error| StartError::Issuer(error.to_string()))?;
    IssuerKey::from_pem(pem.as_bytes()).map_err(|error| StartError::Issuer(error.to_string()))
}
