//! What a peer knows about one stripe of a track: from whom it comes, and how that goes.
//!
//! A track of one stripe is the ordinary case. With more, each has a source, a standby and reflexes of
//! its own, so that a lost parent costs one stripe's chunks and no more. State only: what to do is
//! decided by `upstream` and in `engine`.

use core::time::Duration;
use std::collections::BTreeMap;

use espalier_media::ObjectKey;

use crate::command::SourceState;
use crate::ids::{PeerId, Source};
use crate::upstream::Decision;

/// The longest time that counts as that of one chunk.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// Some stripes of a track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StripeSet(u16);

impl StripeSet {
    /// One stripe.
    pub(crate) fn of(stripe: usize) -> Self {
        Self(1 << stripe)
    }

    pub(crate) fn insert(&mut self, stripe: usize) {
        self.0 |= 1 << stripe;
    }

    pub(crate) fn contains(self, stripe: usize) -> bool {
        self.0 & (1 << stripe) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..u16::BITS as usize).filter(move |stripe| self.contains(*stripe))
    }
}

/// Where a stripe is to come from, as the orchestrator said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) source: Option<Source>,
    pub(crate) standby: Option<Source>,
    pub(crate) make_before_break: bool,
}

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

/// One stripe of a track.
#[derive(Debug)]
pub(crate) struct Stripe {
    pub(crate) assigned: Assigned,
    /// Since when the assigned source is what it is.
    pub(crate) assigned_at: Duration,
    /// The source before, kept until data flows from the new one.
    pub(crate) previous: Option<PeerId>,
    /// It was taken from the CDN before, and still is until data flows from the new source.
    pub(crate) previous_root: bool,
    pub(crate) subscribed: BTreeMap<PeerId, Subscribed>,
    /// Peers that say that they repair their own source: since when, and until when that is believed.
    pub(crate) repairing_peers: BTreeMap<PeerId, (Duration, Duration)>,
    /// Peers not to be taken as a source for a while, for they take the stripe from here.
    pub(crate) refused: BTreeMap<PeerId, Duration>,
    pub(crate) decision: Decision,
    /// Since when the stripe is taken from the CDN as it comes, and whether a chunk came.
    pub(crate) root_since: Option<Duration>,
    pub(crate) cdn_flowed: bool,
    /// When a chunk that was missing last came, from anywhere.
    pub(crate) progress: Duration,
    /// When a source began last, or began again.
    pub(crate) begun: Duration,
    /// How long a chunk takes to come while some are missing, smoothed.
    pub(crate) chunk_interval: Duration,
    pub(crate) reported: Option<(Option<Source>, SourceState)>,
    /// What the children were told: whether this peer repairs the stripe's source.
    pub(crate) told_repairing: bool,
    /// Objects in a row that the source brought too late.
    pub(crate) late_objects: u32,
    pub(crate) late_reported: Option<Duration>,
}

impl Stripe {
    pub(crate) fn new(assigned: Assigned, now: Duration) -> Self {
        Self {
            assigned,
            assigned_at: now,
            previous: None,
            previous_root: false,
            subscribed: BTreeMap::new(),
            repairing_peers: BTreeMap::new(),
            refused: BTreeMap::new(),
            decision: Decision::default(),
            root_since: None,
            cdn_flowed: false,
            progress: now,
            begun: now,
            chunk_interval: Duration::ZERO,
            reported: None,
            told_repairing: false,
            late_objects: 0,
            late_reported: None,
        }
    }

    /// Takes note of another assignment. A source that is left is kept until the new one flows, if so
    /// told.
    pub(crate) fn reassign(&mut self, assigned: Assigned, now: Duration) {
        if self.assigned.source != assigned.source {
            let new = assigned.source.and_then(Source::peer);
            let active = self.decision.active.and_then(Source::peer);
            self.previous = active.filter(|peer| {
                assigned.make_before_break
                    && Some(*peer) != new
                    && self.subscribed.contains_key(peer)
            });
            self.previous_root = new.is_some() && self.root_since.is_some();
            self.assigned_at = now;
        }
        self.assigned = assigned;
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

    /// The peers to be linked to for it.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        let assigned = [self.assigned.source, self.assigned.standby];
        let assigned = assigned.into_iter().flatten().filter_map(Source::peer);
        assigned.chain(self.previous)
    }

    /// Whether a peer is a source of the stripe, now or in reserve.
    pub(crate) fn is_had_from(&self, peer: PeerId) -> bool {
        self.peers().any(|known| known == peer) || self.subscribed.contains_key(&peer)
    }

    /// Whether an object comes by a subscription without being asked for by name.
    pub(crate) fn is_in_flow(&self, key: &ObjectKey) -> bool {
        self.decision.flowing
            && self
                .subscribed
                .values()
                .any(|s| s.flowed && s.from.is_some_and(|from| *key >= from))
    }
}
