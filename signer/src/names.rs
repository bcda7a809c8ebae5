//! Which declared track is which, over rereads and restarts.
//!
//! Invariant: an index or a name, once given, never means another track.

use espalier_media::hls::DeclaredTrack;
use espalier_media::limits::{MAX_TRACK_INDEX, MAX_TRACKS};
use espalier_media::{Track, TrackIndex, TrackKind};

use crate::numbering::identity;
use crate::state::TrackState;

/// Tracks that are remembered although the origin names them no more.
const REMEMBERED: usize = 4 * MAX_TRACKS;

/// The name of the one track of an origin without a master playlist.
pub(crate) const ONLY_TRACK: &str = "main";

/// Gives every declared track its index and its name; new ones are added to `known`. `current` are
/// the tracks of the last master playlist.
///
/// Returns `None` once there are no indices left.
pub(crate) fn assign(
    declared: &[DeclaredTrack],
    current: &[Track],
    known: &mut Vec<TrackState>,
) -> Option<Vec<Track>> {
    let mut assigned: Vec<Track> = Vec::with_capacity(declared.len());
    for track in declared {
        let taken = |index: u32| assigned.iter().any(|track| track.index.0 == index);
        let same = known
            .iter()
            .position(|state| state.identity == identity(&track.uri) && !taken(state.index))
            .or_else(|| {
                moved(track, declared, current, known).filter(|at| !taken(known[*at].index))
            });
        let at = match same {
            Some(at) => at,
            None => add(track, known)?,
        };
        known[at].identity = identity(&track.uri).to_owned();
        assigned.push(describe(track, &known[at]));
    }
    let surplus = known.len().saturating_sub(REMEMBERED);
    let mut dropped = 0;
    known.retain(|state| {
        let drop = dropped < surplus && !assigned.iter().any(|track| track.index.0 == state.index);
        dropped += usize::from(drop);
        !drop
    });
    Some(assigned)
}

/// Finds the track of before that this one must be although its URI changed (tokens in paths): the
/// only one with its attributes that is declared no more.
fn moved(
    track: &DeclaredTrack,
    declared: &[DeclaredTrack],
    current: &[Track],
    known: &[TrackState],
) -> Option<usize> {
    let alike = |held: &&Track| {
        held.kind == track.kind
            && held.group == track.group
            && held.bandwidth_bps == track.bandwidth_bps
            && !declared
                .iter()
                .any(|other| identity(&other.uri) == identity(&held.uri))
    };
    let mut candidates = current.iter().filter(alike);
    let candidate = candidates.next()?;
    if candidates.next().is_some() {
        return None;
    }
    known
        .iter()
        .position(|state| state.index == candidate.index.0)
}

fn add(track: &DeclaredTrack, known: &mut Vec<TrackState>) -> Option<usize> {
    let index = known.iter().map(|state| state.index + 1).max().unwrap_or(0);
    if index > MAX_TRACK_INDEX {
        return None;
    }
    let prefix = match track.kind {
        TrackKind::Variant => "v",
        TrackKind::Audio => "a",
        TrackKind::Video => "angle",
        TrackKind::Subtitles => "s",
    };
    let name = (0..=index)
        .map(|number| format!("{prefix}{number}"))
        .find(|name| !known.iter().any(|state| state.name == *name))?;
    known.push(new_state(index, name, &track.uri));
    Some(known.len() - 1)
}

/// Makes the one track of an origin without a master playlist.
pub(crate) fn only_track(uri: &str, known: &mut Vec<TrackState>) -> Option<Track> {
    let at = match known.iter().position(|state| state.name == ONLY_TRACK) {
        Some(at) => at,
        None => {
            let index = known.iter().map(|state| state.index + 1).max().unwrap_or(0);
            known.push(new_state(index, ONLY_TRACK.to_owned(), uri));
            known.len() - 1
        }
    };
    let declared = DeclaredTrack {
        uri: uri.to_owned(),
        bandwidth_bps: 0,
        kind: TrackKind::Variant,
        group: String::new(),
        plays_with: Vec::new(),
        default_rendition: false,
    };
    let track = describe(&declared, &known[at]);
    (track.index.0 <= MAX_TRACK_INDEX).then_some(track)
}

fn new_state(index: u32, name: String, uri: &str) -> TrackState {
    TrackState {
        index,
        name,
        identity: identity(uri).to_owned(),
        epoch: 0,
        segments: Vec::new(),
        inits: Vec::new(),
    }
}

fn describe(track: &DeclaredTrack, state: &TrackState) -> Track {
    Track {
        index: TrackIndex(state.index),
        name: state.name.clone(),
        uri: track.uri.clone(),
        bandwidth_bps: track.bandwidth_bps,
        kind: track.kind,
        group: track.group.clone(),
        plays_with: track.plays_with.clone(),
        default_rendition: track.default_rendition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(uri: &str, kind: TrackKind, bandwidth_bps: u64) -> DeclaredTrack {
        DeclaredTrack {
            uri: format!("http://origin.example/{uri}"),
            bandwidth_bps,
            kind,
            group: String::new(),
            plays_with: Vec::new(),
            default_rendition: false,
        }
    }

    fn names(tracks: &[Track]) -> Vec<(u32, &str)> {
        tracks
            .iter()
            .map(|track| (track.index.0, track.name.as_str()))
            .collect()
    }

    #[test]
    fn tracks_keep_their_names_over_rereads_and_restarts() {
        let mut known = Vec::new();
        let first = [
            declared("hi.m3u8?t=1", TrackKind::Variant, 2),
            declared("lo.m3u8", TrackKind::Variant, 1),
            declared("en.m3u8", TrackKind::Audio, 0),
        ];
        let tracks = assign(&first, &[], &mut known).expect("indices");
        assert_eq!(names(&tracks), [(0, "v0"), (1, "v1"), (2, "a0")]);
        let second = [
            first[1].clone(),
            declared("hi.m3u8?t=2", TrackKind::Variant, 2),
        ];
        assert_eq!(
            names(&assign(&second, &tracks, &mut known).expect("indices")),
            [(1, "v1"), (0, "v0")]
        );
        let third = [declared("new.m3u8", TrackKind::Variant, 9)];
        assert_eq!(
            names(&assign(&third, &[], &mut known).expect("indices")),
            [(3, "v2")]
        );
    }

    #[test]
    fn a_token_in_the_path_makes_no_new_track() {
        let mut known = Vec::new();
        let tracks = assign(
            &[declared("t1/hi.m3u8", TrackKind::Variant, 2)],
            &[],
            &mut known,
        )
        .expect("indices");
        let moved = [declared("t2/hi.m3u8", TrackKind::Variant, 2)];
        assert_eq!(
            names(&assign(&moved, &tracks, &mut known).expect("indices")),
            [(0, "v0")]
        );
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Vec::new();
        for round in 0..2 * REMEMBERED {
            let track = declared(&format!("{round}.m3u8"), TrackKind::Variant, round as u64);
            assign(&[track], &[], &mut known).expect("indices");
        }
        assert!(known.len() <= REMEMBERED);
        assert_eq!(
            known.last().map(|state| state.index as usize),
            Some(2 * REMEMBERED - 1)
        );
    }
}
