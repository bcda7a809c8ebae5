//! Which tracks the player reads, told from its requests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use espalier_peer_core::TrackName;
use tokio::time::Instant;

/// How long a track is wanted after its playlist was last asked for.
const LINGER: Duration = Duration::from_secs(30);

/// Remembers when each track was last asked for.
///
/// A track counts as read until [`LINGER`] after its last request; the last set stays if the player
/// goes away altogether, so that it finds its tracks when it comes back.
#[derive(Debug, Default)]
pub(super) struct Demand {
    asked: Mutex<BTreeMap<TrackName, Instant>>,
}

impl Demand {
    /// Takes note of a request and returns the wanted tracks, if they are not what they were.
    pub(super) fn asked(&self, track: &str, now: Instant) -> Option<Vec<TrackName>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let new = asked.insert(TrackName(track.to_owned()), now).is_none();
        let before = asked.len();
        asked.retain(|_, last| now.saturating_duration_since(*last) < LINGER);
        (new || asked.len() < before).then(|| asked.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_is_wanted_when_asked_for_and_dropped_when_not_asked_for_a_while() {
        let demand = Demand::default();
        let start = Instant::now();
        let names = |tracks: &[&str]| {
            Some(
                tracks
                    .iter()
                    .map(|name| TrackName((*name).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(demand.asked("v0", start), names(&["v0"]));
        assert_eq!(demand.asked("a0", start), names(&["a0", "v0"]));
        assert_eq!(demand.asked("v0", start + LINGER / 2), None);
        assert_eq!(
            demand.asked("v1", start + LINGER / 2),
            names(&["a0", "v0", "v1"])
        );
        assert_eq!(demand.asked("v1", start + LINGER), names(&["v0", "v1"]));
        assert_eq!(demand.asked("v1", start + LINGER * 2), names(&["v1"]));
    }
}
