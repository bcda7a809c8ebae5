//! A peer that alters what it relays: in each twentieth DATA frame that it sends, one byte.
//!
//! It is `espalier-peer play` in everything else: same engine, same transport, same command line as far
//! as the scenarios use it. It prints `CORRUPTED=<Unix time in ms>` for each frame that it altered.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use clap::{Args, Parser, Subcommand};
use espalier_e2e::wait::unix_ms;
use espalier_peer::transport::{
    EventSender, Link, LinkError, LinkId, SendError, Signal, SignalError, Transport,
    TransportConfig, WebRtcTransport,
};
use espalier_peer::{Agent, AgentConfig};
use espalier_peer_core::frame::FrameKind;
use espalier_process::{BitRate, Failure, LogArgs, announce, run, shutdown};

/// One DATA frame in so many is altered.
const EVERY: u64 = 20;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays and relays, badly
    Play(PlayArgs),
}

#[derive(Debug, Args)]
struct PlayArgs {
    #[arg(long)]
    orchestrator: String,
    #[arg(long)]
    channel: String,
    #[arg(long)]
    token: String,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upload: BitRate,
    #[arg(long)]
    bind: Vec<IpAddr>,
}

fn main() -> ExitCode {
    run(|cli: &Cli| &cli.log, program)
}

async fn program(cli: Cli) -> Result<(), Failure> {
    let Command::Play(arguments) = cli.command;
    let settings = TransportConfig {
        bind: arguments.bind,
        ..TransportConfig::default()
    };
    let honest = WebRtcTransport::new(settings)
        .map_err(|mistakes| Failure::usage(format!("link settings: {mistakes:?}")))?;
    let config = AgentConfig {
        upload_bps: arguments.upload.bits_per_second(),
        listen: Some(arguments.listen),
        ..AgentConfig::new(arguments.orchestrator, arguments.channel, arguments.token)
    };
    let transport = Arc::new(AlteringTransport {
        honest,
        frames: Arc::default(),
    });
    let mut agent = Agent::start(config, transport)
        .await
        .map_err(|error| Failure::failed("the hostile peer did not start").caused_by(&error))?;
    agent
        .attached()
        .await
        .map_err(|end| Failure::failed("the hostile peer is not let in").caused_by(&end))?;
    announce("ESPALIER_PEER", agent.peer());
    announce("ESPALIER_URL", agent.url().unwrap_or_default());
    shutdown().await;
    agent.shutdown().await;
    Ok(())
}

/// Makes honest links that pass through an [`AlteringLink`].
struct AlteringTransport {
    honest: WebRtcTransport,
    frames: Arc<AtomicU64>,
}

#[derive(Debug)]
struct AlteringLink {
    honest: Arc<dyn Link>,
    frames: Arc<AtomicU64>,
}

impl AlteringTransport {
    fn wrap(&self, honest: Arc<dyn Link>) -> Arc<dyn Link> {
        Arc::new(AlteringLink {
            honest,
            frames: Arc::clone(&self.frames),
        })
    }
}

#[async_trait]
impl Transport for AlteringTransport {
    fn offer(&self, link: LinkId, events: EventSender) -> Result<Arc<dyn Link>, LinkError> {
        self.honest.offer(link, events).map(|link| self.wrap(link))
    }

    fn accept(
        &self,
        link: LinkId,
        offer_sdp: String,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError> {
        self.honest
            .accept(link, offer_sdp, events)
            .map(|link| self.wrap(link))
    }

    fn use_stun(&self, uris: &[String]) {
        self.honest.use_stun(uris);
    }

    async fn shutdown(&self) {
        self.honest.shutdown().await;
    }
}

impl Link for AlteringLink {
    fn id(&self) -> LinkId {
        self.honest.id()
    }

    fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        self.honest.signal(signal)
    }

    fn try_send(&self, header: &[u8], payload: &[u8]) -> Result<(), SendError> {
        let is_data = header.first() == Some(&(FrameKind::Data as u8));
        if !is_data || payload.is_empty() {
            return self.honest.try_send(header, payload);
        }
        if self.frames.load(Ordering::Relaxed) % EVERY != EVERY - 1 {
            self.honest.try_send(header, payload)?;
            self.frames.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let mut altered = payload.to_vec();
        let middle = altered.len() / 2;
        altered[middle] ^= 0x01;
        self.honest.try_send(header, &altered)?;
        self.frames.fetch_add(1, Ordering::Relaxed);
        announce("CORRUPTED", unix_ms());
        Ok(())
    }

    fn try_ping(&self, message: &[u8]) -> Result<(), SendError> {
        self.honest.try_ping(message)
    }

    fn buffered(&self) -> usize {
        self.honest.buffered()
    }

    fn close(&self) {
        self.honest.close();
    }
}
