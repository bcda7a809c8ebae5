//! `/stats` for people and scripts, `/metrics` for Prometheus. README.md shows the shape.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use espalier_media::ObjectKind;
use espalier_peer_core::{
    Counters, LinkSnapshot, Role, Snapshot, Source, SourceState, TrackSnapshot,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::hls::Served;
use crate::milestones::Milestones;
use crate::store::LedgerEntry;

/// Who this peer is, for its statistics.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) peer: String,
    pub(crate) role: Role,
    pub(crate) started: Instant,
    pub(crate) milestones: Arc<Milestones>,
}

/// `GET /stats`
pub(crate) async fn stats(State(served): State<Arc<Served>>) -> Response {
    match served.engine.snapshot().await {
        Some(snapshot) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, document(&served, &snapshot).to_string()).into_response()
        }
        None => ended(),
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(served): State<Arc<Served>>) -> Response {
    match served.engine.snapshot().await {
        Some(snapshot) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, exposition(&served, &snapshot)).into_response()
        }
        None => ended(),
    }
}

fn ended() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the engine has ended\n").into_response()
}

fn document(served: &Served, snapshot: &Snapshot) -> Value {
    let Identity {
        peer,
        role,
        started,
        milestones,
    } = &served.identity;
    let generation = snapshot.generation;
    let children = snapshot.links.iter().filter(|link| link.child);
    let ledger = served.store.ledger().entries();
    json!({
        "peer": peer,
        "channel": served.channel,
        "role": match role {
            Role::Contributor => "contributor",
            Role::Consumer => "consumer",
            Role::Relay => "relay",
        },
        "uptime_ms": whole_ms(started.elapsed()),
        "session": if milestones.is_attached() { "attached" } else { "detached" },
        "generation": {
            "incarnation": generation.incarnation,
            "term": generation.term,
            "index": generation.index,
        },
        "tracks": snapshot.tracks.iter().map(track).collect::<Vec<_>>(),
        "links": snapshot.links.iter().map(link).collect::<Vec<_>>(),
        "children": children.map(|link| link.peer.to_string()).collect::<Vec<_>>(),
        "counters": counters(&snapshot.counters).into_iter()
            .map(|(name, _, value)| (name.to_owned(), value.into()))
            .collect::<serde_json::Map<_, _>>(),
        "playout": {
            "buffer_ms": whole_ms(snapshot.playout.buffer),
            "latency_ms": served.store.latency_ms(),
            "stalls": snapshot.playout.stalls,
            "stall_ms": whole_ms(snapshot.playout.stalled),
        },
        "ring_bytes": snapshot.ring_bytes,
        "first_ms": {
            "session_open": milestones.session_open().map(whole_ms),
            "cdn_byte": snapshot.first_cdn_byte.map(whole_ms),
            "tree_byte": snapshot.first_tree_byte.map(whole_ms),
            "playable_playlist": milestones.playable_playlist().map(whole_ms),
        },
        "objects": ledger.iter().map(|entry| object(served, entry)).collect::<Vec<_>>(),
    })
}

fn track(track: &TrackSnapshot) -> Value {
    json!({
        "track": track.track.as_str(),
        "stripe": track.stripe,
        "source": track.source.map(source),
        "standby": track.standby.map(source),
        "state": match track.state {
            SourceState::Flowing => "flowing",
            SourceState::Repairing => "repairing",
            SourceState::Bypass => "bypass",
        },
        "epoch": track.newest.map(|(epoch, _)| epoch),
        "newest": track.newest.map(|(_, sequence)| sequence),
    })
}

fn link(link: &LinkSnapshot) -> Value {
    json!({
        "neighbour": link.peer.to_string(),
        "state": match (link.up, link.alive) {
            (false, _) => "connecting",
            (true, true) => "up",
            (true, false) => "silent",
        },
        "child": link.child,
        "rtt_ms": link.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        "buffered_bytes": link.buffered_bytes,
    })
}

fn object(served: &Served, entry: &LedgerEntry) -> Value {
    let key = entry.key;
    let name = served
        .store
        .master(|master| master.track(key.track).map(|t| t.name.clone()));
    json!({
        "track": name.flatten().unwrap_or_else(|| key.track.0.to_string()),
        "epoch": key.epoch,
        "sequence": key.sequence,
        "kind": match key.kind {
            ObjectKind::Segment => "segment",
            ObjectKind::Init => "init",
            ObjectKind::Part => "part",
        },
        "length": entry.length,
        "uri": entry.uri,
        "sha256": hexadecimal(&entry.sha256),
        "first_chunk_unix_ms": entry.first_chunk_unix_ms,
        "completed_unix_ms": entry.completed_unix_ms,
        "from": {
            "parent": entry.from.parent_bytes,
            "standby": entry.from.standby_bytes,
            "cdn": entry.from.cdn_bytes,
        },
        "verified": entry.verified,
    })
}

fn source(source: Source) -> String {
    match source {
        Source::Peer(peer) => peer.to_string(),
        Source::Cdn => "cdn".to_owned(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Every counter: its name in `/stats`, its name in `/metrics` (after the prefix), its value.
fn counters(c: &Counters) -> [(&'static str, &'static str, u64); 16] {
    [
        ("bytes_from_cdn", "received_cdn_bytes", c.bytes_from_cdn),
        (
            "bytes_from_peers",
            "received_peers_bytes",
            c.bytes_from_peers,
        ),
        (
            "bytes_from_standby",
            "received_standby_bytes",
            c.bytes_from_standby,
        ),
        ("bytes_to_peers", "sent_peers_bytes", c.bytes_to_peers),
        (
            "duplicate_bytes",
            "received_duplicate_bytes",
            c.duplicate_bytes,
        ),
        ("corrupt_chunks", "corrupt_chunks", c.corrupt_chunks),
        ("bad_statements", "bad_statements", c.bad_statements),
        (
            "conflicting_statements",
            "conflicting_statements",
            c.conflicting_statements,
        ),
        ("cdn_requests", "cdn_requests", c.cdn_requests),
        ("cdn_failures", "cdn_failures", c.cdn_failures),
        (
            "cdn_overrun_bytes",
            "cdn_overrun_bytes",
            c.cdn_overrun_bytes,
        ),
        (
            "origin_mismatches",
            "origin_mismatches",
            c.origin_mismatches,
        ),
        ("bypassed_objects", "bypassed_objects", c.bypassed_objects),
        (
            "objects_completed",
            "completed_objects",
            c.objects_completed,
        ),
        ("objects_missed", "missed_objects", c.objects_missed),
        ("repair_requests", "repair_requests", c.repair_requests),
    ]
}

/// The Prometheus text format, version 0.0.4.
fn exposition(served: &Served, snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, value: f64| {
        let _infallible = writeln!(
            text,
            "# TYPE espalier_peer_{name} {kind}\nespalier_peer_{name} {value}"
        );
    };
    for (_, name, value) in counters(&snapshot.counters) {
        line(&format!("{name}_total"), "counter", float(value));
    }
    line(
        "stalls_total",
        "counter",
        f64::from(snapshot.playout.stalls),
    );
    line(
        "stalled_seconds_total",
        "counter",
        snapshot.playout.stalled.as_secs_f64(),
    );
    line(
        "buffer_seconds",
        "gauge",
        snapshot.playout.buffer.as_secs_f64(),
    );
    line(
        "latency_seconds",
        "gauge",
        float(served.store.latency_ms()) / 1e3,
    );
    line("ring_bytes", "gauge", float(snapshot.ring_bytes));
    let up = snapshot.links.iter().filter(|link| link.up);
    line("links", "gauge", up.clone().map(|_| 1.0).sum());
    line(
        "children",
        "gauge",
        up.filter(|link| link.child).map(|_| 1.0).sum(),
    );
    let attached = served.identity.milestones.is_attached();
    line(
        "session_attached",
        "gauge",
        if attached { 1.0 } else { 0.0 },
    );
    for link in &snapshot.links {
        if let Some(rtt) = link.rtt {
            let _infallible = writeln!(
                text,
                "espalier_peer_link_rtt_seconds{{neighbour=\"{}\"}} {}",
                link.peer,
                rtt.as_secs_f64()
            );
        }
    }
    text
}

/// Prometheus counts in floating point; beyond 2^53 the last digits are lost there anyway.
#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition format has only floats"
)]
fn float(value: u64) -> f64 {
    value as f64
}
