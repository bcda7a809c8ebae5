//! `espalier-peer`: the native peer as a program.

mod args;

use std::process::ExitCode;
use std::sync::Arc;

use espalier_peer::transport::WebRtcTransport;
use espalier_peer::{Agent, SessionEnd, StartError};
use espalier_process::{Failure, announce, run, shutdown};
use tonic::Code;

use crate::args::Cli;

fn main() -> ExitCode {
    run(|cli: &Cli| &cli.log, program)
}

async fn program(cli: Cli) -> Result<(), Failure> {
    let (config, transport) = cli.command.into_configs();
    let orchestrator = config.orchestrators.join(", ");
    let transport = WebRtcTransport::new(transport).map_err(|mistakes| {
        mistakes.iter().fold(
            Failure::usage("the link settings cannot work"),
            |failure, mistake| failure.because(mistake),
        )
    })?;
    let interrupted = shutdown();
    tokio::pin!(interrupted);
    let mut agent = Agent::start(config, Arc::new(transport))
        .await
        .map_err(not_started)?;
    let first = tokio::select! {
        attached = agent.attached() => attached,
        _ = &mut interrupted => {
            agent.shutdown().await;
            return Ok(());
        }
    };
    if let Err(end) = first {
        agent.shutdown().await;
        return Err(explain(&end, &orchestrator));
    }
    announce("ESPALIER_PEER", agent.peer());
    if let Some(url) = agent.url() {
        announce("ESPALIER_URL", url);
    }
    let outcome = tokio::select! {
        end = agent.ended() => Err(explain(&end, &orchestrator)),
        _ = &mut interrupted => Ok(()),
    };
    agent.shutdown().await;
    outcome
}

fn not_started(error: StartError) -> Failure {
    match &error {
        StartError::Endpoint(_) => Failure::usage("the peer did not start").caused_by(&error),
        StartError::Listen { .. } => Failure::failed("the peer did not start")
            .caused_by(&error)
            .next("choose another --listen address; port 0 takes any free port"),
        StartError::Http(_) => Failure::failed("the peer did not start").caused_by(&error),
    }
}

fn explain(end: &SessionEnd, orchestrator: &str) -> Failure {
    match end {
        SessionEnd::Unreachable { .. } => Failure::unreachable(format!(
            "the orchestrator at {orchestrator} is not reachable"
        ))
        .caused_by(end)
        .next("check --orchestrator (or ESPALIER_ENDPOINT) and that the node runs"),
        SessionEnd::Refused { code, .. } => {
            let next = match code {
                Code::Unauthenticated | Code::PermissionDenied => {
                    "issue a new token: espalier token issue --channel NAME --ttl 1h"
                }
                Code::NotFound => "list the channels: espalier channel list",
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::InvalidArgument
                | Code::DeadlineExceeded
                | Code::AlreadyExists
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => "the node's log says more",
            };
            Failure::failed("the orchestrator refuses this peer")
                .caused_by(end)
                .next(next)
        }
        SessionEnd::ChannelDeleted | SessionEnd::Left => {
            Failure::failed("the session is over").caused_by(end)
        }
    }
}
