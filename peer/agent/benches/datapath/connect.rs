//! How long a link takes from its offer to open channels at both ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use espalier_peer::transport::{
    LinkId, Signal, Transport, TransportConfig, TransportEvent, WebRtcTransport,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bare::{self, BareLink};

const LIMIT: Duration = Duration::from_secs(30);

/// The times of one stack, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Times {
    pub(crate) stack: &'static str,
    pub(crate) links: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) max_ms: f64,
}

impl Times {
    fn of(stack: &'static str, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |per_cent: usize| {
            let rank = (times.len() * per_cent).div_ceil(100).max(1) - 1;
            times
                .get(rank)
                .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        Self {
            stack,
            links: times.len(),
            p50_ms: at(50),
            p95_ms: at(95),
            max_ms: at(100),
        }
    }
}

/// Makes links of ours, one after the other.
pub(crate) async fn ours(bind: IpAddr, links: usize) -> anyhow::Result<Times> {
    let config = TransportConfig {
        bind: vec![bind],
        ..TransportConfig::default()
    };
    let transport = WebRtcTransport::new(config).ok().context("a transport")?;
    let mut times = Vec::new();
    for _ in 0..links {
        times.push(
            timeout(LIMIT, ours_once(&transport))
                .await
                .context("a link opens")?,
        );
    }
    transport.shutdown().await;
    Ok(Times::of("ours", times))
}

async fn ours_once(transport: &WebRtcTransport) -> Duration {
    let start = Instant::now();
    let (sender, mut events) = mpsc::channel(64);
    let (child, parent) = (LinkId(1), LinkId(2));
    let offering = transport.offer(child, sender.clone()).expect("a link");
    let mut accepting = None;
    let mut open = 0;
    while open < 2 {
        match events.recv().await.expect("an event") {
            TransportEvent::Signal {
                signal: Signal::Offer(sdp),
                ..
            } => {
                let link = transport
                    .accept(parent, sdp, sender.clone())
                    .expect("a link");
                accepting = Some(link);
            }
            TransportEvent::Signal { link, signal } if link == parent => {
                offering.signal(signal).expect("a signal");
            }
            TransportEvent::Signal { signal, .. } => {
                accepting
                    .as_ref()
                    .expect("the offer came first")
                    .signal(signal)
                    .expect("a signal");
            }
            TransportEvent::Open { .. } => open += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    start.elapsed()
}

/// Makes links of the bare crate, one after the other, on loopback.
pub(crate) async fn bare(links: usize) -> anyhow::Result<Times> {
    let mut times = Vec::new();
    for _ in 0..links {
        times.push(
            timeout(LIMIT, bare_once())
                .await
                .context("a bare link opens")?,
        );
    }
    Ok(Times::of("bare", times))
}

async fn bare_once() -> Duration {
    let start = Instant::now();
    let (signals, mut envelopes) = mpsc::unbounded_channel();
    let (opened, mut openings) = mpsc::unbounded_channel();
    let (nothing, _) = mpsc::channel(1);
    let mut offering = BareLink::offer(1, 2, signals.clone()).await;
    tokio::spawn(bare::receive(
        offering.channel.clone(),
        opened.clone(),
        1,
        nothing.clone(),
    ));
    let mut accepting: Option<BareLink> = None;
    let mut open = 0;
    while open < 2 {
        tokio::select! {
            Some(envelope) = envelopes.recv() => match envelope.signal {
                Signal::Offer(sdp) => {
                    let link = BareLink::accept(2, 1, sdp, signals.clone()).await;
                    let channel = link.channel.clone();
                    tokio::spawn(bare::receive(channel, opened.clone(), 2, nothing.clone()));
                    accepting = Some(link);
                }
                signal if envelope.to == 1 => offering.signal(signal).await,
                signal => accepting.as_mut().expect("the offer came first").signal(signal).await,
            },
            Some(_) = openings.recv() => open += 1,
        }
    }
    start.elapsed()
}
