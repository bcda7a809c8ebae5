//! The session against a small node of real tonic.

use std::net::SocketAddr;
use std::time::Duration;

use espalier_proto::v1::peer_message::Kind;
use espalier_proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use espalier_proto::v1::{self, node_message};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Held, Session, SessionConfig, SessionEnd, SessionEvent, SessionRequest};

const DEADLINE: Duration = Duration::from_secs(20);

/// One attachment as the node sees it.
struct Attachment {
    token: String,
    from_peer: Streaming<v1::PeerMessage>,
    to_peer: mpsc::Sender<Result<v1::NodeMessage, Status>>,
}

impl Attachment {
    async fn next(&mut self) -> Kind {
        let message = within(self.from_peer.message())
            .await
            .unwrap()
            .expect("the stream ended");
        message.kind.expect("a kind")
    }

    /// The next message that is no Report.
    async fn next_said(&mut self) -> Kind {
        loop {
            let kind = self.next().await;
            if !matches!(kind, Kind::Report(_)) {
                return kind;
            }
        }
    }

    async fn say(&self, kind: node_message::Kind) {
        self.to_peer
            .send(Ok(v1::NodeMessage { kind: Some(kind) }))
            .await
            .unwrap();
    }

    async fn open_and_welcome(&mut self, ticket: &[u8]) -> v1::Open {
        self.open_and_name(ticket, &[]).await
    }

    /// Welcomes the peer and names the cluster's nodes.
    async fn open_and_name(&mut self, ticket: &[u8], nodes: &[&Node]) -> v1::Open {
        let Kind::Open(open) = self.next().await else {
            panic!("the first message is not Open")
        };
        let welcome = v1::Welcome {
            ticket: ticket.to_vec(),
            incarnation: 9,
            report_interval_ms: 20,
            endpoints: nodes.iter().map(|node| node.uri()).collect(),
            ..v1::Welcome::default()
        };
        self.say(node_message::Kind::Welcome(welcome)).await;
        open
    }
}

struct NodeService(mpsc::Sender<Attachment>);

#[tonic::async_trait]
impl PeerService for NodeService {
    type SessionStream = ReceiverStream<Result<v1::NodeMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::PeerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let header = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap());
        let token = header
            .unwrap_or_default()
            .trim_start_matches("Bearer ")
            .to_owned();
        if token == "bad" {
            return Err(Status::unauthenticated("the token has expired"));
        }
        let (to_peer, stream) = mpsc::channel(16);
        let attachment = Attachment {
            token,
            from_peer: request.into_inner(),
            to_peer,
        };
        self.0
            .send(attachment)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type AttachStream = Self::SessionStream;

    async fn attach(
        &self,
        _request: Request<v1::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("native peers open a Session"))
    }

    async fn send(
        &self,
        _request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        Err(Status::unimplemented("native peers open a Session"))
    }
}

struct Node {
    address: SocketAddr,
    attachments: mpsc::Receiver<Attachment>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs a node in a runtime of its own, which dies with all its connections when it is dropped.
    async fn start(address: SocketAddr) -> Self {
        let (sender, attachments) = mpsc::channel(4);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .spawn(TcpListener::bind(address))
            .await
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(PeerServiceServer::new(NodeService(sender)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self {
            address,
            attachments,
            runtime: Some(runtime),
        }
    }

    async fn attachment(&mut self) -> Attachment {
        within(self.attachments.recv())
            .await
            .expect("the node ended")
    }
}

struct Peer {
    events: mpsc::Receiver<SessionEvent>,
    requests: mpsc::Sender<SessionRequest>,
    reports: watch::Sender<v1::Report>,
    attached_to: watch::Receiver<Vec<tonic::transport::Endpoint>>,
    end: tokio::task::JoinHandle<SessionEnd>,
}

impl Peer {
    fn start(address: SocketAddr, token: &str, first_contact: Duration) -> Self {
        Self::start_at(&[address], token, first_contact)
    }

    fn start_at(addresses: &[SocketAddr], token: &str, first_contact: Duration) -> Self {
        let (sender, events) = mpsc::channel(16);
        let (requests, taken) = mpsc::channel(64);
        let (reports, reported) = watch::channel(v1::Report::default());
        let config = SessionConfig {
            token: token.to_owned(),
            peer: "00000000000000aa".to_owned(),
            channel: "demo".to_owned(),
            role: v1::PeerRole::Contributor,
            upload_bps: 5,
            profile: v1::Profile::default(),
            tracks: vec!["v0".to_owned()],
            first_contact,
            versions: (1, 1),
        };
        let uris: Vec<_> = addresses.iter().map(|at| format!("http://{at}")).collect();
        let nodes = crate::endpoints::Endpoints::new(&uris, None).unwrap();
        let (attached, attached_to) = watch::channel(nodes.nearest());
        let session = Session::new(config, (nodes, attached), sender, taken, reported);
        Self {
            attached_to,
            events,
            requests,
            reports,
            end: tokio::spawn(session.run()),
        }
    }

    async fn event(&mut self) -> SessionEvent {
        within(self.events.recv()).await.expect("the session ended")
    }

    /// Answers the session's question with `held` and returns what happens next.
    async fn opening(&mut self, held: Held) {
        match self.event().await {
            SessionEvent::Opening(answer) => answer.send(held).unwrap(),
            other @ (SessionEvent::Welcomed(_)
            | SessionEvent::Assigned(_)
            | SessionEvent::Signal(_)
            | SessionEvent::Detached) => panic!("not Opening but {other:?}"),
        }
    }

    async fn end(self) -> SessionEnd {
        within(self.end).await.unwrap()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it took too long")
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn source_event(state: v1::SourceState) -> SessionRequest {
    SessionRequest::Source(v1::SourceEvent {
        track: "v0".to_owned(),
        stripe: 0,
        source: None,
        state: state.into(),
        generation: None,
    })
}

#[tokio::test]
async fn a_session_opens_reports_and_carries_both_directions() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    assert_eq!(attachment.token, "good");
    let open = attachment.open_and_welcome(b"ticket").await;
    assert_eq!(
        (open.peer.as_str(), open.channel.as_str()),
        ("00000000000000aa", "demo")
    );
    assert_eq!((open.upload_bps, open.tracks), (5, vec!["v0".to_owned()]));
    assert!(open.ticket.is_empty() && open.held.is_empty());
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(w) if w.incarnation == 9));

    attachment
        .say(node_message::Kind::Assignment(v1::Assignment::default()))
        .await;
    assert!(matches!(peer.event().await, SessionEvent::Assigned(_)));
    attachment
        .say(node_message::Kind::Signal(v1::Signal::default()))
        .await;
    assert!(matches!(peer.event().await, SessionEvent::Signal(_)));

    let generation = v1::Generation {
        incarnation: 9,
        term: 1,
        index: 4,
    };
    peer.requests
        .send(SessionRequest::Acknowledge(generation))
        .await
        .unwrap();
    let said = attachment.next_said().await;
    assert!(matches!(said, Kind::Acknowledge(a) if a.generation == Some(generation)));

    peer.reports.send_replace(v1::Report {
        stalls: 3,
        ..v1::Report::default()
    });
    loop {
        if let Kind::Report(report) = attachment.next().await
            && report.stalls == 3
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_returning_peer_brings_its_ticket_its_edges_and_its_current_states() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_welcome(b"ticket").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    peer.requests
        .send(source_event(v1::SourceState::Flowing))
        .await
        .unwrap();
    assert!(matches!(attachment.next_said().await, Kind::SourceEvent(_)));

    drop(attachment);
    assert!(matches!(peer.event().await, SessionEvent::Detached));
    // What changes meanwhile is told by its last state alone.
    peer.requests
        .send(source_event(v1::SourceState::Repairing))
        .await
        .unwrap();
    peer.requests
        .send(source_event(v1::SourceState::Bypass))
        .await
        .unwrap();
    let edge = v1::HeldEdge {
        track: "v0".to_owned(),
        ..v1::HeldEdge::default()
    };
    peer.opening(Held {
        edges: vec![edge.clone()],
        generation: None,
    })
    .await;
    let mut attachment = node.attachment().await;
    let open = attachment.open_and_welcome(b"other").await;
    assert_eq!((&open.ticket[..], open.held), (&b"ticket"[..], vec![edge]));
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    let said = attachment.next_said().await;
    assert!(matches!(said, Kind::SourceEvent(e) if e.state() == v1::SourceState::Bypass));
}

#[tokio::test]
async fn a_node_that_cannot_read_the_ticket_gets_the_token_alone() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_welcome(b"ticket").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    drop(attachment);
    assert!(matches!(peer.event().await, SessionEvent::Detached));

    peer.opening(Held::default()).await;
    let attachment = node.attachment().await;
    let refusal = Err(Status::permission_denied("no such ticket"));
    attachment.to_peer.send(refusal).await.unwrap();
    peer.opening(Held::default()).await;
    let open = node.attachment().await.open_and_welcome(b"new").await;
    assert!(open.ticket.is_empty());
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
}

#[tokio::test]
async fn a_dead_node_is_noticed_and_found_again_at_the_same_address() {
    let mut node = Node::start(any_port()).await;
    let address = node.address;
    let mut peer = Peer::start(address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_welcome(b"ticket").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    drop(node);
    assert!(matches!(peer.event().await, SessionEvent::Detached));
    // The dead node's threads may hold its port for a moment.
    let mut node = loop {
        if std::net::TcpListener::bind(address).is_ok() {
            break Node::start(address).await;
        }
        tokio::task::yield_now().await;
    };
    let mut attachment = loop {
        // Attempts that fail ask again each time.
        tokio::select! {
            () = peer.opening(Held::default()) => {}
            attachment = node.attachment() => break attachment,
        }
    };
    attachment.open_and_welcome(b"again").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
}

#[tokio::test]
async fn a_refused_first_attachment_ends_the_session_with_the_nodes_words() {
    let node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "bad", DEADLINE);
    peer.opening(Held::default()).await;
    match peer.end().await {
        SessionEnd::Refused { code, message } => {
            assert_eq!(
                (code, message.as_str()),
                (Code::Unauthenticated, "the token has expired")
            );
        }
        other
        @ (SessionEnd::Left | SessionEnd::ChannelDeleted | SessionEnd::Unreachable { .. }) => {
            panic!("{other:?}")
        }
    }
}

#[tokio::test]
async fn a_token_that_no_header_may_carry_is_refused_without_asking() {
    let node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "line\nbreak", DEADLINE);
    peer.opening(Held::default()).await;
    assert!(matches!(
        peer.end().await,
        SessionEnd::Refused {
            code: Code::InvalidArgument,
            ..
        }
    ));
}

#[tokio::test]
async fn an_orchestrator_that_was_never_reached_is_given_up() {
    let address = TcpListener::bind(any_port())
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let peer = Peer::start(address, "good", Duration::from_millis(300));
    let Peer {
        mut events,
        end,
        requests: _requests,
        ..
    } = peer;
    // Each attempt asks what the peer has.
    let answering = async {
        while let Some(SessionEvent::Opening(answer)) = events.recv().await {
            answer.send(Held::default()).unwrap();
        }
    };
    let (end, ()) = within(futures::future::join(end, answering)).await;
    let end = end.unwrap();
    assert!(matches!(end, SessionEnd::Unreachable { .. }), "{end:?}");
}

#[tokio::test]
async fn leaving_is_said_and_ends_the_session() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_welcome(b"ticket").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    peer.requests.send(SessionRequest::Leave).await.unwrap();
    assert!(matches!(attachment.next_said().await, Kind::Leave(_)));
    assert!(matches!(peer.end().await, SessionEnd::Left));
}

#[tokio::test]
async fn a_deleted_channel_ends_the_session() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_welcome(b"ticket").await;
    let deleted = v1::notice::Kind::ChannelDeleted(v1::ChannelDeleted {});
    attachment
        .say(node_message::Kind::Notice(v1::Notice {
            kind: Some(deleted),
        }))
        .await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    assert!(matches!(peer.end().await, SessionEnd::ChannelDeleted));
}

#[tokio::test]
async fn a_slow_engine_never_stops_the_session_from_taking_its_requests() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_welcome(b"ticket").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    // The engine takes nothing: its channel fills with what the node says.
    let flood = attachment.to_peer.clone();
    tokio::spawn(async move {
        let signal = node_message::Kind::Signal(v1::Signal::default());
        let message = v1::NodeMessage { kind: Some(signal) };
        while flood.send(Ok(message.clone())).await.is_ok() {}
    });
    for index in 0..500 {
        let generation = v1::Generation {
            index,
            ..v1::Generation::default()
        };
        within(peer.requests.send(SessionRequest::Acknowledge(generation)))
            .await
            .unwrap();
    }
    for index in 0..500 {
        let said = attachment.next_said().await;
        assert!(matches!(said, Kind::Acknowledge(a) if a.generation.unwrap().index == index));
    }
}

#[tokio::test]
async fn a_peer_whose_node_is_lost_goes_on_to_one_that_the_node_named() {
    let mut first = Node::start(any_port()).await;
    let mut second = Node::start(any_port()).await;
    let mut peer = Peer::start(first.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = first.attachment().await;
    let nodes = [&first, &second];
    let one = attachment.open_and_name(b"ticket", &nodes).await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));

    drop(first);
    assert!(matches!(peer.event().await, SessionEvent::Detached));
    peer.opening(Held::default()).await;
    let mut attachment = second.attachment().await;
    let other = attachment.open_and_welcome(b"other").await;
    assert_eq!(&other.ticket[..], b"ticket");
    assert!(
        other.attempt > one.attempt,
        "of its sessions the later wins"
    );
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    let uri = peer.attached_to.borrow()[0].uri().to_string();
    assert_eq!(uri.trim_end_matches('/'), second.uri());
}

#[tokio::test]
async fn a_peer_that_does_not_reach_the_first_node_tries_the_next() {
    let gone = Node::start(any_port()).await.address;
    let mut there = Node::start(any_port()).await;
    let mut peer = Peer::start_at(&[gone, there.address], "good", DEADLINE);
    peer.opening(Held::default()).await;
    peer.opening(Held::default()).await;
    there.attachment().await.open_and_welcome(b"ticket").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
}

#[tokio::test]
async fn a_peer_goes_away_from_a_node_that_is_about_to_stop_without_being_detached() {
    let mut first = Node::start(any_port()).await;
    let mut second = Node::start(any_port()).await;
    let mut peer = Peer::start(first.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = first.attachment().await;
    attachment
        .open_and_name(b"ticket", &[&first, &second])
        .await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));

    let drain = v1::notice::Kind::Drain(v1::Drain { within_ms: 200 });
    let notice = v1::Notice { kind: Some(drain) };
    attachment.say(node_message::Kind::Notice(notice)).await;
    // It opens at the other node while this one still serves it, and was never without a session.
    peer.opening(Held::default()).await;
    let mut other = second.attachment().await;
    assert!(!attachment.to_peer.is_closed(), "the old session is there");
    other.open_and_welcome(b"other").await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    within(attachment.to_peer.closed()).await;
}

#[tokio::test]
async fn a_peer_that_knows_no_other_node_stays_to_the_end() {
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    attachment.open_and_name(b"ticket", &[&node]).await;
    assert!(matches!(peer.event().await, SessionEvent::Welcomed(_)));
    let drain = v1::notice::Kind::Drain(v1::Drain { within_ms: 1 });
    let notice = v1::Notice { kind: Some(drain) };
    attachment.say(node_message::Kind::Notice(notice)).await;
    // Reports go on at the same node.
    for _ in 0..3 {
        while !matches!(attachment.next().await, Kind::Report(_)) {}
    }
}

#[tokio::test]
async fn a_peer_observes_its_network_and_says_so_now_and_when_it_returns() {
    let port = || crate::nat::tests::port(|from| vec![from]);
    let ports = [port().await, port().await];
    let welcome = v1::Welcome {
        stun_ports: ports.map(u32::from).to_vec(),
        ..v1::Welcome::default()
    };
    let mut node = Node::start(any_port()).await;
    let mut peer = Peer::start(node.address, "good", DEADLINE);
    peer.opening(Held::default()).await;
    let mut attachment = node.attachment().await;
    let Kind::Open(open) = attachment.next().await else {
        panic!("the first message is not Open")
    };
    assert_eq!(open.profile.unwrap().nat(), v1::NatClass::Unspecified);
    attachment.say(node_message::Kind::Welcome(welcome)).await;
    let SessionEvent::Welcomed(heard) = peer.event().await else {
        panic!("not welcomed")
    };
    let uri = format!("stun:127.0.0.1:{}", ports[0]);
    assert_eq!(heard.stun_uris, [uri], "links use it too");
    let Kind::Profile(profile) = attachment.next_said().await else {
        panic!("not what it has observed")
    };
    assert_eq!(profile.nat(), v1::NatClass::Open);
    drop(attachment);
    assert!(matches!(peer.event().await, SessionEvent::Detached));
    peer.opening(Held::default()).await;
    let open = node.attachment().await.open_and_welcome(b"").await;
    assert_eq!(open.profile.unwrap().nat(), v1::NatClass::Open);
}
