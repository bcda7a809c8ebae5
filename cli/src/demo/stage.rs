//! Everything that the demo starts, and its orderly end.

use std::path::Path;
use std::time::Duration;

use espalier_process::Failure;
use espalier_proto::v1;
use tokio::sync::watch;

use super::audience::{Viewer, audience};
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
    orchestrator: Option<Process>,
    peers: Vec<Process>,
    addresses: Vec<PeerAddress>,
    stream: String,
    observer: Option<(Observer, watch::Receiver<Picture>)>,
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
            orchestrator: None,
            peers: Vec::new(),
            addresses: Vec::new(),
            stream: String::new(),
            observer: None,
        })
    }

    /// Starts everything, one after the other, and returns the way to the orchestrator. What has been
    /// started belongs to the stage at once, so that it is stopped whenever this is broken off.
    ///
    /// # Errors
    ///
    /// Whatever did not start, with its last words.
    pub(crate) async fn start(
        &mut self,
        args: &DemoArgs,
        progress: &Progress,
    ) -> Result<Connection, Failure> {
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
        let access = self.start_orchestrator(&programs).await?;
        let connection = access.connect().await?;
        progress.step(format!("orchestrator: {}", access.endpoint));

        progress.doing("creating the channel");
        let viewer_token = create_channel(&connection, origin_url).await?;
        progress.step(format!("channel: {CHANNEL}"));

        let viewers = audience(args.peers, stream.uplinks);
        self.start_peers(
            &programs,
            &access.endpoint,
            &viewer_token,
            &viewers,
            progress,
        )
        .await?;
        progress.step(format!("{} peers are attached", viewers.len()));
        Ok(connection)
    }

    async fn start_orchestrator(&mut self, programs: &Programs) -> Result<ConnectionArgs, Failure> {
        let words = ["--dev", "--listen", "127.0.0.1:0"];
        let recipe = Recipe::new("orchestrator", &programs.orchestrator, words);
        let process = Process::spawn(&programs.espalier, &recipe, self.directory.path())?;
        let process = self.orchestrator.insert(process);
        let [endpoint, token] = process
            .announced(["ESPALIER_ENDPOINT", "ESPALIER_TOKEN"], READY)
            .await?;
        Ok(ConnectionArgs {
            endpoint,
            token: Some(token),
            ca: None,
        })
    }

    /// Starts all peers before it waits for any: they come ready together.
    async fn start_peers(
        &mut self,
        programs: &Programs,
        endpoint: &str,
        token: &str,
        viewers: &[Viewer],
        progress: &Progress,
    ) -> Result<(), Failure> {
        for (number, viewer) in (1..).zip(viewers) {
            let recipe = peer_recipe(&programs.peer, number, endpoint, token, *viewer);
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

    pub(crate) fn traffic(&self) -> Traffic {
        self.origin
            .as_ref()
            .map(|origin| origin.traffic().clone())
            .unwrap_or_default()
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Stops everything: peers first, so that they say goodbye to an orchestrator that hears it.
    pub(crate) async fn stop(mut self) {
        drop(self.observer.take());
        process::stop(std::mem::take(&mut self.peers)).await;
        process::stop(
            self.orchestrator
                .take()
                .into_iter()
                .chain(self.encoder.take())
                .collect(),
        )
        .await;
        let path = self.directory.path().to_owned();
        if let Err(error) = self.directory.close() {
            tracing::warn!(path = %path.display(), %error, "temporary files were left behind");
        }
    }
}

fn peer_recipe(
    program: &Path,
    number: usize,
    endpoint: &str,
    token: &str,
    viewer: Viewer,
) -> Recipe {
    let upload = viewer.upload.to_string();
    let mut words = vec![
        "play",
        "--orchestrator",
        endpoint,
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
