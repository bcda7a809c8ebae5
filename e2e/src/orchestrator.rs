//! The orchestrator's process, which a scenario may kill and start again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::binaries::binary;
use crate::logs::first_logged_ms;
use crate::process::Process;

/// How long a node may take until it says that it is ready.
const START: Duration = Duration::from_secs(30);

/// How a node keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// `--dev`: nothing outlives it.
    Nothing,
    /// `--config`: its data directory outlives it.
    Everything,
}

/// A node and how to start it again.
#[derive(Debug)]
pub struct Orchestrator {
    process: Process,
    arguments: Vec<String>,
    directory: PathBuf,
    starts: u32,
    /// Where it is reached.
    pub endpoint: String,
    /// An API token that it accepts.
    pub token: String,
}

impl Orchestrator {
    /// Starts a node on `address` (`host:port`).
    ///
    /// # Errors
    /// It is not built, or does not become ready.
    pub fn start(directory: &Path, address: &str, admin: &str, keeping: Keeping) -> Result<Self> {
        let directory = directory.join("orchestrator");
        fs::create_dir_all(&directory)?;
        let arguments = match keeping {
            Keeping::Nothing => vec![
                "--dev".to_owned(),
                "--listen".to_owned(),
                address.to_owned(),
            ],
            Keeping::Everything => {
                let file = directory.join("node.toml");
                fs::write(
                    &file,
                    configuration(&directory.join("data"), address, admin),
                )?;
                vec!["--config".to_owned(), file.display().to_string()]
            }
        };
        let process = launch(&directory, &arguments, 0)?;
        let (endpoint, token) = (String::new(), String::new());
        let mut node = Self {
            process,
            arguments,
            directory,
            starts: 0,
            endpoint,
            token,
        };
        node.wait_until_ready()?;
        Ok(node)
    }

    /// The process.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// When its log first had a line with all of these words, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn logged_ms(&self, words: &[&str]) -> Option<i64> {
        first_logged_ms(&self.process.log(), words)
    }

    /// kill -9.
    ///
    /// # Errors
    /// Its end cannot be awaited.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again as it was started first.
    ///
    /// # Errors
    /// It does not become ready, or announces something else than before.
    pub fn start_again(&mut self) -> Result<()> {
        self.starts += 1;
        self.process = launch(&self.directory, &self.arguments, self.starts)?;
        let before = self.endpoint.clone();
        self.wait_until_ready()?;
        ensure!(
            self.endpoint == before,
            "{} became {}",
            before,
            self.endpoint
        );
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        self.endpoint = self
            .process
            .wait_for_announced("ESPALIER_ENDPOINT", START)?;
        self.token = self.process.wait_for_announced("ESPALIER_TOKEN", START)?;
        Ok(())
    }
}

fn launch(directory: &Path, arguments: &[String], start: u32) -> Result<Process> {
    let program = binary("espalier-orchestrator")?;
    Process::start(
        &format!("orchestrator-{start}"),
        &program,
        arguments,
        directory,
    )
}

fn configuration(data: &Path, address: &str, admin: &str) -> String {
    format!(
        "data_dir = \"{}\"\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n",
        data.display()
    )
}
