//! How an origin and its tracks do, for people and for the planner.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use espalier_media::{
    ByteRange, Descriptor, MasterHeader, ObjectKey, ObjectKind, Statement, TrackHeader, TrackIndex,
};

/// How many segments the payload rate is the peak of.
const RATE_SEGMENTS: usize = 3;

/// An object that the origin lists and that the signer has begun to read. Unsigned: fetch it, relay
/// nothing of it before its descriptor came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Which object.
    pub key: ObjectKey,
    /// Where the CDN has it, absolute.
    pub uri: String,
    /// Set if it is a part of the resource at `uri`.
    pub byte_range: Option<ByteRange>,
}

/// How an origin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OriginState {
    /// Nothing was read yet.
    #[default]
    Starting,
    /// It lists new segments in its rhythm.
    Live,
    /// Its playlist does not change although it should.
    Frozen,
    /// It cannot be reached, or answers with an error.
    Unreachable,
    /// It answers with something that is no playlist, or one that contradicts itself.
    Invalid,
    /// It wrote `EXT-X-ENDLIST`.
    Ended,
}

impl OriginState {
    /// How much it matters: of several tracks' states the highest is the origin's.
    pub(crate) fn severity(self) -> u8 {
        match self {
            Self::Unreachable => 5,
            Self::Invalid => 4,
            Self::Frozen => 3,
            Self::Starting => 2,
            Self::Live => 1,
            Self::Ended => 0,
        }
    }
}

/// How an origin does, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginStatus {
    /// The state.
    pub state: OriginState,
    /// What is wrong, for a person; empty when nothing is.
    pub problem: String,
}

/// How a track does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackStatus {
    /// Its number in everything signed and relayed.
    pub index: TrackIndex,
    /// Its name.
    pub name: String,
    /// The current epoch.
    pub epoch: u32,
    /// The newest segment signed in it; `None` before the first.
    pub newest_sequence: Option<u64>,
    /// Peak of the payload rate over the last three segments, bit/s; 0 before the first.
    pub rate_bps: u64,
    /// `EXT-X-TARGETDURATION`; zero before the first header.
    pub target_duration: Duration,
}

/// How a signer does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignerStatus {
    /// The origin.
    pub origin: OriginStatus,
    /// Every track of the current master header, in its order.
    pub tracks: Vec<TrackStatus>,
}

/// Derives track statuses from the statements of a feed.
#[derive(Debug, Default)]
pub(crate) struct TrackBook {
    tracks: Vec<TrackStatus>,
    /// The payload rates of the last segments of each track.
    rates: BTreeMap<TrackIndex, VecDeque<u64>>,
}

impl TrackBook {
    /// Takes a statement; returns whether a status changed.
    pub(crate) fn observe(&mut self, statement: &Statement) -> bool {
        match statement {
            Statement::Master(master) => self.master(master),
            Statement::Track(header) => self.header(header),
            Statement::Object(descriptor) => self.object(descriptor),
        }
    }

    /// Returns the statuses in the master header's order.
    pub(crate) fn tracks(&self) -> &[TrackStatus] {
        &self.tracks
    }

    fn master(&mut self, master: &MasterHeader) -> bool {
        let old = std::mem::take(&mut self.tracks);
        let status = |track: &espalier_media::Track| {
            let known = old
                .iter()
                .find(|status| status.index == track.index)
                .cloned();
            let status = known.unwrap_or_else(|| TrackStatus {
                index: track.index,
                name: String::new(),
                epoch: 0,
                newest_sequence: None,
                rate_bps: 0,
                target_duration: Duration::ZERO,
            });
            TrackStatus {
                name: track.name.clone(),
                ..status
            }
        };
        self.tracks = master.tracks.iter().map(status).collect();
        self.rates.retain(|index, _| master.track(*index).is_some());
        self.tracks != old
    }

    fn header(&mut self, header: &TrackHeader) -> bool {
        let Some(status) = self
            .tracks
            .iter_mut()
            .find(|status| status.index == header.track)
        else {
            return false;
        };
        if header.epoch < status.epoch {
            return false;
        }
        if header.epoch > status.epoch {
            status.epoch = header.epoch;
            status.newest_sequence = None;
        }
        status.target_duration = header.target_duration;
        true
    }

    fn object(&mut self, descriptor: &Descriptor) -> bool {
        let key = descriptor.key;
        let Some(status) = self
            .tracks
            .iter_mut()
            .find(|status| status.index == key.track)
        else {
            return false;
        };
        if key.kind != ObjectKind::Segment || key.epoch < status.epoch {
            return false;
        }
        status.epoch = key.epoch;
        status.newest_sequence = Some(key.sequence);
        let rates = self.rates.entry(key.track).or_default();
        rates.extend(payload_rate(descriptor));
        if rates.len() > RATE_SEGMENTS {
            rates.pop_front();
        }
        status.rate_bps = rates.iter().copied().max().unwrap_or(0);
        true
    }
}

/// Returns the payload rate of a segment, bit/s.
fn payload_rate(descriptor: &Descriptor) -> Option<u64> {
    let micros = u64::try_from(descriptor.duration.as_micros()).ok()?;
    let bits = descriptor.length.checked_mul(8)?;
    bits.checked_mul(1_000_000)?.checked_div(micros)
}
