//! Commits per second: `cargo bench -p espalier-raft-store --bench commit [-- SECONDS [DIRECTORY]]`, and what a
//! log takes on the disk: `… -- growth SECONDS [DIRECTORY [ENTRIES]]`.
//!
//! Appends of 1, 10, 100 and 1,000 entries of 100 bytes by 1 and 8 groups, each with one append in flight; next
//! to it a plain file that gets the same bytes and an `fdatasync`. Slices of both take turns, because a disk's
//! speed changes by the minute. Then: how many of 64 groups' appends share a sync, and how much disk a log takes
//! that is purged all the time, and how long the opening of a long one takes.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use espalier_raft_store::{Store, StoreOptions};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{EntryOf, LogIdOf};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, RaftTypeConfig};

openraft::declare_raft_types!(
    Config:
        D = Payload,
        R = (),
        NodeId = u64,
        Node = (),
);

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Payload(Vec<u8>);

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

type Log = espalier_raft_store::GroupStore<Config>;

const SLICE: Duration = Duration::from_millis(250);
const BODY_BYTES: usize = 100;

fn log_id(index: u64) -> LogIdOf<Config> {
    LogIdOf::<Config>::new(
        <Config as RaftTypeConfig>::LeaderId::new_committed(1, 1),
        index,
    )
}

fn entry(index: u64, bytes: usize) -> EntryOf<Config> {
    EntryOf::<Config>::new(log_id(index), EntryPayload::Normal(Payload(vec![7; bytes])))
}

fn options() -> StoreOptions {
    StoreOptions {
        snapshots_required: false,
        ..StoreOptions::default()
    }
}

fn main() -> anyhow::Result<()> {
    // cargo passes `--bench`.
    let mut arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let only_growth = arguments.first().is_some_and(|first| first == "growth");
    if only_growth {
        arguments.remove(0);
    }
    let seconds: f64 = arguments
        .first()
        .map_or(Ok(3.0), |seconds| seconds.parse())?;
    let time = Duration::from_secs_f64(seconds);
    let parent = arguments.get(1).map_or_else(std::env::temp_dir, Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if only_growth {
            let keep = arguments
                .get(2)
                .map_or(Ok(2560), |entries| entries.parse())?;
            return growth(&parent, time, keep).await;
        }
        rates(&parent, time).await?;
        growth(&parent, time * 5, 2560).await?;
        opening(&parent).await
    })
}

async fn rates(parent: &Path, time: Duration) -> anyhow::Result<()> {
    println!(
        "| groups | batch | appends/s | entries/s | p50 ms | p99 ms | appends/commit \
         | plain file: appends/s | p50 ms | p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for groups in [1, 8] {
        for batch in [1, 10, 100, 1000] {
            row(parent, groups, batch, time).await?;
        }
    }
    row(parent, 64, 1, time).await
}

/// One group and what its appends took.
struct Writer {
    log: Log,
    next: u64,
    took: Vec<Duration>,
}

impl Writer {
    async fn run(mut self, batch: u64, until: Instant) -> anyhow::Result<Self> {
        while Instant::now() < until {
            let begun = Instant::now();
            append(&mut self.log, self.next, batch, BODY_BYTES).await?;
            self.took.push(begun.elapsed());
            self.next += batch;
            // Between 10,000 and 20,000 entries stay, as after a snapshot.
            if self.next % 10_000 < batch && self.next > 20_000 {
                self.log.purge(log_id(self.next - 10_000)).await?;
            }
        }
        Ok(self)
    }
}

async fn append(log: &mut Log, first: u64, count: u64, bytes: usize) -> anyhow::Result<()> {
    let entries: Vec<_> = (first..first + count)
        .map(|index| entry(index, bytes))
        .collect();
    let (told, tell) = Config::oneshot();
    log.append(entries, IOFlushed::signal(told)).await?;
    tell.await??;
    Ok(())
}

/// A file that is appended to and synced.
struct Plain {
    file: File,
    took: Vec<Duration>,
}

impl Plain {
    fn run(&mut self, bytes: &[u8], until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            let begun = Instant::now();
            self.file.write_all(bytes)?;
            self.file.sync_data()?;
            self.took.push(begun.elapsed());
        }
        Ok(())
    }
}

async fn row(parent: &Path, groups: u64, batch: u64, time: Duration) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(parent)?;
    let store = Store::open(&dir.path().join("store"), &options())?;
    let mut writers = Vec::new();
    for group in 1..=groups {
        writers.push(Writer {
            log: store.group(group).await?,
            next: 0,
            took: Vec::new(),
        });
    }
    let mut plain = Plain {
        file: File::create(dir.path().join("plain"))?,
        took: Vec::new(),
    };
    let bytes = vec![7; BODY_BYTES * usize::try_from(batch)?];
    let before = store.figures();
    let (mut busy, mut plain_busy) = (Duration::ZERO, Duration::ZERO);
    while busy < time {
        let begun = Instant::now();
        let tasks: Vec<_> = writers
            .into_iter()
            .map(|writer| tokio::spawn(writer.run(batch, begun + SLICE)))
            .collect();
        writers = Vec::new();
        for task in tasks {
            writers.push(task.await??);
        }
        busy += begun.elapsed();
        let begun = Instant::now();
        plain.run(&bytes, begun + SLICE)?;
        plain_busy += begun.elapsed();
    }
    let commits = store.figures().commits - before.commits;
    let mut took: Vec<Duration> = writers.into_iter().flat_map(|writer| writer.took).collect();
    let appends = took.len();
    let rate = appends as f64 / busy.as_secs_f64();
    println!(
        "| {groups} | {batch} | {rate:.0} | {:.0} | {} | {:.1} | {:.0} | {} |",
        rate * batch as f64,
        quantiles(&mut took),
        appends as f64 / commits as f64,
        plain.took.len() as f64 / plain_busy.as_secs_f64(),
        quantiles(&mut plain.took),
    );
    Ok(())
}

fn quantiles(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("{:.2} | {:.2}", at(50), at(99))
}

fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.metadata()? {
            metadata if metadata.is_dir() => disk_bytes(&entry.path())?,
            metadata => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        };
    }
    Ok(sum)
}

/// Four groups that each keep between `keep` and twice as many entries of 1 KiB.
async fn growth(parent: &Path, time: Duration, keep: u64) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(parent)?;
    let store = Store::open(dir.path(), &options())?;
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for group in 1..=4 {
        let mut log: Log = store.group(group).await?;
        tasks.push(tokio::spawn(async move {
            let mut next = 0;
            while begun.elapsed() < time {
                append(&mut log, next, 32, 1024).await?;
                next += 32;
                if next % keep < 32 && next > 2 * keep {
                    log.purge(log_id(next - keep)).await?;
                }
            }
            anyhow::Ok(next)
        }));
    }
    let (mut most, mut shown, mut series) = (0, Duration::ZERO, Vec::new());
    while tasks.iter().any(|task| !task.is_finished()) {
        let now = disk_bytes(dir.path())?;
        most = most.max(now);
        if begun.elapsed() >= shown + time / 10 {
            shown = begun.elapsed();
            series.push((now / 1_000_000).to_string());
        }
        tokio::time::sleep(SLICE).await;
    }
    let mut entries = 0;
    for task in tasks {
        entries += task.await??;
    }
    let figures = store.figures();
    store.close();
    println!(
        "\nwritten in {:.0} s: {entries} entries, {} MB, {} commits; live at most {} MB, at the end {} MB; disk at most {} MB, at the \
         end {} MB; purged and not yet deleted at the end: {}; memory {} MB; the disk in MB, after each tenth: {}",
        begun.elapsed().as_secs_f64(),
        figures.bytes / 1_000_000,
        figures.commits,
        4 * 2 * keep * 1024 / 1_000_000,
        figures.live_bytes / 1_000_000,
        most / 1_000_000,
        disk_bytes(dir.path())? / 1_000_000,
        figures.doomed,
        resident_bytes()? / 1_000_000,
        series.join(" "),
    );
    Ok(())
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Opening reads and checks everything.
async fn opening(parent: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(parent)?;
    let store = Store::open(dir.path(), &options())?;
    let mut log: Log = store.group(1).await?;
    for first in (0..100_000).step_by(500) {
        append(&mut log, first, 500, 1024).await?;
    }
    drop(store);
    let begun = Instant::now();
    let store = Store::open(dir.path(), &options())?;
    let took = begun.elapsed();
    println!(
        "\nopened and checked: 100000 entries of 1 KiB in {:.2} s",
        took.as_secs_f64()
    );
    drop(store);
    Ok(())
}
