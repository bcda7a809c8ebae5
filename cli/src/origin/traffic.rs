//! Who took how many bytes from the origin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The name under which the signer asks.
const SIGNER: &str = "signer";

/// Counters that the server and its observer share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    counters: Arc<Mutex<Counters>>,
}

#[derive(Debug, Default)]
struct Counters {
    /// Media bytes by `X-Peer-Id`.
    media: BTreeMap<String, u64>,
    playlists: u64,
}

/// What was taken so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrafficTotals {
    /// Media bytes that the audience took.
    pub(crate) peers: u64,
    /// Media bytes that the signer took, once for each object.
    pub(crate) signer: u64,
    /// Playlist bytes, whoever took them.
    pub(crate) playlists: u64,
    /// Media bytes for each peer that took any.
    pub(crate) by_peer: BTreeMap<String, u64>,
}

impl Traffic {
    pub(crate) fn count_media(&self, who: &str, bytes: u64) {
        self.with(|counters| match counters.media.get_mut(who) {
            Some(taken) => *taken = taken.saturating_add(bytes),
            None => {
                counters.media.insert(who.to_owned(), bytes);
            }
        });
    }

    pub(crate) fn count_playlist(&self, bytes: u64) {
        self.with(|counters| counters.playlists = counters.playlists.saturating_add(bytes));
    }

    pub(crate) fn totals(&self) -> TrafficTotals {
        self.with(|counters| {
            let mut by_peer = counters.media.clone();
            let signer = by_peer.remove(SIGNER).unwrap_or(0);
            TrafficTotals {
                peers: by_peer.values().sum(),
                signer,
                playlists: counters.playlists,
                by_peer,
            }
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counters) -> T) -> T {
        // Counters are whole after every statement, so a panic elsewhere spoils nothing.
        act(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signer_and_playlists_are_counted_apart() {
        let traffic = Traffic::default();
        traffic.count_media("signer", 5);
        traffic.count_media("aa", 10);
        traffic.count_media("aa", 10);
        traffic.count_media("bb", 1);
        traffic.count_playlist(3);
        assert_eq!(
            traffic.totals(),
            TrafficTotals {
                peers: 21,
                signer: 5,
                playlists: 3,
                by_peer: BTreeMap::from([("aa".into(), 20), ("bb".into(), 1)]),
            }
        );
    }
}
