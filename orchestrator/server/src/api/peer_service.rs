//! `espalier.v1.PeerService`: lets peers in.

use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use espalier_orchestrator_core::{Locality, PeerId, SessionOpened};
use espalier_proto::v1;
use espalier_proto::v1::peer_message;
use espalier_proto::v1::peer_service_client::PeerServiceClient;
use espalier_proto::v1::peer_service_server::PeerService;
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::forward::{answer, forwarded, is_forwarded};
use crate::access::Access;
use crate::channel::HandleError;
use crate::config::Limits;
use crate::directory::{Channel, Directory};
use crate::gateway::{
    Admission, Attached, Closing, Incoming, Joining, Line, Locator, Outgoing, Session,
    SessionStart, Spoken, SpokenGuard, clock_ms,
};
use crate::ownership::Ownership;
use crate::status::SessionError;
use crate::ticket::TicketKey;
use crate::translate;

/// How long a peer may take to say who it is.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// How long a peer that cannot show that its id is its own waits for the channel's owner.
const ADMIT_WITHIN: Duration = Duration::from_secs(4);

/// Where proxies name whom they speak for.
const FORWARDED: &str = "x-forwarded-for";

/// What sessions need of the node.
pub(crate) struct PeerNode {
    pub(crate) ownership: Arc<dyn Ownership>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) access: Arc<Access>,
    pub(crate) tickets: TicketKey,
    pub(crate) limits: Limits,
    pub(crate) stun_uris: Vec<String>,
    /// The host and the ports of the node's own STUN; no ports: it has none.
    pub(crate) stun: (String, Vec<u32>),
    pub(crate) locator: Locator,
}

/// The service.
pub(crate) struct PeerApi {
    node: Arc<PeerNode>,
    sessions: Arc<Semaphore>,
    attached: Arc<Attached>,
}

impl PeerApi {
    pub(crate) fn new(node: PeerNode) -> Self {
        let sessions = Arc::new(Semaphore::new(node.limits.max_sessions));
        Self {
            attached: Attached::new(node.ownership.this()),
            node: Arc::new(node),
            sessions,
        }
    }

    /// Takes a newcomer in as far as to a task and a line of its own. Answers at once, so that a peer that waits
    /// for the answer before its first message is not stuck; whatever is wrong with the session ends the stream
    /// with its status.
    fn receive<T>(&self, request: Request<T>) -> Result<(Newcomer, T, Outgoing), Status> {
        if self.node.directory.is_stopping() {
            return Err(SessionError::Stopping.into());
        }
        let limit = self.node.limits.max_sessions;
        let place = Arc::clone(&self.sessions)
            .try_acquire_owned()
            .map_err(|_| SessionError::TooMany { limit })?;
        let address = request.remote_addr().map(|address| address.ip());
        let (metadata, _, said) = request.into_parts();
        let (line, outgoing) = Line::new(self.node.limits.session_queue);
        let newcomer = Newcomer {
            node: Arc::clone(&self.node),
            metadata,
            address,
            line,
            attached: None,
            _place: place,
        };
        Ok((newcomer, said, outgoing))
    }
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    type SessionStream = Outgoing;

    async fn session(
        &self,
        request: Request<Streaming<v1::PeerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (newcomer, incoming, outgoing) = self.receive(request)?;
        tokio::spawn(newcomer.run(incoming));
        Ok(Response::new(outgoing))
    }

    type AttachStream = Outgoing;

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (mut newcomer, attach, outgoing) = self.receive(request)?;
        let (spoken, messages) = self.attached.open();
        newcomer.attached = Some(spoken);
        let open = v1::PeerMessage {
            kind: attach.open.map(peer_message::Kind::Open),
        };
        let incoming = futures::stream::iter([Ok(open)]);
        tokio::spawn(newcomer.run(incoming.chain(ReceiverStream::new(messages).map(Ok))));
        Ok(Response::new(outgoing))
    }

    async fn send(
        &self,
        request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        let node = match self.attached.hear(request.get_ref())? {
            Spoken::Here(next_sequence) => {
                return Ok(Response::new(v1::SendResponse { next_sequence }));
            }
            Spoken::There(node) => node,
        };
        let transport = self.node.ownership.transport(node);
        match transport {
            Some(transport) if !is_forwarded(&request) => {
                let request = forwarded(request.into_inner());
                answer(PeerServiceClient::new(transport).send(request).await)
            }
            Some(_) | None => Err(SessionError::Gone.into()),
        }
    }
}

/// A session from its first message to its end.
struct Newcomer {
    node: Arc<PeerNode>,
    metadata: MetadataMap,
    /// Whence the peer, or a proxy, has connected.
    address: Option<IpAddr>,
    line: Line,
    /// Where its messages come from, if they come in calls of their own.
    attached: Option<SpokenGuard>,
    /// Given back when the session ends.
    _place: OwnedSemaphorePermit,
}

impl Newcomer {
    async fn run<S: Incoming>(self, mut incoming: S) {
        let admitted = tokio::select! {
            () = self.line.closed() => return,
            admitted = self.admit(&mut incoming) => admitted,
        };
        match admitted {
            Ok(start) => Box::pin(Session::new(start).run(incoming)).await,
            Err(status) => {
                tracing::debug!(code = ?status.code(), message = status.message(), "a session is refused");
                self.line.close(Closing::Now(Box::new(status)));
            }
        }
    }

    async fn admit<S: Incoming>(&self, incoming: &mut S) -> Result<SessionStart, Status> {
        let open = first_message(incoming).await?;
        let node = &self.node;
        // The token is looked at before anything else, so that a stranger learns nothing.
        let id = Admission::channel_of(&open)?;
        let proven = open.peer.parse().is_ok_and(|peer: PeerId| {
            node.tickets
                .admits(&open.ticket, id.as_str(), peer.0, SystemTime::now())
        });
        let claims = node.access.viewer(&self.metadata, id.as_str(), proven)?;
        let admission = Admission::check(open, &node.limits)?;
        let channel = node
            .directory
            .find_anywhere(&id)
            .await
            .map_err(|_unknown| SessionError::Channel(HandleError::NoOwner))?
            .ok_or_else(|| self.absent(id.as_str()))?;
        let peer = admission.peer;
        let locality = self.locality(&channel);
        let joining = Joining {
            opened: opened(admission, locality),
            proven,
            line: self.line.clone(),
            welcome: self.welcome(&channel, &claims.keys, peer.0),
        };
        let (attachment, admitted) = channel
            .board
            .attach(joining, clock_ms(SystemTime::now()))
            .map_err(|error| {
                let ended = matches!(error, SessionError::NoChannel(_));
                if ended {
                    self.absent(id.as_str())
                } else {
                    error
                }
            })?;
        // Whatever ends this session from here on, its seat is given back.
        let seated = Seated {
            channel: Arc::clone(&channel),
            peer,
            attachment,
            kept: false,
        };
        let admitted = tokio::time::timeout(ADMIT_WITHIN, admitted).await;
        if !matches!(admitted, Ok(Ok(()))) {
            // A refusal has closed the line already; this is what is said if nobody decided.
            return Err(SessionError::Channel(HandleError::NoOwner).into());
        }
        seated.keep();
        tracing::debug!(channel = %id, %peer, attachment, proven, "session open");
        Ok(SessionStart {
            peer,
            attachment,
            locality,
            board: Arc::clone(&channel.board),
            line: self.line.clone(),
            messages_per_second: node.limits.messages_per_second_per_session,
        })
    }

    /// Where the peer is, by the channel's policy and what this node knows.
    fn locality(&self, channel: &Channel) -> Locality {
        let locator = &self.node.locator;
        let forwarded = self.metadata.get_all(FORWARDED).iter();
        let forwarded: Vec<_> = forwarded.filter_map(|line| line.to_str().ok()).collect();
        let client = locator.client(self.address, &forwarded);
        locator.locate(client, &channel.record.borrow().policy.sites)
    }

    /// A channel that is not here: there is none, or this node is about to have none.
    fn absent(&self, id: &str) -> SessionError {
        if self.node.directory.is_stopping() {
            return SessionError::Stopping;
        }
        SessionError::NoChannel(id.to_owned())
    }

    fn welcome(&self, channel: &Channel, pinned: &[String], peer: u64) -> v1::Welcome {
        let node = &self.node;
        let record = channel.record.borrow();
        let lifetime = node.limits.ticket_lifetime;
        let ticket = node
            .tickets
            .seal(record.id.as_str(), peer, SystemTime::now(), lifetime);
        // The signer itself comes first: its feed goes on while every orchestrator is down. An empty
        // string is this node.
        let elsewhere = record.signer_uri.clone();
        v1::Welcome {
            ticket,
            incarnation: record.incarnation,
            report_interval_ms: u32::try_from(node.limits.report_interval.as_millis())
                .unwrap_or(u32::MAX),
            public_keys: channel.public_keys(pinned),
            signer_uris: elsewhere.into_iter().chain([String::new()]).collect(),
            origin_uri: record.origin_uri.clone(),
            stun_uris: node.stun_uris.clone(),
            endpoints: node.ownership.endpoints(),
            stun_host: node.stun.0.clone(),
            stun_ports: node.stun.1.clone(),
            session: self
                .attached
                .as_ref()
                .map(SpokenGuard::name)
                .unwrap_or_default(),
        }
    }
}

fn opened(admission: Admission, locality: Locality) -> SessionOpened {
    SessionOpened {
        peer: admission.peer,
        attachment: admission.attempt,
        role: admission.role,
        upload_bps: admission.upload_bps,
        profile: translate::profile(admission.profile.as_ref(), locality),
        tracks: admission.tracks,
        held: admission.held,
        generation: admission.generation,
    }
}

/// A seat that is given back unless a session takes it over.
struct Seated {
    channel: Arc<Channel>,
    peer: PeerId,
    attachment: u64,
    kept: bool,
}

impl Seated {
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        if !self.kept {
            self.channel.board.detach(self.peer, self.attachment);
        }
    }
}

async fn first_message<S: Incoming>(incoming: &mut S) -> Result<v1::Open, Status> {
    let first = tokio::time::timeout(OPEN_WITHIN, incoming.next())
        .await
        .map_err(|_| SessionError::Silent(OPEN_WITHIN))?
        .transpose()?;
    match first.and_then(|message| message.kind) {
        Some(peer_message::Kind::Open(open)) => Ok(open),
        Some(
            peer_message::Kind::Acknowledge(_)
            | peer_message::Kind::Signal(_)
            | peer_message::Kind::Profile(_)
            | peer_message::Kind::Report(_)
            | peer_message::Kind::WantTracks(_)
            | peer_message::Kind::LinkEvent(_)
            | peer_message::Kind::SourceEvent(_)
            | peer_message::Kind::Leave(_),
        )
        | None => Err(SessionError::OutOfOrder("the first message must be Open").into()),
    }
}
