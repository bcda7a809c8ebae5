//! Whether a playlist goes on with the numbering that is known, or starts another.
//!
//! Invariant: a single odd answer never starts an epoch; what has to be confirmed is asked again.
//!
//! A cache may answer with an older playlist: it lists what is known, and is waited for. An origin
//! that was restarted lists other segments under numbers that were used, or numbers far below: that
//! is a new epoch.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use espalier_media::hls::{MediaPlaylist, Segment};
use sha2::{Digest as _, Sha256};

use crate::state::SegmentState;

/// How many segments are remembered.
const REMEMBERED: usize = 64;
/// Two dates of one segment may differ by this much: derived ones carry rounding.
const SAME_DATE_MS: u64 = 1_000;
/// How many doubtful answers in a row confirm a new numbering.
const CONFIRMATIONS: u32 = 2;
/// How many target durations an older playlist may come before it is taken for a restart.
const PATIENCE: u32 = 3;

/// What a playlist is to the numbering known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuation {
    /// It goes on.
    Same,
    /// It may be another numbering, or an old answer: ask again.
    Doubtful {
        /// Its last segment.
        last: u64,
        /// The newest segment known.
        newest: u64,
    },
    /// It is another numbering.
    Renumbered,
}

/// What is remembered of one epoch's segments.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    segments: VecDeque<SegmentState>,
    /// Doubtful answers in a row.
    doubts: u32,
    /// When the first of the answers came that are older than what is known.
    behind_since: Option<Duration>,
}

impl Numbering {
    /// Goes on from what an earlier run remembered.
    pub(crate) fn resume(segments: Vec<SegmentState>) -> Self {
        Self {
            segments: segments.into(),
            ..Self::default()
        }
    }

    /// Returns what is remembered, oldest first.
    pub(crate) fn remembered(&self) -> Vec<SegmentState> {
        self.segments.iter().cloned().collect()
    }

    /// Judges a playlist, and remembers its segments if it goes on.
    pub(crate) fn judge(&mut self, playlist: &MediaPlaylist, now: Duration) -> Continuation {
        let (Some(newest), Some(last)) = (self.newest(), playlist.last_sequence()) else {
            self.remember(playlist);
            return Continuation::Same;
        };
        let (agree, differ) = self.compare(playlist);
        let reused = agree == 0 && differ > 0;
        let far_below = last < newest && agree == 0;
        let doubtful = Continuation::Doubtful { last, newest };
        if reused || far_below {
            self.doubts += 1;
            let confirmed = self.doubts >= CONFIRMATIONS;
            return if confirmed {
                Continuation::Renumbered
            } else {
                doubtful
            };
        }
        self.doubts = 0;
        if last < newest {
            let since = *self.behind_since.get_or_insert(now);
            let restarted = now.saturating_sub(since) > playlist.target_duration * PATIENCE;
            return if restarted {
                Continuation::Renumbered
            } else {
                doubtful
            };
        }
        self.behind_since = None;
        self.remember(playlist);
        Continuation::Same
    }

    fn newest(&self) -> Option<u64> {
        self.segments.back().map(|segment| segment.sequence)
    }

    /// Counts the known segments that the playlist lists as they were, and those that it does not.
    fn compare(&self, playlist: &MediaPlaylist) -> (usize, usize) {
        let known: BTreeMap<u64, &SegmentState> = self
            .segments
            .iter()
            .map(|segment| (segment.sequence, segment))
            .collect();
        let pairs = playlist
            .segments
            .iter()
            .filter_map(|segment| Some((*known.get(&segment.sequence)?, recognise(segment))));
        let (same, other): (Vec<_>, Vec<_>) = pairs.partition(|(known, seen)| is_same(known, seen));
        (same.len(), other.len())
    }

    fn remember(&mut self, playlist: &MediaPlaylist) {
        let newest = self.newest();
        let new = playlist
            .segments
            .iter()
            .filter(|segment| newest.is_none_or(|newest| segment.sequence > newest));
        self.segments.extend(new.map(recognise));
        let surplus = self.segments.len().saturating_sub(REMEMBERED);
        self.segments.drain(..surplus);
    }
}

fn is_same(known: &SegmentState, seen: &SegmentState) -> bool {
    let dates = known.program_date_time_ms.zip(seen.program_date_time_ms);
    known.digest == seen.digest && dates.is_none_or(|(a, b)| a.abs_diff(b) <= SAME_DATE_MS)
}

/// Takes down what a segment is recognised by. Not its whole URI: hosts and tokens may change.
fn recognise(segment: &Segment) -> SegmentState {
    let name = identity(&segment.uri)
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let range = segment.byte_range.map(|range| (range.offset, range.length));
    let text = format!("{name}\n{range:?}\n{}", segment.duration.as_micros());
    let hash = Sha256::digest(text);
    let mut digest = [0; 8];
    digest.copy_from_slice(&hash[..8]);
    SegmentState {
        sequence: segment.sequence,
        digest: u64::from_be_bytes(digest),
        program_date_time_ms: segment.program_date_time_ms,
    }
}

/// Returns a URI without its query and fragment: what stays when tokens change.
pub(crate) fn identity(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use espalier_media::hls;

    use super::*;

    const BASE: &str = "http://origin.example/live/index.m3u8";

    fn playlist(first: u64, count: u64, name: &str) -> MediaPlaylist {
        let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
        for sequence in first..first + count {
            text += &format!("#EXTINF:2.0,\n{name}{sequence}.ts\n");
        }
        hls::parse_media_playlist(text.as_bytes(), BASE).expect("a playlist")
    }

    /// Judges playlists that come a second apart; returns the verdicts.
    fn judge(playlists: &[MediaPlaylist]) -> Vec<Continuation> {
        let mut numbering = Numbering::default();
        let times = (0..).map(Duration::from_secs);
        playlists
            .iter()
            .zip(times)
            .map(|(playlist, now)| numbering.judge(playlist, now))
            .collect()
    }

    #[test]
    fn a_sliding_window_goes_on() {
        let verdicts = judge(&[
            playlist(0, 5, "a"),
            playlist(2, 5, "a"),
            playlist(90, 5, "a"),
        ]);
        assert_eq!(verdicts, [Continuation::Same; 3]);
    }

    #[test]
    fn an_old_answer_is_waited_for() {
        let old = playlist(1, 5, "a");
        let verdicts = judge(&[playlist(3, 5, "a"), old.clone(), playlist(4, 5, "a"), old]);
        let doubtful = |newest| Continuation::Doubtful { last: 5, newest };
        assert_eq!(
            verdicts,
            [
                Continuation::Same,
                doubtful(7),
                Continuation::Same,
                doubtful(8)
            ]
        );
    }

    #[test]
    fn answers_that_stay_old_are_a_restart() {
        let mut playlists = vec![playlist(0, 8, "a")];
        playlists.extend(std::iter::repeat_n(playlist(0, 2, "a"), 8));
        let verdicts = judge(&playlists);
        assert_eq!(verdicts[7], Continuation::Doubtful { last: 1, newest: 7 });
        assert_eq!(verdicts[8], Continuation::Renumbered);
    }

    #[test]
    fn other_segments_under_used_numbers_are_a_restart_once_confirmed() {
        let verdicts = judge(&[
            playlist(3, 5, "a"),
            playlist(3, 6, "b"),
            playlist(3, 6, "b"),
        ]);
        assert_eq!(verdicts[1], Continuation::Doubtful { last: 8, newest: 7 });
        assert_eq!(verdicts[2], Continuation::Renumbered);
    }

    #[test]
    fn numbers_far_below_are_a_restart_once_confirmed() {
        let verdicts = judge(&[
            playlist(900, 5, "a"),
            playlist(0, 1, "a"),
            playlist(900, 5, "a"),
        ]);
        assert_eq!(verdicts[2], Continuation::Same);
        let verdicts = judge(&[
            playlist(900, 5, "a"),
            playlist(0, 1, "a"),
            playlist(0, 1, "a"),
        ]);
        assert_eq!(verdicts[2], Continuation::Renumbered);
    }

    #[test]
    fn a_restart_is_noticed_after_our_own() {
        let mut before = Numbering::default();
        before.judge(&playlist(3, 5, "a"), Duration::ZERO);
        let mut after = Numbering::resume(before.remembered());
        assert_eq!(
            after.judge(&playlist(4, 5, "a"), Duration::ZERO),
            Continuation::Same
        );
        assert_ne!(
            after.judge(&playlist(4, 6, "b"), Duration::ZERO),
            Continuation::Same
        );
    }
}
