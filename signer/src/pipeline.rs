//! The objects of one track on their way from the playlist to the feed.
//!
//! Invariant: what leaves does so in the order in which it was listed, whatever order the downloads
//! end in. Invariant: each object is downloaded once, but for bounded retries.
//!
//! A segment that the origin lists and never delivers must not hold up the channel: it is given up
//! after a few tries, and what needs a lost init section with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use espalier_media::hls::{DeclaredInit, Segment};
use espalier_media::{
    ByteRange, HashedObject, ObjectHasher, ObjectKey, ObjectKind, Statement, TrackHeader,
};

use crate::fetch::FetchError;
use crate::status::Announcement;

/// Downloads of one track at once.
const PARALLEL: usize = 3;
/// What may wait, at the most; the oldest is given up beyond it.
const MAX_WAITING: usize = 2_048;
/// The fewest tries before an object is given up.
const FEWEST_TRIES: u32 = 3;
/// The most tries.
const MOST_TRIES: u32 = 6;
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// Numbers the requests of a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// What a descriptor is made of, but for the bytes.
#[derive(Debug)]
pub(crate) enum Listed {
    Segment {
        segment: Segment,
        init_sequence: Option<u64>,
    },
    Init(Arc<DeclaredInit>),
}

#[derive(Debug)]
enum Item {
    Header(Box<TrackHeader>),
    Object(Box<Pending>),
}

impl Item {
    /// Returns the download that is on its way for it.
    fn download(&self) -> Option<RequestId> {
        match self {
            Self::Header(_) => None,
            Self::Object(pending) => match pending.progress {
                Progress::Fetching(request) => Some(request),
                Progress::Waiting { .. } | Progress::Done(_) => None,
            },
        }
    }
}

#[derive(Debug)]
struct Pending {
    key: ObjectKey,
    listed: Listed,
    progress: Progress,
    tries: u32,
    first_try: Option<Duration>,
}

#[derive(Debug)]
enum Progress {
    Waiting { until: Duration },
    Fetching(RequestId),
    Done(HashedObject),
}

/// What became of a download.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It is not one of these.
    Unknown,
    /// It was read.
    Read,
    /// It will be tried again.
    Retry,
    /// It is given up.
    GivenUp(ObjectKey),
}

/// The objects of one track that were listed and have not left.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    items: VecDeque<Item>,
    /// Downloads whose object is no longer wanted.
    abandoned: Vec<RequestId>,
}

/// A download to start.
#[derive(Debug, PartialEq)]
pub(crate) struct Download {
    pub(crate) uri: String,
    pub(crate) byte_range: Option<ByteRange>,
}

impl Listed {
    fn uri(&self) -> &str {
        match self {
            Self::Segment { segment, .. } => &segment.uri,
            Self::Init(init) => &init.uri,
        }
    }

    fn byte_range(&self) -> Option<ByteRange> {
        match self {
            Self::Segment { segment, .. } => segment.byte_range,
            Self::Init(init) => init.byte_range,
        }
    }

    fn is_gap(&self) -> bool {
        matches!(
            self,
            Self::Segment {
                segment: Segment { gap: true, .. },
                ..
            }
        )
    }

    fn needs_init(&self, sequence: u64) -> bool {
        matches!(self, Self::Segment { init_sequence: Some(init), .. } if *init == sequence)
    }
}

impl Pipeline {
    /// A header takes its place behind what was listed before.
    pub(crate) fn header(&mut self, header: TrackHeader) {
        self.items.push_back(Item::Header(Box::new(header)));
    }

    /// An object was listed. `known` are its bytes' hashes, if they were read already.
    pub(crate) fn object(&mut self, key: ObjectKey, listed: Listed, known: Option<HashedObject>) {
        if self.items.len() >= MAX_WAITING {
            let oldest = self.items.pop_front();
            self.abandoned
                .extend(oldest.as_ref().and_then(Item::download));
        }
        let known = known.or_else(|| listed.is_gap().then(|| ObjectHasher::new().finish()));
        let progress = known.map_or(
            Progress::Waiting {
                until: Duration::ZERO,
            },
            Progress::Done,
        );
        let pending = Pending {
            key,
            listed,
            progress,
            tries: 0,
            first_try: None,
        };
        self.items.push_back(Item::Object(Box::new(pending)));
    }

    /// Starts the next download that may start now; tells it too, if it is its first try.
    pub(crate) fn start(
        &mut self,
        request: RequestId,
        now: Duration,
    ) -> Option<(Download, Option<Announcement>)> {
        if self.fetching() >= PARALLEL {
            return None;
        }
        let ready = self.pending_mut().find(
            |pending| matches!(pending.progress, Progress::Waiting { until } if until <= now),
        )?;
        ready.progress = Progress::Fetching(request);
        ready.tries += 1;
        ready.first_try.get_or_insert(now);
        let (uri, byte_range) = (ready.listed.uri().to_owned(), ready.listed.byte_range());
        let announcement = (ready.tries == 1).then(|| Announcement {
            key: ready.key,
            uri: uri.clone(),
            byte_range,
        });
        Some((Download { uri, byte_range }, announcement))
    }

    /// Returns when a download that waits for its next try may start.
    pub(crate) fn next_start(&self) -> Option<Duration> {
        if self.fetching() >= PARALLEL {
            return None;
        }
        let waits = self.pending().filter_map(|pending| match pending.progress {
            Progress::Waiting { until } => Some(until),
            Progress::Fetching(_) | Progress::Done(_) => None,
        });
        waits.min()
    }

    /// A download ended.
    pub(crate) fn fetched(
        &mut self,
        request: RequestId,
        result: Result<HashedObject, &FetchError>,
        target: Duration,
        now: Duration,
    ) -> Outcome {
        let Some(pending) = self
            .pending_mut()
            .find(|pending| matches!(pending.progress, Progress::Fetching(id) if id == request))
        else {
            return Outcome::Unknown;
        };
        let error = match result {
            Ok(hashed) => {
                pending.progress = Progress::Done(hashed);
                return Outcome::Read;
            }
            Err(error) => error,
        };
        let waited = now.saturating_sub(pending.first_try.unwrap_or(now));
        let enough = pending.tries >= FEWEST_TRIES && waited > target * 2;
        if enough || pending.tries >= MOST_TRIES || error.is_final() {
            let key = pending.key;
            self.give_up(key);
            return Outcome::GivenUp(key);
        }
        let wait = FIRST_RETRY.saturating_mul(1 << pending.tries.min(8)) / 2;
        pending.progress = Progress::Waiting {
            until: now + wait.min(target),
        };
        Outcome::Retry
    }

    /// Takes the next statement that may leave.
    pub(crate) fn leave(&mut self) -> Option<Statement> {
        let ready = match self.items.front()? {
            Item::Header(_) => true,
            Item::Object(pending) => matches!(pending.progress, Progress::Done(_)),
        };
        if !ready {
            return None;
        }
        match self.items.pop_front()? {
            Item::Header(header) => Some(Statement::Track(*header)),
            Item::Object(pending) => pending.statement(),
        }
    }

    /// Forgets everything: the numbering starts anew.
    pub(crate) fn clear(&mut self) {
        self.abandoned
            .extend(self.items.iter().filter_map(Item::download));
        self.items.clear();
    }

    /// Takes the downloads that are to be cancelled.
    pub(crate) fn take_abandoned(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.abandoned)
    }

    fn give_up(&mut self, key: ObjectKey) {
        let lost_init = (key.kind == ObjectKind::Init).then_some(key.sequence);
        let abandoned = &mut self.abandoned;
        self.items.retain(|item| match item {
            Item::Header(_) => true,
            Item::Object(pending) => {
                let orphaned = lost_init.is_some_and(|init| pending.listed.needs_init(init));
                if orphaned {
                    abandoned.extend(item.download());
                }
                pending.key != key && !orphaned
            }
        });
    }

    fn fetching(&self) -> usize {
        self.pending()
            .filter(|pending| matches!(pending.progress, Progress::Fetching(_)))
            .count()
    }

    fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.items.iter().filter_map(|item| match item {
            Item::Header(_) => None,
            Item::Object(pending) => Some(pending.as_ref()),
        })
    }

    fn pending_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.items.iter_mut().filter_map(|item| match item {
            Item::Header(_) => None,
            Item::Object(pending) => Some(pending.as_mut()),
        })
    }
}

impl Pending {
    fn statement(self) -> Option<Statement> {
        let Progress::Done(hashed) = self.progress else {
            return None;
        };
        let ObjectKey {
            track,
            epoch,
            sequence,
            ..
        } = self.key;
        Some(Statement::Object(match self.listed {
            Listed::Segment {
                segment,
                init_sequence,
            } => segment.descriptor(track, epoch, init_sequence, hashed),
            Listed::Init(init) => init.descriptor(track, epoch, sequence, hashed),
        }))
    }
}
