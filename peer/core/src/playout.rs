//! A virtual player: where a player that watches this track would be, and when it needs what.
//!
//! It starts three target durations behind the newest segment's end, as HLS players do, and advances
//! in real time; where the next segment is not there it stalls until it is. All repair deadlines come
//! from it: it is the same for a peer that watches, for a relay (whose stalls nobody sees), and for a
//! peer whose real player is paused, because relaying ignores pause and seek.
//!
//! It knows durations and what is available, not bytes.

use core::time::Duration;
use std::collections::VecDeque;

use espalier_media::ObjectKey;

/// How many target durations a player keeps between itself and the live edge.
pub(crate) const TARGETS_BEHIND: u32 = 3;
/// The most segments on the time line.
const MAX_SEGMENTS: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Segment {
    key: ObjectKey,
    start: Duration,
    end: Duration,
    available: bool,
}

/// The playhead: running since a time from a place, or waiting at a place since a time.
#[derive(Debug, Clone, Copy)]
enum Playhead {
    Running { from: Duration, since: Duration },
    Stalled { at: Duration, since: Duration },
}

/// The time line of one track, and the playhead on it.
#[derive(Debug, Default)]
pub(crate) struct Playout {
    segments: VecDeque<Segment>,
    playhead: Option<Playhead>,
    stalls: u32,
    stalled: Duration,
}

/// What the time line begins with, so that the playhead can start before the first segment.
const ORIGIN: Duration = Duration::from_secs(86_400);

impl Playout {
    /// Appends a segment; one that is not newer than the newest is ignored.
    pub(crate) fn append(&mut self, key: ObjectKey, duration: Duration) {
        if self.segments.back().is_some_and(|last| last.key >= key) {
            return;
        }
        let start = self.segments.back().map_or(ORIGIN, |last| last.end);
        self.segments.push_back(Segment {
            key,
            start,
            end: start + duration,
            available: false,
        });
        if self.segments.len() > MAX_SEGMENTS {
            self.segments.pop_front();
        }
    }

    /// Starts the playhead, if it has not started.
    pub(crate) fn start(&mut self, target: Duration, now: Duration) {
        if self.playhead.is_none()
            && let Some(last) = self.segments.back()
        {
            let from = last.end.saturating_sub(target * TARGETS_BEHIND);
            self.playhead = Some(Playhead::Running { from, since: now });
        }
    }

    /// A segment can be played, or never will and is passed over.
    pub(crate) fn make_available(&mut self, key: &ObjectKey, now: Duration) {
        self.advance(now);
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.key == *key) {
            segment.available = true;
        }
        self.advance(now);
    }

    /// Brings the playhead to `now`, counting stalls.
    pub(crate) fn advance(&mut self, now: Duration) {
        let Some(playhead) = self.playhead else {
            return;
        };
        match playhead {
            Playhead::Running { from, since } => {
                let (reached, end) = (from + now.saturating_sub(since), self.playable_end(from));
                if reached > end {
                    self.stalls += 1;
                    let dry = since + end.saturating_sub(from);
                    self.playhead = Some(Playhead::Stalled {
                        at: end,
                        since: dry,
                    });
                    self.advance(now);
                } else {
                    self.forget_played(reached);
                }
            }
            Playhead::Stalled { at, since } => {
                if self.playable_end(at) > at {
                    self.stalled += now.saturating_sub(since);
                    self.playhead = Some(Playhead::Running {
                        from: at,
                        since: now,
                    });
                }
            }
        }
    }

    /// How long from `now` until the player needs a segment; zero if it waits for it, or has passed it.
    /// `None`: it is not on the time line.
    pub(crate) fn time_to(&self, key: &ObjectKey, now: Duration) -> Option<Duration> {
        let segment = self.segments.iter().find(|segment| segment.key == *key)?;
        Some(segment.start.saturating_sub(self.position(now)?))
    }

    /// How long from `now` until the player needs a segment, or the first one behind it.
    pub(crate) fn time_to_first_from(&self, key: &ObjectKey, now: Duration) -> Option<Duration> {
        let segment = self.segments.iter().find(|segment| segment.key >= *key)?;
        Some(segment.start.saturating_sub(self.position(now)?))
    }

    /// Media ahead of the playhead without a gap.
    pub(crate) fn buffer(&self, now: Duration) -> Duration {
        self.position(now).map_or(Duration::ZERO, |at| {
            self.playable_end(at).saturating_sub(at)
        })
    }

    /// How far the playhead is behind the newest segment's end.
    pub(crate) fn latency(&self, now: Duration) -> Duration {
        let end = self.segments.back().map_or(Duration::ZERO, |last| last.end);
        self.position(now)
            .map_or(Duration::ZERO, |at| end.saturating_sub(at))
    }

    /// How often it ran dry, and for how long in all.
    pub(crate) fn stalls(&self, now: Duration) -> (u32, Duration) {
        let current = match self.playhead {
            Some(Playhead::Stalled { since, .. }) => now.saturating_sub(since),
            Some(Playhead::Running { .. }) | None => Duration::ZERO,
        };
        (self.stalls, self.stalled + current)
    }

    fn position(&self, now: Duration) -> Option<Duration> {
        Some(match self.playhead? {
            Playhead::Running { from, since } => from + now.saturating_sub(since),
            Playhead::Stalled { at, .. } => at,
        })
    }

    /// Where a playhead that is at `at` runs dry. What lies before the time line counts as there: it
    /// is the player's start-up, which is fetched on its own request.
    fn playable_end(&self, at: Duration) -> Duration {
        let mut end = self
            .segments
            .front()
            .map_or(at, |first| first.start.max(at));
        for segment in self.segments.iter().filter(|segment| segment.end > at) {
            if !segment.available {
                return end.min(segment.start.max(at));
            }
            end = segment.end;
        }
        end
    }

    fn forget_played(&mut self, position: Duration) {
        while self.segments.len() > 1 && self.segments[0].end < position {
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_media::TrackIndex;

    const S: Duration = Duration::from_secs(1);
    const T: Duration = Duration::from_secs(2);

    fn key(sequence: u64) -> ObjectKey {
        ObjectKey::segment(TrackIndex(0), 0, sequence)
    }

    /// A player that joined at segment 10, at time zero.
    fn joined() -> Playout {
        let mut playout = Playout::default();
        playout.append(key(10), T);
        playout.start(T, Duration::ZERO);
        playout.make_available(&key(10), Duration::ZERO);
        playout
    }

    #[test]
    fn it_starts_three_target_durations_behind_the_newest_end() {
        let playout = joined();
        assert_eq!(playout.latency(Duration::ZERO), T * 3);
        assert_eq!(playout.buffer(Duration::ZERO), T * 3);
        assert_eq!(playout.time_to(&key(10), Duration::ZERO), Some(T * 2));
    }

    #[test]
    fn a_late_segment_stalls_it_and_its_arrival_ends_the_stall() {
        let mut playout = joined();
        playout.append(key(11), T);
        playout.advance(S * 6);
        assert_eq!(playout.stalls(S * 6), (0, Duration::ZERO));
        playout.advance(S * 7);
        assert_eq!(playout.stalls(S * 7), (1, S));
        assert_eq!(playout.time_to(&key(11), S * 7), Some(Duration::ZERO));
        playout.make_available(&key(11), S * 8);
        assert_eq!(playout.stalls(S * 9), (1, S * 2));
        assert_eq!(playout.buffer(S * 8), T);
    }

    #[test]
    fn a_steady_stream_never_stalls_it() {
        let mut playout = joined();
        for n in 0..500_u32 {
            let now = T * (n + 1);
            playout.append(key(11 + u64::from(n)), T);
            playout.make_available(&key(11 + u64::from(n)), now);
            assert_eq!(playout.latency(now), T * 3);
        }
        assert_eq!(playout.stalls(T * 500), (0, Duration::ZERO));
        assert!(playout.segments.len() < 6);
    }

    #[test]
    fn a_gap_ends_the_buffer() {
        let mut playout = joined();
        for sequence in 11..14 {
            playout.append(key(sequence), T);
        }
        playout.make_available(&key(12), S);
        assert_eq!(playout.buffer(S), S * 5);
        playout.make_available(&key(11), S);
        assert_eq!(playout.buffer(S), S * 9);
    }
}
