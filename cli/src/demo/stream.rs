//! The demo's live stream.

use std::path::Path;
use std::time::Duration;

use espalier_process::{BitRate, Failure, OrFail};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::audience::Uplinks;
use super::process::{Process, Recipe};
use super::programs::{Programs, in_path};
use crate::args::StreamSource;
use crate::origin::{Content, LoopedSample};

/// How long an encoder may take until its first segments are there.
const ENCODER_START: Duration = Duration::from_secs(20);

/// How many segments must be there before peers come, so that players start at once.
const SEGMENTS_AT_START: usize = 2;

/// How long its segments are, the sample's too.
pub(crate) const SEGMENT: Duration = Duration::from_secs(2);

/// A stream that is live.
#[derive(Debug)]
pub(crate) struct LiveStream {
    pub(crate) content: Content,
    pub(crate) encoder: Option<Process>,
    /// What it is, for people.
    pub(crate) description: String,
    /// What viewers' uplinks must carry for it: an edge costs the payload's peak rate times 1.2.
    pub(crate) uplinks: Uplinks,
}

impl LiveStream {
    /// Starts ffmpeg, or the looped sample.
    ///
    /// # Errors
    ///
    /// If ffmpeg was asked for and does not work; when it was only a wish, the sample plays instead.
    pub(crate) async fn start(
        wanted: StreamSource,
        programs: &Programs,
        directory: &Path,
    ) -> Result<Self, Failure> {
        match wanted {
            StreamSource::Sample => Ok(sample("")),
            StreamSource::Ffmpeg => encode(programs, directory).await,
            StreamSource::Auto => match encode(programs, directory).await {
                Ok(stream) => Ok(stream),
                Err(failure) => {
                    tracing::info!(%failure, "the sample plays instead of ffmpeg");
                    Ok(sample(" (ffmpeg is not here, or does not work)"))
                }
            },
        }
    }
}

fn sample(why: &str) -> LiveStream {
    LiveStream {
        content: Content::Sample(LoopedSample::beginning_at(OffsetDateTime::now_utc())),
        encoder: None,
        description: format!("sample media, looped{why}"),
        uplinks: Uplinks {
            for_one: BitRate::from_bits_per_second(2_300_000),
            for_two: BitRate::from_bits_per_second(3_800_000),
        },
    }
}

async fn encode(programs: &Programs, directory: &Path) -> Result<LiveStream, Failure> {
    let ffmpeg = in_path("ffmpeg").ok_or_else(|| {
        Failure::failed("ffmpeg is not installed")
            .next("install it, or run the demo with --stream sample")
    })?;
    let media = directory.join("media");
    std::fs::create_dir(&media).or_fail("cannot make a directory for the stream")?;
    let recipe = Recipe::new("ffmpeg", &ffmpeg, arguments(&media));
    let mut encoder = Process::spawn(&programs.espalier, &recipe, directory)?;
    let deadline = Instant::now() + ENCODER_START;
    while !is_live(&media) {
        if encoder.has_ended() {
            return Err(encoder.failure("ended at once"));
        }
        if Instant::now() > deadline {
            return Err(encoder.failure("made no stream in time"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(LiveStream {
        content: Content::Directory(media),
        encoder: Some(encoder),
        description: "ffmpeg, 1.5 Mbit/s, 2 s segments".to_owned(),
        uplinks: Uplinks {
            for_one: BitRate::from_bits_per_second(3_000_000),
            for_two: BitRate::from_bits_per_second(5_000_000),
        },
    })
}

fn is_live(media: &Path) -> bool {
    media.join("master.m3u8").exists()
        && std::fs::read_to_string(media.join("index.m3u8"))
            .is_ok_and(|text| text.matches("#EXTINF").count() >= SEGMENTS_AT_START)
}

/// A test picture with a tone, in real time; segments are renamed into place when they are whole.
fn arguments(media: &Path) -> Vec<String> {
    const FIXED: &str = "\
        -hide_banner -loglevel warning -nostdin -re \
        -f lavfi -i testsrc2=size=854x480:rate=25 -f lavfi -i sine=frequency=330:sample_rate=48000 \
        -c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -threads 1 \
        -b:v 1400k -maxrate 1400k -bufsize 700k -g 50 -keyint_min 50 -sc_threshold 0 \
        -c:a aac -b:a 64k \
        -f hls -hls_time 2 -hls_list_size 8 -hls_delete_threshold 8 \
        -hls_flags delete_segments+program_date_time+independent_segments+temp_file \
        -master_pl_name master.m3u8";
    let mut words: Vec<String> = FIXED.split_whitespace().map(str::to_owned).collect();
    words.push("-hls_segment_filename".to_owned());
    words.push(media.join("segment-%d.ts").display().to_string());
    words.push(media.join("index.m3u8").display().to_string());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_live_when_its_first_segments_are_listed() {
        let media = tempfile::tempdir().unwrap();
        assert!(!is_live(media.path()));
        std::fs::write(media.path().join("index.m3u8"), "#EXTINF:2,\na.ts\n").unwrap();
        std::fs::write(media.path().join("master.m3u8"), "").unwrap();
        assert!(!is_live(media.path()));
        std::fs::write(
            media.path().join("index.m3u8"),
            "#EXTINF:2,\na.ts\n#EXTINF:2,\nb.ts\n",
        )
        .unwrap();
        assert!(is_live(media.path()));
    }
}
