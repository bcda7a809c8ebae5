//! The stream that is measured: segments of noise, their signed statements, and their way out of a CDN.

use std::time::Duration;

use bytes::Bytes;
use espalier_media::{
    Descriptor, MasterHeader, ObjectHasher, ObjectKey, SignedStatement, Statement, StatementKey,
    Track, TrackHeader, TrackIndex, TrackKind, TrustedKeys,
};
use espalier_peer_core::{FetchRequest, FetchUpdate};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::shell::Input;

pub(crate) const TRACK: &str = "main";
pub(crate) const CHUNK: usize = 61_440;
const SEGMENT: Duration = Duration::from_secs(2);

/// A stream of one bit rate. Two of the same rate are equal, whoever makes them.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    key: StatementKey,
    bits_per_second: u64,
}

impl Stream {
    pub(crate) fn new(bits_per_second: u64) -> Self {
        Self {
            key: StatementKey::from_seed(&[7; 32]),
            bits_per_second,
        }
    }

    pub(crate) fn keys(&self) -> TrustedKeys {
        TrustedKeys::new([self.key.public_key()])
    }

    /// How long one chunk lasts.
    pub(crate) fn chunk_interval(&self) -> Duration {
        Duration::from_secs_f64(CHUNK as f64 * 8.0 / self.bits_per_second as f64)
    }

    pub(crate) fn segment(&self, sequence: u64) -> Bytes {
        let length = self.bits_per_second / 8 * SEGMENT.as_secs();
        let mut word = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(usize::try_from(length).expect("a segment fits into memory"));
        bytes.into()
    }

    fn signed(&self, statement: Statement) -> Bytes {
        let signed = SignedStatement::sign(statement, &self.key).expect("a valid statement");
        signed.encoded().clone()
    }

    /// The statements that come before any object.
    pub(crate) fn headers(&self) -> [Bytes; 2] {
        let master = MasterHeader {
            revision: 1,
            tracks: vec![Track {
                index: TrackIndex(0),
                name: TRACK.to_owned(),
                uri: "http://cdn/main.m3u8".to_owned(),
                bandwidth_bps: self.bits_per_second,
                kind: TrackKind::Variant,
                group: String::new(),
                plays_with: Vec::new(),
                default_rendition: false,
            }],
            playlist: String::new(),
        };
        let track = TrackHeader {
            track: TrackIndex(0),
            epoch: 0,
            from_sequence: 0,
            target_duration: SEGMENT,
            lines: vec!["#EXT-X-VERSION:3".to_owned()],
            window_segments: 6,
            end_sequence: None,
        };
        [
            self.signed(Statement::Master(master)),
            self.signed(Statement::Track(track)),
        ]
    }

    pub(crate) fn descriptor(&self, sequence: u64) -> Bytes {
        let mut hasher = ObjectHasher::new();
        hasher
            .push(&self.segment(sequence))
            .expect("a short segment");
        let hashed = hasher.finish();
        self.signed(Statement::Object(Descriptor {
            key: ObjectKey::segment(TrackIndex(0), 0, sequence),
            length: hashed.length,
            chunk_hashes: hashed.chunk_hashes,
            duration: SEGMENT,
            program_date_time_ms: None,
            lines: vec!["#EXTINF:2.0,".to_owned()],
            key_lines: Vec::new(),
            init_sequence: None,
            discontinuity_sequence: 0,
            uri: format!("http://cdn/{sequence}.ts"),
            byte_range: None,
        }))
    }

    /// When, after the stream's start, a segment exists.
    pub(crate) fn due(sequence: u64) -> Duration {
        SEGMENT * u32::try_from(sequence).expect("a short run")
    }
}

/// How the CDN answers a request: after a while, chunk by chunk at a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cdn {
    pub(crate) latency: Duration,
    pub(crate) bits_per_second: u64,
}

impl Cdn {
    /// Answers `request` into `inputs`.
    pub(crate) fn answer(self, stream: Stream, request: FetchRequest, inputs: mpsc::Sender<Input>) {
        tokio::spawn(async move {
            let mut body = stream.segment(request.object.sequence);
            if let Some(range) = request.range {
                let start = usize::try_from(range.offset).expect("within the segment");
                let end = start + usize::try_from(range.length).expect("within the segment");
                body = body.slice(start..end.min(body.len()));
            }
            let id = request.id;
            let start = Instant::now() + self.latency;
            sleep_until(start).await;
            let head = FetchUpdate::Started {
                partial: request.range.is_some(),
                length: Some(body.len() as u64),
            };
            let mut updates = vec![(start, head)];
            let mut sent = 0;
            while sent < body.len() {
                let end = (sent + CHUNK).min(body.len());
                let seconds = end as f64 * 8.0 / self.bits_per_second as f64;
                let at = start + Duration::from_secs_f64(seconds);
                updates.push((at, FetchUpdate::Body(body.slice(sent..end))));
                sent = end;
            }
            updates.push((start, FetchUpdate::End));
            for (at, update) in updates {
                sleep_until(at).await;
                if inputs.send(Input::Fetch(id, update)).await.is_err() {
                    return;
                }
            }
        });
    }
}
