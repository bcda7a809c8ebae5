//! What Prometheus may scrape; every name begins with `espalier_orchestrator_`.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

const SESSIONS: &str = "espalier_orchestrator_sessions";
const SESSIONS_OPENED: &str = "espalier_orchestrator_sessions_opened_total";
const LAGGARDS: &str = "espalier_orchestrator_laggards_dropped_total";
const EVENTS_DROPPED: &str = "espalier_orchestrator_events_dropped_total";
const ENGINES: &str = "espalier_orchestrator_engines_replaced_total";
const REFUSED: &str = "espalier_orchestrator_calls_refused_total";
const CHANNELS: &str = "espalier_orchestrator_channels";
const PEERS: &str = "espalier_orchestrator_peers";
const ROOTS: &str = "espalier_orchestrator_roots";
const DEPTH: &str = "espalier_orchestrator_tree_depth";
const OFFLOAD: &str = "espalier_orchestrator_offload_ratio";
const CDN_BYTES: &str = "espalier_orchestrator_media_from_cdn_bytes";
const PEER_BYTES: &str = "espalier_orchestrator_media_from_peers_bytes";
const STALLS: &str = "espalier_orchestrator_stalls";

/// Installs the process's recorder, once, and returns what renders it.
pub(crate) fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics stays empty");
        }
        describe();
        handle
    });
    handle.clone()
}

fn describe() {
    describe_gauge!(SESSIONS, "Open peer sessions");
    describe_counter!(SESSIONS_OPENED, "Peer sessions opened");
    describe_counter!(LAGGARDS, "Sessions dropped because the peer did not read");
    describe_counter!(
        EVENTS_DROPPED,
        "Events dropped because two engines panicked at them"
    );
    describe_counter!(ENGINES, "Channel engines replaced after a panic");
    describe_counter!(
        REFUSED,
        "Calls refused before they were looked at, by reason"
    );
    describe_gauge!(CHANNELS, "Channels");
    describe_gauge!(PEERS, "Peers in a channel");
    describe_gauge!(ROOTS, "Peers of a channel that the CDN feeds");
    describe_gauge!(DEPTH, "Depth of a channel's deepest tree");
    describe_gauge!(OFFLOAD, "1 - CDN bytes / all bytes, over ten seconds");
    describe_gauge!(
        CDN_BYTES,
        "Media bytes that a channel's peers took from the CDN"
    );
    describe_gauge!(
        PEER_BYTES,
        "Media bytes that a channel's peers took from peers"
    );
    describe_gauge!(STALLS, "Stalls that a channel's peers reported");
}

/// Counts a session for as long as it lives.
pub(crate) struct SessionGauge(());

impl SessionGauge {
    pub(crate) fn new() -> Self {
        counter!(SESSIONS_OPENED).increment(1);
        gauge!(SESSIONS).increment(1.0);
        Self(())
    }
}

impl Drop for SessionGauge {
    fn drop(&mut self) {
        gauge!(SESSIONS).decrement(1.0);
    }
}

pub(crate) fn laggard_dropped() {
    counter!(LAGGARDS).increment(1);
}

pub(crate) fn event_dropped() {
    counter!(EVENTS_DROPPED).increment(1);
}

pub(crate) fn engine_replaced() {
    counter!(ENGINES).increment(1);
}

pub(crate) fn call_refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// Brings the gauges of every channel up to date: called for each scrape.
pub(crate) fn observe(channels: &[(String, espalier_orchestrator_core::Audience)]) {
    gauge!(CHANNELS).set(count(channels.len()));
    for (channel, audience) in channels {
        let set =
            |name: &'static str, value: f64| gauge!(name, "channel" => channel.clone()).set(value);
        set(PEERS, f64::from(audience.peers));
        set(ROOTS, f64::from(audience.roots));
        set(DEPTH, f64::from(audience.max_depth));
        set(OFFLOAD, f64::from(audience.offload_permille) / 1000.0);
        set(CDN_BYTES, bytes(audience.bytes_from_cdn));
        set(PEER_BYTES, bytes(audience.bytes_from_peers));
        set(STALLS, bytes(audience.stalls));
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has only doubles: exact up to 2^53"
)]
fn bytes(number: u64) -> f64 {
    number as f64
}
