//! What a peer's player sees, checked as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use espalier_media::{CHUNK_SIZE, ObjectKey, ObjectKind, Statement};
use espalier_peer_core::{Provenance, Publication};

use super::origin::Origin;

#[derive(Default)]
pub(crate) struct Player {
    pub(crate) listed: BTreeSet<ObjectKey>,
    chunks: BTreeMap<ObjectKey, BTreeSet<u32>>,
    /// When each segment was complete, verified.
    pub(crate) completed: BTreeMap<u64, Duration>,
    pub(crate) unverified: BTreeMap<u64, Duration>,
    pub(crate) from: BTreeMap<u64, Provenance>,
    /// Bytes that differ from the origin's are expected in what is published unverified.
    pub(crate) tolerates_other_bytes: bool,
    newest_listed: BTreeMap<u32, ObjectKey>,
    /// The segments of the tracks but the first that can be played.
    others: BTreeSet<(u32, u64)>,
}

impl Player {
    pub(crate) fn take(&mut self, publication: Publication, origin: &Origin, now: Duration) {
        match publication {
            Publication::Header(_) | Publication::Evicted { .. } => {}
            Publication::Listed(statement) => match &*statement {
                Statement::Object(descriptor) => {
                    self.listed.insert(descriptor.key);
                    if descriptor.key.kind == ObjectKind::Segment {
                        let key = descriptor.key;
                        let bypassed = self.unverified.contains_key(&key.sequence)
                            || self.others.contains(&(key.track.0, key.sequence));
                        let newest = self.newest_listed.entry(key.track.0).or_insert(key);
                        assert!(key >= *newest || bypassed, "{key} listed out of order");
                        *newest = key.max(*newest);
                    }
                }
                Statement::Master(_) | Statement::Track(_) => panic!("no descriptor is listed"),
            },
            Publication::Chunk {
                object,
                index,
                bytes,
            } => {
                assert!(
                    self.listed.contains(&object),
                    "a chunk of {object}, which is not listed"
                );
                let truth = origin.bytes(&object);
                let start = index.0 as usize * CHUNK_SIZE;
                let end = truth.len().min(start + CHUNK_SIZE);
                assert_eq!(
                    bytes,
                    truth.slice(start..end),
                    "chunk {} of {object}",
                    index.0
                );
                let new = self.chunks.entry(object).or_default().insert(index.0);
                assert!(new, "chunk {} of {object} twice", index.0);
            }
            Publication::Complete { object, at, from } => {
                assert_eq!(at, now);
                let length = origin.bytes(&object).len();
                let chunks = self.chunks.get(&object).map_or(0, BTreeSet::len);
                assert_eq!(
                    chunks,
                    length.div_ceil(CHUNK_SIZE),
                    "{object} is not complete"
                );
                assert_eq!(from.total(), length as u64);
                if object.track.0 > 0 {
                    self.others.insert((object.track.0, object.sequence));
                } else if object.kind == ObjectKind::Segment {
                    let twice = self.completed.insert(object.sequence, now);
                    assert!(twice.is_none(), "{object} complete twice");
                    self.from.insert(object.sequence, from);
                }
            }
            Publication::Unverified {
                object,
                descriptor,
                body,
            } => {
                let body = body.concat();
                let right = body[..] == origin.bytes(&object)[..];
                assert!(
                    right || self.tolerates_other_bytes,
                    "{object} unverified and wrong"
                );
                assert!(descriptor.is_some() || self.listed.contains(&object));
                if object.track.0 > 0 {
                    self.others.insert((object.track.0, object.sequence));
                } else if object.kind == ObjectKind::Segment {
                    let twice = self.unverified.insert(object.sequence, now);
                    assert!(twice.is_none(), "{object} unverified twice");
                }
            }
        }
    }

    pub(crate) fn has_other(&self, track: u32, sequence: u64) -> bool {
        self.others.contains(&(track, sequence))
    }

    /// The segments of the first track that can be played.
    pub(crate) fn had(&self) -> BTreeSet<u64> {
        self.completed
            .keys()
            .chain(self.unverified.keys())
            .copied()
            .collect()
    }
}
