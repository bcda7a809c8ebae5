//! The `espalier` command as scripts use it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::binaries::{binary, tool};
use crate::cluster::Status;
use crate::topology::Tree;

/// How one call of the command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said about it.
    pub stderr: String,
}

/// How the command ends if the node cannot be reached, or nobody owns what it was asked for just now.
const UNREACHABLE: i32 = 69;

/// The command, bound to the nodes of an orchestrator and a token.
#[derive(Clone, Debug)]
pub struct Cli {
    program: PathBuf,
    endpoints: Vec<String>,
    token: String,
}

impl Cli {
    /// Binds the command to a node.
    ///
    /// # Errors
    /// The command is not built.
    pub fn new(endpoint: &str, token: &str) -> Result<Self> {
        Self::of_many(&[endpoint], token)
    }

    /// Binds the command to nodes: each call asks one after the other until one can be reached.
    ///
    /// # Errors
    /// The command is not built.
    pub fn of_many(endpoints: &[&str], token: &str) -> Result<Self> {
        let program = binary("espalier")?;
        Ok(Self {
            program,
            endpoints: endpoints.iter().map(|&it| it.to_owned()).collect(),
            token: token.to_owned(),
        })
    }

    /// Makes `espalier cluster init` write a new cluster's key and token.
    ///
    /// # Errors
    /// The command is not built, or fails.
    pub fn found_cluster(directory: &Path) -> Result<()> {
        let cli = Self::of_many(&["http://127.0.0.1:1"], "none")?;
        let directory = directory.display().to_string();
        cli.text(&["cluster", "init", "--dir", &directory])
            .map(drop)
    }

    /// Runs the command, however it ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Outcome> {
        let arguments: Vec<A> = arguments.into_iter().collect();
        let (last, others) = self.endpoints.split_last().context("a node to ask")?;
        for endpoint in others {
            let outcome = self.run_at(endpoint, &arguments)?;
            if outcome.code != Some(UNREACHABLE) {
                return Ok(outcome);
            }
        }
        self.run_at(last, &arguments)
    }

    fn run_at<A: AsRef<OsStr>>(&self, endpoint: &str, arguments: &[A]) -> Result<Outcome> {
        let mut command = Command::new(tool("setpriv")?);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(arguments);
        command
            .env("ESPALIER_ENDPOINT", endpoint)
            .env("ESPALIER_TOKEN", &self.token);
        let output = command.output().context("run espalier")?;
        Ok(Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the command, which must succeed, and yields what it printed.
    ///
    /// # Errors
    /// It did not exit with 0.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        let outcome = self.run(arguments)?;
        if outcome.code != Some(0) {
            bail!(
                "espalier {}: exit code {:?}\n{}{}",
                arguments.join(" "),
                outcome.code,
                outcome.stdout,
                outcome.stderr
            );
        }
        Ok(outcome.stdout)
    }

    /// A viewer's token.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub fn issue_token(&self, channel: &str) -> Result<String> {
        let text = self.text(&["token", "issue", "--channel", channel, "--ttl", "1h"])?;
        Ok(text.trim().to_owned())
    }

    /// The channel as JSON.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub fn channel(&self, channel: &str) -> Result<Value> {
        let text = self.text(&["channel", "get", channel, "--format", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("channel get: {text}"))
    }

    /// The channel's trees.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub fn tree(&self, channel: &str) -> Result<Tree> {
        let text = self.text(&["channel", "tree", channel, "--format", "json"])?;
        Tree::parse(&text)
    }

    /// Who leads what.
    ///
    /// # Errors
    /// See [`Self::text`].
    pub fn status(&self) -> Result<Status> {
        Status::parse(&self.text(&["cluster", "status", "--format", "json"])?)
    }

    /// Demands that every invariant of the planner holds on the live state.
    ///
    /// # Errors
    /// One does not: the findings.
    pub fn check(&self, channel: &str) -> Result<()> {
        self.text(&["channel", "check", channel]).map(drop)
    }
}
