//! Browsers: the same services over gRPC-Web and HTTP/1.1, as a page calls them.

use espalier_orchestrator::{Limits, NodeConfig, WebOrigins};
use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_message::Kind as Said;
use http::Method;
use prost::Message;
use reqwest::{Response, StatusCode};
use tonic::{Code, Status};

use crate::support::{
    FakePeer, TestNode, assert_invalid, assert_refused, hex, is_cdn, open, origin, until, within,
};

const PAGE: &str = "http://localhost:5173";
const SEND: &str = "espalier.v1.PeerService/Send";
const ATTACH: &str = "espalier.v1.PeerService/Attach";

/// A page in a browser: HTTP/1.1 and gRPC-Web frames, nothing of tonic's.
struct Page {
    http: reqwest::Client,
    endpoint: String,
    token: String,
}

/// The answers to one call, as they come.
struct Answers {
    response: Response,
    bytes: Vec<u8>,
}

impl Page {
    fn of(node: &TestNode, token: &str) -> Self {
        Self {
            http: reqwest::Client::builder().http1_only().build().unwrap(),
            endpoint: node.node.endpoint(),
            token: token.to_owned(),
        }
    }

    async fn call(&self, method: &str, message: impl Message) -> Answers {
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0][..], &length, &message].concat();
        let mut request = self
            .http
            .post(format!("{}/{method}", self.endpoint))
            .header("content-type", "application/grpc-web+proto")
            .header("x-grpc-web", "1")
            .header("origin", PAGE);
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let response = within(request.body(body).send()).await.unwrap();
        Answers {
            response,
            bytes: Vec::new(),
        }
    }

    async fn unary<T: Message + Default>(
        &self,
        method: &str,
        message: impl Message,
    ) -> Result<T, Status> {
        let mut answers = self.call(method, message).await;
        let answer = answers.next().await?.expect("there is one answer");
        assert!(answers.next::<T>().await?.is_none(), "and no other");
        Ok(answer)
    }

    async fn attach(&self, open: v1::Open) -> Attached {
        let answers = self
            .call(ATTACH, v1::AttachRequest { open: Some(open) })
            .await;
        let mut attached = Attached {
            answers,
            welcome: v1::Welcome::default(),
            sequence: 1,
        };
        let Kind::Welcome(welcome) = attached.hear().await.unwrap() else {
            panic!("the first message is not Welcome")
        };
        attached.welcome = welcome;
        attached
    }

    async fn send(&self, session: &Attached, said: Vec<Said>) -> Result<u64, Status> {
        let messages = said
            .into_iter()
            .map(|said| v1::PeerMessage { kind: Some(said) });
        let call = v1::SendRequest {
            session: session.welcome.session.clone(),
            sequence: session.sequence,
            messages: messages.collect(),
        };
        let answer: v1::SendResponse = self.unary(SEND, call).await?;
        Ok(answer.next_sequence)
    }
}

impl Answers {
    /// The next message; `None` at an end in order.
    async fn next<T: Message + Default>(&mut self) -> Result<Option<T>, Status> {
        let early = Status::from_header_map(self.response.headers());
        if let Some(status) = early.filter(|status| status.code() != Code::Ok) {
            return Err(status);
        }
        let Some((flags, frame)) = self.frame().await else {
            panic!("the answer ended without trailers")
        };
        if flags & 0x80 == 0 {
            return Ok(Some(T::decode(&frame[..]).unwrap()));
        }
        let lines = String::from_utf8(frame).unwrap();
        let trailers = lines.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.parse().ok()?, value.trim().parse().ok()?))
        });
        let status = Status::from_header_map(&trailers.collect()).unwrap();
        if status.code() == Code::Ok {
            Ok(None)
        } else {
            Err(status)
        }
    }

    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [flags, a, b, c, d, rest @ ..] = &self.bytes[..] {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= length {
                    let frame = (*flags, rest[..length].to_vec());
                    self.bytes.drain(..5 + length);
                    return Some(frame);
                }
            }
            let more = within(self.response.chunk()).await.unwrap()?;
            self.bytes.extend_from_slice(&more);
        }
    }
}

/// A session of a page.
struct Attached {
    answers: Answers,
    welcome: v1::Welcome,
    sequence: u64,
}

impl Attached {
    async fn hear(&mut self) -> Result<Kind, Status> {
        let message: Option<v1::NodeMessage> = self.answers.next().await?;
        Ok(message.and_then(|message| message.kind).unwrap())
    }

    async fn assignment(&mut self) -> v1::Assignment {
        loop {
            if let Kind::Assignment(assignment) = self.hear().await.unwrap() {
                return assignment;
            }
        }
    }

    /// Hears until the stream ends.
    async fn end(mut self) -> Status {
        loop {
            match self.answers.next::<v1::NodeMessage>().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the stream ended in order"),
                Err(status) => return status,
            }
        }
    }
}

fn report(bytes: u64) -> Said {
    Said::Report(v1::Report {
        bytes_from_cdn: bytes,
        ..v1::Report::default()
    })
}

fn flowing(assignment: &v1::Assignment) -> Vec<Said> {
    let generation = assignment.generation;
    let events = assignment.tracks.iter().map(|track| {
        Said::SourceEvent(v1::SourceEvent {
            track: track.track.clone(),
            stripe: track.stripe,
            source: track.source.clone(),
            state: v1::SourceState::Flowing.into(),
            generation,
        })
    });
    let acknowledge = Said::Acknowledge(v1::Acknowledge { generation });
    std::iter::once(acknowledge).chain(events).collect()
}

#[tokio::test]
async fn the_api_answers_pages_over_http_1() {
    let node = TestNode::dev().await;
    node.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let page = Page::of(&node, &node.token);
    let get = v1::GetChannelRequest {
        name: "channels/news".to_owned(),
    };
    let channel: v1::Channel = page
        .unary("espalier.v1.ChannelService/GetChannel", get.clone())
        .await
        .unwrap();
    assert_eq!(channel.name, "channels/news");
    let watch = v1::WatchChannelRequest {
        name: "channels/news".to_owned(),
    };
    let mut states = page
        .call("espalier.v1.ChannelService/WatchChannel", watch)
        .await;
    let headers = states.response.headers().clone();
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["content-type"], "application/grpc-web+proto");
    assert!(states.next::<v1::Channel>().await.unwrap().is_some());

    // What is refused before a service sees it is as readable as what a service refuses.
    let stranger = Page::of(&node, "");
    let refused = stranger
        .unary::<v1::Channel>("espalier.v1.ChannelService/GetChannel", get.clone())
        .await
        .unwrap_err();
    assert_refused(&refused, Code::Unauthenticated, "TOKEN_MISSING");
    let none = v1::GetChannelRequest {
        name: "channels/none".to_owned(),
    };
    let missing = page
        .unary::<v1::Channel>("espalier.v1.ChannelService/GetChannel", none)
        .await
        .unwrap_err();
    assert_refused(&missing, Code::NotFound, "CHANNEL_NOT_FOUND");
    drop(states);
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_page_that_calls_too_often_can_read_that_it_does() {
    let node = TestNode::start(NodeConfig {
        limits: Limits {
            calls_per_second_per_address: 1,
            ..Limits::default()
        },
        ..NodeConfig::dev()
    })
    .await;
    let page = Page::of(&node, &node.token);
    let list = v1::ListChannelsRequest::default();
    let refused = until(|| async {
        let mut answers = page
            .call("espalier.v1.ChannelService/ListChannels", list.clone())
            .await;
        let headers = answers.response.headers().clone();
        let refused = answers.next::<v1::ListChannelsResponse>().await.err()?;
        Some((refused, headers))
    })
    .await;
    assert_refused(&refused.0, Code::ResourceExhausted, "RATE_LIMIT");
    assert_eq!(refused.1["access-control-allow-origin"], PAGE);
    let shown = refused.1["access-control-expose-headers"].to_str().unwrap();
    assert!(shown.contains("grpc-status"), "{shown}");
    node.node.shutdown().await;
}

#[tokio::test]
async fn only_pages_of_admitted_origins_are_given_leave() {
    let listed = WebOrigins::Listed(vec!["https://example.com".to_owned()]);
    let table = [
        (WebOrigins::Local, PAGE, true),
        (WebOrigins::Local, "https://example.com", false),
        (listed.clone(), "https://example.com", true),
        (listed.clone(), "https://example.com.evil.test", false),
        (listed, PAGE, false),
        (WebOrigins::Any, "https://evil.test", true),
    ];
    for (web_origins, origin, admitted) in table {
        let node = TestNode::start(NodeConfig {
            web_origins: web_origins.clone(),
            ..NodeConfig::dev()
        })
        .await;
        let page = Page::of(&node, "");
        let asked = page
            .http
            .request(Method::OPTIONS, format!("{}/{SEND}", page.endpoint))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent",
            );
        let answer = within(asked.send()).await.unwrap();
        let case = format!("{web_origins:?} {origin}");
        assert_eq!(answer.status(), StatusCode::OK, "{case}");
        let given = answer.headers().get("access-control-allow-origin");
        let given = given.map(|origin| origin.to_str().unwrap().to_owned());
        assert_eq!(given, admitted.then(|| origin.to_owned()), "{case}");
        let headers = answer.headers()["access-control-allow-headers"].to_str();
        let headers = headers.unwrap().to_owned();
        for needed in [
            "authorization",
            "content-type",
            "grpc-timeout",
            "x-grpc-web",
        ] {
            assert!(headers.contains(needed), "{headers}");
        }
        assert_eq!(answer.headers()["access-control-allow-methods"], "POST");
        let credentials = answer.headers().get("access-control-allow-credentials");
        assert!(credentials.is_none(), "there are no cookies: {case}");
        node.node.shutdown().await;
    }
}

#[tokio::test]
async fn a_cluster_is_watched_without_asking_twice() {
    let node = TestNode::dev().await;
    let page = Page::of(&node, &node.token);
    let mut states = page
        .call(
            "espalier.v1.ClusterService/WatchCluster",
            v1::WatchClusterRequest {},
        )
        .await;
    let first: v1::Cluster = states.next().await.unwrap().unwrap();
    assert_eq!(first.nodes.len(), 1);
    node.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let held = |cluster: &v1::Cluster| cluster.shards.iter().map(|it| it.channels).sum::<u32>();
    assert_eq!(held(&first), 0);
    let mut latest = first;
    while held(&latest) == 0 {
        latest = states.next().await.unwrap().unwrap();
    }
    within(node.node.shutdown()).await;
}

#[tokio::test]
async fn pages_are_served_beside_the_api() {
    let node = TestNode::dev().await;
    let page = Page::of(&node, "");
    for path in ["/", "/watch/news"] {
        let url = format!("{}{path}", page.endpoint);
        let answer = within(page.http.get(url).send()).await.unwrap();
        let policy = answer.headers()["content-security-policy"].to_str();
        assert!(policy.unwrap().contains("default-src 'none'"), "{path}");
        let built = answer.status() == StatusCode::OK;
        let text = answer.text().await.unwrap();
        let said = if built {
            "<!doctype html>"
        } else {
            "npm run build"
        };
        assert!(text.contains(said), "{path}: {text}");
    }
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_page_and_a_native_peer_are_peers_of_one_tree() {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    node.tracks("news").await;
    let token = node.viewer_token("news").await;
    let page = Page::of(&node, &token);
    let mut browser = page.attach(open("news", 1)).await;
    assert_eq!(browser.welcome.session.len(), 24);
    let assignment = browser.assignment().await;
    assert!(is_cdn(assignment.tracks[0].source.as_ref()));
    browser.sequence = page.send(&browser, flowing(&assignment)).await.unwrap();
    let root = |node: &v1::Node| node.state() == v1::NodeState::Active && node.depth == 1;
    node.node_when("news", 1, root).await;

    let mut native = FakePeer::join(&node, &token, open("news", 2))
        .await
        .unwrap();
    assert!(native.welcome.session.is_empty(), "a stream has no name");
    let theirs = native
        .assigned(|assignment| !assignment.tracks.is_empty())
        .await;
    let source = theirs.tracks[0].source.clone().and_then(|it| it.kind);
    assert_eq!(source, Some(v1::source::Kind::Peer(hex(1))));

    // Signals pass both ways.
    let signal = |to: u64, sdp: &str| {
        Said::Signal(v1::Signal {
            peer: hex(to),
            attempt: 7,
            kind: Some(v1::signal::Kind::OfferSdp(sdp.to_owned())),
        })
    };
    native.say(signal(1, "from native")).await;
    let heard = loop {
        if let Kind::Signal(signal) = browser.hear().await.unwrap() {
            break signal;
        }
    };
    assert_eq!(heard.peer, hex(2));
    browser.sequence = page
        .send(&browser, vec![signal(2, "from a page")])
        .await
        .unwrap();
    let heard = loop {
        if let Kind::Signal(signal) = native.hear().await.unwrap() {
            break signal;
        }
    };
    assert_eq!(heard.peer, hex(1));

    let left = page.send(&browser, vec![Said::Leave(v1::Leave {})]).await;
    assert_eq!(left.unwrap(), browser.sequence + 1);
    assert_eq!(browser.end().await.code(), Code::Ok);
    until(|| async { (!node.nodes("news").await.contains_key(&hex(1))).then_some(()) }).await;
    node.node.shutdown().await;
}

#[tokio::test]
async fn what_is_sent_again_is_heard_once() {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    node.tracks("news").await;
    let token = node.viewer_token("news").await;
    let page = Page::of(&node, &token);
    let mut browser = page.attach(open("news", 1)).await;
    browser.assignment().await;
    assert_eq!(
        page.send(&browser, vec![report(1), report(2)])
            .await
            .unwrap(),
        3
    );
    let again = page
        .send(&browser, vec![report(1), report(2), report(3)])
        .await;
    assert_eq!(again.unwrap(), 4);
    let seen = |node: &v1::Node| node.health.is_some_and(|health| health.bytes_from_cdn == 3);
    node.node_when("news", 1, seen).await;
    browser.sequence = 9;
    let gap = page.send(&browser, vec![report(9)]).await.unwrap_err();
    assert_refused(&gap, Code::OutOfRange, "SEQUENCE_GAP");
    // A message that is wrong ends the session, and its stream says why.
    browser.sequence = 4;
    let wrong = Said::Acknowledge(v1::Acknowledge { generation: None });
    page.send(&browser, vec![wrong]).await.unwrap();
    let session = browser.welcome.session.clone();
    assert_invalid(&browser.end().await, &["acknowledge.generation"]);
    let call = v1::SendRequest {
        session,
        sequence: 5,
        messages: Vec::new(),
    };
    let gone = until(|| async {
        page.unary::<v1::SendResponse>(SEND, call.clone())
            .await
            .err()
    })
    .await;
    assert_refused(&gone, Code::NotFound, "SESSION_ENDED");
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_page_that_is_cut_off_resumes_with_its_ticket() {
    let node = TestNode::dev().await;
    node.create("news", &origin().await).await;
    node.tracks("news").await;
    let token = node.viewer_token("news").await;
    let page = Page::of(&node, &token);
    let mut first = page.attach(open("news", 1)).await;
    let assignment = first.assignment().await;
    first.sequence = page.send(&first, flowing(&assignment)).await.unwrap();
    node.node_when("news", 1, |node| node.state() == v1::NodeState::Active)
        .await;

    let old = v1::SendRequest {
        session: first.welcome.session.clone(),
        sequence: first.sequence,
        messages: Vec::new(),
    };
    let ticket = first.welcome.ticket.clone();
    drop(first);
    // The node notices by itself that the stream is gone, and keeps the peer's place.
    node.node_when("news", 1, |node| !node.session).await;
    let gone = page.unary::<v1::SendResponse>(SEND, old).await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "SESSION_ENDED");

    let thief = page
        .call(
            ATTACH,
            v1::AttachRequest {
                open: Some(open("news", 1)),
            },
        )
        .await
        .next::<v1::NodeMessage>()
        .await
        .unwrap_err();
    assert_refused(&thief, Code::AlreadyExists, "PEER_ATTACHED");
    let mut second = page
        .attach(v1::Open {
            ticket,
            generation: assignment.generation,
            ..open("news", 1)
        })
        .await;
    assert_ne!(second.welcome.session, Vec::<u8>::new());
    node.node_when("news", 1, |node| node.session).await;
    second.sequence = page.send(&second, vec![report(5)]).await.unwrap();
    let seen = |node: &v1::Node| node.health.is_some_and(|health| health.bytes_from_cdn == 5);
    node.node_when("news", 1, seen).await;
    node.node.shutdown().await;
}

#[tokio::test]
async fn a_session_of_a_page_needs_a_token_and_an_open() {
    let node = TestNode::dev().await;
    node.create("news", "http://127.0.0.1:1/x.m3u8").await;
    let token = node.viewer_token("news").await;
    let attach = async |token: &str, open: Option<v1::Open>| {
        let page = Page::of(&node, token);
        let mut answers = page.call(ATTACH, v1::AttachRequest { open }).await;
        answers.next::<v1::NodeMessage>().await.unwrap_err()
    };
    let stranger = attach("", Some(open("news", 1))).await;
    assert_refused(&stranger, Code::Unauthenticated, "TOKEN_MISSING");
    let nothing = attach(&token, None).await;
    assert_refused(&nothing, Code::InvalidArgument, "OUT_OF_ORDER");
    node.node.shutdown().await;
}
