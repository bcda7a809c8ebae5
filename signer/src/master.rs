//! When the origin's own playlist is read, and which revision of the master header is told.

use std::time::Duration;

use espalier_media::{MasterHeader, Track};
use sha2::{Digest as _, Sha256};

use crate::rhythm::back_off;
use crate::state::MasterState;
use crate::status::{OriginState, OriginStatus};

/// How often it is read again.
const INTERVAL: Duration = Duration::from_secs(60);
/// How soon, at the earliest, when a track is gone.
const SOONEST: Duration = Duration::from_secs(5);

/// The poll times of the origin's own playlist.
#[derive(Debug)]
pub(crate) struct MasterPoll {
    next: Duration,
    last: Option<Duration>,
    in_flight: bool,
    trouble: Option<Duration>,
    problem: Option<OriginStatus>,
}

impl MasterPoll {
    /// Polls at once.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            next: now,
            last: None,
            in_flight: false,
            trouble: None,
            problem: None,
        }
    }

    /// Returns when to poll; `None` while a poll is on its way.
    pub(crate) fn due(&self) -> Option<Duration> {
        (!self.in_flight).then_some(self.next)
    }

    /// Returns when the last poll was sent.
    pub(crate) fn sent_at(&self) -> Option<Duration> {
        self.last
    }

    /// Returns what is wrong with it.
    pub(crate) fn problem(&self) -> Option<&OriginStatus> {
        self.problem.as_ref()
    }

    /// A poll was sent.
    pub(crate) fn sent(&mut self, now: Duration) {
        self.in_flight = true;
        self.last = Some(now);
    }

    /// A track is gone: the master playlist may say where it is now.
    pub(crate) fn soon(&mut self, now: Duration) {
        let soonest = self.last.map_or(now, |last| last + SOONEST);
        self.next = self.next.min(soonest.max(now));
    }

    /// It was read.
    pub(crate) fn read(&mut self, now: Duration) {
        self.in_flight = false;
        self.trouble = None;
        self.problem = None;
        self.next = now + INTERVAL;
    }

    /// It could not be read, or is of no use.
    pub(crate) fn failed(&mut self, state: OriginState, problem: String, now: Duration) {
        self.in_flight = false;
        let since = *self.trouble.get_or_insert(now);
        self.next = now + back_off(now - since);
        self.problem = Some(OriginStatus { state, problem });
    }
}

/// Makes the master header for these tracks: with a new revision if it says something new.
pub(crate) fn header(
    held: Option<&MasterState>,
    tracks: Vec<Track>,
    playlist: String,
) -> (MasterHeader, MasterState) {
    let digest = digest(&tracks, &playlist);
    let revision = match held {
        Some(held) if held.digest == digest => held.revision,
        Some(held) => held.revision.saturating_add(1),
        None => 1,
    };
    (
        MasterHeader {
            revision,
            tracks,
            playlist,
        },
        MasterState { revision, digest },
    )
}

fn digest(tracks: &[Track], playlist: &str) -> String {
    let hash = Sha256::digest(format!("{tracks:?}\n{playlist}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_track_is_looked_for_but_not_all_the_time() {
        let second = Duration::from_secs(1);
        let mut poll = MasterPoll::new(Duration::ZERO);
        poll.sent(Duration::ZERO);
        assert_eq!(poll.due(), None);
        poll.read(Duration::ZERO);
        assert_eq!(poll.due(), Some(INTERVAL));
        poll.soon(second);
        assert_eq!(poll.due(), Some(SOONEST));
        poll.soon(20 * second);
        assert_eq!(poll.due(), Some(SOONEST), "what is planned sooner stays");
    }

    #[test]
    fn revisions_rise_with_changes_only() {
        let (first, state) = header(None, Vec::new(), "a".to_owned());
        assert_eq!(first.revision, 1);
        let (same, state) = header(Some(&state), Vec::new(), "a".to_owned());
        assert_eq!(same.revision, 1);
        let (other, _) = header(Some(&state), Vec::new(), "b".to_owned());
        assert_eq!(other.revision, 2);
    }
}
