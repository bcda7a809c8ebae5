//! What a peer knows about one track that it takes: names, headers, rhythm, stripes, place.
//!
//! State only, with the small questions that can be answered from it; what to do is decided by
//! `upstream` (sources), `engine::repair` (missing chunks) and `engine::bypass`. Statements, the place
//! and the player's deadlines are the track's; chunks and their sources are its stripes'.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use espalier_media::{
    ByteRange, ChunkIndex, Descriptor, MasterHeader, ObjectKey, SignedStatement, Statement,
    TrackHeader, TrackIndex,
};

use crate::command::SourceState;
use crate::ids::{FetchId, PeerId, TrackName};
use crate::log::StatementLog;
use crate::playout::Playout;
use crate::stripe::{Assigned, Stripe};

/// The target duration while no header says it.
const DEFAULT_TARGET: Duration = Duration::from_secs(4);

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
    /// One at least.
    pub(crate) stripes: Vec<Stripe>,
    /// Subscriptions to stripes as the track was cut before: to be ended, unless replaced.
    pub(crate) stale: Vec<(PeerId, usize)>,
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
    pub(crate) unsigned: BTreeMap<ObjectKey, Unsigned>,
    pub(crate) bypass: Bypass,
    pub(crate) playout: Playout,
    /// Objects taken from the CDN before the tree flowed.
    pub(crate) start_objects: u32,
    /// Whether chunks ever came from a peer.
    pub(crate) tree_flowed: bool,
}

impl Track {
    pub(crate) fn new(name: TrackName, stripes: Vec<Assigned>, now: Duration) -> Self {
        let stripes = stripes.into_iter();
        Self {
            name,
            index: None,
            uri: String::new(),
            stripes: stripes.map(|assigned| Stripe::new(assigned, now)).collect(),
            stale: Vec::new(),
            header: None,
            log: StatementLog::default(),
            start: None,
            newest: None,
            signed: None,
            bypassed: BTreeSet::new(),
            rhythm: None,
            unsigned: BTreeMap::new(),
            bypass: Bypass::default(),
            playout: Playout::default(),
            start_objects: 0,
            tree_flowed: false,
        }
    }

    /// Into how many stripes it is cut.
    pub(crate) fn stripe_count(&self) -> u8 {
        u8::try_from(self.stripes.len()).unwrap_or(u8::MAX)
    }

    /// The stripe that a chunk belongs to.
    pub(crate) fn stripe_of(&self, chunk: ChunkIndex) -> usize {
        chunk.0 as usize % self.stripes.len()
    }

    /// Whether all of it is taken from the CDN as it comes.
    pub(crate) fn is_root(&self) -> bool {
        self.stripes
            .iter()
            .all(|stripe| stripe.root_since.is_some())
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

    /// Whether a peer is a source of the track, now or in reserve.
    pub(crate) fn is_had_from(&self, peer: PeerId) -> bool {
        self.stripes.iter().any(|stripe| stripe.is_had_from(peer))
    }

    /// The state of a stripe to report.
    pub(crate) fn state(&self, stripe: &Stripe) -> Option<SourceState> {
        if self.bypass.active && self.bypass.plays {
            Some(SourceState::Bypass)
        } else if stripe.decision.repairing {
            Some(SourceState::Repairing)
        } else {
            stripe.decision.flowing.then_some(SourceState::Flowing)
        }
    }

    pub(crate) fn is_wanted(&self, key: &ObjectKey) -> bool {
        self.start.is_some_and(|start| *key >= start)
    }
}
