//! One child process of the demo.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use espalier_process::{Failure, OrFail};
use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a child may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many of its last log lines explain a child's failure.
const LAST_WORDS: usize = 5;

/// What a child printed as `KEY=value`.
type Announced = BTreeMap<String, String>;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

impl Recipe {
    pub(crate) fn new<A: AsRef<OsStr>>(
        name: impl Into<String>,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            name: name.into(),
            program: program.to_owned(),
            arguments: arguments
                .into_iter()
                .map(|word| word.as_ref().to_owned())
                .collect(),
            environment: Vec::new(),
        }
    }

    /// Secrets belong here: arguments are for everyone on the machine to read.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }
}

/// A child that cannot outlive this process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    words: Words,
}

/// What a child says, also for those who do not own it.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    name: String,
    log: PathBuf,
    announced: watch::Receiver<Announced>,
}

impl Process {
    /// Starts a child through `supervise`, in a process group of its own: Ctrl-C is this program's
    /// business. Its stderr, and files that it calls temporary, go into `directory`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn spawn(
        supervise: &Path,
        recipe: &Recipe,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let what = || format!("{} did not start", recipe.name);
        let log = directory.join(format!("{}.log", recipe.name));
        let stderr = File::create(&log).or_fail(what())?;
        let mut child = Command::new(supervise)
            .arg("supervise")
            .arg(format!("--parent={}", std::process::id()))
            .arg("--")
            .arg(&recipe.program)
            .args(&recipe.arguments)
            .env("TMPDIR", directory)
            // Everything that the demo's programs ask for is on this machine.
            .env("NO_PROXY", "127.0.0.1")
            .envs(recipe.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .or_fail(what())?;
        let (publish, announced) = watch::channel(Announced::new());
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(stdout, publish));
        }
        let name = recipe.name.clone();
        Ok(Self {
            child,
            words: Words {
                name,
                log,
                announced,
            },
        })
    }

    /// What the child says.
    pub(crate) fn words(&self) -> Words {
        self.words.clone()
    }

    /// See [`Words::announced`].
    ///
    /// # Errors
    ///
    /// If the child ends before, or the time is up; with its last log lines.
    pub(crate) async fn announced<const N: usize>(
        &self,
        keys: [&str; N],
        within: Duration,
    ) -> Result<[String; N], Failure> {
        self.words().announced(keys, within).await
    }

    /// What the operating system calls it; nothing once its end has been noticed.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether the child has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// See [`Words::failure`].
    pub(crate) fn failure(&self, what: &str) -> Failure {
        self.words.failure(what)
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // A child that ended in this very moment needs no signal.
            let _already_gone = kill(Pid::from_raw(id), signal);
        }
    }
}

impl Words {
    /// Waits until the child has announced all of the keys, and returns their values.
    ///
    /// # Errors
    ///
    /// If it ends before, or the time is up; with its last log lines.
    pub(crate) async fn announced<const N: usize>(
        mut self,
        keys: [&str; N],
        within: Duration,
    ) -> Result<[String; N], Failure> {
        let all = |announced: &Announced| keys.iter().all(|key| announced.contains_key(*key));
        let problem = match timeout(within, self.announced.wait_for(all)).await {
            Ok(Ok(announced)) => return Ok(keys.map(|key| announced[key].clone())),
            Ok(Err(_closed)) => "ended before it was ready",
            Err(_elapsed) => "was not ready in time",
        };
        Err(self.failure(problem))
    }

    /// Says what became of the child, with its last words.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        let failure = Failure::failed(format!("{} {what}", self.name));
        if last.is_empty() {
            failure
        } else {
            failure.because(last)
        }
    }
}

/// Asks all children to end, and ends those that do not.
pub(crate) async fn stop(mut processes: Vec<Process>) {
    for process in &processes {
        process.signal(Signal::SIGTERM);
    }
    let deadline = Instant::now() + PATIENCE;
    join_all(processes.iter_mut().map(async |process| {
        if timeout_at(deadline, process.child.wait()).await.is_err() {
            tracing::warn!(process = process.words.name, "did not end when asked to");
            process.signal(Signal::SIGKILL);
            if let Err(error) = process.child.wait().await {
                tracing::warn!(process = process.words.name, %error, "its end was not seen");
            }
        }
    }))
    .await;
}

/// Collects what a child announces, and goes on reading so that it never waits for a reader.
async fn listen(stdout: ChildStdout, publish: watch::Sender<Announced>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((key, value)) = line.split_once('=')
            && key.starts_with("ESPALIER_")
        {
            publish.send_modify(|announced| {
                announced.insert(key.to_owned(), value.to_owned());
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Stands in for `espalier supervise --parent=N -- program args…`.
    fn supervise(directory: &Path) -> PathBuf {
        let path = directory.join("supervise");
        std::fs::write(&path, "#!/bin/sh\nshift 3\nexec \"$@\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn shell(directory: &Path, script: &str) -> Process {
        let recipe =
            Recipe::new("child", Path::new("/bin/sh"), ["-c", script]).env("GREETING", "hi");
        Process::spawn(&supervise(directory), &recipe, directory).unwrap()
    }

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn announcements_are_heard_among_other_lines() {
        let directory = tempfile::tempdir().unwrap();
        let script =
            "echo starting; echo ESPALIER_A=$GREETING; echo x=y; echo ESPALIER_B=2=3; sleep 60";
        let mut child = shell(directory.path(), script);
        let heard = child
            .announced(["ESPALIER_B", "ESPALIER_A"], SOON)
            .await
            .unwrap();
        assert_eq!(heard, ["2=3", "hi"]);
        assert!(!child.has_ended());
        stop(vec![child]).await;
    }

    #[tokio::test]
    async fn a_child_that_ends_early_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let child = shell(directory.path(), "echo no port is free >&2; exit 1");
        let text = child
            .announced(["ESPALIER_A"], SOON)
            .await
            .unwrap_err()
            .to_string();
        assert!(text.contains("child ended before it was ready"), "{text}");
        assert!(text.contains("no port is free"), "{text}");
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_request_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo ESPALIER_A=1; while :; do sleep 1; done";
        let child = shell(directory.path(), script);
        child.announced(["ESPALIER_A"], SOON).await.unwrap();
        let id = i32::try_from(child.child.id().unwrap()).unwrap();
        stop(vec![child]).await;
        assert!(kill(Pid::from_raw(id), None).is_err(), "it is still there");
    }
}
