//! One child process: its output in files, and an end that cannot be missed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::binaries::tool;
use crate::wait::wait_until;

/// A child process in a process group of its own.
///
/// It is killed when this value is dropped, and by the kernel (`PR_SET_PDEATHSIG`, through setpriv)
/// when the test dies without dropping anything. The kernel's promise is tied to the thread that
/// starts the process: start processes on the test's own thread.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments`; stdout and stderr go to `<name>.out` and `<name>.log` in
    /// `directory`, which is also its working directory.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start<A: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        directory: &Path,
    ) -> Result<Self> {
        let mut command = Command::new(tool("setpriv")?);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            // What it leaves behind when it is killed goes with the scene's directory.
            .env("TMPDIR", directory);
        Self::spawn(name, command, directory, Stdio::null())
    }

    /// Starts a command as it is: the caller sees to its death signal.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn spawn(name: &str, mut command: Command, directory: &Path, stdin: Stdio) -> Result<Self> {
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.log"));
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let child = command
            .current_dir(directory)
            .stdin(stdin)
            .stdout(append(&stdout)?)
            .stderr(append(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        })
    }

    /// The name that it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is also its group's.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, if it was started with one; once.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// What it wrote to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// What it wrote to stdout so far.
    #[must_use]
    pub fn output(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// The value of the last line `<key>=<value>` on stdout.
    #[must_use]
    pub fn announced(&self, key: &str) -> Option<String> {
        let output = self.output();
        let complete = &output[..output.rfind('\n')? + 1];
        let mut values = complete
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next_back().map(str::to_owned)
    }

    /// Waits for a line `<key>=<value>` on stdout.
    ///
    /// # Errors
    /// The deadline passed, or the process ended before.
    pub fn wait_for_announced(&mut self, key: &str, within: Duration) -> Result<String> {
        let what = format!("{} prints {key}=…", self.name);
        wait_until(&what, within, || {
            if let Some(value) = self.announced(key) {
                return Ok(Some(Ok(value)));
            }
            Ok(self.child.try_wait()?.map(Err))
        })?
        .or_else(|status| {
            bail!(
                "{} ended ({status}) before it printed {key}=…:\n{}",
                self.name,
                self.log()
            )
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system refuses to say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal to its group; a process that is gone is no error.
    pub fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // The group may have ended by itself, which is what a signal to it would bring about.
            let _gone: Result<(), _> = killpg(Pid::from_raw(id), signal);
        }
    }

    /// kill -9, and waits for its end.
    ///
    /// # Errors
    /// Its end cannot be awaited.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL);
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_until(&what, within, || Ok(self.child.try_wait()?))
    }

    /// Asks it to stop (SIGTERM) and demands that it does so in order.
    ///
    /// # Errors
    /// It did not end in time, or with another code than 0.
    pub fn terminate(&mut self, within: Duration) -> Result<()> {
        if !self.is_running()? {
            bail!(
                "{} ended before it was asked to:\n{}",
                self.name,
                self.log()
            );
        }
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_end(within)?;
        if !status.success() {
            bail!(
                "{} ended with {status} when asked to stop:\n{}",
                self.name,
                self.log()
            );
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        // Reaping may only fail if it was reaped already.
        let _reaped: Result<ExitStatus, _> = self.child.wait();
    }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
