//! Real links on loopback. One test at a time: some count the process's sockets.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the events that it expects"
)]

use std::collections::HashSet;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::timeout;

use super::super::*;
use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// Longer than anything here takes to react; a wait that ends by it means "nothing more comes".
const QUIET: Duration = Duration::from_millis(500);

static ALONE: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

fn config() -> TransportConfig {
    TransportConfig {
        bind: vec!["127.0.0.1".parse().unwrap()],
        ..TransportConfig::default()
    }
}

fn transport() -> WebRtcTransport {
    WebRtcTransport::new(config()).unwrap()
}

/// One side of a link.
struct End {
    link: Arc<dyn Link>,
    events: mpsc::Receiver<TransportEvent>,
}

impl End {
    async fn next(&mut self) -> TransportEvent {
        timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    async fn frame(&mut self) -> Bytes {
        loop {
            match self.next().await {
                TransportEvent::Frame { bytes, .. } => return bytes,
                TransportEvent::Closed { reason, .. } => panic!("closed: {reason}"),
                _ => {}
            }
        }
    }

    /// Sends, waiting for room; events but `Writable` are lost.
    async fn send(&mut self, message: &[u8]) {
        loop {
            match self.link.try_send(&[], message) {
                Ok(()) => return,
                Err(SendError::Full { .. }) => {
                    while !matches!(self.next().await, TransportEvent::Writable { .. }) {}
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn closed(&mut self) -> CloseReason {
        let reason = loop {
            if let TransportEvent::Closed { reason, .. } = self.next().await {
                break reason;
            }
        };
        assert!(self.events.try_recv().is_err(), "nothing follows Closed");
        reason
    }
}

/// In which order the answering side's signals reach the offering side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AsSent,
    CandidatesFirst,
}

/// Connects two transports the way an agent does; returns the child's end and the parent's.
async fn connect(child: &dyn Transport, parent: &dyn Transport) -> (End, End) {
    connect_with(child, parent, Order::AsSent, 64).await
}

async fn connect_with(
    child: &dyn Transport,
    parent: &dyn Transport,
    order: Order,
    capacity: usize,
) -> (End, End) {
    let (child_sender, mut child_events) = mpsc::channel(capacity);
    let (parent_sender, mut parent_events) = mpsc::channel(capacity);
    let offering = child.offer(LinkId(1), child_sender).unwrap();
    let mut accepting: Option<Arc<dyn Link>> = None;
    let (mut child_open, mut parent_open) = (false, false);
    let mut held_answer = None;
    let handshake = async {
        while !(child_open && parent_open) {
            tokio::select! {
                Some(event) = child_events.recv() => match event {
                    TransportEvent::Signal { signal: Signal::Offer(sdp), .. } => {
                        let sender = parent_sender.clone();
                        accepting = Some(parent.accept(LinkId(2), sdp, sender).unwrap());
                    }
                    TransportEvent::Signal { signal, .. } => {
                        accepting.as_ref().expect("the offer comes first").signal(signal).unwrap();
                    }
                    TransportEvent::Open { .. } => child_open = true,
                    other => panic!("unexpected {other:?}"),
                },
                Some(event) = parent_events.recv() => match event {
                    TransportEvent::Signal { signal: Signal::Answer(sdp), .. }
                        if order == Order::CandidatesFirst =>
                    {
                        held_answer = Some(sdp);
                    }
                    TransportEvent::Signal { signal, .. } => {
                        let last = signal == Signal::Candidate(String::new());
                        offering.signal(signal).unwrap();
                        if last && let Some(sdp) = held_answer.take() {
                            offering.signal(Signal::Answer(sdp)).unwrap();
                        }
                    }
                    TransportEvent::Open { .. } => parent_open = true,
                    other => panic!("unexpected {other:?}"),
                },
            }
        }
    };
    timeout(DEADLINE, handshake)
        .await
        .expect("the link opens in time");
    let accepting = accepting.expect("there was an offer");
    (
        End {
            link: offering,
            events: child_events,
        },
        End {
            link: accepting,
            events: parent_events,
        },
    )
}

/// The offer that a transport makes, its link, and where its events go.
async fn offer_of(transport: &WebRtcTransport) -> (String, End) {
    let (sender, events) = mpsc::channel(64);
    let mut end = End {
        link: transport.offer(LinkId(1), sender).unwrap(),
        events,
    };
    match end.next().await {
        TransportEvent::Signal {
            signal: Signal::Offer(sdp),
            ..
        } => (sdp, end),
        other => panic!("the offer comes first, not {other:?}"),
    }
}

fn udp_sockets() -> HashSet<String> {
    let mut known = HashSet::new();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        known.extend(
            text.lines()
                .skip(1)
                .filter_map(|l| l.split_whitespace().nth(9))
                .map(str::to_owned),
        );
    }
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let target = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .to_owned();
            known.contains(&target).then_some(target)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_frames_and_pings_both_ways() {
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    let (mut child, mut parent) = connect(&a, &b).await;
    assert_eq!((child.link.id(), parent.link.id()), (LinkId(1), LinkId(2)));
    child.link.try_send(b"head", b"+body").unwrap();
    assert_eq!(parent.frame().await, Bytes::from_static(b"head+body"));
    parent
        .link
        .try_send(&[], &vec![7; MAX_MESSAGE_BYTES])
        .unwrap();
    assert_eq!(child.frame().await, Bytes::from(vec![7; MAX_MESSAGE_BYTES]));
    for (from, to) in [(&mut child, &mut parent)] {
        from.link.try_ping(b"12345678").unwrap();
        loop {
            if let TransportEvent::Ping { bytes, .. } = to.next().await {
                assert_eq!(bytes, Bytes::from_static(b"12345678"));
                break;
            }
        }
    }
    assert_eq!(
        child.link.try_send(&[0], &vec![0; MAX_MESSAGE_BYTES]),
        Err(SendError::TooLarge {
            bytes: MAX_MESSAGE_BYTES + 1,
            limit: MAX_MESSAGE_BYTES
        })
    );
    assert_eq!(
        child.link.try_ping(&[0; MAX_PING_BYTES + 1]),
        Err(SendError::TooLarge {
            bytes: MAX_PING_BYTES + 1,
            limit: MAX_PING_BYTES
        })
    );
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opens_when_candidates_come_before_the_answer() {
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    let (child, mut parent) = connect_with(&a, &b, Order::CandidatesFirst, 64).await;
    child.link.try_send(b"x", b"").unwrap();
    assert_eq!(parent.frame().await, Bytes::from_static(b"x"));
    a.shutdown().await;
    b.shutdown().await;
}

/// The crate loses what arrives on a channel a moment before it has opened it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_at_once_arrives() {
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    for _ in 0..20 {
        let (child_sender, mut child_events) = mpsc::channel(64);
        let (parent_sender, mut parent_events) = mpsc::channel(64);
        let child = a.offer(LinkId(1), child_sender).unwrap();
        let mut parent: Option<Arc<dyn Link>> = None;
        let (mut from_parent, mut from_child) = (None, None);
        let exchange = async {
            while from_parent.is_none() || from_child.is_none() {
                tokio::select! {
                    Some(event) = child_events.recv() => match event {
                        TransportEvent::Signal { signal: Signal::Offer(sdp), .. } => {
                            parent = Some(b.accept(LinkId(2), sdp, parent_sender.clone()).unwrap());
                        }
                        TransportEvent::Signal { signal, .. } => {
                            parent.as_ref().unwrap().signal(signal).unwrap();
                        }
                        TransportEvent::Open { .. } => child.try_send(b"hello", b"").unwrap(),
                        TransportEvent::Frame { bytes, .. } => from_parent = Some(bytes),
                        TransportEvent::Writable { .. } => {}
                        other => panic!("unexpected {other:?}"),
                    },
                    Some(event) = parent_events.recv() => match event {
                        TransportEvent::Signal { signal, .. } => child.signal(signal).unwrap(),
                        TransportEvent::Open { .. } => {
                            parent.as_ref().unwrap().try_send(b"hello", b"").unwrap();
                        }
                        TransportEvent::Frame { bytes, .. } => from_child = Some(bytes),
                        TransportEvent::Writable { .. } => {}
                        other => panic!("unexpected {other:?}"),
                    },
                }
            }
        };
        timeout(DEADLINE, exchange)
            .await
            .expect("both first frames arrive");
        assert_eq!(from_child, Some(Bytes::from_static(b"hello")));
        assert_eq!(from_parent, Some(Bytes::from_static(b"hello")));
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transfer_arrives_whole_and_in_order() {
    const MESSAGES: u32 = 400;
    const BYTES: usize = 61_440;
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    let (mut child, mut parent) = connect(&a, &b).await;
    let sending = tokio::spawn(async move {
        let mut hash = Sha256::new();
        for number in 0..MESSAGES {
            let mut message = vec![u8::try_from(number % 251).unwrap(); BYTES];
            message[..4].copy_from_slice(&number.to_be_bytes());
            hash.update(&message);
            parent.send(&message).await;
        }
        (hash.finalize(), parent)
    });
    let mut hash = Sha256::new();
    for number in 0..MESSAGES {
        let frame = child.frame().await;
        assert_eq!(frame.len(), BYTES);
        assert_eq!(frame[..4], number.to_be_bytes());
        hash.update(&frame);
    }
    let (sent, mut parent) = timeout(DEADLINE, sending).await.unwrap().unwrap();
    assert_eq!(hash.finalize(), sent);
    let acknowledged = async {
        while parent.link.buffered() > 0 {
            parent.next().await;
        }
    };
    timeout(DEADLINE, acknowledged)
        .await
        .expect("all of it is acknowledged in the end");
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_drain_stops_the_sender_and_loses_nothing() {
    const BYTES: usize = 61_440;
    const CAPACITY: usize = 4;
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    let (mut child, mut parent) = connect_with(&a, &b, Order::AsSent, CAPACITY).await;
    let mut accepted: u32 = 0;
    loop {
        match parent.link.try_send(&accepted.to_be_bytes(), &[0; BYTES]) {
            Ok(()) => accepted += 1,
            Err(SendError::Full { buffered }) => {
                assert!(
                    buffered <= config().send_limit,
                    "{buffered} bytes are buffered"
                );
                if timeout(QUIET, parent.events.recv()).await.is_err() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    // The child's event channel, twice the crate's queue of 256 (it retains as many again), SCTP's
    // window, our limit, and those in hand between them.
    let bound = CAPACITY + 2 * 256 + (256 + 256) * 1024 / BYTES + 8;
    assert!(
        usize::try_from(accepted).unwrap() <= bound,
        "{accepted} were taken, over {bound}"
    );
    // Pings have a channel of their own but share the association's window; frames must all be there.
    for number in 0..accepted {
        assert_eq!(child.frame().await[..4], number.to_be_bytes());
    }
    parent.send(b"still alive").await;
    assert_eq!(child.frame().await, Bytes::from_static(b"still alive"));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_delivers_what_was_sent_before_and_is_heard() {
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    let (mut child, mut parent) = connect(&a, &b).await;
    parent.link.try_send(b"bye", b"").unwrap();
    parent.link.close();
    assert_eq!(child.frame().await, Bytes::from_static(b"bye"));
    assert_eq!(child.closed().await, CloseReason::Remote);
    assert_eq!(parent.closed().await, CloseReason::Local);
    assert_eq!(parent.link.try_send(b"x", b""), Err(SendError::NotOpen));
    assert_eq!(parent.link.try_ping(b"x"), Err(SendError::NotOpen));
    assert_eq!(
        child.link.signal(Signal::Candidate("late".to_owned())),
        Ok(())
    );
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_links_leave_no_task_and_no_socket() {
    let _alone = alone().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (tasks_before, sockets_before) = (tasks(), udp_sockets());
    let (a, b) = (transport(), transport());
    for _ in 0..5 {
        let (mut child, mut parent) = connect(&a, &b).await;
        assert!(udp_sockets().len() >= sockets_before.len() + 2);
        child.link.close();
        assert_eq!(child.closed().await, CloseReason::Local);
        assert_eq!(parent.closed().await, CloseReason::Remote);
    }
    let (child, parent) = connect(&a, &b).await;
    let (_sdp, unanswered) = offer_of(&a).await;
    drop((child, parent, unanswered));
    a.shutdown().await;
    b.shutdown().await;
    assert_eq!(udp_sockets(), sockets_before);
    // A task's future ends a moment before the runtime stops counting it.
    let ended = async {
        while tasks() > tasks_before {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, ended).await.expect("every task ends");
    let (sender, _events) = mpsc::channel(1);
    assert!(matches!(
        a.offer(LinkId(9), sender),
        Err(LinkError::ShutDown)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_handle_closes_the_link() {
    let _alone = alone().await;
    let (a, b) = (transport(), transport());
    let (End { link, mut events }, mut parent) = connect(&a, &b).await;
    drop(link);
    assert_eq!(parent.closed().await, CloseReason::Remote);
    let last = timeout(DEADLINE, async {
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event);
        }
        last
    });
    let closed = TransportEvent::Closed {
        link: LinkId(1),
        reason: CloseReason::Local,
    };
    assert_eq!(last.await.unwrap(), Some(closed));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_nobody_answers_fails_in_time() {
    let _alone = alone().await;
    let quick = TransportConfig {
        open_timeout: Duration::from_millis(200),
        ..config()
    };
    let a = WebRtcTransport::new(quick).unwrap();
    let (_sdp, mut end) = offer_of(&a).await;
    assert_eq!(
        end.closed().await,
        CloseReason::Failed("it did not open in time".to_owned())
    );
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_ends_the_link() {
    let _alone = alone().await;
    let a = transport();
    // The parent lives on a runtime that dies without a word, as a killed process does.
    let other = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut child, parent) = {
        let b = Arc::new(transport());
        let entered = other.enter();
        let spawned: Arc<dyn Transport> = Arc::new(OnRuntime(b, other.handle().clone()));
        drop(entered);
        connect(&a, &*spawned).await
    };
    other.shutdown_background();
    drop(parent);
    match child.closed().await {
        CloseReason::Failed(_) => {}
        reason => panic!("closed as {reason:?}"),
    }
    a.shutdown().await;
}

/// Makes links on another runtime.
struct OnRuntime(Arc<WebRtcTransport>, tokio::runtime::Handle);

#[async_trait]
impl Transport for OnRuntime {
    fn offer(&self, link: LinkId, events: EventSender) -> Result<Arc<dyn Link>, LinkError> {
        let _entered = self.1.enter();
        self.0.offer(link, events)
    }

    fn accept(
        &self,
        link: LinkId,
        offer_sdp: String,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError> {
        let _entered = self.1.enter();
        self.0.accept(link, offer_sdp, events)
    }

    fn use_stun(&self, uris: &[String]) {
        self.0.use_stun(uris);
    }

    async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_signals_are_refused() {
    let _alone = alone().await;
    let a = transport();
    let (sdp, mut end) = offer_of(&a).await;
    let candidate = |json: &str| Signal::Candidate(json.to_owned());
    let good = r#"{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 9 typ host","sdpMid":""}"#;
    let malformed = [
        "{",
        "null",
        r#"{"candidate":"candidate:x"}"#,
        r#"{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 99999 typ host"}"#,
        r#"{"candidate":"candidate:1 1 udp 1 127.0.0.1 9 typ srflx raddr 1 rport"}"#,
    ];
    for json in malformed {
        let result = end.link.signal(candidate(json));
        assert!(
            matches!(result, Err(SignalError::Malformed(_))),
            "{json}: {result:?}"
        );
    }
    let large = "x".repeat(MAX_CANDIDATE_BYTES + 1);
    assert!(matches!(
        end.link.signal(candidate(&large)),
        Err(SignalError::TooLarge { .. })
    ));
    assert_eq!(
        end.link.signal(Signal::Offer(sdp.clone())),
        Err(SignalError::Unexpected)
    );
    for _ in malformed.len()..MAX_CANDIDATES {
        assert_eq!(end.link.signal(candidate(good)), Ok(()));
    }
    assert!(matches!(
        end.link.signal(candidate(good)),
        Err(SignalError::TooManyCandidates {
            limit: MAX_CANDIDATES
        })
    ));
    assert_eq!(
        end.link.signal(candidate("")),
        Ok(()),
        "the end of candidates is no candidate"
    );
    let large = "x".repeat(MAX_SDP_BYTES + 1);
    assert!(matches!(
        end.link.signal(Signal::Answer(large.clone())),
        Err(SignalError::TooLarge { .. })
    ));
    assert_eq!(
        end.link.signal(Signal::Answer("garbage".to_owned())),
        Ok(())
    );
    assert_eq!(
        end.link.signal(Signal::Answer(sdp)),
        Err(SignalError::Unexpected)
    );
    assert!(matches!(end.closed().await, CloseReason::BadSignal(_)));
    let (sender, _events) = mpsc::channel(1);
    assert!(matches!(
        a.accept(LinkId(3), large, sender),
        Err(LinkError::OfferTooLarge { .. })
    ));
    a.shutdown().await;
}

/// Whatever is done to an offer, the other side answers it or closes, and lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mangled_offers_end_in_an_answer_or_a_close() {
    let _alone = alone().await;
    let a = transport();
    let (sdp, _end) = offer_of(&a).await;
    let lines: Vec<&str> = sdp.lines().collect();
    let mut offers = vec![
        String::new(),
        "v=0".to_owned(),
        "\0".to_owned(),
        "é".repeat(500),
    ];
    offers.extend((0..sdp.len()).step_by(37).map(|cut| sdp[..cut].to_owned()));
    for leave_out in 0..lines.len() {
        let rest = lines.iter().enumerate().filter(|(at, _)| *at != leave_out);
        offers.push(rest.map(|(_, line)| format!("{line}\r\n")).collect());
    }
    for (from, to) in [
        ("m=application", "m=audio"),
        ("setup:actpass", "setup:active"),
        ("setup:actpass", "setup:holdconn"),
        ("sha-256", "md5"),
        ("ice-pwd:", "ice-pwd"),
        ("a=sctp-port:5000", "a=sctp-port:99999999"),
        ("a=max-message-size:", "a=max-message-size:-"),
        ("a=group:BUNDLE", "a=group:LS"),
    ] {
        offers.push(sdp.replace(from, to));
    }
    for offer in offers {
        let (sender, events) = mpsc::channel(64);
        let mut end = End {
            link: a.accept(LinkId(5), offer.clone(), sender).unwrap(),
            events,
        };
        match end.next().await {
            TransportEvent::Signal {
                signal: Signal::Answer(_),
                ..
            } => end.link.close(),
            TransportEvent::Closed {
                reason: CloseReason::BadSignal(_),
                ..
            } => continue,
            other => panic!("{other:?} after {offer:?}"),
        }
        assert_eq!(end.closed().await, CloseReason::Local);
    }
    a.shutdown().await;
}

/// Answers one STUN binding request (RFC 8489) with a mapped address that is nobody's own.
async fn answer_binding(server: tokio::net::UdpSocket) {
    let mut request = [0; 512];
    let (length, from) = server.recv_from(&mut request).await.unwrap();
    assert!(length >= 20 && request[..2] == [0, 1], "a binding request");
    let mut answer = vec![1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    answer.extend_from_slice(&request[8..20]);
    // XOR-MAPPED-ADDRESS: IPv4, 203.0.113.7 port 4242.
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    answer.extend_from_slice(&(4242_u16 ^ 0x2112).to_be_bytes());
    answer.extend(
        [203, 0, 113, 7]
            .iter()
            .zip([0x21, 0x12, 0xa4, 0x42])
            .map(|(a, b)| a ^ b),
    );
    server.send_to(&answer, from).await.unwrap();
}

#[tokio::test]
async fn a_stun_server_that_the_node_names_gives_a_reflexive_candidate() {
    let _alone = alone().await;
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let transport = transport();
    let uri = format!("stun:{}", server.local_addr().unwrap());
    transport.use_stun(&["turn:ignored.example".to_owned(), uri]);
    tokio::spawn(answer_binding(server));
    let (events, received) = mpsc::channel(64);
    let link = transport.offer(LinkId(1), events).unwrap();
    let mut end = End {
        link,
        events: received,
    };
    loop {
        if let TransportEvent::Signal {
            signal: Signal::Candidate(candidate),
            ..
        } = end.next().await
            && candidate.contains("srflx")
        {
            assert!(candidate.contains("203.0.113.7 4242"), "{candidate}");
            break;
        }
    }
    end.link.close();
    end.closed().await;
    transport.shutdown().await;
}
