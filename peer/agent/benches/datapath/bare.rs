//! The bare crate doing the same: receive once, send to each child, with the settings that the
//! research recommends and nothing else.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use espalier_peer::transport::Signal;
use rtc::ice::mdns::MulticastDnsMode;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, RTCSessionDescription, SettingEngineBuilder,
};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime, UdpSockRef, UdpSocketState,
};

use super::meter::Gaps;
use super::stream::CHUNK;
use super::wire::Envelope;

const HASH: usize = 32;

/// One link of the bare crate.
pub(crate) struct BareLink {
    pub(crate) peer: u64,
    pub(crate) channel: Arc<dyn DataChannel>,
    connection: Arc<dyn PeerConnection>,
    early: Vec<RTCIceCandidateInit>,
    described: bool,
}

struct Handler {
    me: u64,
    peer: u64,
    signals: mpsc::UnboundedSender<Envelope>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let init = event.candidate.to_json().expect("a candidate");
        let signal = Signal::Candidate(serde_json::to_string(&init).expect("JSON"));
        drop(self.signals.send(Envelope {
            from: self.me,
            to: self.peer,
            signal,
        }));
    }
}

impl BareLink {
    async fn new(me: u64, peer: u64, signals: mpsc::UnboundedSender<Envelope>) -> Self {
        let engine = SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(500))
            .with_sctp_max_receive_buffer_size(256 * 1024)
            .build();
        let connection = Box::pin(
            PeerConnectionBuilder::new()
                .with_setting_engine(engine)
                .with_runtime(Arc::new(BareRuntime))
                .with_handler(Arc::new(Handler { me, peer, signals }))
                .with_udp_addrs(vec!["127.0.0.1:0"])
                .with_data_channel_send_buffer_limit(192 * 1024)
                .build(),
        )
        .await
        .expect("a peer connection");
        let init = RTCDataChannelInit {
            ordered: true,
            max_packet_life_time: None,
            max_retransmits: None,
            protocol: String::new(),
            negotiated: Some(0),
        };
        let channel = connection
            .create_data_channel("data", Some(init))
            .await
            .expect("a channel");
        let connection: Arc<dyn PeerConnection> = Arc::new(connection);
        Self {
            peer,
            channel,
            connection,
            early: Vec::new(),
            described: false,
        }
    }

    pub(crate) async fn offer(
        me: u64,
        peer: u64,
        signals: mpsc::UnboundedSender<Envelope>,
    ) -> Self {
        let link = Self::new(me, peer, signals.clone()).await;
        let offer = link.connection.create_offer(None).await.expect("an offer");
        let signal = Signal::Offer(offer.sdp.clone());
        drop(signals.send(Envelope {
            from: me,
            to: peer,
            signal,
        }));
        link.connection
            .set_local_description(offer)
            .await
            .expect("a local description");
        link
    }

    pub(crate) async fn accept(
        me: u64,
        peer: u64,
        offer: String,
        signals: mpsc::UnboundedSender<Envelope>,
    ) -> Self {
        let mut link = Self::new(me, peer, signals.clone()).await;
        let offer = RTCSessionDescription::offer(offer).expect("an offer");
        link.connection
            .set_remote_description(offer)
            .await
            .expect("a remote description");
        link.described = true;
        let answer = link
            .connection
            .create_answer(None)
            .await
            .expect("an answer");
        let signal = Signal::Answer(answer.sdp.clone());
        drop(signals.send(Envelope {
            from: me,
            to: peer,
            signal,
        }));
        link.connection
            .set_local_description(answer)
            .await
            .expect("a local description");
        link
    }

    pub(crate) async fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::Offer(_) => {}
            Signal::Answer(sdp) => {
                let answer = RTCSessionDescription::answer(sdp).expect("an answer");
                self.connection
                    .set_remote_description(answer)
                    .await
                    .expect("a description");
                self.described = true;
                for candidate in std::mem::take(&mut self.early) {
                    self.connection
                        .add_ice_candidate(candidate)
                        .await
                        .expect("a candidate");
                }
            }
            Signal::Candidate(json) => {
                let candidate = serde_json::from_str(&json).expect("a candidate");
                if self.described {
                    self.connection
                        .add_ice_candidate(candidate)
                        .await
                        .expect("a candidate");
                } else {
                    self.early.push(candidate);
                }
            }
        }
    }
}

/// Waits for the channel to open, then passes its messages on.
pub(crate) async fn receive(
    channel: Arc<dyn DataChannel>,
    opened: mpsc::UnboundedSender<u64>,
    peer: u64,
    messages: mpsc::Sender<Bytes>,
) {
    while let Some(event) = channel.poll().await {
        if matches!(event, DataChannelEvent::OnOpen) {
            opened.send(peer).ok();
        } else if let DataChannelEvent::OnMessage(message) = event
            && messages.send(message.data.freeze()).await.is_err()
        {
            return;
        }
    }
}

/// Sends what comes in, one after the other.
pub(crate) async fn send(channel: Arc<dyn DataChannel>, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if channel.send(BytesMut::from(&message[..])).await.is_err() {
            return;
        }
    }
}

/// Sends chunks, each behind its hash, in the rhythm of the stream.
pub(crate) async fn produce(to: &mpsc::Sender<Bytes>, rhythm: Duration, length: Duration) {
    let start = Instant::now();
    let mut chunk = vec![0_u8; CHUNK];
    for number in 0_u32.. {
        let at = rhythm * number;
        if at >= length {
            return;
        }
        chunk[..4].copy_from_slice(&number.to_be_bytes());
        let mut message = BytesMut::with_capacity(HASH + CHUNK);
        message.put_slice(&Sha256::digest(&chunk));
        message.put_slice(&chunk);
        sleep_until(start + at).await;
        if to.send(message.freeze()).await.is_err() {
            return;
        }
    }
}

/// Takes a message at a child; returns whether its hash is right.
pub(crate) fn verify(message: &Bytes, gaps: &mut Gaps) -> bool {
    let (hash, chunk) = message.split_at(HASH);
    gaps.arrived(chunk.len());
    Sha256::digest(chunk)[..] == *hash
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tokio with larger socket buffers.
#[derive(Debug)]
struct BareRuntime;

impl Runtime for BareRuntime {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        state.set_recv_buffer_size(UdpSockRef::from(&socket), 1024 * 1024)?;
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(remote)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }
}
