//! A real player at one peer: ffmpeg decodes everything and says when each packet is shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use espalier_e2e::binaries::tool;
use espalier_e2e::{Peer, Process, Scene};

/// ffmpeg as it plays.
pub(crate) struct Player {
    process: Process,
    packets: PathBuf,
}

impl Player {
    /// Opens the peer's master playlist and plays `span` of it.
    pub(crate) fn at(scene: &Scene, peer: &Peer, span: Duration) -> Result<Self> {
        Self::start(
            &format!("player-{}", peer.id),
            peer.master_url(),
            span,
            scene.directory(),
        )
    }

    /// Opens any playlist and plays `span` of it.
    pub(crate) fn start(name: &str, url: &str, span: Duration, directory: &Path) -> Result<Self> {
        Self::start_through(&[], name, url, span, directory)
    }

    /// Plays on the peer's own machine, in its network namespace, as viewers do.
    pub(crate) fn beside(scene: &Scene, peer: &Peer, span: Duration) -> Result<Self> {
        let target = peer.process.id().to_string();
        let through = ["nsenter", "--target", &target, "--net"];
        let name = format!("player-{}", peer.id);
        Self::start_through(&through, &name, peer.master_url(), span, scene.directory())
    }

    fn start_through(
        through: &[&str],
        name: &str,
        url: &str,
        span: Duration,
        directory: &Path,
    ) -> Result<Self> {
        let packets = directory.join(format!("{name}.packets"));
        let span = span.as_secs().to_string();
        let packets_file = packets.display().to_string();
        let arguments = ["-nostdin", "-v", "error", "-xerror", "-i", url]
            .into_iter()
            .chain([
                "-map",
                "0:v:0",
                "-t",
                &span,
                "-c",
                "copy",
                "-f",
                "framecrc",
                &packets_file,
            ])
            .chain([
                "-map", "0:v:0", "-map", "0:a:0", "-t", &span, "-f", "null", "-",
            ]);
        let mut words = through.iter().copied().chain(["ffmpeg"]).chain(arguments);
        let program = tool(words.next().unwrap_or("ffmpeg"))?;
        let process = Process::start(name, &program, words, directory)?;
        Ok(Self { process, packets })
    }

    /// Demands that it played to its end without an error, picture by picture. Says how many.
    pub(crate) fn expect_flawless(mut self, within: Duration) -> Result<usize> {
        let status = self.process.wait_for_end(within)?;
        let complaints = self.process.log();
        ensure!(
            status.success() && complaints.is_empty(),
            "ffmpeg ({status}): {complaints}"
        );
        let text = fs::read_to_string(&self.packets)?;
        let times = presentation_times(&text)?;
        ensure!(times.len() > 100, "ffmpeg played {} pictures", times.len());
        let interval = times[1] - times[0];
        for pair in times.windows(2) {
            // A clock of 90 kHz cannot show 25 pictures a second unevenly; one tick is rounding.
            if (pair[1] - pair[0] - interval).abs() > 1 {
                bail!(
                    "the picture at {} is followed by one at {}, not {interval} later",
                    pair[0],
                    pair[1]
                );
            }
        }
        Ok(times.len())
    }
}

/// The third column of a framecrc file: `stream, dts, pts, duration, size, crc`.
fn presentation_times(text: &str) -> Result<Vec<i64>> {
    let packets = text.lines().filter(|line| !line.starts_with('#'));
    let time = |line: &str| -> Result<i64> {
        let column = line
            .split(',')
            .nth(2)
            .with_context(|| format!("framecrc: {line}"))?;
        Ok(column.trim().parse()?)
    };
    let mut times: Vec<i64> = packets.map(time).collect::<Result<_>>()?;
    times.sort_unstable();
    Ok(times)
}
