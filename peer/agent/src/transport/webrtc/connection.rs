//! One peer connection, from the first signal to the closed socket.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ::webrtc::data_channel::DataChannel;
use ::webrtc::error::Error;
use ::webrtc::peer_connection::{PeerConnection, RTCIceCandidateInit, RTCSessionDescription};
use bytes::BytesMut;
use futures::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::super::{CloseReason, EventSender, LinkId, Signal, TransportConfig, TransportEvent};
use super::channel::{Kind, Receiver, Sign};
use super::handler::{Handler, Report};
use super::link::{CheckedSignal, LinkEnds, LinkState};
use super::runtime::LinkRuntime;
use super::sender::Sender;
use super::settings;

/// How long a closing link may take to get rid of what was sent before.
const DRAIN_LIMIT: Duration = Duration::from_millis(100);

/// How often a closing link looks whether it is rid of it.
const DRAIN_STEP: Duration = Duration::from_millis(10);

/// How long the last event may wait for room once the transport shuts down.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Which side of the handshake this is.
#[derive(Debug)]
pub(super) enum Side {
    Offering,
    Accepting(String),
}

impl Side {
    pub(super) fn is_offering(&self) -> bool {
        match self {
            Self::Offering => true,
            Self::Accepting(_) => false,
        }
    }
}

/// What a link's main task starts with.
pub(super) struct Connection {
    pub(super) id: LinkId,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) config: Arc<TransportConfig>,
    pub(super) runtime: Arc<LinkRuntime>,
    pub(super) events: EventSender,
    pub(super) ends: LinkEnds,
}

impl Connection {
    /// Lives the link's whole life and emits `Closed` at its end.
    pub(super) async fn run(self, side: Side) {
        let (id, events) = (self.id, self.events.clone());
        let (state, closing) = (Arc::clone(&self.ends.state), self.ends.closing.clone());
        // What another peer sends goes through the crate's parsers here. A panic there must end this
        // link only, and be told like every other end.
        let reason = AssertUnwindSafe(Box::pin(self.live(side)))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| CloseReason::Failed("internal error".to_owned()));
        state.set_open(false);
        tracing::debug!(link = %id, %reason, "the link is closed");
        let farewell = events.send(TransportEvent::Closed { link: id, reason });
        let sent = async {
            tokio::pin!(farewell);
            tokio::select! {
                sent = &mut farewell => sent.is_ok(),
                () = closing.cancelled() => {
                    timeout(FAREWELL_LIMIT, farewell).await.is_ok_and(|sent| sent.is_ok())
                }
            }
        };
        if !sent.await {
            tracing::debug!(link = %id, "nobody heard the link's end");
        }
    }

    async fn live(self, side: Side) -> CloseReason {
        let (handler, reports) = Handler::new(Arc::clone(&self.runtime));
        let built = settings::build(
            &self.config,
            self.addresses.clone(),
            self.runtime.clone(),
            Arc::new(handler),
        )
        .await;
        let connection = match built {
            Ok(connection) => connection,
            Err(error) => return CloseReason::Failed(error.to_string()),
        };
        let reason = self.live_with(side, &connection, reports).await;
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "closing a peer connection");
        }
        reason
    }

    async fn live_with(
        self,
        side: Side,
        connection: &Arc<dyn PeerConnection>,
        reports: mpsc::Receiver<Report>,
    ) -> CloseReason {
        let channels = async {
            let data = connection.create_data_channel("data", Some(settings::data_channel()));
            let data = data.await?;
            let ping = connection.create_data_channel("ping", Some(settings::ping_channel()));
            Ok::<_, Error>((data, ping.await?))
        };
        let (data, ping) = match channels.await {
            Ok(channels) => channels,
            Err(error) => return CloseReason::Failed(error.to_string()),
        };
        let closing = self.ends.closing.clone();
        let state = Arc::clone(&self.ends.state);
        let (acknowledged, drained) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (mut tasks, mut handshake) =
            self.start_tasks(connection, &data, ping, [&acknowledged, &drained], reports);
        let reason = drive(&mut handshake, side, &mut tasks, &closing).await;
        if reason == CloseReason::Local && state.is_open() {
            drain(&state, &acknowledged, &drained).await;
        }
        state.set_open(false);
        tasks.shutdown().await;
        reason
    }

    fn start_tasks(
        self,
        connection: &Arc<dyn PeerConnection>,
        data: &Arc<dyn DataChannel>,
        ping: Arc<dyn DataChannel>,
        [acknowledged, drained]: [&Arc<Notify>; 2],
        reports: mpsc::Receiver<Report>,
    ) -> (JoinSet<CloseReason>, Handshake) {
        let (link_open, opens) = watch::channel(false);
        let (sign, signs) = mpsc::channel(4);
        let mut tasks = JoinSet::new();
        for (kind, channel) in [(Kind::Data, data), (Kind::Ping, &ping)] {
            let receiver = Receiver {
                link: self.id,
                kind,
                channel: Arc::clone(channel),
                events: self.events.clone(),
                signs: sign.clone(),
                link_open: opens.clone(),
                acknowledged: match kind {
                    Kind::Data => Arc::clone(acknowledged),
                    Kind::Ping => Arc::new(Notify::new()),
                },
            };
            tasks.spawn(receiver.run());
        }
        let sender = Sender {
            link: self.id,
            channel: Arc::clone(data),
            state: Arc::clone(&self.ends.state),
            frames: self.ends.frames,
            events: self.events.clone(),
            acknowledged: Arc::clone(acknowledged),
            drained: Arc::clone(drained),
        };
        tasks.spawn(sender.run());
        let handshake = Handshake {
            id: self.id,
            runtime: self.runtime,
            connection: Arc::clone(connection),
            data: Arc::clone(data),
            ping,
            pings: self.ends.pings,
            events: self.events,
            state: self.ends.state,
            signals: self.ends.signals,
            reports,
            signs,
            link_open,
            early: Vec::new(),
            described: false,
            deadline: Instant::now() + self.config.open_timeout,
        };
        (tasks, handshake)
    }
}

/// Drives the handshake until the link ends in any way.
async fn drive(
    handshake: &mut Handshake,
    side: Side,
    tasks: &mut JoinSet<CloseReason>,
    closing: &CancellationToken,
) -> CloseReason {
    tokio::select! {
        reason = handshake.run(side) => reason,
        ended = tasks.join_next() => match ended {
            Some(Ok(reason)) => reason,
            Some(Err(_)) | None => CloseReason::Failed("internal error".to_owned()),
        },
        () = closing.cancelled() => CloseReason::Local,
    }
}

/// Waits until nothing is buffered, for a bounded time.
async fn drain(state: &LinkState, acknowledged: &Notify, drained: &Notify) {
    let empty = async {
        while state.buffered() > 0 {
            acknowledged.notify_one();
            drop(timeout(DRAIN_STEP, drained.notified()).await);
        }
    };
    if timeout(DRAIN_LIMIT, empty).await.is_err() {
        tracing::debug!(lost = state.buffered(), "a link closes with bytes unsent");
    }
}

/// Signals in and out, the opening, and pings: everything about a link but its frames.
struct Handshake {
    id: LinkId,
    runtime: Arc<LinkRuntime>,
    connection: Arc<dyn PeerConnection>,
    data: Arc<dyn DataChannel>,
    ping: Arc<dyn DataChannel>,
    pings: mpsc::Receiver<bytes::Bytes>,
    events: EventSender,
    state: Arc<LinkState>,
    signals: mpsc::Receiver<CheckedSignal>,
    reports: mpsc::Receiver<Report>,
    signs: mpsc::Receiver<Sign>,
    link_open: watch::Sender<bool>,
    /// Candidates that came before the description that they belong to.
    early: Vec<RTCIceCandidateInit>,
    /// Whether the other side's description is set.
    described: bool,
    deadline: Instant,
}

impl Handshake {
    async fn run(&mut self, side: Side) -> CloseReason {
        let offering = side.is_offering();
        let started = match side {
            Side::Offering => self.offer().await,
            Side::Accepting(sdp) => self.answer(sdp).await,
        };
        match started {
            Ok(()) => self.serve(offering).await.unwrap_or_else(|reason| reason),
            Err(reason) => reason,
        }
    }

    /// Serves until the link ends. It is open when both channels are open here and the other side is
    /// known to be open too.
    ///
    /// The crate opens negotiated channels a moment after SCTP's handshake has ended. What arrives
    /// within that moment is dropped at the side that began the handshake, which is the offering side
    /// (see the DTLS role in `settings`); at the accepting side, it makes the channel reliable and
    /// ordered, which is wrong for pings. So each side says with an empty frame that it is open; the
    /// accepting side is not open before it has heard that or any other frame; and the offering side,
    /// whose frames may come early, drops its pings until it has heard from the other.
    async fn serve(&mut self, offering: bool) -> Result<CloseReason, CloseReason> {
        let (mut open_channels, mut heard) = (0_u8, false);
        loop {
            let is_open = self.state.is_open();
            tokio::select! {
                Some(signal) = self.signals.recv() => self.take(signal).await?,
                Some(report) = self.reports.recv() => self.pass_on(report).await?,
                Some(sign) = self.signs.recv() => {
                    match sign {
                        Sign::Opened(_) => open_channels += 1,
                        Sign::Heard => heard = true,
                    }
                    self.runtime.nudge();
                    if open_channels == 2 && (heard || offering) && !is_open {
                        self.open().await?;
                    }
                }
                Some(ping) = self.pings.recv() => {
                    if heard {
                        self.ping(&ping).await?;
                    }
                }
                () = sleep_until(self.deadline), if !is_open => {
                    return Ok(CloseReason::Failed("it did not open in time".to_owned()));
                }
            }
        }
    }

    async fn offer(&mut self) -> Result<(), CloseReason> {
        let offer = self.connection.create_offer(None).await.map_err(failed)?;
        let sdp = offer.sdp.clone();
        self.connection
            .set_local_description(offer)
            .await
            .map_err(failed)?;
        self.emit_signal(Signal::Offer(sdp)).await
    }

    async fn answer(&mut self, offer: String) -> Result<(), CloseReason> {
        let offer = RTCSessionDescription::offer(offer).map_err(bad_signal)?;
        self.connection
            .set_remote_description(offer)
            .await
            .map_err(bad_signal)?;
        self.described = true;
        let answer = self
            .connection
            .create_answer(None)
            .await
            .map_err(bad_signal)?;
        let sdp = answer.sdp.clone();
        self.connection
            .set_local_description(answer)
            .await
            .map_err(failed)?;
        self.emit_signal(Signal::Answer(sdp)).await
    }

    async fn take(&mut self, signal: CheckedSignal) -> Result<(), CloseReason> {
        match signal {
            CheckedSignal::Answer(sdp) => {
                let answer = RTCSessionDescription::answer(sdp).map_err(bad_signal)?;
                self.connection
                    .set_remote_description(answer)
                    .await
                    .map_err(bad_signal)?;
                self.described = true;
                for candidate in std::mem::take(&mut self.early) {
                    self.add(candidate).await;
                }
            }
            CheckedSignal::Candidate(candidate) if self.described => self.add(candidate).await,
            CheckedSignal::Candidate(candidate) => self.early.push(candidate),
        }
        Ok(())
    }

    /// A candidate that cannot be used (of a family that this machine lacks, say) hurts nobody.
    async fn add(&self, candidate: RTCIceCandidateInit) {
        if let Err(error) = self.connection.add_ice_candidate(candidate).await {
            tracing::debug!(link = %self.id, %error, "a candidate is not used");
        }
        self.runtime.nudge();
    }

    async fn pass_on(&self, report: Report) -> Result<(), CloseReason> {
        match report {
            Report::Candidate(json) => self.emit_signal(Signal::Candidate(json)).await,
            Report::GatheringComplete => self.emit_signal(Signal::Candidate(String::new())).await,
            Report::Broken(state) => Err(CloseReason::Failed(format!("the path is {state}"))),
        }
    }

    async fn open(&self) -> Result<(), CloseReason> {
        self.runtime.settle();
        self.data
            .send(BytesMut::new())
            .await
            .map_err(|_| CloseReason::Remote)?;
        self.state.set_open(true);
        self.emit(TransportEvent::Open { link: self.id }).await?;
        self.link_open.send_replace(true);
        Ok(())
    }

    async fn ping(&self, message: &[u8]) -> Result<(), CloseReason> {
        self.ping
            .send(BytesMut::from(message))
            .await
            .map_err(|_| CloseReason::Remote)
    }

    async fn emit_signal(&self, signal: Signal) -> Result<(), CloseReason> {
        self.emit(TransportEvent::Signal {
            link: self.id,
            signal,
        })
        .await
    }

    async fn emit(&self, event: TransportEvent) -> Result<(), CloseReason> {
        self.events
            .send(event)
            .await
            .map_err(|_| CloseReason::Local)
    }
}

fn failed(error: Error) -> CloseReason {
    CloseReason::Failed(error.to_string())
}

fn bad_signal(error: Error) -> CloseReason {
    CloseReason::BadSignal(error.to_string())
}
