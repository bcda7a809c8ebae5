//! One attachment: from the connection's first byte to the stream's end.

use std::time::{Duration, SystemTime};

use espalier_proto::v1::peer_service_client::PeerServiceClient;
use espalier_proto::v1::{self, node_message, notice, peer_message::Kind};
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::{error_chain, nat};

use super::{Held, Outcome, Session, SessionEvent, SessionRequest};

/// How long the node may take to accept a connection, to welcome a session, or to read a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many messages may wait for the node.
const OUTGOING: usize = 64;
/// How often to report if the node named no interval.
const DEFAULT_REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// The largest message that a node may send.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

impl Session {
    /// Connects, opens, and serves one stream until it ends.
    pub(super) async fn attach(&mut self) -> Outcome {
        let Some(held) = self.ask_held().await else {
            return Outcome::Left;
        };
        let open = self.open_message(held);
        let connecting = connect(
            self.nodes.current().clone(),
            self.config.token.clone(),
            open,
        );
        let connected = match self
            .absorbing(tokio::time::timeout(PATIENCE, connecting))
            .await
        {
            None => return Outcome::Left,
            Some(Err(_elapsed)) => return lost(format!("no welcome within {PATIENCE:?}"), false),
            Some(Ok(Err(refusal))) => return refusal,
            Some(Ok(Ok(connected))) => connected,
        };
        // The new node has ended the old session by now, or is about to.
        drop(self.leaving.take());
        self.nodes.learn(&connected.welcome.endpoints);
        self.attached_to.send_replace(self.nodes.nearest());
        self.serve(connected).await
    }

    /// Asks the engine's task what the peer has. `None`: that task is gone, or the peer leaves.
    async fn ask_held(&mut self) -> Option<Held> {
        self.standing.opening();
        let (answer, asked) = oneshot::channel();
        let events = self.events.clone();
        self.absorbing(async move {
            events.send(SessionEvent::Opening(answer)).await.ok()?;
            asked.await.ok()
        })
        .await?
    }

    fn open_message(&mut self, held: Held) -> v1::Open {
        self.attempt = self.attempt.saturating_add(1).max(milliseconds_now());
        let config = &self.config;
        v1::Open {
            peer: config.peer.clone(),
            channel: config.channel.clone(),
            role: config.role.into(),
            upload_bps: config.upload_bps,
            ticket: self.ticket.clone().into(),
            tracks: self.standing.tracks().unwrap_or(&config.tracks).to_vec(),
            held: held.edges,
            generation: held.generation,
            min_version: config.versions.0,
            max_version: config.versions.1,
            agent: concat!("espalier-peer/", env!("CARGO_PKG_VERSION")).to_owned(),
            attempt: self.attempt,
            profile: Some(config.profile),
        }
    }

    async fn serve(&mut self, connected: Connected) -> Outcome {
        let Connected {
            outgoing,
            mut incoming,
            mut welcome,
        } = connected;
        let stun = StunPorts::of(&welcome, self.nodes.current().uri().host());
        welcome.stun_uris.extend(stun.as_ref().map(StunPorts::uri));
        let mut observing = std::pin::pin!(observe(stun));
        let mut observed = false;
        self.ticket = welcome.ticket.clone().into();
        self.attached_once = true;
        let interval = match welcome.report_interval_ms {
            0 => DEFAULT_REPORT_INTERVAL,
            ms => Duration::from_millis(u64::from(ms)),
        };
        if self
            .events
            .send(SessionEvent::Welcomed(Box::new(welcome)))
            .await
            .is_err()
        {
            return Outcome::Left;
        }
        for kind in self.standing.current() {
            if let Err(problem) = send(&outgoing, kind).await {
                return lost(problem, true);
            }
        }
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut moving = None;
        let outcome = loop {
            // Reads from the node only when the engine's task has room, so that this loop never waits
            // for that task and always drains its requests.
            let events = self.events.clone();
            let receive = async { (events.reserve_owned().await, incoming.message().await) };
            tokio::select! {
                (permit, message) = receive => {
                    let Ok(permit) = permit else { break Outcome::Left };
                    match message {
                        Ok(Some(message)) => match interpret(message) {
                            Interpreted::Event(event) => drop(permit.send(event)),
                            Interpreted::Nothing => {}
                            Interpreted::Deleted => break Outcome::ChannelDeleted,
                            Interpreted::Drain(within) => {
                                tracing::info!(?within, "the node is about to stop");
                                if self.nodes.has_others() {
                                    moving.get_or_insert(Instant::now() + moment(within));
                                }
                            }
                        },
                        Ok(None) => break lost("the node ended the stream".to_owned(), true),
                        Err(status) => break lost(status_text(&status), true),
                    }
                }
                request = self.requests.recv() => {
                    let leaving = matches!(request, None | Some(SessionRequest::Leave));
                    let kind = self.standing.absorb(request.unwrap_or(SessionRequest::Leave));
                    if let Some(kind) = kind
                        && let Err(problem) = send(&outgoing, kind).await
                    {
                        break if leaving { Outcome::Left } else { lost(problem, true) };
                    }
                    if leaving {
                        drop(outgoing);
                        // Leave has arrived once the node ends the stream; a silent node is not waited for.
                        let ended = async { while let Ok(Some(_)) = incoming.message().await {} };
                        drop(tokio::time::timeout(Duration::from_millis(500), ended).await);
                        return Outcome::Left;
                    }
                }
                class = &mut observing, if !observed => {
                    observed = true;
                    let news = self.learn_class(class);
                    if let Some(profile) = news
                        && let Err(problem) = send(&outgoing, Kind::Profile(profile)).await
                    {
                        break lost(problem, true);
                    }
                }
                () = until(moving) => {
                    return Outcome::Moving(Box::new(Left {
                        _outgoing: outgoing,
                        _incoming: incoming,
                    }));
                }
                _ = ticks.tick() => {
                    let report = *self.reports.borrow_and_update();
                    // Only reports may be dropped: a node that is slow to read gets the next one.
                    drop(outgoing.try_send(v1::PeerMessage { kind: Some(Kind::Report(report)) }));
                }
            }
        };
        if matches!(outcome, Outcome::Lost { .. })
            && self.events.send(SessionEvent::Detached).await.is_err()
        {
            return Outcome::Left;
        }
        outcome
    }
}

impl Session {
    /// Takes in what was observed of the network; returns what the node has to hear of it.
    fn learn_class(&mut self, class: v1::NatClass) -> Option<v1::Profile> {
        let profile = &mut self.config.profile;
        if class == v1::NatClass::Unspecified || class == profile.nat() {
            return None;
        }
        tracing::info!(?class, "what the network lets through");
        profile.set_nat(class);
        Some(*profile)
    }
}

/// Where the node answers STUN.
struct StunPorts {
    host: String,
    ports: [u16; 2],
}

impl StunPorts {
    fn of(welcome: &v1::Welcome, dialled: Option<&str>) -> Option<Self> {
        let host = match welcome.stun_host.as_str() {
            "" => dialled?,
            named => named,
        };
        let ports = welcome.stun_ports.as_slice().try_into().ok();
        let [one, other]: [u32; 2] = ports?;
        let ports = [one.try_into().ok()?, other.try_into().ok()?];
        let host = host.to_owned();
        Some(Self { host, ports })
    }

    fn uri(&self) -> String {
        format!("stun:{}:{}", self.host, self.ports[0])
    }
}

/// Observes the network while the session goes on. A node without STUN ports shows nothing.
async fn observe(stun: Option<StunPorts>) -> v1::NatClass {
    let Some(StunPorts { host, ports }) = stun else {
        return v1::NatClass::Unspecified;
    };
    nat::observe(&host, ports).await.unwrap_or_else(|error| {
        tracing::info!(%error, "the network cannot be observed");
        v1::NatClass::Unspecified
    })
}

struct Connected {
    outgoing: mpsc::Sender<v1::PeerMessage>,
    incoming: Streaming<v1::NodeMessage>,
    welcome: v1::Welcome,
}

async fn connect(
    endpoint: tonic::transport::Endpoint,
    token: String,
    open: v1::Open,
) -> Result<Connected, Outcome> {
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| lost(error_chain(&error), false))?;
    let mut client = PeerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let (outgoing, messages) = mpsc::channel(OUTGOING);
    let first = v1::PeerMessage {
        kind: Some(Kind::Open(open)),
    };
    outgoing
        .try_send(first)
        .map_err(|error| lost(error.to_string(), false))?;
    let mut request = Request::new(ReceiverStream::new(messages));
    let bearer: AsciiMetadataValue =
        format!("Bearer {token}")
            .parse()
            .map_err(|_| Outcome::Refused {
                code: Code::InvalidArgument,
                message: "the token holds characters that no header may carry".to_owned(),
            })?;
    request.metadata_mut().insert("authorization", bearer);
    let mut incoming = client.session(request).await.map_err(refusal)?.into_inner();
    let first = incoming.message().await.map_err(refusal)?;
    match first.and_then(|message| message.kind) {
        Some(node_message::Kind::Welcome(welcome)) => Ok(Connected {
            outgoing,
            incoming,
            welcome,
        }),
        Some(
            node_message::Kind::Assignment(_)
            | node_message::Kind::Signal(_)
            | node_message::Kind::Notice(_),
        )
        | None => Err(lost(
            "the node's first message was no Welcome".to_owned(),
            false,
        )),
    }
}

/// Milliseconds since the Unix epoch: with a clock that is right, a peer that starts again goes on from
/// where it was.
fn milliseconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Both directions of a session that is not read any more.
#[derive(Debug)]
pub(super) struct Left {
    _outgoing: mpsc::Sender<v1::PeerMessage>,
    _incoming: Streaming<v1::NodeMessage>,
}

/// When to go to another node, if this one is to be left within that time: anywhere in its first three
/// quarters, so that an audience does not arrive all at once.
fn moment(within: Duration) -> Duration {
    within.mul_f64(rand::rng().random_range(0.0..=0.75))
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

enum Interpreted {
    Drain(Duration),
    Event(SessionEvent),
    Nothing,
    Deleted,
}

fn interpret(message: v1::NodeMessage) -> Interpreted {
    match message.kind {
        Some(node_message::Kind::Assignment(assignment)) => {
            Interpreted::Event(SessionEvent::Assigned(Box::new(assignment)))
        }
        Some(node_message::Kind::Signal(signal)) => {
            Interpreted::Event(SessionEvent::Signal(Box::new(signal)))
        }
        Some(node_message::Kind::Welcome(_)) | None => Interpreted::Nothing,
        Some(node_message::Kind::Notice(notice)) => match notice.kind {
            Some(notice::Kind::ChannelDeleted(_)) => Interpreted::Deleted,
            Some(notice::Kind::Drain(drain)) => {
                Interpreted::Drain(Duration::from_millis(u64::from(drain.within_ms)))
            }
            None => Interpreted::Nothing,
        },
    }
}

async fn send(outgoing: &mpsc::Sender<v1::PeerMessage>, kind: Kind) -> Result<(), String> {
    outgoing
        .send_timeout(v1::PeerMessage { kind: Some(kind) }, PATIENCE)
        .await
        .map_err(|error| format!("the node does not read: {error}"))
}

fn lost(problem: String, attached: bool) -> Outcome {
    Outcome::Lost { problem, attached }
}

/// Tells what no further attempt can change from what the next attempt may.
fn refusal(status: Status) -> Outcome {
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::Unimplemented => Outcome::Refused {
            code: status.code(),
            message: status.message().to_owned(),
        },
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => lost(status_text(&status), false),
    }
}

fn status_text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
