//! The origin, its CDN's resources, and its signer.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use espalier_media::hls::{DeclaredInit, MediaPlaylist, Segment};
use espalier_media::{
    Descriptor, MasterHeader, ObjectHasher, ObjectKey, SignedStatement, Statement, StatementKey,
    Track, TrackHeader, TrackIndex, TrackKind, TrustedKeys,
};
use espalier_peer_core::FeedEvent;

pub(crate) const TRACK: &str = "main";
pub(crate) const TARGET: Duration = Duration::from_secs(2);
const WINDOW: u64 = 6;

pub(crate) struct Origin {
    key: StatementKey,
    segment_bytes: usize,
    /// Whether segments need an init section.
    init: bool,
    tracks: u32,
    published: Vec<Duration>,
    signed: BTreeMap<u64, (Duration, Vec<Bytes>)>,
    last_publish: Duration,
}

impl Origin {
    pub(crate) fn new(segment_bytes: usize, init: bool) -> Self {
        Self {
            key: StatementKey::from_seed(&[7; 32]),
            segment_bytes,
            init,
            tracks: 1,
            published: Vec::new(),
            signed: BTreeMap::new(),
            last_publish: Duration::ZERO,
        }
    }

    /// The same with more tracks than one: "main", "track1", …
    pub(crate) fn with_tracks(mut self, tracks: u32) -> Self {
        self.tracks = tracks;
        self
    }

    pub(crate) fn tracks(&self) -> u32 {
        self.tracks
    }

    pub(crate) fn track_names(&self) -> Vec<String> {
        (0..self.tracks)
            .map(|i| {
                if i == 0 {
                    TRACK.into()
                } else {
                    format!("track{i}")
                }
            })
            .collect()
    }

    pub(crate) fn keys(&self) -> TrustedKeys {
        TrustedKeys::new([self.key.public_key()])
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.published.len() as u64
    }

    pub(crate) fn publish(&mut self, now: Duration) {
        self.published.push(now);
        self.last_publish = now;
    }

    pub(crate) fn signed_at(&self, sequence: u64) -> Option<Duration> {
        self.signed.get(&sequence).map(|(at, _)| *at)
    }

    /// The bytes of a segment, all different: any mix-up shows.
    pub(crate) fn bytes(&self, key: &ObjectKey) -> Bytes {
        let init = key.kind == espalier_media::ObjectKind::Init;
        let length = if init {
            900
        } else {
            self.segment_bytes + usize::try_from(key.sequence % 7).expect("small") * 1_000
        };
        let seed = key.sequence * 31 + u64::from(init) + u64::from(key.track.0) * 1_009;
        let byte = |i: usize| {
            u8::try_from(
                (i as u64)
                    .wrapping_mul(2_654_435_761)
                    .wrapping_add(seed * 40_503)
                    >> 7
                    & 0xff,
            )
            .expect("masked")
        };
        (0..length).map(byte).collect::<Vec<_>>().into()
    }

    fn uri(key: &ObjectKey) -> String {
        format!("http://cdn/{}/{}", key.track.0, key.file_name("ts"))
    }

    pub(crate) fn resource(&self, uri: &str, _now: Duration) -> Option<Bytes> {
        let (track, name) = uri.strip_prefix("http://cdn/")?.split_once('/')?;
        let (key, _) = ObjectKey::from_file_name(TrackIndex(track.parse().ok()?), name)?;
        (key.sequence < self.next_sequence()).then(|| self.bytes(&key))
    }

    fn segment(track: u32, sequence: u64) -> ObjectKey {
        ObjectKey::segment(TrackIndex(track), 0, sequence)
    }

    fn first_init(track: u32) -> ObjectKey {
        ObjectKey::init(TrackIndex(track), 0, 0)
    }

    pub(crate) fn announcements(&self, sequence: u64) -> Vec<FeedEvent> {
        let announce = |track| {
            let object = Self::segment(track, sequence);
            FeedEvent::Announce {
                object,
                uri: Self::uri(&object),
                byte_range: None,
            }
        };
        (0..self.tracks).map(announce).collect()
    }

    fn descriptor(&self, key: ObjectKey, init_sequence: Option<u64>) -> Bytes {
        let bytes = self.bytes(&key);
        let mut hasher = ObjectHasher::new();
        hasher.push(&bytes).expect("short");
        let hashed = hasher.finish();
        let init = key.kind == espalier_media::ObjectKind::Init;
        self.signed(Statement::Object(Descriptor {
            key,
            length: hashed.length,
            chunk_hashes: hashed.chunk_hashes,
            duration: if init { Duration::ZERO } else { TARGET },
            program_date_time_ms: None,
            lines: if init {
                vec!["#EXT-X-MAP:URI=\"x\"".into()]
            } else {
                vec!["#EXTINF:2.0,".into()]
            },
            key_lines: Vec::new(),
            init_sequence,
            discontinuity_sequence: 0,
            uri: Self::uri(&key),
            byte_range: None,
        }))
    }

    fn signed(&self, statement: Statement) -> Bytes {
        SignedStatement::sign(statement, &self.key)
            .expect("valid")
            .encoded()
            .clone()
    }

    /// Signs a segment (and the init section with the first).
    pub(crate) fn sign(&mut self, sequence: u64) -> Vec<Bytes> {
        if self.signed.contains_key(&sequence) {
            return Vec::new();
        }
        let mut statements = Vec::new();
        for track in 0..self.tracks {
            if self.init && sequence == 0 {
                statements.push(self.descriptor(Self::first_init(track), None));
            }
            statements
                .push(self.descriptor(Self::segment(track, sequence), self.init.then_some(0)));
        }
        let at =
            self.published[usize::try_from(sequence).expect("small")] + Duration::from_millis(150);
        self.signed.insert(sequence, (at, statements.clone()));
        statements
    }

    pub(crate) fn sign_all(&mut self) {
        for sequence in 0..self.next_sequence() {
            self.sign(sequence);
        }
    }

    fn headers(&self) -> Vec<Bytes> {
        let track = |(index, name): (u32, String)| Track {
            index: TrackIndex(index),
            uri: format!("http://cdn/{name}.m3u8"),
            name,
            bandwidth_bps: 1_500_000,
            kind: TrackKind::Variant,
            group: String::new(),
            plays_with: Vec::new(),
            default_rendition: false,
        };
        let master = Statement::Master(MasterHeader {
            revision: 1,
            tracks: (0..).zip(self.track_names()).map(track).collect(),
            playlist: String::new(),
        });
        let header = |track| {
            Statement::Track(TrackHeader {
                track: TrackIndex(track),
                epoch: 0,
                from_sequence: 0,
                target_duration: TARGET,
                lines: vec!["#EXT-X-VERSION:3".into()],
                window_segments: 6,
                end_sequence: None,
            })
        };
        let headers = (0..self.tracks).map(header);
        core::iter::once(master)
            .chain(headers)
            .map(|said| self.signed(said))
            .collect()
    }

    /// What a feed says when it is opened.
    pub(crate) fn window(&self) -> Vec<Bytes> {
        let first = self
            .signed
            .keys()
            .next_back()
            .map_or(0, |last| (last + 1).saturating_sub(WINDOW));
        let mut statements = self.headers();
        if self.init && first > 0 {
            let inits =
                (0..self.tracks).map(|track| self.descriptor(Self::first_init(track), None));
            statements.extend(inits);
        }
        statements.extend(self.signed.range(first..).flat_map(|(_, (_, s))| s.clone()));
        statements
    }

    pub(crate) fn playlist(&self, track: &str) -> MediaPlaylist {
        let names = self.track_names();
        let track = (0..)
            .zip(&names)
            .find(|(_, name)| *name == track)
            .map_or(0, |(i, _)| i);
        let next = self.next_sequence();
        let first = next.saturating_sub(WINDOW);
        let init = DeclaredInit {
            uri: Self::uri(&Self::first_init(track)),
            byte_range: None,
            key_lines: [].into(),
        };
        let segment = |sequence| Segment {
            sequence,
            discontinuity_sequence: 0,
            duration: TARGET,
            program_date_time_ms: None,
            lines: vec!["#EXTINF:2.0,".into()],
            key_lines: [].into(),
            init: self.init.then(|| init.clone().into()),
            uri: Self::uri(&Self::segment(track, sequence)),
            byte_range: None,
            gap: false,
        };
        MediaPlaylist {
            target_duration: TARGET,
            media_sequence: first,
            lines: Vec::new(),
            lists_all: false,
            ended: false,
            segments: (first..next).map(segment).collect(),
            trailing_lines: Vec::new(),
        }
    }
}
