//! Everything that one scenario starts, and how it ends.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::binaries::binary;
use crate::cdn::Cdn;
use crate::cli::Cli;
use crate::figures::Figures;
use crate::ground::Ground;
use crate::http::Http;
use crate::joiner::Door;
use crate::logs;
use crate::orchestrator::{Keeping, Orchestrator};
use crate::origin::{Form, Origin};
use crate::peer::{Invitation, Peer, PeerOptions, Role};
use crate::process::Process;
use crate::stats::Stats;
use crate::topology::Tree;
use crate::viewer::Viewer;
use crate::wait::wait_until;

/// The channel of every scene.
pub const CHANNEL: &str = "live";

/// If set, the logs of scenarios that pass are kept too.
const KEEP_LOGS: &str = "ESPALIER_E2E_KEEP_LOGS";

/// How long a process may take to stop in order.
const STOP: Duration = Duration::from_secs(30);

/// What a scene starts with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The stream.
    pub form: Form,
    /// Lines of the `[limits]` of a cluster's nodes.
    pub limits: String,
    /// How fast the CDN answers a peer's request at the most, bytes a second.
    pub cdn_rate: Option<u64>,
    /// How a node alone keeps its state.
    pub keeping: Keeping,
    /// The grounds of a cluster's nodes; none: one node alone.
    pub cluster: Vec<Ground>,
    /// Whether `espalier-signer` signs, beside the packager, or the node.
    pub own_signer: bool,
    /// The channel's policy, TOML.
    pub policy: Option<String>,
    /// The address of nginx, node and signer.
    pub address: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            form: Form::TransportStream,
            limits: String::new(),
            cdn_rate: None,
            keeping: Keeping::Nothing,
            cluster: Vec::new(),
            own_signer: false,
            policy: None,
            address: "127.0.0.1".to_owned(),
        }
    }
}

/// A running scene.
///
/// Fields are dropped in order: viewers before the peers that they read.
#[derive(Debug)]
pub struct Scene {
    /// What was measured.
    pub figures: Figures,
    /// The players that keep count.
    pub viewers: Vec<Viewer>,
    /// The peers, in the order in which they were started.
    pub peers: Vec<Peer>,
    /// `espalier-signer`, if it runs.
    pub signer: Option<Process>,
    /// The orchestrator's nodes.
    pub nodes: Vec<Orchestrator>,
    /// nginx.
    pub cdn: Cdn,
    /// The stream.
    pub origin: Origin,
    /// `espalier`.
    pub cli: Cli,
    /// For requests of the scenario's own.
    pub http: Http,
    invitation: Invitation,
    launched: u32,
    /// Every peer that was a root whenever the scenario looked.
    roots_seen: RefCell<BTreeSet<String>>,
    setup: Setup,
    directory: PathBuf,
}

impl Scene {
    /// Sets a scene up, plays the scenario, demands that the planner's invariants hold and that every
    /// process stops in order, and removes everything. A scenario that fails leaves its logs in
    /// `target/e2e/logs/<name>/` and prints their ends.
    ///
    /// # Errors
    /// Whatever failed.
    pub fn play(
        name: &str,
        setup: Setup,
        scenario: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let directory = tempfile::Builder::new().prefix("espalier-e2e-").tempdir()?;
        let path = directory.path();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut scene = Self::build(name, setup, path)?;
            let outcome = scenario(&mut scene).and_then(|()| scene.finish());
            if outcome.is_err() {
                scene.describe();
            }
            outcome
        }));
        if !matches!(outcome, Ok(Ok(()))) || std::env::var_os(KEEP_LOGS).is_some() {
            logs::keep(name, path);
        }
        directory.close().context("remove the scene's directory")?;
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn build(name: &str, setup: Setup, path: &Path) -> Result<Self> {
        let served = path.join("served");
        let mut origin = Origin::start(setup.form, path, &served)?;
        let cdn = Cdn::start(
            path,
            &served,
            &free_address(&setup.address)?,
            setup.cdn_rate,
        )?;
        let nodes = start_nodes(&setup, path)?;
        let endpoints: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
        let cli = Cli::of_many(&endpoints, &nodes[0].token)?;
        origin.wait_for_segments(3, Duration::from_secs(60))?;
        let origin_url = cdn.url(setup.form.entry());
        let signer = setup
            .own_signer
            .then(|| start_signer("signer", path, &origin_url, &setup.address))
            .transpose()?;
        create_channel(
            &cli,
            &origin_url,
            signer.as_ref(),
            setup.policy.as_deref(),
            path,
        )?;
        let token = cli.issue_token(CHANNEL)?;
        let invitation = Invitation {
            endpoints: endpoints.iter().map(|&it| it.to_owned()).collect(),
            channel: CHANNEL.to_owned(),
            token,
        };
        Ok(Self {
            figures: Figures::new(name),
            viewers: Vec::new(),
            peers: Vec::new(),
            signer,
            nodes,
            cdn,
            origin,
            cli,
            http: Http::new()?,
            invitation,
            launched: 0,
            roots_seen: RefCell::default(),
            setup,
            directory: path.to_path_buf(),
        })
    }

    /// The scene's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A node that others can ask: `espalier` bound to every node but one.
    ///
    /// # Errors
    /// There is no other.
    pub fn cli_without(&self, node: usize) -> Result<Cli> {
        let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != node);
        let others: Vec<&str> = others.map(|(_, node)| node.endpoint.as_str()).collect();
        Cli::of_many(&others, &self.nodes[0].token)
    }

    /// Starts an `espalier-signer` for the stream, for channels beside the scene's.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_signer(&self, name: &str) -> Result<Process> {
        let origin = self.cdn.url(self.setup.form.entry());
        start_signer(name, &self.directory, &origin, &self.setup.address)
    }

    /// Creates one more channel on the scene's stream, signed by a signer of [`Self::start_signer`]; answers what admits
    /// to it.
    ///
    /// # Errors
    /// The node refuses.
    pub fn create_channel(&self, channel: &str, signer: &Process) -> Result<Door> {
        let origin = self.cdn.url(self.setup.form.entry());
        let signer = signer.announced("ESPALIER_SIGNER").context("the signer")?;
        let words = [
            "channel", "create", channel, "--origin", &origin, "--signer", &signer,
        ];
        self.cli.text(&words)?;
        Door::new(channel, &self.cli.issue_token(channel)?)
    }

    /// What a peer needs to know of the node.
    #[must_use]
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// A contributor with this `--upload`.
    ///
    /// # Errors
    /// `espalier-peer` is not built.
    pub fn contributor(&self, upload: &str) -> Result<PeerOptions> {
        Ok(PeerOptions {
            program: binary("espalier-peer")?,
            upload: upload.to_owned(),
            role: Role::Contributor,
            address: self.setup.address.clone(),
            more: Vec::new(),
        })
    }

    /// Starts peers at once and waits until each says that it is ready.
    ///
    /// # Errors
    /// One does not.
    pub fn start_peers(&mut self, options: &[PeerOptions]) -> Result<()> {
        let mut launched = Vec::new();
        for options in options {
            launched.push(self.launch_peer(options)?);
        }
        for process in launched {
            self.peers.push(Peer::attach(process, &self.http)?);
            self.tree()?;
        }
        Ok(())
    }

    /// Starts one peer without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch_peer(&mut self, options: &PeerOptions) -> Result<Process> {
        let name = format!("peer-{}", self.launched);
        self.launched += 1;
        let process = Peer::launch(&name, options, &self.invitation, &self.directory);
        // Each peer knows all nodes and goes to the first: so they spread.
        self.invitation.endpoints.rotate_left(1);
        process
    }

    /// The trees now.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn tree(&self) -> Result<Tree> {
        let tree = self.cli.tree(CHANNEL)?;
        self.roots_seen
            .borrow_mut()
            .extend(tree.roots().into_iter().map(str::to_owned));
        Ok(tree)
    }

    /// Whether the peer was a root whenever the scenario looked at the trees, as it does all the time
    /// while it waits for them.
    #[must_use]
    pub fn was_root(&self, peer: &str) -> bool {
        self.roots_seen.borrow().contains(peer)
    }

    /// Waits until every peer has its place, all are active, and `accept` likes the trees; then until
    /// each peer itself says that its sources flow.
    ///
    /// # Errors
    /// The deadline passed: the last tree seen.
    pub fn wait_for_tree(
        &self,
        what: &str,
        within: Duration,
        accept: impl Fn(&Tree) -> bool,
    ) -> Result<Tree> {
        let mut last = String::new();
        let tree = wait_until(what, within, || {
            let tree = self.tree()?;
            last = tree.describe();
            Ok((tree.is_settled(self.peers.len()) && accept(&tree)).then_some(tree))
        });
        let tree = tree.with_context(|| format!("the last tree seen:\n{last}"))?;
        let what = format!("{what}: every source flows");
        wait_until(&what, within, || {
            for peer in &self.peers {
                let stats = peer.stats()?;
                let silent = stats.tracks.iter().find(|track| track.state != "flowing");
                if let Some(track) = silent {
                    bail!("{} is {} in {}", peer.id, track.state, track.track);
                }
            }
            Ok(Some(()))
        })?;
        Ok(tree)
    }

    /// The peer with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn peer(&self, id: &str) -> Result<&Peer> {
        self.peers
            .iter()
            .find(|peer| peer.id == id)
            .with_context(|| format!("no peer {id}"))
    }

    /// The name of the track that a rendition has at the peers: by its place in the master playlist.
    ///
    /// # Errors
    /// The peer serves no such master playlist.
    pub fn track_name(&self, peer: &Peer, rendition: usize) -> Result<String> {
        let answer = self.http.get(peer.master_url(), Duration::from_secs(20))?;
        ensure!(
            answer.status == 200,
            "the master playlist: status {}",
            answer.status
        );
        let text = String::from_utf8(answer.body)?;
        let variants = crate::playlist::variants(&text);
        let uri = variants
            .get(rendition)
            .with_context(|| format!("no rendition {rendition} in {text}"))?;
        let name = uri
            .strip_suffix("/index.m3u8")
            .with_context(|| format!("a track's URI: {uri}"))?;
        Ok(name.to_owned())
    }

    /// Starts a player that keeps count at a peer that was started before.
    ///
    /// # Errors
    /// It serves no playlist.
    pub fn watch(&mut self, peer: &str, rendition: usize) -> Result<()> {
        let peer = self.peer(peer)?;
        let url = peer.track_url(&self.track_name(peer, rendition)?);
        let viewer = Viewer::start(&peer.id, &self.http, &url)?;
        self.viewers.push(viewer);
        Ok(())
    }

    /// `/stats` of every peer.
    ///
    /// # Errors
    /// One does not answer.
    pub fn all_stats(&self) -> Result<Vec<Stats>> {
        self.peers.iter().map(Peer::stats).collect()
    }

    /// Forgets a peer whose process the scenario ended, and its viewers.
    pub fn forget(&mut self, id: &str) {
        self.viewers.retain(|viewer| viewer.name() != id);
        self.peers.retain(|peer| peer.id != id);
    }

    /// Demands of every viewer that nothing was missed, repeated or altered; says how many segments
    /// were compared.
    ///
    /// # Errors
    /// The first flaw.
    pub fn expect_flawless(&self, rendition: &str) -> Result<usize> {
        let mut compared = 0;
        for viewer in &self.viewers {
            viewer.expect_flawless()?;
            compared += viewer.expect_identical(&self.origin, rendition)?;
        }
        Ok(compared)
    }

    /// Prints how things stand, for a scenario that failed.
    fn describe(&self) {
        match self.tree() {
            Ok(tree) => eprintln!("the tree at the end:\n{}", tree.describe()),
            Err(error) => eprintln!("no tree at the end: {error:#}"),
        }
        for peer in &self.peers {
            match peer.stats() {
                Ok(stats) => eprintln!(
                    "{} ({}): {:?} {:?} {:?}",
                    peer.process.name(),
                    peer.id,
                    stats.tracks,
                    stats.counters,
                    stats.playout
                ),
                Err(error) => {
                    eprintln!("{} ({}): no stats: {error:#}", peer.process.name(), peer.id)
                }
            }
        }
    }

    /// The end of every scenario.
    fn finish(&mut self) -> Result<()> {
        self.cli
            .check(CHANNEL)
            .context("at the end of the scenario")?;
        self.viewers.clear();
        for peer in &mut self.peers {
            peer.process.terminate(STOP)?;
        }
        stop_nodes(&mut self.nodes)?;
        if let Some(signer) = &mut self.signer {
            signer.terminate(STOP)?;
        }
        for (path, text) in logs::all(&self.directory) {
            let panicked = text.contains("panicked at");
            ensure!(
                !panicked,
                "a panic in {}:\n{}",
                path.display(),
                logs::end_of(&text)
            );
        }
        Ok(())
    }
}

/// Asks all to stop at once, as when a site is shut down: none can hand over to another for long.
fn stop_nodes(nodes: &mut [Orchestrator]) -> Result<()> {
    for node in &mut *nodes {
        let number = node.number;
        let runs = node.process().is_running()?;
        ensure!(runs, "node {number} has ended:\n{}", node.log());
        node.signal(Signal::SIGTERM);
    }
    for node in nodes {
        let status = node.process().wait_for_end(STOP)?;
        ensure!(
            status.success(),
            "node {} ended with {status} when asked to stop:\n{}",
            node.number,
            node.log()
        );
    }
    Ok(())
}

fn start_nodes(setup: &Setup, path: &Path) -> Result<Vec<Orchestrator>> {
    let host = &setup.address;
    if setup.cluster.is_empty() {
        let (address, admin) = (free_address(host)?, free_address(host)?);
        let node = Orchestrator::start(path, &address, &admin, setup.keeping)?;
        return Ok(vec![node]);
    }
    let key = path.join("key");
    fs::create_dir_all(&key)?;
    Cli::found_cluster(&key)?;
    Orchestrator::found(path, &key, host, &setup.limits, setup.cluster.clone())
}

fn start_signer(name: &str, directory: &Path, origin: &str, address: &str) -> Result<Process> {
    let key = directory.join(format!("{name}.pem"));
    let key = key.display().to_string();
    let listen = free_address(address)?;
    let arguments = ["--origin", origin, "--key", &key, "--listen", &listen];
    let mut signer = Process::start(name, &binary("espalier-signer")?, arguments, directory)?;
    signer.wait_for_announced("ESPALIER_SIGNER", Duration::from_secs(30))?;
    Ok(signer)
}

fn create_channel(
    cli: &Cli,
    origin: &str,
    signer: Option<&Process>,
    policy: Option<&str>,
    directory: &Path,
) -> Result<()> {
    let mut arguments = ["channel", "create", CHANNEL, "--origin", origin]
        .map(str::to_owned)
        .to_vec();
    if let Some(signer) = signer.and_then(|signer| signer.announced("ESPALIER_SIGNER")) {
        arguments.extend(["--signer".to_owned(), signer]);
    }
    if let Some(policy) = policy {
        let file = directory.join("policy.toml");
        fs::write(&file, policy)?;
        arguments.extend(["--policy".to_owned(), file.display().to_string()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cli.text(&arguments).map(drop)
}

/// An address that nobody listens on now.
///
/// # Errors
/// The host is not ours.
pub fn free_address(host: &str) -> Result<String> {
    let listener = TcpListener::bind((host, 0)).with_context(|| format!("bind {host}"))?;
    Ok(listener.local_addr()?.to_string())
}
