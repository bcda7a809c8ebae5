//! Names of objects within a channel, and the order in which they are pushed.

use std::cmp::Ordering;
use std::fmt;

/// A track's number in everything that is signed or relayed; at most
/// [`MAX_TRACK_INDEX`](crate::limits::MAX_TRACK_INDEX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TrackIndex(pub u32);

/// A chunk's number within its object, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkIndex(pub u32);

/// What an object is. The order is that in which objects of one sequence number are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// An `EXT-X-MAP` target: before the first segment that needs it.
    Init,
    /// An LL-HLS part of a segment.
    Part,
    /// A media segment.
    Segment,
}

/// Names an object within a channel.
///
/// Keys of one track are ordered as their objects are pushed: by epoch, then sequence; within a
/// sequence number first the init section, then parts in order, then the segment. Tracks are ordered
/// by index, which says nothing about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// The track that it belongs to.
    pub track: TrackIndex,
    /// Rises when the origin restarts its numbering.
    pub epoch: u32,
    /// What it is.
    pub kind: ObjectKind,
    /// The media sequence number; for an init section that of the first segment that needs it.
    pub sequence: u64,
    /// A part's number within its segment; 0 for the other kinds.
    pub part: u32,
}

impl ObjectKey {
    /// Names a media segment.
    #[must_use]
    pub const fn segment(track: TrackIndex, epoch: u32, sequence: u64) -> Self {
        Self {
            track,
            epoch,
            kind: ObjectKind::Segment,
            sequence,
            part: 0,
        }
    }

    /// Names an init section by the first segment that needs it.
    #[must_use]
    pub const fn init(track: TrackIndex, epoch: u32, sequence: u64) -> Self {
        Self {
            track,
            epoch,
            kind: ObjectKind::Init,
            sequence,
            part: 0,
        }
    }

    /// Returns the last component of the object's URL at a peer: `<epoch>-<sequence>.<ext>`, for an
    /// init section `<epoch>-<sequence>-init.<ext>`, for a part `<epoch>-<sequence>-p<part>.<ext>`.
    #[must_use]
    pub fn file_name(&self, ext: &str) -> String {
        format!("{}.{ext}", self.stem())
    }

    /// Reads what [`file_name`](Self::file_name) wrote: the key and the extension.
    #[must_use]
    pub fn from_file_name(track: TrackIndex, name: &str) -> Option<(Self, &str)> {
        let (stem, ext) = name.rsplit_once('.')?;
        let mut fields = stem.split('-');
        let epoch = decimal(fields.next()?)?;
        let sequence = decimal(fields.next()?)?;
        let (kind, part) = match fields.next() {
            None => (ObjectKind::Segment, 0),
            Some("init") => (ObjectKind::Init, 0),
            Some(part) => (ObjectKind::Part, decimal(part.strip_prefix('p')?)?),
        };
        let key = Self {
            track,
            epoch,
            kind,
            sequence,
            part,
        };
        (fields.next().is_none() && !ext.is_empty()).then_some((key, ext))
    }

    fn stem(&self) -> String {
        match self.kind {
            ObjectKind::Init => format!("{}-{}-init", self.epoch, self.sequence),
            ObjectKind::Part => format!("{}-{}-p{}", self.epoch, self.sequence, self.part),
            ObjectKind::Segment => format!("{}-{}", self.epoch, self.sequence),
        }
    }

    fn rank(&self) -> (TrackIndex, u32, u64, ObjectKind, u32) {
        (self.track, self.epoch, self.sequence, self.kind, self.part)
    }
}

/// Reads a number in the one form that is written: digits only, no leading zero, so that an object
/// has one URL.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.track.0, self.stem())
    }
}

/// A part of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// The first byte.
    pub offset: u64,
    /// How many bytes; at least 1.
    pub length: u64,
}

impl ByteRange {
    /// Returns the first byte after the range, or `None` past the end of the numbers.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// Returns the value of an HTTP `Range` header for it.
    #[must_use]
    pub fn http_value(&self) -> String {
        let last = self.offset.saturating_add(self.length).saturating_sub(1);
        format!("bytes={}-{last}", self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_they_are_pushed() {
        let track = TrackIndex(3);
        let part = |part| ObjectKey {
            part,
            kind: ObjectKind::Part,
            ..ObjectKey::segment(track, 1, 8)
        };
        let pushed = [
            ObjectKey::segment(track, 0, 900),
            ObjectKey::init(track, 1, 7),
            ObjectKey::segment(track, 1, 7),
            ObjectKey::init(track, 1, 8),
            part(0),
            part(1),
            ObjectKey::segment(track, 1, 8),
        ];
        assert!(pushed.is_sorted());
    }

    #[test]
    fn file_names_are_read_back() {
        let track = TrackIndex(0);
        let part = ObjectKey {
            part: 4,
            kind: ObjectKind::Part,
            ..ObjectKey::segment(track, 2, 9)
        };
        for key in [
            ObjectKey::segment(track, 0, u64::MAX),
            ObjectKey::init(track, 7, 0),
            part,
        ] {
            assert_eq!(
                ObjectKey::from_file_name(track, &key.file_name("m4s")),
                Some((key, "m4s"))
            );
        }
    }

    #[test]
    fn other_file_names_are_refused() {
        for name in [
            "",
            ".",
            "1-2",
            "1-2.",
            "1.ts",
            "01-2.ts",
            "1-+2.ts",
            "1-2-3.ts",
            "1-2-px.ts",
            "1-2-init-3.ts",
            "a-b.ts",
            "-1-2.ts",
        ] {
            assert_eq!(
                ObjectKey::from_file_name(TrackIndex(0), name),
                None,
                "{name}"
            );
        }
    }
}
