//! Two peers' links over a network in memory; the test carries the signals.

use bytes::Bytes;
use espalier_peer_core::frame::Frame;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::transport::MemoryNetwork;

const DEADLINE: Duration = Duration::from_secs(20);
const LOW: PeerId = PeerId(1);
const HIGH: PeerId = PeerId(2);

struct Side {
    me: PeerId,
    links: Links,
    from_transport: mpsc::Receiver<TransportEvent>,
    told: Vec<Event>,
    said: VecDeque<v1::Signal>,
}

impl Side {
    fn new(network: &MemoryNetwork, me: PeerId) -> Self {
        let (events, from_transport) = mpsc::channel(64);
        let transport = Arc::new(network.transport(&me.to_string()));
        let links = Links::new(me, transport, events);
        Self {
            me,
            links,
            from_transport,
            told: Vec::new(),
            said: VecDeque::new(),
        }
    }

    fn collect(&mut self) {
        while let Some(outcome) = self.links.poll() {
            match outcome {
                Outcome::Engine(event) => self.told.push(event),
                Outcome::Signal(signal) => self.said.push_back(*signal),
            }
        }
    }

    fn is_up(&self) -> bool {
        self.told
            .iter()
            .any(|event| matches!(event, Event::LinkUp { .. }))
    }

    fn down(&self) -> Option<LinkDown> {
        self.told.iter().find_map(|event| {
            if let Event::LinkDown { reason, .. } = event {
                Some(*reason)
            } else {
                None
            }
        })
    }

    fn failure(&self) -> Option<&str> {
        self.told.iter().find_map(|event| {
            if let Event::LinkFailed { reason, .. } = event {
                Some(reason.as_str())
            } else {
                None
            }
        })
    }
}

/// Carries signals and events until `done` holds.
async fn carry(low: &mut Side, high: &mut Side, done: impl Fn(&Side, &Side) -> bool) {
    let work = async {
        loop {
            low.collect();
            high.collect();
            while let Some(mut signal) = low.said.pop_front() {
                signal.peer = low.me.to_string();
                high.links.signal(signal);
            }
            while let Some(mut signal) = high.said.pop_front() {
                signal.peer = high.me.to_string();
                low.links.signal(signal);
            }
            low.collect();
            high.collect();
            if done(low, high) {
                return;
            }
            if !low.said.is_empty() || !high.said.is_empty() {
                continue;
            }
            tokio::select! {
                Some(event) = low.from_transport.recv() => low.links.handle(event),
                Some(event) = high.from_transport.recv() => high.links.handle(event),
            }
        }
    };
    timeout(DEADLINE, work).await.expect("it took too long");
}

fn sides() -> (Side, Side) {
    let network = MemoryNetwork::new();
    (Side::new(&network, LOW), Side::new(&network, HIGH))
}

fn both_up(low: &Side, high: &Side) -> bool {
    low.is_up() && high.is_up()
}

fn bye(reason: &str) -> OutgoingFrame {
    Frame::Bye {
        reason: reason.to_owned(),
    }
    .encode()
}

#[tokio::test]
async fn a_link_opens_and_carries_frames_in_order() {
    let (mut low, mut high) = sides();
    low.links.connect(HIGH, LinkSide::Await);
    high.links.connect(LOW, LinkSide::Offer);
    // What is sent before the link is open waits for it.
    high.links.send(LOW, bye("0"));
    carry(&mut low, &mut high, both_up).await;
    for index in 1..50 {
        high.links.send(LOW, bye(&index.to_string()));
    }
    let frames = |side: &Side| -> Vec<Bytes> {
        let frame = |event: &Event| {
            if let Event::Frame { bytes, .. } = event {
                Some(bytes.clone())
            } else {
                None
            }
        };
        side.told.iter().filter_map(frame).collect()
    };
    carry(&mut low, &mut high, |low, _| frames(low).len() == 50).await;
    let expected: Vec<Bytes> = (0..50).map(|i| bye(&i.to_string()).to_bytes()).collect();
    assert_eq!(frames(&low), expected);
}

#[tokio::test]
async fn an_offer_that_outran_its_assignment_is_found_when_that_comes() {
    let (mut low, mut high) = sides();
    high.links.connect(LOW, LinkSide::Offer);
    carry(&mut low, &mut high, |low, _| !low.links.waiting.is_empty()).await;
    low.links.connect(HIGH, LinkSide::Await);
    carry(&mut low, &mut high, both_up).await;
    assert!(low.links.waiting.is_empty());
}

#[tokio::test]
async fn an_offer_that_nobody_asked_for_is_refused_in_the_end() {
    let (mut low, mut high) = sides();
    high.links.connect(LOW, LinkSide::Offer);
    carry(&mut low, &mut high, |low, _| !low.links.waiting.is_empty()).await;
    low.links.expire(Instant::now());
    assert!(!low.links.waiting.is_empty(), "it may still be asked for");
    low.links.expire(Instant::now() + PATIENCE);
    carry(&mut low, &mut high, |_, high| high.failure().is_some()).await;
    assert_eq!(high.failure(), Some("refused: no such link is assigned"));
}

#[tokio::test]
async fn if_both_offer_one_link_opens() {
    let (mut low, mut high) = sides();
    low.links.connect(HIGH, LinkSide::Offer);
    high.links.connect(LOW, LinkSide::Offer);
    carry(&mut low, &mut high, both_up).await;
    for side in [&low, &high] {
        assert_eq!(side.links.slots.len(), 1);
        assert_eq!((side.down(), side.failure()), (None, None));
    }
}

#[tokio::test]
async fn a_disconnected_link_is_silent_here_and_down_there() {
    let (mut low, mut high) = sides();
    low.links.connect(HIGH, LinkSide::Await);
    high.links.connect(LOW, LinkSide::Offer);
    carry(&mut low, &mut high, both_up).await;
    high.links.disconnect(LOW);
    carry(&mut low, &mut high, |low, _| low.down().is_some()).await;
    assert_eq!(low.down(), Some(LinkDown::Closed));
    assert_eq!((high.down(), high.failure()), (None, None));
    assert!(low.links.slots.is_empty() && low.links.owners.is_empty());
}

#[tokio::test]
async fn an_offer_for_an_open_link_says_that_the_other_end_lost_it() {
    let (mut low, mut high) = sides();
    low.links.connect(HIGH, LinkSide::Await);
    high.links.connect(LOW, LinkSide::Offer);
    carry(&mut low, &mut high, both_up).await;
    // The other end begins again without a word about the old link.
    high.told.clear();
    high.links.slots.clear();
    high.links.owners.clear();
    high.links.connect(LOW, LinkSide::Offer);
    carry(&mut low, &mut high, |low, _| low.down().is_some()).await;
    low.told.clear();
    low.links.connect(HIGH, LinkSide::Await);
    carry(&mut low, &mut high, both_up).await;
}

#[tokio::test]
async fn garbage_from_the_control_plane_changes_nothing() {
    let (mut low, _high) = sides();
    low.links.connect(HIGH, LinkSide::Await);
    let signal = |peer: &str, kind| v1::Signal {
        peer: peer.to_owned(),
        attempt: 7,
        kind,
    };
    let high = HIGH.to_string();
    for signal in [
        signal("nobody", Some(Kind::OfferSdp("x".to_owned()))),
        signal(&high, None),
        signal(&high, Some(Kind::AnswerSdp("garbage".to_owned()))),
        signal(&high, Some(Kind::Candidate("garbage".to_owned()))),
        signal(&high, Some(Kind::Refused("why not".to_owned()))),
    ] {
        low.links.signal(signal);
    }
    low.collect();
    assert!(low.told.is_empty() && low.said.is_empty());
    for _ in 0..2 * MAX_WAITING {
        low.links.signal(signal(
            "00000000000000ff",
            Some(Kind::Candidate(String::new())),
        ));
    }
    assert_eq!(low.links.waiting.len(), MAX_WAITING);
}
