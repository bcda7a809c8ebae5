//! Links in memory.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the events that it expects"
)]

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::*;
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// Longer than anything here takes to react; a wait that ends by it means "nothing more comes".
const QUIET: Duration = Duration::from_millis(200);

struct Side {
    link: Arc<dyn Link>,
    events: mpsc::Receiver<TransportEvent>,
}

impl Side {
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

async fn connect(child: &MemoryTransport, parent: &MemoryTransport) -> (Side, Side) {
    let (child_sender, child_events) = mpsc::channel(8);
    let (parent_sender, parent_events) = mpsc::channel(8);
    let link = child.offer(LinkId(1), child_sender).unwrap();
    let mut child = Side {
        link,
        events: child_events,
    };
    let TransportEvent::Signal {
        signal: Signal::Offer(sdp),
        ..
    } = child.next().await
    else {
        panic!("the offer comes first");
    };
    let link = parent.accept(LinkId(2), sdp, parent_sender).unwrap();
    let mut parent = Side {
        link,
        events: parent_events,
    };
    loop {
        match parent.next().await {
            TransportEvent::Signal { signal, .. } => child.link.signal(signal).unwrap(),
            TransportEvent::Open { .. } => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    loop {
        match child.next().await {
            TransportEvent::Signal { signal, .. } => parent.link.signal(signal).unwrap(),
            TransportEvent::Open { .. } => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    (child, parent)
}

fn pair() -> (MemoryNetwork, MemoryTransport, MemoryTransport) {
    let network = MemoryNetwork::new();
    let (child, parent) = (network.transport("child"), network.transport("parent"));
    (network, child, parent)
}

#[tokio::test]
async fn nothing_comes_before_open_though_the_other_end_opens_later() {
    let (network, a, b) = pair();
    let slow = PathConditions {
        latency: Duration::from_millis(100),
        bytes_per_second: None,
    };
    network.with(|state| {
        state
            .paths
            .insert(("parent".to_owned(), "child".to_owned()), slow)
    });
    let (child_sender, mut child_events) = mpsc::channel(8);
    let (parent_sender, mut parent_events) = mpsc::channel(8);
    let child = a.offer(LinkId(1), child_sender).unwrap();
    let Some(TransportEvent::Signal {
        signal: Signal::Offer(sdp),
        ..
    }) = child_events.recv().await
    else {
        panic!("the offer comes first");
    };
    let _parent = b.accept(LinkId(2), sdp, parent_sender).unwrap();
    let parent_said = async |events: &mut mpsc::Receiver<TransportEvent>| {
        timeout(DEADLINE, events.recv()).await.unwrap().unwrap()
    };
    let TransportEvent::Signal { signal, .. } = parent_said(&mut parent_events).await else {
        panic!("the answer comes first");
    };
    child.signal(signal).unwrap();
    while !matches!(child_events.recv().await, Some(TransportEvent::Open { .. })) {}
    child.try_send(b"first", &[]).unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        match parent_said(&mut parent_events).await {
            TransportEvent::Open { .. } => heard.push("open"),
            TransportEvent::Frame { .. } => heard.push("frame"),
            _ => {}
        }
    }
    assert_eq!(heard, ["open", "frame"]);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn carries_frames_and_pings_in_order_after_the_latency() {
    let (network, a, b) = pair();
    let latency = Duration::from_millis(20);
    network.set_path(
        "child",
        "parent",
        PathConditions {
            latency,
            bytes_per_second: None,
        },
    );
    let (child, mut parent) = connect(&a, &b).await;
    let sent = Instant::now();
    for number in 0..3_u8 {
        child.link.try_send(&[number], b"x").unwrap();
    }
    for number in 0..3_u8 {
        assert_eq!(parent.frame().await, Bytes::from(vec![number, b'x']));
    }
    assert!(sent.elapsed() >= latency, "{:?}", sent.elapsed());
    child.link.try_ping(b"12345678").unwrap();
    let ping = TransportEvent::Ping {
        link: LinkId(2),
        bytes: Bytes::from_static(b"12345678"),
    };
    assert_eq!(parent.next().await, ping);
    let too_large = child.link.try_send(&[], &vec![0; MAX_MESSAGE_BYTES + 1]);
    assert!(matches!(too_large, Err(SendError::TooLarge { .. })));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn a_path_takes_no_more_than_its_rate() {
    let (network, a, b) = pair();
    let rate = PathConditions {
        latency: Duration::ZERO,
        bytes_per_second: Some(100_000),
    };
    network.set_path("child", "parent", rate);
    let (child, mut parent) = connect(&a, &b).await;
    let sent = Instant::now();
    for _ in 0..10 {
        child.link.try_send(&[], &[0; 10_000]).unwrap();
    }
    for _ in 0..10 {
        parent.frame().await;
    }
    assert!(
        sent.elapsed() >= Duration::from_millis(999),
        "{:?}",
        sent.elapsed()
    );
}

#[tokio::test]
async fn a_frozen_end_takes_nothing_until_it_thaws() {
    let (network, a, b) = pair();
    let (mut child, mut parent) = connect(&a, &b).await;
    network.freeze("parent", true);
    let message = vec![1; 60_000];
    let mut taken = 0;
    while child.link.try_send(&[], &message).is_ok() {
        taken += 1;
    }
    assert_eq!(child.link.buffered(), taken * message.len());
    assert!(
        timeout(QUIET, parent.events.recv()).await.is_err(),
        "nothing arrives"
    );
    network.freeze("parent", false);
    for _ in 0..taken {
        assert_eq!(parent.frame().await.len(), message.len());
    }
    loop {
        match child.next().await {
            TransportEvent::Writable { buffered: 0, .. } => break,
            TransportEvent::Writable { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_caller_that_does_not_drain_stops_the_sender() {
    let (_network, a, b) = pair();
    let (mut child, mut parent) = connect(&a, &b).await;
    let message = vec![1; 60_000];
    let mut taken = 0;
    loop {
        match child.link.try_send(&[], &message) {
            Ok(()) => taken += 1,
            Err(SendError::Full { .. }) => {
                if timeout(QUIET, child.events.recv()).await.is_err() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(taken < 20, "{taken} messages were taken");
    for _ in 0..taken {
        parent.frame().await;
    }
}

#[tokio::test]
async fn a_close_delivers_what_was_sent_before_and_is_heard() {
    let (_network, a, b) = pair();
    let (mut child, mut parent) = connect(&a, &b).await;
    parent.link.try_send(b"bye", b"").unwrap();
    parent.link.close();
    assert_eq!(child.frame().await, Bytes::from_static(b"bye"));
    assert_eq!(child.closed().await, CloseReason::Remote);
    assert_eq!(parent.closed().await, CloseReason::Local);
    assert_eq!(parent.link.try_send(b"x", b""), Err(SendError::NotOpen));
    a.shutdown().await;
    let (sender, _events) = mpsc::channel(1);
    assert!(matches!(
        a.offer(LinkId(3), sender),
        Err(LinkError::ShutDown)
    ));
}

#[tokio::test]
async fn dropping_the_handle_closes_the_link() {
    let (_network, a, b) = pair();
    let (child, mut parent) = connect(&a, &b).await;
    drop(child.link);
    assert_eq!(parent.closed().await, CloseReason::Remote);
}

#[tokio::test]
async fn a_killed_end_says_nothing() {
    let (network, a, b) = pair();
    let patience = Duration::from_millis(300);
    network.set_patience(patience);
    let (mut child, mut parent) = connect(&a, &b).await;
    let killed = Instant::now();
    network.kill("parent");
    child.link.try_send(&[1], b"").unwrap();
    assert_eq!(
        child.closed().await,
        CloseReason::Failed("the path is failed".to_owned())
    );
    assert!(killed.elapsed() >= patience);
    assert!(
        timeout(QUIET, parent.events.recv()).await.is_err(),
        "a killed end says nothing"
    );
    timeout(DEADLINE, b.shutdown())
        .await
        .expect("its tasks are gone");
    let (sender, _events) = mpsc::channel(1);
    assert!(matches!(
        b.offer(LinkId(3), sender),
        Err(LinkError::ShutDown)
    ));
    let back = network.transport("parent");
    let (_child, _parent) = connect(&a, &back).await;
}

#[tokio::test]
async fn bad_signals_are_refused() {
    let (_network, a, b) = pair();
    let (sender, mut events) = mpsc::channel(8);
    let stranger = b
        .accept(LinkId(7), "memory:nobody:1".to_owned(), sender)
        .unwrap();
    let event = timeout(DEADLINE, events.recv()).await.unwrap();
    assert!(matches!(
        event,
        Some(TransportEvent::Closed {
            reason: CloseReason::BadSignal(_),
            ..
        })
    ));
    assert_eq!(
        stranger.signal(Signal::Candidate("late".to_owned())),
        Ok(())
    );
    let (sender, mut events) = mpsc::channel(8);
    let offering = a.offer(LinkId(8), sender).unwrap();
    assert_eq!(
        offering.signal(Signal::Offer(String::new())),
        Err(SignalError::Unexpected)
    );
    assert_eq!(offering.try_send(b"x", b""), Err(SendError::NotOpen));
    assert_eq!(
        offering.signal(Signal::Answer("garbage".to_owned())),
        Ok(())
    );
    assert_eq!(
        offering.signal(Signal::Answer("again".to_owned())),
        Err(SignalError::Unexpected)
    );
    let closed = async {
        while let Some(event) = events.recv().await {
            if let TransportEvent::Closed { reason, .. } = event {
                return reason;
            }
        }
        panic!("no Closed");
    };
    let reason = timeout(DEADLINE, closed).await.unwrap();
    assert!(matches!(reason, CloseReason::BadSignal(_)), "{reason}");
}

#[tokio::test]
async fn a_link_that_nobody_answers_fails_in_time() {
    let (network, a, _b) = pair();
    network.set_patience(Duration::from_millis(50));
    let (sender, events) = mpsc::channel(8);
    let mut side = Side {
        link: a.offer(LinkId(1), sender).unwrap(),
        events,
    };
    assert_eq!(
        side.closed().await,
        CloseReason::Failed("it did not open in time".to_owned())
    );
}
