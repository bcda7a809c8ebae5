//! What a peer says about itself at `/stats`.

use std::time::Duration;

use serde::Deserialize;

use crate::topology::Health;

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of `/stats` that the demo shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PeerStats {
    pub(crate) counters: CounterStats,
    pub(crate) playout: PlayoutStats,
    pub(crate) first_ms: FirstStats,
    /// What it had whole last.
    pub(crate) objects: Vec<ObjectStats>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectStats {
    pub(crate) kind: String,
    pub(crate) completed_unix_ms: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct CounterStats {
    pub(crate) bytes_from_cdn: u64,
    pub(crate) bytes_from_peers: u64,
    pub(crate) corrupt_chunks: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PlayoutStats {
    pub(crate) buffer_ms: u64,
    pub(crate) latency_ms: u64,
    pub(crate) stalls: u64,
    pub(crate) stall_ms: u64,
}

/// Milliseconds from the peer's start to something's first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct FirstStats {
    pub(crate) session_open: Option<u64>,
    pub(crate) tree_byte: Option<u64>,
    pub(crate) playable_playlist: Option<u64>,
}

impl PeerStats {
    /// Asks the peer that serves its master playlist at `url`; `None` if it does not answer well.
    pub(crate) async fn ask(client: &reqwest::Client, url: &str) -> Option<Self> {
        let url = url::Url::parse(url).ok()?.join("/stats").ok()?;
        let response = client.get(url).timeout(PATIENCE).send().await.ok()?;
        let body = response.error_for_status().ok()?.bytes().await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// When segments were whole here, in milliseconds since the Unix epoch.
    pub(crate) fn segments_completed_ms(&self) -> Vec<i64> {
        let segments = self
            .objects
            .iter()
            .filter(|object| object.kind == "segment");
        segments.map(|object| object.completed_unix_ms).collect()
    }

    /// The same in the form of the orchestrator's topology, which is some seconds older.
    pub(crate) fn health(&self) -> Health {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Health {
            bytes_from_cdn: self.counters.bytes_from_cdn,
            bytes_from_peers: self.counters.bytes_from_peers,
            buffer_ms: narrow(self.playout.buffer_ms),
            latency_ms: narrow(self.playout.latency_ms),
            stalls: narrow(self.playout.stalls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_s_document_is_read() {
        let text = r#"{"peer": "00000000000000aa", "tracks": [],
            "counters": {"bytes_from_cdn": 1, "bytes_from_peers": 2, "cdn_requests": 3},
            "playout": {"buffer_ms": 5900, "latency_ms": 2100, "stalls": 1, "stall_ms": 40},
            "first_ms": {"session_open": 12, "cdn_byte": null, "tree_byte": 80, "playable_playlist": 90},
            "objects": [{"kind": "init", "completed_unix_ms": 1},
                        {"kind": "segment", "sequence": 4, "completed_unix_ms": 2000}]}"#;
        let stats: PeerStats = serde_json::from_str(text).unwrap();
        assert_eq!(stats.counters.bytes_from_peers, 2);
        assert_eq!(stats.first_ms.tree_byte, Some(80));
        assert_eq!(stats.health().latency_ms, 2_100);
        assert_eq!(stats.segments_completed_ms(), [2_000]);
    }

    #[test]
    fn what_a_young_peer_cannot_say_yet_is_absent() {
        let stats: PeerStats = serde_json::from_str(r#"{"first_ms": {}}"#).unwrap();
        assert_eq!(stats, PeerStats::default());
    }
}
