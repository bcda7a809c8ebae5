//! One server's process and what it takes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};

use crate::Options;
use crate::figures::Figures;

/// A server as a process; it ends with this.
pub(crate) struct Served {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) endpoint: String,
    /// What its peers show.
    pub(crate) token: String,
}

impl Served {
    /// Takes a process in whose output begins with its endpoint.
    pub(crate) fn new(mut child: Child, token: String) -> anyhow::Result<Self> {
        let out = child.stdout.take().context("the server has an output")?;
        let mut served = Self {
            child,
            lines: BufReader::new(out),
            endpoint: String::new(),
            token,
        };
        served.endpoint = served.line("ESPALIER_ENDPOINT=")?;
        Ok(served)
    }

    /// The rest of its next line.
    pub(crate) fn line(&mut self, key: &str) -> anyhow::Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        let rest = line.trim_end().strip_prefix(key);
        Ok(rest
            .with_context(|| format!("{key} expected: {line}"))?
            .to_owned())
    }

    fn resident_kib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.parse()?)
    }

    /// CPU time so far, in the kernel's ticks of 10 ms.
    fn ticks(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(')').context("no name")?.1;
        let mut fields = after.split_whitespace().skip(11);
        let mut field = || -> anyhow::Result<f64> { Ok(fields.next().context("short")?.parse()?) };
        Ok(field()? + field()?)
    }

    fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(status.success(), "the server was gone");
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A process with a share of the sessions.
struct Share(Child, BufReader<ChildStdout>);

impl Share {
    fn line(&mut self) -> anyhow::Result<serde_json::Value> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a client process ended");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Opens the sessions, lets them be, and has the server tell them that it ends.
pub(crate) async fn measure(served: Served, options: &Options) -> anyhow::Result<Figures> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = served.resident_kib()?;
    let begun = Instant::now();
    let each = options.sessions / options.processes;
    let mut shares = Vec::new();
    for number in 0..options.processes {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["clients", &served.endpoint, &each.to_string()])
            .arg((number * each + 1).to_string())
            .arg(options.per_connection.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut token = child.stdin.take().context("a client has an input")?;
        writeln!(token, "{}", served.token)?;
        let out = child.stdout.take().context("a client has an output")?;
        shares.push(Share(child, BufReader::new(out)));
    }
    for share in &mut shares {
        share.line()?;
    }
    let sessions = each * options.processes;
    eprintln!("{sessions} sessions are open after {:.1?}", begun.elapsed());
    // What opening them took is given back, or settles.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (ticks, since) = (served.ticks()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    let idle = (served.ticks()? - ticks) / since.elapsed().as_secs_f64();
    let after = served.resident_kib()?;
    let told = micros(SystemTime::now());
    served.terminate()?;
    let (mut first, mut last, mut noticed) = (u64::MAX, 0, 0);
    for share in &mut shares {
        let line = share.line()?;
        let field = |key: &str| line[key].as_u64().unwrap_or(0);
        first = first.min(field("first_us"));
        last = last.max(field("last_us"));
        noticed += usize::try_from(field("noticed"))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let millis = |from: u64| last.saturating_sub(from) as f64 / 1e3;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let count = sessions as f64;
    Ok(Figures {
        sessions,
        kib_per_session: (after - before) / count,
        idle_cpu_percent: idle,
        notice_ms: millis(told),
        spread_ms: millis(first),
        noticed,
    })
}

/// Since the epoch, which all processes of a machine share.
pub(crate) fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}
