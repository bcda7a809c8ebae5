//! Playing without statements: when the signer is silent, the origin's own playlist leads.
//!
//! Bytes are played unverified and relayed to nobody. Sequence numbers are the origin's own, as in the
//! descriptors, so that nothing is missed or repeated on the way in or out. The first statement about
//! a newer segment ends it.

use std::sync::Arc;

use espalier_media::hls::{DeclaredInit, MediaPlaylist, Segment};
use espalier_media::{ChunkHashes, Descriptor, HashedObject, ObjectKey, ObjectKind, TrackIndex};

use crate::command::Command;
use crate::ids::TrackName;
use crate::track::{Bypass, Unsigned};

use super::RelayEngine;

/// How many segments a peer begins with that was never told about any.
const BEGIN_WITH: usize = 3;
/// How many segments one playlist may add.
const MAX_SEGMENTS: usize = 8;
/// The longest pause between two playlists, in target durations.
const MAX_PAUSE: u32 = 3;

impl RelayEngine {
    /// Enters bypass one target duration after a statement was due, and polls while in it.
    pub(super) fn tend_bypass(&mut self, t: usize) {
        let now = self.now;
        let target = self.tracks[t].target();
        let track = &self.tracks[t];
        let late = track.due().is_some_and(|due| now >= due + target);
        let known = track.header.is_some() && track.index.is_some();
        let assigned_at = track.stripes.iter().map(|stripe| stripe.assigned_at).max();
        let waited = assigned_at.is_some_and(|at| now >= at + target * 2);
        let never = track.rhythm.is_none() && waited;
        if !track.bypass.active && known && (late || never) {
            let poll_at = now + self.jitter(target / 4);
            let bypass = &mut self.tracks[t].bypass;
            (bypass.active, bypass.poll_at) = (true, poll_at);
        }
        let track = &mut self.tracks[t];
        if track.bypass.active && !track.bypass.asked && now >= track.bypass.poll_at {
            track.bypass.asked = true;
            let (track, uri) = (track.name.clone(), track.uri.clone());
            self.commands
                .push_back(Command::FetchPlaylist { track, uri });
        }
    }

    pub(super) fn on_playlist(&mut self, name: &TrackName, playlist: Option<&MediaPlaylist>) {
        let Some(t) = self.tracks.iter().position(|track| track.name == *name) else {
            return;
        };
        if !self.tracks[t].bypass.active {
            return;
        }
        let found = playlist.is_some_and(|playlist| self.follow(t, playlist));
        let target = self.tracks[t].target();
        let idle = if found {
            0
        } else {
            self.tracks[t].bypass.idle.saturating_add(1)
        };
        // An origin that stands still is not stormed by its whole audience.
        let pause = (target / 2 * (1 + idle)).min(target * MAX_PAUSE);
        let poll_at = self.now + pause + self.jitter(pause / 4);
        let bypass = &mut self.tracks[t].bypass;
        let plays = bypass.plays || found;
        *bypass = Bypass {
            active: true,
            asked: false,
            poll_at,
            idle,
            plays,
        };
        self.dirty = true;
    }

    /// Plays what a playlist has that is new; says whether there was anything.
    fn follow(&mut self, t: usize, playlist: &MediaPlaylist) -> bool {
        let track = &self.tracks[t];
        let (Some(index), Some(header)) = (track.index, track.header()) else {
            return false;
        };
        let epoch = track.newest.map_or(header.epoch, |newest| newest.epoch);
        let from = match track.newest {
            Some(newest) => playlist
                .segments
                .partition_point(|s| s.sequence <= newest.sequence),
            None => playlist.segments.len().saturating_sub(BEGIN_WITH),
        };
        let new: Vec<&Segment> = playlist.segments[from..]
            .iter()
            .take(MAX_SEGMENTS)
            .collect();
        let found = !new.is_empty();
        for segment in new {
            let key = ObjectKey::segment(index, epoch, segment.sequence);
            let init = segment
                .init
                .as_ref()
                .map(|init| self.bypass_init(t, key, init));
            self.tracks[t].newest = Some(key);
            self.tracks[t].start.get_or_insert(key);
            if !segment.gap {
                self.bypass_object(t, segment.descriptor(index, epoch, init, unread()));
                self.tracks[t].playout.append(key, segment.duration);
            }
        }
        let target = self.tracks[t].target();
        self.tracks[t].playout.start(target, self.now);
        found
    }

    /// The sequence number of an init section: of one that is known by its place, or of a new one.
    fn bypass_init(&mut self, t: usize, key: ObjectKey, init: &DeclaredInit) -> u64 {
        let signed = self.signed_init(key.track, key.epoch, init);
        let unsigned = || {
            let same = |u: &Unsigned| u.uri == init.uri && u.byte_range == init.byte_range;
            let found = self.tracks[t]
                .unsigned
                .iter()
                .find(|(k, u)| k.kind == ObjectKind::Init && same(u));
            found.map(|(key, _)| key.sequence)
        };
        if let Some(sequence) = signed.or_else(unsigned) {
            return sequence;
        }
        let key = ObjectKey::init(key.track, key.epoch, key.sequence);
        self.bypass_object(
            t,
            init.descriptor(key.track, key.epoch, key.sequence, unread()),
        );
        key.sequence
    }

    fn signed_init(&self, track: TrackIndex, epoch: u32, init: &DeclaredInit) -> Option<u64> {
        let same = |descriptor: &Descriptor| {
            descriptor.key.epoch == epoch
                && descriptor.key.kind == ObjectKind::Init
                && descriptor.uri == init.uri
                && descriptor.byte_range == init.byte_range
        };
        let known = self
            .ring
            .of_track(track)
            .rev()
            .map(|(_, object)| object.descriptor());
        known
            .into_iter()
            .find(|descriptor| same(descriptor))
            .map(|d| d.key.sequence)
    }

    fn bypass_object(&mut self, t: usize, descriptor: Descriptor) {
        let key = descriptor.key;
        if self.ring.get(&key).is_some() {
            return;
        }
        let fresh = || Unsigned::new(descriptor.uri.clone(), descriptor.byte_range);
        // What was announced before the signer fell silent is under way already.
        let unsigned = self.tracks[t].unsigned.entry(key).or_insert_with(fresh);
        unsigned.bypass = Some(Arc::new(descriptor));
        self.play_unsigned(t, key);
    }
}

/// An object of which nothing is known but what the playlist says.
fn unread() -> HashedObject {
    HashedObject {
        length: 0,
        chunk_hashes: ChunkHashes::default(),
    }
}
