//! A few seconds of media, looped as a live HLS stream.
//!
//! The stream is a function of the time since it began and keeps no state: segment `n` appears when
//! its last frame would have been encoded, and its bytes are those of the sample's segment
//! `n mod count`. Each return to the sample's beginning is a discontinuity, because timestamps
//! jump back there.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use time::macros::format_description;

/// The sample: three segments of exactly two seconds, H.264 and AAC in MPEG-TS, made by ffmpeg.
const SEGMENTS: [&[u8]; 3] = [
    include_bytes!("../../sample-media/sample-0.ts"),
    include_bytes!("../../sample-media/sample-1.ts"),
    include_bytes!("../../sample-media/sample-2.ts"),
];
const COUNT: u64 = SEGMENTS.len() as u64;
const SEGMENT: Duration = Duration::from_secs(2);

/// How many segments the playlist lists.
const WINDOW: u64 = 8;

/// How many segments stay available after they left the playlist (RFC 8216, 6.2.2).
const GRACE: u64 = 8;

/// How many segments are there when the stream begins, so that players need not wait.
const HEAD_START: u64 = 3;

const MASTER: &str = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-STREAM-INF:BANDWIDTH=1250000,AVERAGE-BANDWIDTH=1170000,RESOLUTION=640x360,FRAME-RATE=25.000,CODECS=\"avc1.4d401e,mp4a.40.2\"
index.m3u8
";

/// The looped sample, as it is since a moment on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoopedSample {
    /// When segment 0's first frame was shown.
    epoch: OffsetDateTime,
}

impl LoopedSample {
    /// Begins the stream so that a few segments are there already.
    pub(crate) fn beginning_at(now: OffsetDateTime) -> Self {
        Self {
            epoch: now - SEGMENT * u32::try_from(HEAD_START).unwrap_or(0),
        }
    }

    /// The master playlist.
    pub(crate) fn master() -> &'static str {
        MASTER
    }

    /// The media playlist at the time given.
    pub(crate) fn playlist(&self, now: OffsetDateTime) -> String {
        let end = self.available(now);
        let first = end.saturating_sub(WINDOW);
        // Discontinuities that left the window together with their segments.
        let gone = first.saturating_sub(1) / COUNT;
        let mut out = format!(
            "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{first}\n\
             #EXT-X-DISCONTINUITY-SEQUENCE:{gone}\n#EXT-X-INDEPENDENT-SEGMENTS\n",
            SEGMENT.as_secs()
        );
        for sequence in first..end {
            if sequence > 0 && sequence % COUNT == 0 {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            write!(
                out,
                "#EXTINF:{:.6},\n#EXT-X-PROGRAM-DATE-TIME:{}\n{}\n",
                SEGMENT.as_secs_f64(),
                self.date_time(sequence),
                name(sequence)
            )
            .expect("invariant: a String takes every text");
        }
        out
    }

    /// The bytes of a segment, by its name; `None` when it is not there yet or any more.
    pub(crate) fn segment(&self, file: &str, now: OffsetDateTime) -> Option<Bytes> {
        let sequence: u64 = file
            .strip_prefix("loop-")?
            .strip_suffix(".ts")?
            .parse()
            .ok()?;
        let end = self.available(now);
        // Exactly the name that was listed: `loop-07.ts` never was.
        if name(sequence) != file
            || sequence >= end
            || sequence < end.saturating_sub(WINDOW + GRACE)
        {
            return None;
        }
        let index = usize::try_from(sequence % COUNT).ok()?;
        Some(Bytes::from_static(SEGMENTS[index]))
    }

    /// How many segments have ever been available.
    fn available(&self, now: OffsetDateTime) -> u64 {
        let age = Duration::try_from(now - self.epoch).unwrap_or(Duration::ZERO);
        age.as_secs() / SEGMENT.as_secs()
    }

    fn date_time(&self, sequence: u64) -> String {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let seconds = i64::try_from(sequence.saturating_mul(SEGMENT.as_secs())).unwrap_or(i64::MAX);
        self.epoch
            .checked_add(time::Duration::seconds(seconds))
            .unwrap_or(self.epoch)
            .to_offset(time::UtcOffset::UTC)
            .format(&format)
            .expect("invariant: every component of the format is one that a date-time has")
    }
}

fn name(sequence: u64) -> String {
    format!("loop-{sequence}.ts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const START: OffsetDateTime = datetime!(2026-11-23 08:00:00 UTC);

    fn after(seconds: i64) -> OffsetDateTime {
        START + time::Duration::seconds(seconds)
    }

    #[test]
    fn the_first_playlist_has_the_head_start() {
        assert_eq!(
            LoopedSample::beginning_at(START).playlist(START),
            "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n\
             #EXT-X-DISCONTINUITY-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n\
             #EXTINF:2.000000,\n#EXT-X-PROGRAM-DATE-TIME:2026-11-23T07:59:54.000Z\nloop-0.ts\n\
             #EXTINF:2.000000,\n#EXT-X-PROGRAM-DATE-TIME:2026-11-23T07:59:56.000Z\nloop-1.ts\n\
             #EXTINF:2.000000,\n#EXT-X-PROGRAM-DATE-TIME:2026-11-23T07:59:58.000Z\nloop-2.ts\n"
        );
    }

    #[test]
    fn a_segment_appears_when_it_is_over_and_not_before() {
        let sample = LoopedSample::beginning_at(START);
        let just_before = after(2) - time::Duration::milliseconds(1);
        assert!(!sample.playlist(just_before).contains("loop-3.ts"));
        assert!(sample.segment("loop-3.ts", just_before).is_none());
        assert!(
            sample
                .playlist(after(2))
                .contains("#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,")
        );
        assert_eq!(
            sample.segment("loop-3.ts", after(2)).as_deref(),
            Some(SEGMENTS[0])
        );
    }

    #[test]
    fn the_window_slides_and_old_segments_go() {
        let sample = LoopedSample::beginning_at(START);
        let playlist = sample.playlist(after(60));
        assert!(
            playlist.contains("#EXT-X-MEDIA-SEQUENCE:25\n"),
            "{playlist}"
        );
        assert_eq!(playlist.matches("#EXTINF").count(), 8);
        assert!(sample.segment("loop-17.ts", after(60)).is_some());
        assert!(sample.segment("loop-16.ts", after(60)).is_none());
    }

    /// RFC 8216, 6.2.2: removing a discontinuity tag raises the discontinuity sequence by one, so
    /// a segment's own number never changes while it is listed.
    #[test]
    fn each_segment_keeps_its_discontinuity_number() {
        let sample = LoopedSample::beginning_at(START);
        for second in 0..120 {
            let playlist = sample.playlist(after(second));
            let tag = "#EXT-X-DISCONTINUITY-SEQUENCE:";
            let mut number: u64 = playlist
                .lines()
                .find_map(|line| line.strip_prefix(tag))
                .unwrap()
                .parse()
                .unwrap();
            for line in playlist.lines() {
                if line == "#EXT-X-DISCONTINUITY" {
                    number += 1;
                } else if let Some(sequence) = line
                    .strip_prefix("loop-")
                    .and_then(|rest| rest.strip_suffix(".ts"))
                {
                    assert_eq!(
                        number,
                        sequence.parse::<u64>().unwrap() / COUNT,
                        "{playlist}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_that_were_never_listed_are_not_there() {
        let sample = LoopedSample::beginning_at(START);
        for file in [
            "loop-.ts",
            "loop-01.ts",
            "loop-+1.ts",
            "loop-1.m4s",
            "1.ts",
            "",
        ] {
            assert!(sample.segment(file, START).is_none(), "{file}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_lists_nothing_yet() {
        let sample = LoopedSample::beginning_at(START);
        assert!(!sample.playlist(after(-60)).contains("#EXTINF"));
    }

    #[test]
    fn the_sample_is_mpeg_ts() {
        for segment in SEGMENTS {
            assert!(
                segment.len() % 188 == 0 && segment.chunks(188).all(|packet| packet[0] == 0x47)
            );
        }
    }
}
