//! What a peer knows about one track that it takes: names, headers, rhythm, sources, place.
//!
//! State only, with the small questions that can be answered from it; what to do is decided by
//! `upstream` (sources), `engine::repair` (missing chunks) and `engine::bypass`.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use espalier_media::{
    ByteRange, Descriptor, MasterHeader, ObjectKey, SignedStatement, Statement, TrackHeader,
    TrackIndex,
};

use crate::command::SourceState;
use crate::event::TrackAssignment;
use crate::ids::{FetchId, PeerId, Source, TrackName};
use crate::log::StatementLog;
use crate::playout::Playout;
use crate::upstream::Decision;

/// The longest time that counts as that of one chunk.
const MAX_INTERVAL: Duration = Duration::from_secs(1);
/// The target duration while no header says it.
const DEFAULT_TARGET: Duration = Duration::from_secs(4);

/// A subscription that this peer holds at another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscribed {
    /// When it was made.
    pub(crate) since: Duration,
    /// When the other said last that it has a source again; else, when it was made.
    pub(crate) resumed: Duration,
    /// The object that it began with; absent: the newest that the other had then.
    pub(crate) from: Option<ObjectKey>,
    /// The newest object whose descriptor came by it.
    pub(crate) stated: Option<ObjectKey>,
    /// Whether it brought data since, or the descriptors of objects whose data was here before.
    pub(crate) flowed: bool,
}

/// An object that is read from the CDN before its descriptor is there.
#[derive(Debug)]
pub(crate) struct Unsigned {
    pub(crate) uri: String,
    pub(crate) byte_range: Option<ByteRange>,
    /// Chunks with their hashes, in order.
    pub(crate) chunks: Vec<(Bytes, [u8; 32])>,
    pub(crate) fetch: Option<FetchId>,
    pub(crate) whole: bool,
    pub(crate) failures: u32,
    pub(crate) retry_at: Duration,
    /// How the playlist describes it, if it is to be played without a signature.
    pub(crate) bypass: Option<Arc<Descriptor>>,
    /// It differs from what was signed about it.
    pub(crate) mismatched: bool,
    pub(crate) published: bool,
}

impl Unsigned {
    pub(crate) fn new(uri: String, byte_range: Option<ByteRange>) -> Self {
        Self {
            uri,
            byte_range,
            chunks: Vec::new(),
            fetch: None,
            whole: false,
            failures: 0,
            retry_at: Duration::ZERO,
            bypass: None,
            mismatched: false,
            published: false,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.chunks
            .iter()
            .map(|(bytes, _)| bytes.len() as u64)
            .sum()
    }
}

/// Playing without statements.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bypass {
    pub(crate) active: bool,
    /// When to ask for the playlist next.
    pub(crate) poll_at: Duration,
    pub(crate) asked: bool,
    /// Whether something was found to be played: not when the origin itself stands still.
    pub(crate) plays: bool,
    /// How many playlists in a row had nothing new.
    pub(crate) idle: u32,
}

/// One track.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) name: TrackName,
    /// Known once the master header is.
    pub(crate) index: Option<TrackIndex>,
    pub(crate) uri: String,
    pub(crate) assignment: TrackAssignment,
    /// Since when the assigned source is what it is.
    pub(crate) assigned_at: Duration,
    /// The source before, kept until data flows from the new one.
    pub(crate) previous: Option<PeerId>,
    /// It was taken from the CDN before, and still is until data flows from the new source.
    pub(crate) previous_root: bool,
    pub(crate) header: Option<SignedStatement>,
    pub(crate) log: StatementLog,
    /// Everything from this object on is wanted.
    pub(crate) start: Option<ObjectKey>,
    /// The newest segment that was signed, or played in bypass.
    pub(crate) newest: Option<ObjectKey>,
    /// The newest segment that was signed.
    pub(crate) signed: Option<ObjectKey>,
    /// Segments that were played in bypass.
    pub(crate) bypassed: BTreeSet<ObjectKey>,
    /// When the newest segment's statement came, and how long the segment is.
    pub(crate) rhythm: Option<(Duration, Duration)>,
    pub(crate) subscribed: BTreeMap<PeerId, Subscribed>,
    /// Peers that say that they repair their own source: since when, and until when that is believed.
    pub(crate) repairing_peers: BTreeMap<PeerId, (Duration, Duration)>,
    /// Peers not to be taken as a source for a while, for they take the track from here.
    pub(crate) refused: BTreeMap<PeerId, Duration>,
    pub(crate) decision: Decision,
    /// Since when the track is taken from the CDN as it comes, and whether a chunk came.
    pub(crate) root_since: Option<Duration>,
    pub(crate) cdn_flowed: bool,
    /// When a chunk that was missing last came, from anywhere.
    pub(crate) progress: Duration,
    /// When a source began last, or began again.
    pub(crate) begun: Duration,
    /// How long a chunk takes to come while some are missing, smoothed.
    pub(crate) chunk_interval: Duration,
    pub(crate) unsigned: BTreeMap<ObjectKey, Unsigned>,
    pub(crate) bypass: Bypass,
    pub(crate) playout: Playout,
    /// Objects taken from the CDN before the tree flowed.
    pub(crate) start_objects: u32,
    /// Whether chunks ever came from a peer.
    pub(crate) tree_flowed: bool,
    pub(crate) reported: Option<(Option<Source>, SourceState)>,
    /// What the children were told: whether this peer repairs its source.
    pub(crate) told_repairing: bool,
    /// Objects in a row that the source brought too late.
    pub(crate) late_objects: u32,
    pub(crate) late_reported: Option<Duration>,
}

impl Track {
    pub(crate) fn new(assignment: TrackAssignment, now: Duration) -> Self {
        Self {
            name: assignment.track.clone(),
            index: None,
            uri: String::new(),
            assignment,
            assigned_at: now,
            previous: None,
            previous_root: false,
            header: None,
            log: StatementLog::default(),
            start: None,
            newest: None,
            signed: None,
            bypassed: BTreeSet::new(),
            rhythm: None,
            subscribed: BTreeMap::new(),
            repairing_peers: BTreeMap::new(),
            refused: BTreeMap::new(),
            decision: Decision::default(),
            root_since: None,
            cdn_flowed: false,
            progress: now,
            begun: now,
            chunk_interval: Duration::ZERO,
            unsigned: BTreeMap::new(),
            bypass: Bypass::default(),
            playout: Playout::default(),
            start_objects: 0,
            tree_flowed: false,
            reported: None,
            told_repairing: false,
            late_objects: 0,
            late_reported: None,
        }
    }

    /// Finds the track in the master header.
    pub(crate) fn resolve(&mut self, master: &MasterHeader) {
        if let Some(found) = master.track_named(self.name.as_str()) {
            self.index = Some(found.index);
            self.uri.clone_from(&found.uri);
        }
    }

    pub(crate) fn header(&self) -> Option<&TrackHeader> {
        match self.header.as_ref()?.statement() {
            Statement::Track(header) => Some(header),
            Statement::Master(_) | Statement::Object(_) => None,
        }
    }

    pub(crate) fn target(&self) -> Duration {
        let announced = self.header().map(|header| header.target_duration);
        announced
            .filter(|target| !target.is_zero())
            .unwrap_or(DEFAULT_TARGET)
    }

    /// Whether the origin said that no segment follows the newest.
    pub(crate) fn has_ended(&self) -> bool {
        let end = self
            .header()
            .and_then(|h| h.end_sequence.map(|end| (h.epoch, end)));
        match (end, self.newest) {
            (Some((epoch, end)), Some(newest)) => newest.epoch == epoch && newest.sequence >= end,
            (_, _) => false,
        }
    }

    /// When the next statement is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        if self.has_ended() {
            return None;
        }
        self.rhythm
            .map(|(at, duration)| at + duration.max(Duration::from_millis(100)))
    }

    /// Whether the statements are late by half a target duration: time to look for them elsewhere.
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        self.due().is_some_and(|due| now > due + self.target() / 2)
    }

    /// A chunk came that was missing, of an object that was known since `arrived`.
    pub(crate) fn on_progress(&mut self, arrived: Duration, now: Duration) {
        let sample = now
            .saturating_sub(self.progress.max(arrived).max(self.begun))
            .min(MAX_INTERVAL);
        self.chunk_interval = self.chunk_interval - self.chunk_interval / 8 + sample / 8;
        self.progress = now;
    }

    /// A source begins, or begins again: how long there was none says nothing about its pace.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.begun = now;
    }

    /// Whether a peer is a source of the track, now or in reserve.
    pub(crate) fn is_had_from(&self, peer: PeerId) -> bool {
        let assigned = [self.assignment.source, self.assignment.standby];
        assigned.contains(&Some(Source::Peer(peer)))
            || self.previous == Some(peer)
            || self.subscribed.contains_key(&peer)
    }

    /// Whether an object comes by a subscription without being asked for by name.
    pub(crate) fn is_in_flow(&self, key: &ObjectKey) -> bool {
        self.decision.flowing
            && self
                .subscribed
                .values()
                .any(|s| s.flowed && s.from.is_some_and(|from| *key >= from))
    }

    /// The state to report.
    pub(crate) fn state(&self) -> Option<SourceState> {
        if self.bypass.active && self.bypass.plays {
            Some(SourceState::Bypass)
        } else if self.decision.repairing {
            Some(SourceState::Repairing)
        } else {
            self.decision.flowing.then_some(SourceState::Flowing)
        }
    }

    pub(crate) fn is_wanted(&self, key: &ObjectKey) -> bool {
        self.start.is_some_and(|start| *key >= start)
    }
}
