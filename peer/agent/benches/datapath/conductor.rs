//! Starts the processes of a run, carries their signals, and collects what they report.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::node::{FIRST_CHILD, Part, RELAY, SOURCE, Stack};
use super::wire::{Line, NodeReport};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// One run's circumstances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) stack: Stack,
    pub(crate) children: u64,
    pub(crate) bits_per_second: u64,
    pub(crate) seconds: u64,
    pub(crate) workers: usize,
}

/// One run's result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    pub(crate) stack: &'static str,
    pub(crate) mbit_per_second: f64,
    pub(crate) children: u64,
    pub(crate) gbit_sent: f64,
    /// What arrived, of what should have.
    pub(crate) delivered: f64,
    pub(crate) relay_cpu_seconds: f64,
    pub(crate) relay_cpu_seconds_per_gbit: f64,
    /// The range of that figure over all runs; the gaps are those of all runs too.
    pub(crate) least_per_gbit: f64,
    pub(crate) most_per_gbit: f64,
    pub(crate) relay_cpu_percent: f64,
    pub(crate) relay_peak_rss_mib: f64,
    pub(crate) gaps_over_100_ms: u64,
    pub(crate) longest_gap_ms: f64,
    pub(crate) faults: u64,
}

impl Cell {
    /// The run of median CPU time for each Gbit, with the range, the gaps and the faults of all.
    pub(crate) fn median(mut cells: Vec<Self>) -> Option<Self> {
        let per_gbit = |cell: &Self| cell.relay_cpu_seconds_per_gbit;
        cells.sort_by(|a, b| per_gbit(a).total_cmp(&per_gbit(b)));
        let (least, most) = (per_gbit(cells.first()?), per_gbit(cells.last()?));
        let gaps = cells.iter().map(|cell| cell.gaps_over_100_ms).sum();
        let faults = cells.iter().map(|cell| cell.faults).sum();
        let longest = cells.iter().map(|cell| cell.longest_gap_ms);
        let longest_gap_ms = longest.fold(0.0, f64::max);
        Some(Self {
            least_per_gbit: least,
            most_per_gbit: most,
            gaps_over_100_ms: gaps,
            longest_gap_ms,
            faults,
            ..cells.swap_remove(cells.len() / 2)
        })
    }
}

struct Process {
    _child: Child,
    stdin: ChildStdin,
}

impl Run {
    fn start(self, part: Part, lines: mpsc::Sender<(Part, Line)>) -> anyhow::Result<Process> {
        let name = |value: &str| value.to_lowercase();
        let stack = self.stack.to_possible_value().context("its name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--workers", &self.workers.to_string(), "node"])
            .args(["--stack", stack.get_name()])
            .args(["--part", &name(&format!("{part:?}"))])
            .args(["--children", &self.children.to_string()])
            .args(["--bits-per-second", &self.bits_per_second.to_string()])
            .args(["--seconds", &self.seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("its standard input")?;
        let mut stdout = BufReader::new(child.stdout.take().context("its output")?).lines();
        tokio::spawn(async move {
            while let Ok(Some(text)) = stdout.next_line().await {
                let line = serde_json::from_str(&text).expect("a line of a process of ours");
                if lines.send((part, line)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Process {
            _child: child,
            stdin,
        })
    }

    /// Does the run.
    pub(crate) async fn measure(self) -> anyhow::Result<Cell> {
        let (lines_in, mut lines) = mpsc::channel(256);
        let mut processes = BTreeMap::new();
        // Who offers starts last: signals need somebody to read them.
        for part in [Part::Source, Part::Relay, Part::Children] {
            processes.insert(part as u8, self.start(part, lines_in.clone())?);
        }
        let mut ready = 0;
        let opening = async {
            while ready < processes.len() {
                match lines.recv().await {
                    Some((_, line @ Line::Signal { .. })) => route(&mut processes, line).await?,
                    Some((_, Line::Ready)) => ready += 1,
                    Some((part, line)) => bail!("{part:?} says {line:?} too early"),
                    None => bail!("the processes are gone"),
                }
            }
            Ok(())
        };
        timeout(READY_LIMIT, opening)
            .await
            .context("the links do not open in time")??;
        tell_all(&mut processes, &Line::Begin).await?;
        sleep(Duration::from_secs(self.seconds) + Duration::from_millis(500)).await;
        tell_all(&mut processes, &Line::Finish).await?;
        let mut reports = BTreeMap::new();
        while reports.len() < processes.len() {
            match timeout(READY_LIMIT, lines.recv()).await? {
                Some((part, Line::Report(report))) => drop(reports.insert(part as u8, report)),
                Some(_) => {}
                None => bail!("a process did not report"),
            }
        }
        let (relay, children) = (
            &reports[&(Part::Relay as u8)],
            &reports[&(Part::Children as u8)],
        );
        Ok(self.cell(relay, children))
    }

    fn cell(self, relay: &NodeReport, children: &NodeReport) -> Cell {
        let gbit = children.bytes as f64 * 8.0 / 1e9;
        let expected = (self.bits_per_second * self.seconds * self.children) as f64 / 1e9;
        Cell {
            stack: match self.stack {
                Stack::Ours => "ours",
                Stack::Bare => "bare",
                Stack::BareVerifying => "bare, verifying",
            },
            mbit_per_second: self.bits_per_second as f64 / 1e6,
            children: self.children,
            gbit_sent: gbit,
            delivered: gbit / expected,
            relay_cpu_seconds: relay.cpu_seconds,
            relay_cpu_seconds_per_gbit: relay.cpu_seconds / gbit,
            least_per_gbit: relay.cpu_seconds / gbit,
            most_per_gbit: relay.cpu_seconds / gbit,
            relay_cpu_percent: relay.cpu_seconds / self.seconds as f64 * 100.0,
            relay_peak_rss_mib: relay.peak_rss_kib as f64 / 1024.0,
            gaps_over_100_ms: children.gaps,
            longest_gap_ms: children.longest_gap_ms,
            faults: relay.faults + children.faults,
        }
    }
}

async fn route(processes: &mut BTreeMap<u8, Process>, line: Line) -> anyhow::Result<()> {
    let Line::Signal { to, .. } = line else {
        return Ok(());
    };
    let part = match to {
        SOURCE => Part::Source,
        RELAY => Part::Relay,
        FIRST_CHILD.. => Part::Children,
        stranger => bail!("a signal to {stranger}"),
    };
    let process = processes
        .get_mut(&(part as u8))
        .context("a running process")?;
    tell(process, &line).await
}

async fn tell(process: &mut Process, line: &Line) -> anyhow::Result<()> {
    let text = serde_json::to_string(line)? + "\n";
    process.stdin.write_all(text.as_bytes()).await?;
    Ok(process.stdin.flush().await?)
}

async fn tell_all(processes: &mut BTreeMap<u8, Process>, line: &Line) -> anyhow::Result<()> {
    for process in processes.values_mut() {
        tell(process, line).await?;
    }
    Ok(())
}
