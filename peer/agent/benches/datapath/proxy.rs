//! A path with delay and loss: stands between the two ends of a link by rewriting their candidates.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use espalier_peer::transport::Signal;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::wire::Envelope;

/// What a path does to each datagram, each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) delay: Duration,
    pub(crate) loss: f64,
}

/// Datagrams under way on a path, each way: enough for every window here.
const UNDER_WAY: usize = 16_384;

/// Rewrites candidates so that links between given pairs lead through paths.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    paths: HashMap<(u64, u64), Path>,
    links: HashMap<(u64, u64), Proxy>,
}

/// The stand-ins of one link's two ends.
#[derive(Debug, Clone)]
struct Proxy {
    /// By the end that each stands for.
    ends: HashMap<u64, StandIn>,
}

/// Stands for one end of a link towards the other.
#[derive(Debug, Clone)]
struct StandIn {
    socket: Arc<UdpSocket>,
    /// The address of the end that it stands for, once known.
    real: Arc<Mutex<Option<SocketAddr>>>,
}

impl Proxies {
    pub(crate) fn set(&mut self, one: u64, other: u64, path: Path) {
        self.paths.insert((one.min(other), one.max(other)), path);
    }

    /// Returns the envelope as the receiver shall see it.
    pub(crate) async fn rewrite(&mut self, envelope: Envelope) -> Envelope {
        let pair = (
            envelope.from.min(envelope.to),
            envelope.from.max(envelope.to),
        );
        let (Some(&path), Signal::Candidate(json)) = (self.paths.get(&pair), &envelope.signal)
        else {
            return envelope;
        };
        if json.is_empty() {
            return envelope;
        }
        let proxy = match self.links.entry(pair) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Proxy::start(pair, path).await),
        };
        let StandIn { socket, real } = &proxy.ends[&envelope.from];
        let port = socket.local_addr().expect("a bound socket").port();
        let (text, address) = with_port(json, port);
        *real.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        Envelope {
            signal: Signal::Candidate(text),
            ..envelope
        }
    }
}

/// Replaces the port of a candidate; returns it and the address that it named.
fn with_port(json: &str, port: u16) -> (String, SocketAddr) {
    let mut value: serde_json::Value = serde_json::from_str(json).expect("a candidate");
    let line = value["candidate"]
        .as_str()
        .expect("a candidate's line")
        .to_owned();
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let address = format!("{}:{}", words[4], words[5])
        .parse()
        .expect("an address");
    words[5] = port.to_string();
    value["candidate"] = words.join(" ").into();
    (value.to_string(), address)
}

impl Proxy {
    async fn start(pair: (u64, u64), path: Path) -> Self {
        let mut ends = HashMap::new();
        for end in [pair.0, pair.1] {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .expect("a socket");
            ends.insert(
                end,
                StandIn {
                    socket: Arc::new(socket),
                    real: Arc::default(),
                },
            );
        }
        for (from, to) in [pair, (pair.1, pair.0)] {
            // What arrives at `to`'s stand-in comes from `from`, and leaves by `from`'s stand-in.
            let StandIn {
                socket: arrives,
                real,
            } = ends[&to].clone();
            let leaves = Arc::clone(&ends[&from].socket);
            tokio::spawn(carry(arrives, leaves, real, path, from + 1));
        }
        Self { ends }
    }
}

async fn carry(
    arrives: Arc<UdpSocket>,
    leaves: Arc<UdpSocket>,
    to: Arc<Mutex<Option<SocketAddr>>>,
    path: Path,
    seed: u64,
) {
    let (queue, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    tokio::spawn(async move {
        while let Some((at, datagram)) = under_way.recv().await {
            sleep_until(at).await;
            let to = *to.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(to) = to
                && let Err(error) = leaves.send_to(&datagram, to).await
            {
                tracing::debug!(%error, "a datagram is lost");
            }
        }
    });
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut buffer = vec![0; 65_536];
    while let Ok((length, _)) = arrives.recv_from(&mut buffer).await {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let chance = (random >> 11) as f64 / (1_u64 << 53) as f64;
        if chance >= path.loss {
            let at = Instant::now() + path.delay;
            if queue.try_send((at, buffer[..length].to_vec())).is_err() {
                tracing::warn!("the path's queue is full");
            }
        }
    }
}
