//! The session with the orchestrator: attaches, keeps attached, and tells both sides what is true now.
//!
//! One task owns the bidirectional stream. It translates nothing and decides nothing about the tree:
//! what the node says goes to the engine's task as [`SessionEvent`]s, what the engine says comes as
//! [`SessionRequest`]s and is kept in [`Standing`], so that a new attachment begins with the current
//! states and not with a history.
//!
//! The session may be at any of several nodes: after a loss it goes on to the next, and when a node says that
//! it is about to stop, at a moment of its own choice and without giving up the old session first.
//!
//! Invariants: the task always drains its requests, attached or not, so that the engine's task never
//! waits for it; after the first attachment it never gives up; before it, it gives up after
//! [`SessionConfig::first_contact`].

mod attachment;
mod standing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use espalier_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Endpoint;

use self::attachment::Left;
pub(crate) use self::standing::Standing;
use crate::backoff::Backoff;
use crate::endpoints::Endpoints;

/// Who attaches, where, and as what.
#[derive(Debug, Clone)]
pub(crate) struct SessionConfig {
    pub(crate) token: String,
    pub(crate) peer: String,
    pub(crate) channel: String,
    pub(crate) role: v1::PeerRole,
    pub(crate) upload_bps: u64,
    /// What it is besides, its network as last observed included.
    pub(crate) profile: v1::Profile,
    pub(crate) tracks: Vec<String>,
    /// How long to try before the first attachment.
    pub(crate) first_contact: Duration,
    /// The protocol versions spoken on links.
    pub(crate) versions: (u32, u32),
}

/// What a returning peer tells the node that it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub(crate) edges: Vec<v1::HeldEdge>,
    pub(crate) generation: Option<v1::Generation>,
}

/// From the session to the engine's task.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The session is about to open and asks what the peer has.
    Opening(oneshot::Sender<Held>),
    /// The node accepted the session.
    Welcomed(Box<v1::Welcome>),
    /// Everything that this peer must do from now on.
    Assigned(Box<v1::Assignment>),
    /// From another peer, through the node.
    Signal(Box<v1::Signal>),
    /// The session is lost; the peer goes on without it.
    Detached,
}

/// From the engine's task to the session.
#[derive(Debug)]
pub(crate) enum SessionRequest {
    Acknowledge(v1::Generation),
    Signal(Box<v1::Signal>),
    Link(v1::LinkEvent),
    Source(v1::SourceEvent),
    WantTracks(Vec<String>),
    /// The neighbours that the newest assignment names: states of others may be forgotten.
    Neighbours(Vec<String>),
    Leave,
}

/// Why a session ended for good.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The peer left of its own will.
    #[error("the peer left")]
    Left,
    /// The channel does not exist any more.
    #[error("the channel was deleted")]
    ChannelDeleted,
    /// The orchestrator was not reached before the first attachment.
    #[error("the orchestrator was not reached within {waited:?}: {problem}")]
    Unreachable {
        /// How long was tried.
        waited: Duration,
        /// The last problem seen.
        problem: String,
    },
    /// The node refused the first attachment.
    #[error("the orchestrator refused the session ({code:?}): {message}")]
    Refused {
        /// The gRPC status code.
        code: Code,
        /// The node's words.
        message: String,
    },
}

/// How one attempt to be attached ended.
#[derive(Debug)]
enum Outcome {
    Left,
    ChannelDeleted,
    /// Worth another attempt as it is.
    Lost {
        problem: String,
        attached: bool,
    },
    /// The node said no.
    Refused {
        code: Code,
        message: String,
    },
    /// The node is about to stop, and it is this peer's turn to go to another.
    Moving(Box<Left>),
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Session {
    config: SessionConfig,
    nodes: Endpoints,
    /// The node that the session is attached to and the one that would be next, for others.
    attached_to: watch::Sender<Vec<Endpoint>>,
    events: mpsc::Sender<SessionEvent>,
    requests: mpsc::Receiver<SessionRequest>,
    reports: watch::Receiver<v1::Report>,
    standing: Standing,
    ticket: bytes::Bytes,
    attached_once: bool,
    /// Rises with each attempt, at whichever node.
    attempt: u64,
    /// The session at a node that is about to stop, kept until there is another.
    leaving: Option<Box<Left>>,
}

impl Session {
    pub(crate) fn new(
        config: SessionConfig,
        (nodes, attached_to): (Endpoints, watch::Sender<Vec<Endpoint>>),
        events: mpsc::Sender<SessionEvent>,
        requests: mpsc::Receiver<SessionRequest>,
        reports: watch::Receiver<v1::Report>,
    ) -> Self {
        Self {
            config,
            nodes,
            attached_to,
            events,
            requests,
            reports,
            standing: Standing::default(),
            ticket: bytes::Bytes::new(),
            attached_once: false,
            attempt: 0,
            leaving: None,
        }
    }

    /// Stays attached until the peer leaves, or until there is nothing to attach to.
    pub(crate) async fn run(mut self) -> SessionEnd {
        let started = Instant::now();
        let mut backoff = Backoff::reconnecting();
        loop {
            let outcome = self.attach().await;
            if self.leaving.take().is_some() && self.tell_detached().await.is_none() {
                return SessionEnd::Left;
            }
            let problem = match outcome {
                Outcome::Moving(left) => {
                    self.leaving = Some(left);
                    self.nodes.advance();
                    continue;
                }
                Outcome::Left => return SessionEnd::Left,
                Outcome::ChannelDeleted => return SessionEnd::ChannelDeleted,
                Outcome::Lost { problem, attached } => {
                    if attached {
                        backoff.reset();
                        tracing::info!(problem, "session lost, the peer goes on without it");
                    }
                    problem
                }
                Outcome::Refused { code, message } if !self.attached_once => {
                    return SessionEnd::Refused { code, message };
                }
                Outcome::Refused { code, message } => {
                    // A node that restarted without its data cannot read our ticket: the next attempt
                    // goes without one, on the strength of the token alone.
                    self.ticket.clear();
                    tracing::info!(
                        ?code,
                        message,
                        "the orchestrator refused to resume the session"
                    );
                    message
                }
            };
            let waited = started.elapsed();
            if !self.attached_once && waited >= self.config.first_contact {
                return SessionEnd::Unreachable { waited, problem };
            }
            self.nodes.advance();
            tracing::debug!(problem, "trying again");
            let pause = match self.attached_once {
                true => backoff.wait(),
                false => backoff
                    .wait()
                    .min(self.config.first_contact.saturating_sub(waited)),
            };
            if self.absorbing(tokio::time::sleep(pause)).await.is_none() {
                return SessionEnd::Left;
            }
        }
    }

    /// Says that the session is lost. `None`: nobody hears it.
    async fn tell_detached(&mut self) -> Option<()> {
        self.events.send(SessionEvent::Detached).await.ok()
    }

    /// Runs `work` while taking in requests. `None`: the peer leaves, or its engine is gone.
    async fn absorbing<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                request = self.requests.recv() => match request {
                    None | Some(SessionRequest::Leave) => return None,
                    // Nothing can be sent now: what matters later is kept in `standing`.
                    Some(request) => drop(self.standing.absorb(request)),
                },
            }
        }
    }
}
