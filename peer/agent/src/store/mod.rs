//! What the local player can have: the newest headers, the listed objects, their bytes as they come.
//!
//! The engine's task is the only writer; requests are readers. The lock is held for a look-up or an
//! insertion and never across a wait; a chunk goes into its object without it.
//!
//! Invariants: bounded entries a track; an object's verified and unverified bytes never share an
//! instance. It decides neither what is listed nor what is kept: the engine's publications do.

mod ledger;
mod object;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use espalier_media::limits::MAX_SEGMENTS;
use espalier_media::{
    Descriptor, MasterHeader, ObjectKey, ObjectKind, Statement, TrackHeader, TrackIndex,
};
use espalier_peer_core::{Provenance, Publication};
use tokio::sync::watch;

pub(crate) use self::ledger::{Ledger, LedgerEntry};
pub(crate) use self::object::PlayerObject;

/// How many segments are kept beyond the window that the playlist lists.
const KEPT_BEYOND_WINDOW: usize = 32;
/// Epochs whose headers are kept.
const KEPT_EPOCHS: usize = 2;

/// Everything published so far that a player may still ask for.
#[derive(Debug)]
pub(crate) struct Store {
    shelf: RwLock<Shelf>,
    changes: watch::Sender<u64>,
    ledger: Ledger,
    latency: Mutex<Option<Latency>>,
}

/// How old the newest complete segment was when it was complete.
#[derive(Debug, Clone, Copy)]
struct Latency {
    /// Its epoch and sequence number.
    place: (u32, u64),
    ms: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    master: Option<Arc<Statement>>,
    tracks: BTreeMap<TrackIndex, TrackShelf>,
}

#[derive(Debug, Default)]
struct TrackShelf {
    /// The newest header of each epoch.
    headers: BTreeMap<u32, Arc<Statement>>,
    objects: BTreeMap<ObjectKey, Arc<PlayerObject>>,
}

/// What a media playlist is made of.
#[derive(Debug)]
pub(crate) struct TrackView {
    pub(crate) header: Arc<Statement>,
    /// The listed segments and the init sections that they need, oldest first.
    pub(crate) objects: Vec<Arc<PlayerObject>>,
}

impl TrackView {
    pub(crate) fn header(&self) -> Option<&TrackHeader> {
        match &*self.header {
            Statement::Track(header) => Some(header),
            Statement::Master(_) | Statement::Object(_) => None,
        }
    }

    /// The newest listed segment's sequence number.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.objects.iter().rev().find_map(|object| {
            object
                .descriptor()
                .filter(|d| d.key.kind == ObjectKind::Segment)
                .map(|d| d.key.sequence)
        })
    }
}

impl Store {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            shelf: RwLock::default(),
            changes: watch::Sender::new(0),
            ledger,
            latency: Mutex::default(),
        }
    }

    /// Takes in what the engine publishes.
    pub(crate) fn apply(&self, publication: Publication) {
        match publication {
            Publication::Header(statement) => self.header(statement),
            Publication::Listed(statement) => self.listed(statement),
            Publication::Chunk {
                object,
                index,
                bytes,
            } => {
                if let Some(object) = self.object(&object) {
                    object.add(index, bytes, unix_ms());
                }
            }
            Publication::Complete {
                object,
                at: _,
                from,
            } => self.complete(&object, from),
            Publication::Unverified {
                object,
                descriptor,
                body,
            } => {
                self.unverified(object, descriptor, body);
            }
            Publication::Evicted { object } => self.evicted(&object),
        }
    }

    /// A counter that moves with each header and each listed object.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// From the newest complete segment's program date-time (or its listing here) to its last chunk;
    /// 0 before there is one.
    pub(crate) fn latency_ms(&self) -> u64 {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.map_or(0, |latency| latency.ms)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn object(&self, key: &ObjectKey) -> Option<Arc<PlayerObject>> {
        self.read()
            .tracks
            .get(&key.track)?
            .objects
            .get(key)
            .cloned()
    }

    /// Reads the master header.
    pub(crate) fn master<T>(&self, read: impl FnOnce(&MasterHeader) -> T) -> Option<T> {
        match self.read().master.as_deref()? {
            Statement::Master(master) => Some(read(master)),
            Statement::Track(_) | Statement::Object(_) => None,
        }
    }

    /// What the playlist of a track lists now; `None` before its header and first segment.
    pub(crate) fn track(&self, index: TrackIndex) -> Option<TrackView> {
        self.read().tracks.get(&index)?.view()
    }

    fn header(&self, statement: Arc<Statement>) {
        let mut shelf = self.write();
        match &*statement {
            Statement::Master(_) => shelf.master = Some(Arc::clone(&statement)),
            Statement::Track(header) => {
                let headers = &mut shelf.tracks.entry(header.track).or_default().headers;
                headers.insert(header.epoch, Arc::clone(&statement));
                while headers.len() > KEPT_EPOCHS {
                    headers.pop_first();
                }
            }
            Statement::Object(_) => return,
        }
        drop(shelf);
        self.changed();
    }

    fn listed(&self, statement: Arc<Statement>) {
        let Some(key) = statement.as_object().map(|descriptor| descriptor.key) else {
            return;
        };
        let mut shelf = self.write();
        let track = shelf.tracks.entry(key.track).or_default();
        match track.objects.get(&key) {
            // A second statement about an object never replaces the first.
            Some(known) if known.is_verified() => return,
            // What was played unverified keeps its bytes: they are not what the hashes vouch for.
            Some(known) => {
                let object = known.redescribed(statement);
                track.objects.insert(key, Arc::new(object));
            }
            None => {
                let Some(object) = PlayerObject::listed(statement, unix_ms()) else {
                    return;
                };
                track.objects.insert(key, Arc::new(object));
                track.prune();
            }
        }
        drop(shelf);
        self.changed();
    }

    fn unverified(&self, key: ObjectKey, descriptor: Option<Arc<Descriptor>>, body: Vec<Bytes>) {
        let body = joined(body);
        let (length, now) = (u64::try_from(body.len()).unwrap_or(u64::MAX), unix_ms());
        let mut shelf = self.write();
        let track = shelf.tracks.entry(key.track).or_default();
        let known = track
            .objects
            .get(&key)
            .map(|object| Arc::clone(object.statement()));
        let statement = match (known, descriptor) {
            (Some(statement), _) => statement,
            (None, Some(descriptor)) => {
                Arc::new(Statement::Object(Arc::unwrap_or_clone(descriptor)))
            }
            (None, None) => return,
        };
        let object = Arc::new(PlayerObject::unverified(statement, body, now));
        if let Some(old) = track.objects.insert(key, Arc::clone(&object)) {
            old.withdraw();
        }
        track.prune();
        drop(shelf);
        let from = Provenance {
            cdn_bytes: length,
            ..Provenance::default()
        };
        self.record(key, object, from);
        self.changed();
    }

    fn complete(&self, key: &ObjectKey, from: Provenance) {
        if let Some(object) = self.object(key) {
            self.record(*key, object, from);
        }
    }

    fn record(&self, key: ObjectKey, object: Arc<PlayerObject>, from: Provenance) {
        let now = unix_ms();
        if key.kind == ObjectKind::Segment {
            let (place, ms) = ((key.epoch, key.sequence), object.age_ms(now));
            let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            // What a player rewinds to is old, which says nothing about the tree.
            if latency.is_none_or(|newest| place >= newest.place) {
                *latency = Some(Latency { place, ms });
            }
        }
        self.ledger.record(key, object, from, now);
    }

    /// Lets the bytes go and keeps the object listed, so that a late request can ask for it again.
    fn evicted(&self, key: &ObjectKey) {
        let mut shelf = self.write();
        let Some(track) = shelf.tracks.get_mut(&key.track) else {
            return;
        };
        let Some(old) = track
            .objects
            .get_mut(key)
            .filter(|object| object.is_verified())
        else {
            return;
        };
        if let Some(empty) = PlayerObject::listed(Arc::clone(old.statement()), unix_ms()) {
            let old = std::mem::replace(old, Arc::new(empty));
            drop(shelf);
            old.withdraw();
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    // A panic while the lock is held can only come from a broken invariant; the maps stay usable.
    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrackShelf {
    fn window(&self) -> Option<usize> {
        let (_, statement) = self.headers.last_key_value()?;
        match &**statement {
            Statement::Track(header) => match usize::try_from(header.window_segments).ok()? {
                0 => None,
                window => Some(window),
            },
            Statement::Master(_) | Statement::Object(_) => None,
        }
    }

    fn view(&self) -> Option<TrackView> {
        let segment = |(key, _): &(&ObjectKey, &Arc<PlayerObject>)| key.kind == ObjectKind::Segment;
        let epoch = self.objects.iter().rev().find(segment)?.0.epoch;
        let header = self
            .headers
            .get(&epoch)
            .or_else(|| self.headers.values().next_back())?;
        let window = self.window().unwrap_or(MAX_SEGMENTS);
        let listed = || {
            let newest_first = self.objects.iter().rev().filter(segment);
            newest_first
                .take_while(|(key, _)| key.epoch == epoch)
                .take(window)
        };
        let inits: std::collections::BTreeSet<ObjectKey> = listed()
            .filter_map(|(_, object)| object.descriptor()?.init_key())
            .collect();
        let mut objects: Vec<_> = listed().map(|(_, object)| Arc::clone(object)).collect();
        objects.extend(
            inits
                .iter()
                .filter_map(|key| self.objects.get(key))
                .cloned(),
        );
        objects.sort_by_key(|object| object.descriptor().map(|descriptor| descriptor.key));
        Some(TrackView {
            header: Arc::clone(header),
            objects,
        })
    }

    /// Forgets what no playlist lists any more, some while after it left the playlist.
    fn prune(&mut self) {
        let bound = self.window().unwrap_or(MAX_SEGMENTS) + KEPT_BEYOND_WINDOW;
        let segments = self
            .objects
            .keys()
            .filter(|key| key.kind == ObjectKind::Segment)
            .count();
        if segments <= bound {
            return;
        }
        let oldest_kept = self
            .objects
            .keys()
            .filter(|key| key.kind == ObjectKind::Segment)
            .nth(segments - bound)
            .copied();
        let Some(oldest_kept) = oldest_kept else {
            return;
        };
        let kept = self.objects.split_off(&oldest_kept);
        let gone = std::mem::replace(&mut self.objects, kept);
        let needed: std::collections::BTreeSet<ObjectKey> = self
            .objects
            .values()
            .filter_map(|object| object.descriptor()?.init_key())
            .collect();
        for (key, object) in gone {
            if needed.contains(&key) {
                self.objects.insert(key, object);
            } else {
                object.withdraw();
            }
        }
    }
}

fn joined(mut body: Vec<Bytes>) -> Bytes {
    if body.len() == 1
        && let Some(only) = body.pop()
    {
        return only;
    }
    let mut whole = BytesMut::with_capacity(body.iter().map(Bytes::len).sum());
    for part in &body {
        whole.extend_from_slice(part);
    }
    whole.freeze()
}

/// The wall clock, for people and for comparing processes; nothing is decided by it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
