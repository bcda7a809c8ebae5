//! The `espalier` command as scripts use it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::binaries::{binary, tool};
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

/// The command, bound to a node and a token.
#[derive(Clone, Debug)]
pub struct Cli {
    program: PathBuf,
    endpoint: String,
    token: String,
}

impl Cli {
    /// Binds the command to a node.
    ///
    /// # Errors
    /// The command is not built.
    pub fn new(endpoint: &str, token: &str) -> Result<Self> {
        let program = binary("espalier")?;
        Ok(Self {
            program,
            endpoint: endpoint.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Runs the command, however it ends.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Outcome> {
        let mut command = Command::new(tool("setpriv")?);
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(arguments);
        command
            .env("ESPALIER_ENDPOINT", &self.endpoint)
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

    /// Demands that every invariant of the planner holds on the live state.
    ///
    /// # Errors
    /// One does not: the findings.
    pub fn check(&self, channel: &str) -> Result<()> {
        self.text(&["channel", "check", channel]).map(drop)
    }
}
