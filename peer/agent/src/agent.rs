//! A running peer: starts its tasks, joins them with bounded channels, ends them in order.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use espalier_peer_core::{EngineConfig, PeerId, RelayEngine, Role, Snapshot, frame};
use espalier_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::cdn::Cdn;
use crate::config::AgentConfig;
use crate::endpoint::EndpointError;
use crate::endpoints::Endpoints;
use crate::engine_task::{EngineHandle, EngineTask, Inputs, Outputs};
use crate::feed::{Feed, FeedPlan};
use crate::hls::{self, Served};
use crate::links::Links;
use crate::milestones::Milestones;
use crate::session::{Session, SessionConfig, SessionEnd, SessionRequest};
use crate::stats::Identity;
use crate::store::{Ledger, Store};
use crate::translate;
use crate::transport::Transport;

/// Events of all links that may wait for the engine.
const TRANSPORT_EVENTS: usize = 512;
/// Events of the CDN, the feed and the player that may wait for the engine.
const IO_EVENTS: usize = 256;
/// Messages of the node that may wait for the engine.
const SESSION_EVENTS: usize = 256;
/// What the engine may have reported and the session not yet taken.
const SESSION_REQUESTS: usize = 1024;
/// Questions that may wait for the engine.
const QUERIES: usize = 32;
/// How long each step of the end may take.
const ENDING: Duration = Duration::from_millis(700);

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The orchestrator's URI cannot be dialled.
    #[error("the orchestrator cannot be dialled")]
    Endpoint(#[from] EndpointError),
    /// The local server's address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client does not start.
    #[error("the HTTP client does not start: {0}")]
    Http(String),
}

/// A running peer. Dropping it ends its tasks abruptly; [`Agent::shutdown`] ends them in order.
#[derive(Debug)]
pub struct Agent {
    peer: PeerId,
    channel: String,
    local_address: Option<SocketAddr>,
    handle: EngineHandle,
    attached: watch::Receiver<bool>,
    session: mpsc::Sender<SessionRequest>,
    ended: oneshot::Receiver<SessionEnd>,
    tasks: Tasks,
}

struct Tasks {
    end: CancellationToken,
    transport: Arc<dyn Transport>,
    session: JoinHandle<()>,
    engine: JoinHandle<()>,
    feed: JoinHandle<()>,
    server: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end.cancel();
        for task in [&self.session, &self.engine, &self.feed]
            .into_iter()
            .chain(&self.server)
        {
            task.abort();
        }
    }
}

impl Agent {
    /// Starts a peer on `transport`. It is attached later: see [`Agent::attached`].
    ///
    /// A wrapper round the transport sees and may change every frame, which is how tests build
    /// hostile peers.
    ///
    /// # Errors
    /// [`StartError`] if the configuration cannot work on this machine.
    pub async fn start(
        config: AgentConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let nodes = Endpoints::new(&config.orchestrators, config.authorities.clone())?;
        let attached = watch::Sender::new(nodes.nearest());
        let listener = match config.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let local_address = listener.as_ref().map(|(_, address)| *address);
        let started = Instant::now();
        let end = CancellationToken::new();
        let (session_events, from_session) = mpsc::channel(SESSION_EVENTS);
        let (session, requests) = mpsc::channel(SESSION_REQUESTS);
        let (link_events, from_links) = mpsc::channel(TRANSPORT_EVENTS);
        let (io, from_io) = mpsc::channel(IO_EVENTS);
        let (queries, queried) = mpsc::channel(QUERIES);
        let (reports, reported) = watch::channel(v1::Report::default());
        let (feed_plan, planned) = watch::channel(FeedPlan::default());
        let (report_end, ended) = oneshot::channel();
        let milestones = Arc::new(Milestones::default());
        let store = Arc::new(Store::new(Ledger::start()));
        let handle = EngineHandle::new(io.clone(), queries);
        let cdn = Cdn::new(&config.peer.to_string(), io.clone())
            .map_err(|error| StartError::Http(format!("{error:#}")))?;

        let engine_task = EngineTask::new(
            RelayEngine::new(engine_config(&config)),
            started,
            Inputs {
                session: from_session,
                transport: from_links,
                events: from_io,
                queries: queried,
            },
            Outputs {
                session: session.clone(),
                links: Links::new(config.peer, Arc::clone(&transport), link_events),
                cdn,
                feed: feed_plan,
                store: Arc::clone(&store),
                reports,
                milestones: Arc::clone(&milestones),
            },
        );
        let attached_to = attached.subscribe();
        let session_task = Session::new(
            session_config(&config),
            (nodes, attached),
            session_events,
            requests,
            reported,
        );
        let feed = Feed {
            channel: config.channel.clone(),
            nodes: attached_to,
            token: config.token.clone(),
            plan: planned,
            events: io,
        };
        let identity = Identity {
            peer: config.peer.to_string(),
            role: config.role,
            started,
            milestones: Arc::clone(&milestones),
        };
        let served = Served::new(config.channel.clone(), store, handle.clone(), identity);
        let router = hls::router(Arc::new(served), config.role != Role::Relay);
        let tasks = Tasks {
            transport,
            engine: tokio::spawn(engine_task.run(end.clone())),
            feed: tokio::spawn(feed.run()),
            session: tokio::spawn(async move {
                // Nobody may be waiting to hear it.
                drop(report_end.send(session_task.run().await));
            }),
            server: listener.map(|(listener, _)| serve(listener, router, end.clone())),
            end,
        };
        Ok(Self {
            peer: config.peer,
            channel: config.channel,
            local_address,
            handle,
            attached: milestones.watch_attached(),
            session,
            ended,
            tasks,
        })
    }

    /// This peer's id.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Where the local server listens.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// The master playlist's URL for a player on this machine.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let mut address = self.local_address?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        Some(format!("http://{address}/{}/master.m3u8", self.channel))
    }

    /// Waits for the first attachment.
    ///
    /// # Errors
    /// [`SessionEnd`] if the session ended before it was ever open.
    pub async fn attached(&mut self) -> Result<(), SessionEnd> {
        tokio::select! {
            biased;
            end = &mut self.ended => Err(end.unwrap_or(SessionEnd::Left)),
            Ok(_) = self.attached.wait_for(|attached| *attached) => Ok(()),
        }
    }

    /// Waits until there is nothing to attach to any more. Cancel-safe; call it until it returns once.
    pub async fn ended(&mut self) -> SessionEnd {
        (&mut self.ended).await.unwrap_or(SessionEnd::Left)
    }

    /// The engine's state now; `None` if it has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.handle.snapshot().await
    }

    /// Leaves: tells the node and the neighbours, closes the links, the server and the tasks.
    pub async fn shutdown(mut self) {
        let tasks = &mut self.tasks;
        // The session's task may have ended already.
        drop(self.session.try_send(SessionRequest::Leave));
        drop(timeout(ENDING, &mut tasks.session).await);
        tasks.end.cancel();
        drop(timeout(ENDING, &mut tasks.engine).await);
        if timeout(ENDING, tasks.transport.shutdown()).await.is_err() {
            tracing::warn!("the links did not close in time");
        }
    }
}

fn engine_config(config: &AgentConfig) -> EngineConfig {
    EngineConfig {
        role: config.role,
        ..EngineConfig::new(config.peer, config.channel.clone())
    }
}

fn session_config(config: &AgentConfig) -> SessionConfig {
    SessionConfig {
        token: config.token.clone(),
        peer: config.peer.to_string(),
        channel: config.channel.clone(),
        role: match config.role {
            Role::Contributor => v1::PeerRole::Contributor,
            Role::Consumer => v1::PeerRole::Consumer,
            Role::Relay => v1::PeerRole::Relay,
        },
        upload_bps: config.upload_bps,
        profile: translate::profile_out(config.circumstances),
        tracks: config.tracks.clone(),
        first_contact: config.first_contact,
        versions: frame::VERSIONS,
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let local = listener.local_addr().map_err(refused)?;
    Ok((listener, local))
}

fn serve(listener: TcpListener, router: axum::Router, end: CancellationToken) -> JoinHandle<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a player's connection keeps its delay");
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            ended = axum::serve(listener, router).into_future() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the local server ended");
                }
            }
            () = end.cancelled() => {}
        }
    })
}
