//! One end of a link in memory: its handshake, its carrying, its close.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::super::{CloseReason, EventSender, LinkId, SendError, Signal, TransportEvent};
use super::link::MemoryLink;
use super::{Endpoint, MemoryNetwork};

/// How long a closing link may take to get rid of what was sent before.
const DRAIN_LIMIT: Duration = Duration::from_millis(100);

/// Messages between leaving and arriving; the send limit bounds their bytes.
const IN_FLIGHT: usize = 1024;

/// How an end begins.
#[derive(Debug)]
pub(super) enum Start {
    Offer,
    Accept(String),
}

/// What the handle puts in.
#[derive(Debug)]
pub(super) struct Queues {
    frames: mpsc::Receiver<Bytes>,
    pings: mpsc::Receiver<Bytes>,
    answers: mpsc::Receiver<String>,
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct End {
    pub(super) id: LinkId,
    pub(super) closing: CancellationToken,
    network: MemoryNetwork,
    patience: Duration,
    endpoint: Endpoint,
    events: EventSender,
    other: OnceLock<Arc<End>>,
    open: AtomicBool,
    buffered: AtomicUsize,
    acknowledged: Notify,
    emptied: Notify,
    /// Set off when the offering end has the answer: both ends are open one latency later.
    answered: CancellationToken,
    /// Set off when this end's `Open` was emitted: nothing may come before it.
    told_open: CancellationToken,
    closed_by_other: CancellationToken,
}

impl End {
    pub(super) fn new(
        network: MemoryNetwork,
        endpoint: Endpoint,
        id: LinkId,
        events: EventSender,
        closing: CancellationToken,
        offering: bool,
    ) -> (Arc<Self>, MemoryLink, Queues) {
        let end = Arc::new(Self {
            id,
            closing: closing.clone(),
            patience: network.patience(),
            network,
            endpoint,
            events,
            other: OnceLock::new(),
            open: AtomicBool::new(false),
            buffered: AtomicUsize::new(0),
            acknowledged: Notify::new(),
            emptied: Notify::new(),
            answered: CancellationToken::new(),
            told_open: CancellationToken::new(),
            closed_by_other: CancellationToken::new(),
        });
        let (frames, frames_end) = mpsc::channel(IN_FLIGHT);
        let (pings, pings_end) = mpsc::channel(4);
        let (answers, answers_end) = mpsc::channel(1);
        let link = MemoryLink {
            end: Arc::clone(&end),
            frames,
            pings,
            answers,
            candidates: AtomicUsize::new(0),
            awaits_answer: AtomicBool::new(offering),
            _closes_when_dropped: closing.drop_guard(),
        };
        (
            end,
            link,
            Queues {
                frames: frames_end,
                pings: pings_end,
                answers: answers_end,
            },
        )
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Acquire)
    }

    pub(super) fn reserve(&self, bytes: usize, limit: usize) -> Result<(), SendError> {
        self.buffered
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |buffered| {
                (buffered + bytes <= limit).then_some(buffered + bytes)
            })
            .map(drop)
            .map_err(|buffered| SendError::Full { buffered })
    }

    pub(super) fn release(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Ordering::AcqRel);
        self.acknowledged.notify_one();
        self.emptied.notify_waiters();
    }

    /// Lives the end's whole life. Emits `Closed` at its end unless the endpoint was killed.
    pub(super) async fn run(self: Arc<Self>, start: Start, queues: Queues) {
        tokio::select! {
            () = self.endpoint.killed.cancelled() => {}
            () = self.live(start, queues) => {}
        }
        self.open.store(false, Ordering::Release);
        self.network
            .with(|state| state.offers.remove(&self.token()));
    }

    async fn live(self: &Arc<Self>, start: Start, queues: Queues) {
        let reason = self.connect_and_carry(start, queues).await;
        self.open.store(false, Ordering::Release);
        if reason != CloseReason::Remote
            && let Some(other) = self.other.get()
        {
            other.closed_by_other.cancel();
        }
        let closed = TransportEvent::Closed {
            link: self.id,
            reason,
        };
        if !timeout(self.patience, self.emit(closed))
            .await
            .unwrap_or(false)
        {
            tracing::debug!(link = %self.id, "nobody heard the link's end");
        }
    }

    async fn connect_and_carry(self: &Arc<Self>, start: Start, queues: Queues) -> CloseReason {
        let Queues {
            frames,
            pings,
            answers,
        } = queues;
        let opening = timeout(self.patience, self.connect(start, answers));
        let other = tokio::select! {
            () = self.closing.cancelled() => return CloseReason::Local,
            () = self.closed_by_other.cancelled() => return CloseReason::Remote,
            opened = opening => match opened {
                Ok(Ok(other)) => other,
                Ok(Err(reason)) => return reason,
                Err(_) => return CloseReason::Failed("it did not open in time".to_owned()),
            },
        };
        self.open.store(true, Ordering::Release);
        if !self.emit(TransportEvent::Open { link: self.id }).await {
            return CloseReason::Local;
        }
        self.told_open.cancel();
        self.carry_until_closed(&other, frames, pings).await
    }

    async fn carry_until_closed(
        &self,
        other: &Arc<End>,
        frames: mpsc::Receiver<Bytes>,
        pings: mpsc::Receiver<Bytes>,
    ) -> CloseReason {
        let carrying = async {
            tokio::join!(
                self.carry(other, frames, |link, bytes| TransportEvent::Frame {
                    link,
                    bytes
                }),
                self.carry(other, pings, |link, bytes| TransportEvent::Ping {
                    link,
                    bytes
                }),
                self.tell_writable(),
            )
        };
        tokio::pin!(carrying);
        tokio::select! {
            _ = &mut carrying => CloseReason::Local,
            () = self.closed_by_other.cancelled() => CloseReason::Remote,
            () = self.gone(other) => CloseReason::Failed("the path is failed".to_owned()),
            () = self.closing.cancelled() => {
                tokio::select! {
                    _ = &mut carrying => {}
                    () = self.closed_by_other.cancelled() => {}
                    () = self.drained() => {}
                    () = sleep(DRAIN_LIMIT) => {}
                }
                CloseReason::Local
            }
        }
    }

    /// Carries out the handshake; returns the other end once both are open.
    async fn connect(
        self: &Arc<Self>,
        start: Start,
        mut answers: mpsc::Receiver<String>,
    ) -> Result<Arc<End>, CloseReason> {
        match start {
            Start::Offer => {
                self.network
                    .with(|state| state.offers.insert(self.token(), Arc::clone(self)));
                self.signal(Signal::Offer(self.token())).await?;
                self.signal(Signal::Candidate(String::new())).await?;
                let answer = answers.recv().await.ok_or(CloseReason::Local)?;
                match self.other.get() {
                    Some(other) if other.token() == answer => other.answered.cancel(),
                    Some(_) | None => {
                        return Err(CloseReason::BadSignal("an unknown answer".to_owned()));
                    }
                }
            }
            Start::Accept(offer) => {
                let offering = self.network.with(|state| state.offers.remove(&offer));
                let offering = offering
                    .ok_or_else(|| CloseReason::BadSignal("an unknown offer".to_owned()))?;
                let paired = offering
                    .other
                    .set(Arc::clone(self))
                    .and(self.other.set(offering));
                paired.map_err(|_| CloseReason::BadSignal("an offer used twice".to_owned()))?;
                self.signal(Signal::Answer(self.token())).await?;
                self.signal(Signal::Candidate(String::new())).await?;
                self.answered.cancelled().await;
            }
        }
        let other = self.other.get().ok_or(CloseReason::Local)?;
        sleep(self.network.path(&self.endpoint, &other.endpoint).latency).await;
        Ok(Arc::clone(other))
    }

    /// Carries messages to the other end, one after the other, for ever or until the handle is gone.
    async fn carry(
        &self,
        other: &End,
        mut messages: mpsc::Receiver<Bytes>,
        event: impl Fn(LinkId, Bytes) -> TransportEvent,
    ) {
        let (leave, mut arrive) = mpsc::channel::<(Instant, Bytes)>(IN_FLIGHT);
        let leaving = async {
            while let Some(message) = messages.recv().await {
                let path = self.network.path(&self.endpoint, &other.endpoint);
                if let Some(rate) = path.bytes_per_second {
                    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
                    sleep(
                        Duration::from_secs(1) * length / u32::try_from(rate).unwrap_or(u32::MAX),
                    )
                    .await;
                }
                self.endpoint.thawed().await;
                if leave
                    .send((Instant::now() + path.latency, message))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        let arriving = async {
            other.told_open.cancelled().await;
            while let Some((at, message)) = arrive.recv().await {
                sleep_until(at).await;
                other.endpoint.thawed().await;
                // A killed endpoint takes nothing and acknowledges nothing.
                if other.endpoint.killed.is_cancelled() {
                    std::future::pending::<()>().await;
                }
                let length = message.len();
                let event = event(other.id, message);
                let is_frame = matches!(event, TransportEvent::Frame { .. });
                if !other.emit(event).await {
                    return;
                }
                if is_frame {
                    self.release(length);
                }
            }
        };
        tokio::join!(leaving, arriving);
    }

    /// Tells the caller when bytes were acknowledged; several may share an event.
    async fn tell_writable(&self) {
        loop {
            self.acknowledged.notified().await;
            let writable = TransportEvent::Writable {
                link: self.id,
                buffered: self.buffered(),
            };
            if !self.emit(writable).await {
                return;
            }
        }
    }

    /// Waits until everything sent was taken.
    async fn drained(&self) {
        loop {
            let acknowledged = self.emptied.notified();
            if self.buffered() == 0 {
                return;
            }
            acknowledged.await;
        }
    }

    /// Waits until the other endpoint is dead, and then as long as it takes to notice.
    async fn gone(&self, other: &End) {
        other.endpoint.killed.cancelled().await;
        sleep(self.patience).await;
    }

    async fn signal(&self, signal: Signal) -> Result<(), CloseReason> {
        let told = self
            .emit(TransportEvent::Signal {
                link: self.id,
                signal,
            })
            .await;
        if told {
            Ok(())
        } else {
            Err(CloseReason::Local)
        }
    }

    /// Gives an event to the caller; returns whether there still is one.
    async fn emit(&self, event: TransportEvent) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// What stands for this end in descriptions.
    fn token(&self) -> String {
        format!("memory:{}:{}", self.endpoint, self.id)
    }
}
