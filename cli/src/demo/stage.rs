//! Everything that the demo starts, and its orderly end.

use std::path::Path;
use std::time::Duration;

use espalier_process::Failure;
use espalier_proto::v1;
use tokio::sync::watch;

use super::audience::{Viewer, audience};
use super::nodes::Crew;
use super::observer::Observer;
use super::picture::Picture;
use super::process::{self, Process, Recipe};
use super::programs::Programs;
use super::progress::Progress;
use super::scratch::Scratch;
use super::stream::LiveStream;
use crate::args::DemoArgs;
use crate::connection::{Connection, ConnectionArgs};
use crate::origin::{OriginServer, Traffic};
use crate::status;

/// The demo's channel.
pub(crate) const CHANNEL: &str = "demo";

/// How long each part may take to be ready: generous, because the machine may be busy.
const READY: Duration = Duration::from_secs(60);

/// Longer than anyone will watch the demo.
const TOKEN_LIFETIME: prost_types::Duration = prost_types::Duration {
    seconds: 86_400,
    nanos: 0,
};

/// What the demo's programs keep temporary is below this directory.
pub(crate) struct Stage {
    directory: Scratch,
    origin: Option<OriginServer>,
    encoder: Option<Process>,
    crew: Crew,
    peers: Vec<Process>,
    addresses: Vec<PeerAddress>,
    stream: String,
    observer: Option<(Observer, watch::Receiver<Picture>)>,
    /// The first node's dashboard, with a login.
    dashboard: Option<String>,
    /// Its player page, with a login.
    player: Option<String>,
}

/// A peer and where it serves.
#[derive(Debug, Clone)]
pub(crate) struct PeerAddress {
    pub(crate) peer: String,
    /// The master playlist.
    pub(crate) url: String,
}

impl Stage {
    /// Makes the directory; nothing runs yet.
    ///
    /// # Errors
    ///
    /// If there is no place for temporary files.
    pub(crate) fn new() -> Result<Self, Failure> {
        let directory = Scratch::new()?;
        Ok(Self {
            directory,
            origin: None,
            encoder: None,
            crew: Crew::default(),
            peers: Vec::new(),
            addresses: Vec::new(),
            stream: String::new(),
            observer: None,
            dashboard: None,
            player: None,
        })
    }

    /// Starts everything, one after the other, and returns the ways to the orchestrator's nodes. What has been
    /// started belongs to the stage at once, so that it is stopped whenever this is broken off.
    ///
    /// # Errors
    ///
    /// Whatever did not start, with its last words.
    pub(crate) async fn start(
        &mut self,
        args: &DemoArgs,
        progress: &Progress,
    ) -> Result<Vec<Connection>, Failure> {
        let programs = Programs::find()?;
        progress.doing("starting the live stream");
        let stream = LiveStream::start(args.stream, &programs, self.directory.path()).await?;
        self.encoder = stream.encoder;
        self.stream = stream.description;
        let origin = OriginServer::start(stream.content).await?;
        let origin_url = origin.url("master.m3u8");
        self.origin = Some(origin);
        progress.step(format!("live stream: {} at {origin_url}", self.stream));

        progress.doing("starting the orchestrator");
        let connections = self.start_nodes(args.nodes, &programs).await?;
        for node in self.crew.look() {
            let pid = node
                .pid
                .map_or_else(|| "ended".to_owned(), |pid| pid.to_string());
            let (number, endpoint) = (node.number, node.endpoint);
            progress.step(format!("node {number}: pid {pid} at {endpoint}"));
        }

        if let Some(dashboard) = &self.dashboard {
            progress.step(format!("dashboard: {dashboard}"));
        }
        if let Some(player) = &self.player {
            progress.step(format!("watch in a browser: {player}"));
        }

        progress.doing("creating the channel");
        let viewer_token = create_channel(&connections[0], origin_url).await?;
        progress.step(format!("channel: {CHANNEL}"));

        let viewers = audience(args.peers, stream.uplinks);
        self.start_peers(&programs, &viewer_token, &viewers, progress)
            .await?;
        progress.step(format!("{} peers are attached", viewers.len()));
        Ok(connections)
    }

    async fn start_nodes(
        &mut self,
        count: u8,
        programs: &Programs,
    ) -> Result<Vec<Connection>, Failure> {
        let directory = self.directory.path();
        let founded = self.crew.found(usize::from(count), programs, directory)?;
        let mut connections = Vec::new();
        for words in founded.words {
            let [endpoint] = words.announced(["ESPALIER_ENDPOINT"], READY).await?;
            // The fragment of an address stays in the browser.
            let login = || format!("{endpoint}/?channel={CHANNEL}#token={}", founded.token);
            self.dashboard.get_or_insert_with(login);
            let watch = || format!("{endpoint}/watch/{CHANNEL}#token={}", founded.token);
            self.player.get_or_insert_with(watch);
            let access = ConnectionArgs {
                endpoint,
                token: Some(founded.token.clone()),
                ca: None,
            };
            connections.push(access.connect().await?);
        }
        Ok(connections)
    }

    /// Starts all peers before it waits for any: they come ready together.
    async fn start_peers(
        &mut self,
        programs: &Programs,
        token: &str,
        viewers: &[Viewer],
        progress: &Progress,
    ) -> Result<(), Failure> {
        let nodes = self.crew.look();
        let mut endpoints: Vec<String> = nodes.into_iter().map(|node| node.endpoint).collect();
        for (number, viewer) in (1..).zip(viewers) {
            let recipe = peer_recipe(&programs.peer, number, &endpoints, token, *viewer);
            // Each knows all nodes and goes to the first: so they spread.
            endpoints.rotate_left(1);
            let process = Process::spawn(&programs.espalier, &recipe, self.directory.path())?;
            self.peers.push(process);
        }
        for (number, process) in (1..).zip(&mut self.peers) {
            progress.doing(format!("starting peers: {number} of {}", viewers.len()));
            let [peer, url] = process
                .announced(["ESPALIER_PEER", "ESPALIER_URL"], READY)
                .await?;
            self.addresses.push(PeerAddress { peer, url });
        }
        Ok(())
    }

    /// Keeps the observer and what it sees until the end.
    pub(crate) fn observe(&mut self, observer: Observer, picture: watch::Receiver<Picture>) {
        self.observer = Some((observer, picture));
    }

    /// What was seen last; nothing if the demo never came so far.
    pub(crate) fn last_picture(&self) -> Option<Picture> {
        self.observer
            .as_ref()
            .map(|(_, picture)| picture.borrow().clone())
    }

    pub(crate) fn addresses(&self) -> &[PeerAddress] {
        &self.addresses
    }

    pub(crate) fn crew(&self) -> &Crew {
        &self.crew
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.origin
            .as_ref()
            .map(|origin| origin.traffic().clone())
            .unwrap_or_default()
    }

    pub(crate) fn dashboard(&self) -> Option<String> {
        self.dashboard.clone()
    }

    pub(crate) fn player(&self) -> Option<String> {
        self.player.clone()
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Stops everything: peers first, so that they say goodbye to an orchestrator that hears it.
    pub(crate) async fn stop(mut self) {
        drop(self.observer.take());
        process::stop(std::mem::take(&mut self.peers)).await;
        let nodes = self.crew.dismiss().into_iter();
        process::stop(nodes.chain(self.encoder.take()).collect()).await;
        let path = self.directory.path().to_owned();
        if let Err(error) = self.directory.close() {
            tracing::warn!(path = %path.display(), %error, "temporary files were left behind");
        }
    }
}

fn peer_recipe(
    program: &Path,
    number: usize,
    endpoints: &[String],
    token: &str,
    viewer: Viewer,
) -> Recipe {
    let endpoints = endpoints.join(",");
    let upload = viewer.upload.to_string();
    let mut words = vec![
        "play",
        "--orchestrator",
        &endpoints,
        "--channel",
        CHANNEL,
        "--listen",
        "127.0.0.1:0",
    ];
    if viewer.consumer {
        words.push("--consumer");
    } else {
        words.extend(["--upload", &upload]);
    }
    Recipe::new(format!("peer-{number}"), program, words).env("ESPALIER_TOKEN", token)
}

async fn create_channel(connection: &Connection, origin_uri: String) -> Result<String, Failure> {
    let mut channels = connection.channels();
    let request = v1::CreateChannelRequest {
        channel_id: CHANNEL.to_owned(),
        channel: Some(v1::Channel {
            origin_uri,
            ..v1::Channel::default()
        }),
    };
    let channel = channels
        .create_channel(request)
        .await
        .map_err(|error| status::failure("the demo's channel was not created", &error))?
        .into_inner();
    let request = v1::IssueViewerTokenRequest {
        channel: channel.name,
        ttl: Some(TOKEN_LIFETIME),
    };
    let issued = channels
        .issue_viewer_token(request)
        .await
        .map_err(|error| status::failure("no token was issued for the demo's viewers", &error))?;
    Ok(issued.into_inner().token)
}
