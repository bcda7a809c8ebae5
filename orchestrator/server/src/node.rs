//! A running node: starts everything in order, ends it in order.

use core::time::Duration;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use espalier_proto::cluster::v1::gateway_link_service_server::GatewayLinkServiceServer;
use espalier_proto::v1;
use espalier_proto::v1::channel_service_server::ChannelServiceServer;
use espalier_proto::v1::peer_service_server::PeerServiceServer;
use espalier_proto::v1::signer_service_server::SignerServiceServer;
use espalier_proto::v1::topology_service_server::TopologyServiceServer;
use espalier_signer::{ServiceLimits, StatementService};
use espalier_token::{IssuerKey, VerifierKey};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;
use tower_http::trace::{DefaultOnFailure, TraceLayer};
use tracing::Level;

use crate::access::Access;
use crate::admin::{self, Admin};
use crate::api::{
    ChannelApi, GuardedSigner, MAX_PEER_MESSAGE, MAX_REQUEST, PeerApi, PeerNode, Router,
    TopologyApi,
};
use crate::api_token::ApiTokens;
use crate::channel::Arbiters;
use crate::config::NodeConfig;
use crate::directory::{Directory, LoadError};
use crate::layers::GateLayer;
use crate::link_service::LinkService;
use crate::metrics;
use crate::ownership::{Alone, Ownership};
use crate::store::{ChannelStore, DataDir, NodeSecrets, StoreError, on_disk};
use crate::ticket::TicketKey;

/// How long a peer is told that it has to find another node.
const DRAIN: Duration = Duration::from_secs(2);
/// How long open calls may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);
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

/// What a node is part of.
pub(crate) struct Membership {
    pub(crate) ownership: Arc<dyn Ownership>,
    /// Where the other nodes are served.
    pub(crate) listener: Option<TcpIncoming>,
}

impl Membership {
    /// Of nothing but itself.
    fn alone(store: ChannelStore) -> Self {
        Self {
            ownership: Arc::new(Alone::new(store)),
            listener: None,
        }
    }
}

struct Running {
    directory: Arc<Directory>,
    health: HealthReporter,
    ready: Arc<AtomicBool>,
    stopping: CancellationToken,
    servers: Vec<JoinHandle<()>>,
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
    /// A channel could not be started.
    #[error("the channels cannot be started")]
    Channels(#[from] LoadError),
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
    /// When the data directory, an address, a certificate or a channel cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_as(config, |data| Ok(Membership::alone(data.channels()))).await
    }

    /// Starts a node that is a member of what `membership` says.
    pub(crate) async fn start_as(
        config: NodeConfig,
        membership: impl FnOnce(&DataDir) -> Result<Membership, StartError>,
    ) -> Result<Self, StartError> {
        let (path, temporary) = data_path(&config)?;
        let (data, secrets) = on_disk(move || {
            let data = DataDir::open(&path)?;
            let secrets = data.secrets()?;
            Ok((data, secrets))
        })
        .await?;
        let incoming = listen(config.listen)?;
        let address = local_address(&incoming, config.listen)?;
        let admin_listener = bind_admin(config.admin_listen).await?;
        let admin_address = admin_listener.as_ref().and_then(|it| it.local_addr().ok());
        let arbiters = Arbiters::start().map_err(StartError::Threads)?;
        let Membership {
            ownership,
            listener: nodes,
        } = membership(&data)?;
        let limits = config.limits.clone();
        let directory = Directory::new(data.channels(), arbiters, ownership, limits);
        let directory = Arc::new(directory);
        let (health, stopping) = (HealthReporter::new(), CancellationToken::new());
        directory.load().await?;
        directory.run_shards(&stopping).await;

        let ready = Arc::new(AtomicBool::new(true));
        let admin_token = secrets.admin_token.clone();
        let tls = config.tls.is_some();
        let shared = Serving {
            directory: &directory,
            health: &health,
            stopping: &stopping,
        };
        let mut servers = serve(config, secrets, (incoming, nodes), &shared).await?;
        if let Some(listener) = admin_listener {
            let directory = Arc::clone(&directory);
            let admin = Admin {
                directory,
                ready: Arc::clone(&ready),
                metrics: metrics::install(),
            };
            servers.push(serve_admin(listener, admin, stopping.clone()));
        }
        let running = Running {
            directory,
            health,
            ready,
            stopping,
            servers,
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

    /// Ends in order: tells peers to go elsewhere, ends their sessions, the signers, the actors, the
    /// listeners; removes temporary data.
    pub async fn shutdown(self) {
        let Running {
            directory,
            health,
            ready,
            stopping,
            servers,
            _data,
        } = self.running;
        ready.store(false, Ordering::Relaxed);
        set_serving(&health, false).await;
        let within_ms = u32::try_from(DRAIN.as_millis()).unwrap_or(u32::MAX);
        let drain = v1::notice::Kind::Drain(v1::Drain { within_ms });
        for channel in directory.all() {
            channel.board.broadcast(v1::Notice { kind: Some(drain) });
        }
        if directory.ownership().endpoints().len() > 1 {
            moved_away(&directory).await;
        }
        // From here on nobody new is let in; who is in hears what is queued.
        stopping.cancel();
        directory.stop().await;
        for server in servers {
            let abort = server.abort_handle();
            if tokio::time::timeout(END_WITHIN, server).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Waits until the peers have gone to other nodes, each at a moment of its own choice, or their time is up.
async fn moved_away(directory: &Directory) {
    let sessions = || -> usize {
        let channels = directory.all();
        channels
            .iter()
            .map(|channel| channel.board.sessions())
            .sum()
    };
    let gone = async {
        while sessions() > 0 {
            tokio::time::sleep(DRAIN / 40).await;
        }
    };
    if tokio::time::timeout(DRAIN, gone).await.is_err() {
        tracing::warn!(
            sessions = sessions(),
            "some peers have not gone to another node in time"
        );
    }
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
    directory: &'a Arc<Directory>,
    health: &'a HealthReporter,
    stopping: &'a CancellationToken,
}

async fn serve(
    config: NodeConfig,
    secrets: NodeSecrets,
    (incoming, from_nodes): (TcpIncoming, Option<TcpIncoming>),
    shared: &Serving<'_>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let gate = GateLayer::new(&config.limits);
    let mut server = Server::builder()
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
    let Served { public, nodes } = routes(config, secrets, shared)?;
    set_serving(shared.health, true).await;
    let server = server
        .layer(TraceLayer::new_for_grpc().on_failure(DefaultOnFailure::new().level(Level::DEBUG)))
        .layer(gate.clone())
        .add_routes(public)
        .serve_with_incoming_shutdown(incoming, shared.stopping.clone().cancelled_owned());
    let stopping = shared.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = gate.tidy() => {}
        }
    });
    let mut servers = vec![tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(
                error = crate::error_chain(&error),
                "the public listener failed"
            );
        }
    })];
    if let Some(incoming) = from_nodes {
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_routes(nodes)
            .serve_with_incoming_shutdown(incoming, shared.stopping.clone().cancelled_owned());
        servers.push(tokio::spawn(async move {
            if let Err(error) = server.await {
                let error = crate::error_chain(&error);
                tracing::error!(error, "the listener for other nodes failed");
            }
        }));
    }
    Ok(servers)
}

/// What is served where.
struct Served {
    /// To everybody.
    public: tonic::service::Routes,
    /// To the other nodes, which have checked the callers whose calls they forward.
    nodes: tonic::service::Routes,
}

fn routes(
    config: NodeConfig,
    secrets: NodeSecrets,
    shared: &Serving<'_>,
) -> Result<Served, StartError> {
    let directory = shared.directory;
    let issuer = issuer_key(&secrets)?;
    let own_key = VerifierKey::from_ed25519(&secrets.issuer_key.verifying_key().to_bytes());
    let viewer_keys = std::iter::once(own_key).chain(config.issuers).collect();
    let api_tokens = secrets
        .api_tokens
        .into_iter()
        .chain(config.api_tokens)
        .collect();
    let access = Arc::new(Access::new(ApiTokens::new(api_tokens), viewer_keys));

    let router = Router::new(Arc::clone(directory.ownership()));
    let channels = ChannelApi::new(Arc::clone(directory), router.clone(), issuer);
    let channels = ChannelServiceServer::new(channels).max_decoding_message_size(MAX_REQUEST);
    let topology = TopologyServiceServer::new(TopologyApi::new(Arc::clone(directory), router))
        .max_decoding_message_size(MAX_REQUEST);
    let statements = StatementService::new(Arc::clone(directory), ServiceLimits::default());
    let signer = SignerServiceServer::new(GuardedSigner::new(statements, Arc::clone(&access)))
        .max_decoding_message_size(MAX_REQUEST);
    let peers = PeerServiceServer::new(PeerApi::new(PeerNode {
        ownership: Arc::clone(directory.ownership()),
        directory: Arc::clone(directory),
        access: Arc::clone(&access),
        tickets: TicketKey::new(secrets.ticket_key),
        limits: config.limits,
        stun_uris: config.stun_uris,
    }))
    .max_decoding_message_size(MAX_PEER_MESSAGE);
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(shared.health.clone()),
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
        .add_service(channels.clone())
        .add_service(topology.clone());
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(api_only.layer(channels))
        .add_service(api_only.layer(topology))
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

async fn set_serving(health: &HealthReporter, serving: bool) {
    let status = if serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    // The empty name is the whole server.
    let services = [
        "",
        "espalier.v1.ChannelService",
        "espalier.v1.TopologyService",
        "espalier.v1.PeerService",
        "espalier.v1.SignerService",
    ];
    for service in services {
        health.set_service_status(service, status).await;
    }
}
