//! The stream over a path that loses: what a bare link carries there, and how the engine keeps the
//! picture going with its standby and the CDN.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use espalier_peer::transport::{TransportConfig, WebRtcTransport};
use espalier_peer_core::{PeerId, Role, Source};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::bare::{self, BareLink};
use super::proxy::{Path, Proxies};
use super::shell::{self, Input, Place, Shell};
use super::stream::{CHUNK, Cdn, Stream};
use super::wire::Envelope;

const PARENT: u64 = 1;
const STANDBY: u64 = 2;
const CHILD: u64 = 100;
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// The path's round trip is twice this.
const DELAY: Duration = Duration::from_millis(20);

/// The upload that the parent and the standby claim.
const UPLOAD_BPS: u64 = 50_000_000;

/// What the child of one run has seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) case: String,
    pub(crate) seconds: u64,
    pub(crate) objects: u64,
    pub(crate) objects_missed: u64,
    pub(crate) stalls: u32,
    pub(crate) stalled_ms: f64,
    pub(crate) buffer_ms: f64,
    pub(crate) from_parent: u64,
    pub(crate) from_standby: u64,
    pub(crate) from_cdn: u64,
    pub(crate) duplicates: u64,
    pub(crate) longest_gap_ms: f64,
}

/// Runs the engine's case: the parent's path loses `loss`, the standby's `standby_loss`.
pub(crate) async fn engine(
    bits_per_second: u64,
    seconds: u64,
    loss: f64,
    standby_loss: f64,
) -> anyhow::Result<Outcome> {
    let stream = Stream::new(bits_per_second);
    let config = TransportConfig {
        bind: vec!["127.0.0.1".parse()?],
        ..TransportConfig::default()
    };
    let transport = Arc::new(WebRtcTransport::new(config).ok().context("a transport")?);
    let (signals, envelopes) = mpsc::unbounded_channel();
    let (opened, mut openings) = mpsc::unbounded_channel();
    let mut proxies = Proxies::default();
    proxies.set(PARENT, CHILD, Path { delay: DELAY, loss });
    proxies.set(
        STANDBY,
        CHILD,
        Path {
            delay: DELAY,
            loss: standby_loss,
        },
    );
    let root = |me, standby| Place {
        me,
        source: Source::Cdn,
        standby: None,
        children: vec![(CHILD, standby)],
        upload_bps: UPLOAD_BPS,
        role: Role::Relay,
    };
    let child = Place {
        me: CHILD,
        source: Source::Peer(PeerId(PARENT)),
        standby: Some(Source::Peer(PeerId(STANDBY))),
        children: Vec::new(),
        upload_bps: UPLOAD_BPS,
        role: Role::Consumer,
    };
    let mut shells = HashMap::new();
    for place in [root(PARENT, false), root(STANDBY, true), child] {
        let latency = if place.me == CHILD {
            DELAY * 2
        } else {
            Duration::from_millis(10)
        };
        let cdn = Cdn {
            latency,
            bits_per_second: 50_000_000,
        };
        let inputs = Shell::start(
            &place,
            stream.clone(),
            cdn,
            transport.clone(),
            signals.clone(),
            opened.clone(),
        );
        shells.insert(place.me, inputs);
    }
    tokio::spawn(route(shells.clone(), envelopes, proxies));
    for _ in 0..4 {
        timeout(OPEN_LIMIT, openings.recv())
            .await
            .context("a link does not open")?;
    }
    shells[&CHILD].send(Input::Measure).await?;
    let roots = [shells[&PARENT].clone(), shells[&STANDBY].clone()];
    shell::feed(&stream, &roots, Duration::from_secs(seconds)).await;
    tokio::time::sleep(Stream::due(1)).await;
    let seen = shell::report(&shells[&CHILD]).await;
    let (counters, playout) = (seen.snapshot.counters, seen.snapshot.playout);
    Ok(Outcome {
        case: format!(
            "parent {} %, standby {} % lost",
            loss * 100.0,
            standby_loss * 100.0
        ),
        seconds,
        objects: counters.objects_completed,
        objects_missed: counters.objects_missed,
        stalls: playout.stalls,
        stalled_ms: playout.stalled.as_secs_f64() * 1e3,
        buffer_ms: playout.buffer.as_secs_f64() * 1e3,
        from_parent: counters.bytes_from_peers - counters.bytes_from_standby,
        from_standby: counters.bytes_from_standby,
        from_cdn: counters.bytes_from_cdn,
        duplicates: counters.duplicate_bytes,
        longest_gap_ms: seen.gaps.longest.as_secs_f64() * 1e3,
    })
}

async fn route(
    shells: HashMap<u64, mpsc::Sender<Input>>,
    mut envelopes: mpsc::UnboundedReceiver<Envelope>,
    mut proxies: Proxies,
) {
    while let Some(envelope) = envelopes.recv().await {
        let Envelope { from, to, signal } = proxies.rewrite(envelope).await;
        if shells[&to].send(Input::Signal(from, signal)).await.is_err() {
            return;
        }
    }
}

/// Returns what a bare link carries over the same path, Mbit/s.
pub(crate) async fn bare_link(seconds: u64, loss: f64) -> anyhow::Result<f64> {
    let (signals, mut envelopes) = mpsc::unbounded_channel();
    let (opened, mut openings) = mpsc::unbounded_channel();
    let mut proxies = Proxies::default();
    proxies.set(PARENT, CHILD, Path { delay: DELAY, loss });
    let mut links = HashMap::new();
    links.insert(CHILD, BareLink::offer(CHILD, PARENT, signals.clone()).await);
    let (messages, mut arrive) = mpsc::channel(64);
    let (nothing, _) = mpsc::channel(1);
    let child = links[&CHILD].channel.clone();
    tokio::spawn(bare::receive(child, opened.clone(), CHILD, messages));
    let mut open = 0;
    let opening = async {
        while open < 2 {
            tokio::select! {
                Some(envelope) = envelopes.recv() => {
                    let Envelope { from, to, signal } = proxies.rewrite(envelope).await;
                    if let espalier_peer::transport::Signal::Offer(sdp) = signal {
                        let link = BareLink::accept(to, from, sdp, signals.clone()).await;
                        let channel = link.channel.clone();
                        tokio::spawn(bare::receive(channel, opened.clone(), to, nothing.clone()));
                        links.insert(to, link);
                    } else if let Some(link) = links.get_mut(&to) {
                        link.signal(signal).await;
                    }
                }
                Some(_) = openings.recv() => open += 1,
            }
        }
    };
    timeout(OPEN_LIMIT, opening)
        .await
        .context("the bare link does not open")?;
    let (queue, queued) = mpsc::channel::<Bytes>(4);
    tokio::spawn(bare::send(links[&PARENT].channel.clone(), queued));
    let chunk = Bytes::from(vec![0; CHUNK]);
    tokio::spawn(async move { while queue.send(chunk.clone()).await.is_ok() {} });
    let start = Instant::now();
    let mut bytes = 0;
    let receiving = async {
        while let Some(message) = arrive.recv().await {
            bytes += message.len();
        }
    };
    drop(timeout(Duration::from_secs(seconds), receiving).await);
    Ok(bytes as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64())
}
