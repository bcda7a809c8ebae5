//! A live stream as a packager makes it: ffmpeg, writing HLS, and its publisher.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::binaries::tool;
use crate::process::Process;
use crate::publisher::{Fault, Published, Publisher};
use crate::wait::wait_until;

/// The length of each segment.
pub const SEGMENT: Duration = Duration::from_secs(2);

/// What the packager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// MPEG-TS segments, one media playlist.
    TransportStream,
    /// CMAF (fragmented MP4) segments with init sections, two renditions, a master playlist.
    TwoRenditions,
}

impl Form {
    /// The playlist that a channel is created with.
    #[must_use]
    pub fn entry(self) -> &'static str {
        match self {
            Self::TransportStream => "live.m3u8",
            Self::TwoRenditions => "master.m3u8",
        }
    }

    /// The prefixes of the segments' names, one a rendition, in the master's order.
    #[must_use]
    pub fn renditions(self) -> &'static [&'static str] {
        match self {
            Self::TransportStream => &["seg"],
            Self::TwoRenditions => &["v0", "v1"],
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::TransportStream => "ts",
            Self::TwoRenditions => "m4s",
        }
    }
}

/// A running packager and what it published.
#[derive(Debug)]
pub struct Origin {
    form: Form,
    work: PathBuf,
    run: u32,
    packager: Process,
    publisher: Publisher,
}

impl Origin {
    /// Starts a stream whose files nginx finds in `served`; `directory` is for its own use.
    ///
    /// # Errors
    /// ffmpeg is missing, or a directory cannot be made.
    pub fn start(form: Form, directory: &Path, served: &Path) -> Result<Self> {
        let work = directory.join("packager");
        fs::create_dir_all(&work)?;
        fs::create_dir_all(served)?;
        let publisher = Publisher::start(&work, served)?;
        let packager = start_packager(form, &work, 0)?;
        Ok(Self {
            form,
            work,
            run: 0,
            packager,
            publisher,
        })
    }

    /// The stream's form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// The name under which a segment is published: of the current run of the packager.
    #[must_use]
    pub fn segment_name(&self, rendition: &str, sequence: u64) -> String {
        segment_name(self.form, rendition, self.run, sequence)
    }

    /// The truth about a segment of the current run, if it was published.
    #[must_use]
    pub fn segment(&self, rendition: &str, sequence: u64) -> Option<Published> {
        self.publisher
            .published(&self.segment_name(rendition, sequence))
    }

    /// The truth about any published file.
    #[must_use]
    pub fn published(&self, name: &str) -> Option<Published> {
        self.publisher.published(name)
    }

    /// How many segments of each rendition the current run published.
    #[must_use]
    pub fn published_count(&self) -> usize {
        let all = self.publisher.all();
        let count = |rendition: &&str| {
            let prefix = format!("{rendition}-{}-", self.run);
            all.keys().filter(|name| name.starts_with(&prefix)).count()
        };
        self.form.renditions().iter().map(count).min().unwrap_or(0)
    }

    /// Whether some published file has this hash, and which.
    #[must_use]
    pub fn name_of(&self, sha256: &str) -> Option<String> {
        let mut all = self.publisher.all().into_iter();
        all.find(|(_, published)| published.sha256 == sha256)
            .map(|(name, _)| name)
    }

    /// Waits until each rendition's current run has this many segments.
    ///
    /// # Errors
    /// The deadline passed: the log of ffmpeg says why.
    pub fn wait_for_segments(&mut self, count: usize, within: Duration) -> Result<()> {
        let what = format!("ffmpeg publishes {count} segments");
        let log = |origin: &Self| origin.packager.log();
        wait_until(&what, within, || {
            Ok((self.published_count() >= count).then_some(()))
        })
        .map_err(|error| error.context(log(self)))
    }

    /// Serves something else than the packager's playlists.
    ///
    /// # Errors
    /// The served files cannot be written.
    pub fn set_fault(&self, fault: Fault) -> Result<()> {
        self.publisher.set_fault(fault)
    }

    /// Ends the packager and starts it anew: its numbering begins at 0 again.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart_packager(&mut self) -> Result<()> {
        self.packager.kill()?;
        self.run += 1;
        self.packager = start_packager(self.form, &self.work, self.run)?;
        Ok(())
    }
}

fn segment_name(form: Form, rendition: &str, run: u32, sequence: u64) -> String {
    format!("{rendition}-{run}-{sequence}.{}", form.extension())
}

fn start_packager(form: Form, work: &Path, run: u32) -> Result<Process> {
    let mut arguments = words("-nostdin -hide_banner -loglevel warning");
    arguments.extend(words("-re -f lavfi -i testsrc2=size=320x180:rate=25"));
    // Each run sounds different: a new packager that repeated the old one's bytes could not be told
    // from it by them.
    let pitch = 440 + 110 * run;
    arguments.extend(words(&format!(
        "-re -f lavfi -i sine=frequency={pitch}:sample_rate=48000"
    )));
    arguments.extend(match form {
        Form::TransportStream => transport_stream(run),
        Form::TwoRenditions => two_renditions(run),
    });
    Process::start(&format!("ffmpeg-{run}"), &tool("ffmpeg")?, arguments, work)
}

fn transport_stream(run: u32) -> Vec<String> {
    let mut arguments = words(ENCODER);
    arguments.extend(words(
        "-b:v 1400k -minrate 1400k -maxrate 1400k -bufsize 1400k -c:a aac -b:a 64k",
    ));
    arguments.extend(words(HLS));
    arguments.extend(words(&format!(
        "-hls_segment_filename seg-{run}-%d.ts live.m3u8"
    )));
    arguments
}

fn two_renditions(run: u32) -> Vec<String> {
    let mut arguments = words("-map 0:v -map 1:a -map 0:v -map 1:a");
    arguments.extend(words(ENCODER));
    for (index, rate) in [(0, "1400k"), (1, "500k")] {
        arguments.extend(words(&format!(
            "-b:v:{index} {rate} -minrate:v:{index} {rate} -maxrate:v:{index} {rate} -bufsize:v:{index} {rate}"
        )));
    }
    arguments.extend(words("-c:a aac -b:a 64k -hls_segment_type fmp4"));
    arguments.extend(words(HLS));
    arguments.push("-var_stream_map".to_owned());
    arguments.push("v:0,a:0 v:1,a:1".to_owned());
    arguments.extend(words(&format!(
        "-master_pl_name master.m3u8 -hls_fmp4_init_filename init-{run}-%v.mp4 \
         -hls_segment_filename v%v-{run}-%d.m4s v%v.m3u8"
    )));
    arguments
}

/// Constant bit rate down to the segment, a key frame each two seconds.
const ENCODER: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 50 -keyint_min 50 \
                       -sc_threshold 0 -x264-params nal-hrd=cbr";

const HLS: &str = "-f hls -hls_time 2 -hls_list_size 10 -hls_delete_threshold 8 -hls_flags \
                   delete_segments+program_date_time+temp_file+independent_segments";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
