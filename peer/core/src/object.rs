//! One object: what was signed about it, the chunks that are held, and how the missing ones fare.
//!
//! Chunk i belongs to stripe i mod k. What is missing is counted, and asked for, by stripe: each has
//! its own source. A stripe that no chunk of the object belongs to is never missing.

use core::time::Duration;

use bytes::Bytes;
use espalier_media::{ChunkIndex, Descriptor, SignedStatement, Statement};

use crate::command::Provenance;
use crate::ids::{FetchId, PeerId};
use crate::stripe::StripeSet;

/// What the peer does about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Only known: not asked for, or held once and evicted.
    Absent,
    /// Being received.
    Wanted,
    /// Held whole.
    Complete,
    /// Given up: it cannot be had as signed.
    Lost,
}

/// A stripe's share of an object.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    missing: u32,
    /// Where its chunks came from.
    pub(crate) from: Provenance,
    /// When its last chunk came.
    pub(crate) last_chunk: Duration,
    /// The peer last asked for chunks of it by name, and when.
    pub(crate) asked: Option<(PeerId, Duration)>,
    /// The two peers that said last that they do not have the object.
    refused_by: [Option<PeerId>; 2],
}

impl Share {
    /// How many of its chunks are missing.
    pub(crate) fn missing(&self) -> u32 {
        self.missing
    }

    /// A peer says that it does not have the object.
    pub(crate) fn refuse(&mut self, peer: PeerId) {
        if !self.is_refused_by(peer) {
            self.refused_by = [Some(peer), self.refused_by[0]];
        }
    }

    pub(crate) fn is_refused_by(&self, peer: PeerId) -> bool {
        self.refused_by.contains(&Some(peer))
    }

    /// Those who said that they do not have the object.
    pub(crate) fn refusers(&self) -> impl Iterator<Item = PeerId> {
        self.refused_by.into_iter().flatten()
    }
}

/// A request to the CDN for some of the chunks.
#[derive(Debug, Clone, Copy)]
struct Reading {
    id: FetchId,
    first: u32,
    count: u32,
}

/// One object.
#[derive(Debug)]
pub(crate) struct Object {
    statement: SignedStatement,
    chunks: Vec<Option<Bytes>>,
    missing: u32,
    /// One for each stripe of the track.
    shares: Vec<Share>,
    /// Where chunks came from while the track was cut otherwise.
    earlier: Provenance,
    status: Status,
    /// When its descriptor came.
    pub(crate) arrived: Duration,
    /// The player has it already, unverified: its chunks are for the children only.
    pub(crate) published_unverified: bool,
    /// Since when the player waits for it though it was not asked for in the ordinary way.
    pub(crate) player_waits: Option<Duration>,
    /// The requests to the CDN under way for it.
    readings: Vec<Reading>,
    /// How many rounds of requests to the CDN failed, and when the next may be made.
    pub(crate) failed_fetches: u32,
    /// See `failed_fetches`.
    pub(crate) retry_at: Duration,
}

impl Object {
    pub(crate) fn new(statement: SignedStatement, stripes: u8, arrived: Duration) -> Self {
        let chunks = statement
            .statement()
            .as_object()
            .map_or(0, Descriptor::chunk_count);
        let mut object = Self {
            statement,
            chunks: vec![None; chunks as usize],
            missing: chunks,
            shares: Vec::new(),
            earlier: Provenance::default(),
            status: Status::Absent,
            arrived,
            published_unverified: false,
            player_waits: None,
            readings: Vec::new(),
            failed_fetches: 0,
            retry_at: Duration::ZERO,
        };
        object.restripe(stripes);
        object
    }

    /// Divides it into so many stripes, of whose sources nothing is known yet.
    pub(crate) fn restripe(&mut self, stripes: u8) {
        self.earlier = self.from();
        self.shares = vec![Share::default(); usize::from(stripes.max(1))];
        self.count_missing();
    }

    fn count_missing(&mut self) {
        let stripes = self.shares.len();
        self.missing = 0;
        self.shares.iter_mut().for_each(|share| share.missing = 0);
        for (index, chunk) in self.chunks.iter().enumerate() {
            if chunk.is_none() {
                self.missing += 1;
                self.shares[index % stripes].missing += 1;
            }
        }
    }

    /// What was signed about it.
    pub(crate) fn descriptor(&self) -> &Descriptor {
        match self.statement.statement() {
            Statement::Object(descriptor) => descriptor,
            Statement::Master(_) | Statement::Track(_) => {
                unreachable!("invariant: the ring keeps descriptors only")
            }
        }
    }

    pub(crate) fn statement(&self) -> &SignedStatement {
        &self.statement
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn set_status(&mut self, status: Status) {
        self.status = status;
    }

    pub(crate) fn chunk(&self, index: ChunkIndex) -> Option<&Bytes> {
        self.chunks.get(index.0 as usize)?.as_ref()
    }

    pub(crate) fn chunk_count(&self) -> u32 {
        self.descriptor().chunk_count()
    }

    /// The stripe that a chunk belongs to.
    pub(crate) fn stripe_of(&self, chunk: u32) -> usize {
        chunk as usize % self.shares.len()
    }

    pub(crate) fn share(&self, stripe: usize) -> &Share {
        &self.shares[stripe]
    }

    pub(crate) fn share_mut(&mut self, stripe: usize) -> &mut Share {
        &mut self.shares[stripe]
    }

    /// Where its chunks came from.
    pub(crate) fn from(&self) -> Provenance {
        let mut from = self.earlier;
        for share in &self.shares {
            from.parent_bytes += share.from.parent_bytes;
            from.standby_bytes += share.from.standby_bytes;
            from.cdn_bytes += share.from.cdn_bytes;
        }
        from
    }

    /// How many chunks are missing.
    pub(crate) fn missing(&self) -> u32 {
        self.missing
    }

    pub(crate) fn holds_any(&self) -> bool {
        (self.missing as usize) < self.chunks.len()
    }

    /// Puts a chunk into its place; says whether that was empty.
    pub(crate) fn put(&mut self, index: ChunkIndex, bytes: Bytes) -> bool {
        let stripe = self.stripe_of(index.0);
        let slot = self.chunks.get_mut(index.0 as usize);
        let Some(slot) = slot.filter(|slot| slot.is_none()) else {
            return false;
        };
        *slot = Some(bytes);
        self.missing -= 1;
        self.shares[stripe].missing -= 1;
        true
    }

    pub(crate) fn drop_chunks(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| *chunk = None);
        self.count_missing();
    }

    /// The missing chunks of some stripes as runs of (first, count), in order; those that are being
    /// read from the CDN left out.
    pub(crate) fn missing_runs(&self, of: StripeSet) -> Vec<(u32, u32)> {
        self.runs(|index, held| !held && of.contains(self.stripe_of(index)) && !self.is_read(index))
    }

    /// The chunks that are held, or are being read from the CDN, as runs of (first, count), in order;
    /// only runs with chunks of the stripe.
    pub(crate) fn had_runs(&self, stripe: usize) -> Vec<(u32, u32)> {
        let stripes = self.shares.len();
        let mut runs = self.runs(|index, held| held || self.is_read(index));
        runs.retain(|(first, count)| {
            let first_of_stripe = (stripe + stripes - self.stripe_of(*first)) % stripes;
            first_of_stripe < *count as usize
        });
        runs
    }

    fn runs(&self, belongs: impl Fn(u32, bool) -> bool) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (index, chunk) in (0_u32..).zip(&self.chunks) {
            if !belongs(index, chunk.is_some()) {
                continue;
            }
            match runs.last_mut() {
                Some((first, count)) if *first + *count == index => *count += 1,
                Some(_) | None => runs.push((index, 1)),
            }
        }
        runs
    }

    /// The first missing chunk of a stripe.
    pub(crate) fn first_missing(&self, stripe: usize) -> Option<ChunkIndex> {
        let of_stripe = self.chunks.iter().enumerate().skip(stripe);
        let mut missing = of_stripe
            .step_by(self.shares.len())
            .filter(|(_, chunk)| chunk.is_none());
        let (index, _) = missing.next()?;
        u32::try_from(index).ok().map(ChunkIndex)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.chunks
            .iter()
            .flatten()
            .map(|chunk| chunk.len() as u64)
            .sum()
    }

    /// A request to the CDN was made for a run of chunks.
    pub(crate) fn begin_reading(&mut self, id: FetchId, first: u32, count: u32) {
        self.readings.push(Reading { id, first, count });
    }

    /// A request ended; says whether it was for this object.
    pub(crate) fn end_reading(&mut self, id: FetchId) -> bool {
        let before = self.readings.len();
        self.readings.retain(|reading| reading.id != id);
        self.readings.len() < before
    }

    /// A request brings the whole object: returns the others, which are of no use any more.
    pub(crate) fn reads_all(&mut self, id: FetchId) -> Vec<FetchId> {
        let others = self.readings.iter().map(|reading| reading.id);
        let others = others.filter(|other| *other != id).collect();
        let count = self.chunk_count();
        self.readings = vec![Reading {
            id,
            first: 0,
            count,
        }];
        others
    }

    /// Forgets the requests under way, and returns them.
    pub(crate) fn take_readings(&mut self) -> Vec<FetchId> {
        let readings = core::mem::take(&mut self.readings);
        readings.iter().map(|reading| reading.id).collect()
    }

    /// Whether anything of it is being read from the CDN.
    pub(crate) fn is_being_read(&self) -> bool {
        !self.readings.is_empty()
    }

    /// Whether anything that a stripe misses is being read from the CDN.
    pub(crate) fn share_is_read(&self, stripe: usize) -> bool {
        let reads = |reading: &Reading| {
            (reading.first..reading.first.saturating_add(reading.count))
                .take(self.chunks.len())
                .any(|index| {
                    let chunk = self.chunks.get(index as usize);
                    self.stripe_of(index) == stripe && chunk.is_some_and(Option::is_none)
                })
        };
        self.readings.iter().any(reads)
    }

    fn is_read(&self, index: u32) -> bool {
        self.readings.iter().any(|reading| {
            index
                .checked_sub(reading.first)
                .is_some_and(|i| i < reading.count)
        })
    }
}
