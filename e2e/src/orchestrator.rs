//! The orchestrator's nodes, which a scenario may kill, stop, cut off and start again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::binaries::binary;
use crate::ground::Ground;
use crate::logs::first_logged_ms;
use crate::process::Process;
use crate::scene::free_address;

/// How long a node may take until it says that it is ready.
const START: Duration = Duration::from_secs(60);

/// How a node alone keeps its state.
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
    /// Its id in its cluster.
    pub number: u64,
    /// What it runs on.
    pub ground: Ground,
    /// Where it is reached.
    pub endpoint: String,
    /// An API token that it accepts.
    pub token: String,
    admin: String,
    process: Process,
    arguments: Vec<String>,
    directory: PathBuf,
    starts: u32,
}

impl Orchestrator {
    /// Starts a node alone on `address` (`host:port`).
    ///
    /// # Errors
    /// It is not built, or does not become ready.
    pub fn start(directory: &Path, address: &str, admin: &str, keeping: Keeping) -> Result<Self> {
        let directory = directory.join("orchestrator");
        fs::create_dir_all(&directory)?;
        let arguments = match keeping {
            Keeping::Nothing => ["--dev", "--listen", address].map(str::to_owned).to_vec(),
            Keeping::Everything => configured(&directory, &alone(&directory, address, admin))?,
        };
        let mut node = Self::launch(1, Ground::Plain, directory, arguments, String::new())?;
        node.wait_until_ready()?;
        node.token = node.process.wait_for_announced("ESPALIER_TOKEN", START)?;
        Ok(node)
    }

    /// Starts the founders of a cluster, one on each ground, and waits until all are ready. `key_directory` holds what
    /// `espalier cluster init` wrote.
    ///
    /// # Errors
    /// One is not built, or does not become ready.
    pub fn found(
        directory: &Path,
        key_directory: &Path,
        host: &str,
        limits: &str,
        grounds: Vec<Ground>,
    ) -> Result<Vec<Self>> {
        let token = fs::read_to_string(key_directory.join("admin.token"))?;
        let places: Vec<Place> = grounds
            .iter()
            .map(|ground| Place::of(ground, host))
            .collect::<Result<_>>()?;
        let between: Vec<&str> = places.iter().map(|place| place.between.as_str()).collect();
        let key = key_directory.join("cluster.key");
        let mut nodes = Vec::new();
        for (number, (ground, place)) in (1..).zip(grounds.into_iter().zip(&places)) {
            let directory = directory.join(format!("node-{number}"));
            fs::create_dir_all(&directory)?;
            let text = place.configuration(&directory, &key, &between) + "[limits]\n" + limits;
            let arguments = configured(&directory, &text)?;
            let token = token.trim().to_owned();
            let mut node = Self::launch(number, ground, directory, arguments, token)?;
            node.admin.clone_from(&place.admin);
            nodes.push(node);
        }
        for node in &mut nodes {
            node.wait_until_ready()?;
        }
        Ok(nodes)
    }

    fn launch(
        number: u64,
        ground: Ground,
        directory: PathBuf,
        arguments: Vec<String>,
        token: String,
    ) -> Result<Self> {
        let process = spawn(&ground, number, 0, &arguments, &directory)?;
        Ok(Self {
            number,
            ground,
            endpoint: String::new(),
            token,
            admin: String::new(),
            process,
            arguments,
            directory,
            starts: 0,
        })
    }

    /// The process.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where it keeps its state, as it sees it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data_directory(&self.directory)
    }

    /// How many syncs of its slow disk took longer.
    ///
    /// # Errors
    /// It has no slow disk.
    pub fn slow_syncs(&self) -> Result<usize> {
        Ground::slow_syncs(&self.directory)
    }

    /// Where it says how it is, if the scene can reach that.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }

    /// What its process wrote to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// When its log first had a line with all of these words, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn logged_ms(&self, words: &[&str]) -> Option<i64> {
        first_logged_ms(&self.process.log(), words)
    }

    /// Sends a signal; a process that is gone is no error.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// kill -9.
    ///
    /// # Errors
    /// Its end cannot be awaited.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again as it was started first, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready, or announces something else than before.
    pub fn start_again(&mut self) -> Result<()> {
        self.launch_again()?;
        self.wait_until_ready()
    }

    /// Starts it again as it was started first.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch_again(&mut self) -> Result<()> {
        self.starts += 1;
        let (number, starts) = (self.number, self.starts);
        self.process = spawn(
            &self.ground,
            number,
            starts,
            &self.arguments,
            &self.directory,
        )?;
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It does not become ready, or announces something else than before.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let endpoint = self
            .process
            .wait_for_announced("ESPALIER_ENDPOINT", START)?;
        let before = std::mem::replace(&mut self.endpoint, endpoint);
        ensure!(
            before.is_empty() || before == self.endpoint,
            "{before} became {}",
            self.endpoint
        );
        Ok(())
    }
}

fn spawn(
    ground: &Ground,
    number: u64,
    start: u32,
    arguments: &[String],
    directory: &Path,
) -> Result<Process> {
    let name = format!("orchestrator-{number}-{start}");
    let program = binary("espalier-orchestrator")?;
    ground
        .start(&name, &program, arguments, directory)
        .with_context(|| format!("start node {number}"))
}

fn configured(directory: &Path, text: &str) -> Result<Vec<String>> {
    let file = directory.join("node.toml");
    fs::write(&file, text)?;
    Ok(vec!["--config".to_owned(), file.display().to_string()])
}

fn data_directory(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn alone(directory: &Path, address: &str, admin: &str) -> String {
    let data = data_directory(directory);
    format!(
        "data_dir = \"{}\"\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n",
        data.display()
    )
}

/// Where a node of a cluster is served.
struct Place {
    public: String,
    between: String,
    admin: String,
}

impl Place {
    fn of(ground: &Ground, host: &str) -> Result<Self> {
        match ground.addresses() {
            // A namespace of its own has every port free.
            Some((public, between)) => Ok(Self {
                public: SocketAddr::new(public, 7300).to_string(),
                between: SocketAddr::new(between, 7301).to_string(),
                admin: SocketAddr::new(public, 7302).to_string(),
            }),
            None => Ok(Self {
                public: free_address(host)?,
                between: free_address(host)?,
                admin: free_address(host)?,
            }),
        }
    }

    fn configuration(&self, directory: &Path, key: &Path, founders: &[&str]) -> String {
        let Self {
            public,
            between,
            admin,
        } = self;
        let founders: Vec<String> = founders.iter().map(|it| format!("\"{it}\"")).collect();
        format!(
            "data_dir = \"{}\"\nlisten = \"{public}\"\nadmin_listen = \"{admin}\"\n\
             [cluster]\nkey_file = \"{}\"\nlisten = \"{between}\"\nadvertise = \"{between}\"\n\
             public_uri = \"http://{public}\"\nbetween_nodes = \"plain\"\nbootstrap = [{}]\n",
            data_directory(directory).display(),
            key.display(),
            founders.join(", ")
        )
    }
}
