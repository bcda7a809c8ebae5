//! The signer's feed: opens it while the engine wants it, and passes on what it says.
//!
//! Tries the signers in the order of the Welcome, each time from the first; waits with jitter once all
//! have failed, and after each loss. It verifies nothing (the engine does) and does not decide whether
//! a feed is needed.

use std::time::Duration;

use espalier_media::{ByteRange, ObjectKey, ObjectKind, TrackIndex};
use espalier_peer_core::{Event, FeedEvent};
use espalier_proto::v1::{self, feed_message::Kind, signer_service_client::SignerServiceClient};
use espalier_proto::wire::v1 as wire;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::backoff::Backoff;
use crate::endpoint::{self, EndpointError};
use crate::error_chain;

/// How long a signer may take to answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// What the feed is to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FeedPlan {
    /// Whether the engine wants the feed.
    pub(crate) wanted: bool,
    /// Where statements are served, in order of preference; an empty string is the node itself.
    pub(crate) signers: Vec<String>,
}

/// Reads the feed of one channel.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) channel: String,
    /// The node that the session is attached to, or was last.
    pub(crate) node: watch::Receiver<Endpoint>,
    /// The viewer's token; only the node is shown it.
    pub(crate) token: String,
    pub(crate) plan: watch::Receiver<FeedPlan>,
    pub(crate) events: mpsc::Sender<Event>,
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("the token holds characters that no header may carry")]
    Token,
    #[error("no answer within {OPEN_TIMEOUT:?}")]
    Silent,
    #[error(transparent)]
    Connection(#[from] tonic::transport::Error),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the signer ended the feed")]
    Ended,
    #[error("an announcement names no object")]
    Announcement,
    #[error("the plan changed")]
    Replanned,
}

impl From<tonic::Status> for FeedError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Feed {
    /// Runs until the engine's task is gone.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::reconnecting();
        loop {
            let ready = |plan: &FeedPlan| plan.wanted && !plan.signers.is_empty();
            let Ok(plan) = self.plan.wait_for(ready).await.map(|plan| plan.clone()) else {
                return;
            };
            self.plan.mark_unchanged();
            let mut opened = false;
            for signer in &plan.signers {
                match self.read(signer, &plan, &mut opened).await {
                    Ok(gone) => match gone {},
                    Err(FeedError::Replanned) => break,
                    Err(error) => {
                        tracing::debug!(signer, error = error_chain(&error), "no feed");
                    }
                }
                if opened {
                    break;
                }
            }
            if opened {
                backoff.reset();
                if self
                    .events
                    .send(Event::Feed(FeedEvent::Lost))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            if !self.pause(backoff.wait()).await {
                return;
            }
        }
    }

    /// Waits, but no longer than the plan holds. False: the engine's task is gone.
    async fn pause(&mut self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            changed = self.plan.changed() => changed.is_ok(),
        }
    }

    async fn read(
        &mut self,
        signer: &str,
        plan: &FeedPlan,
        opened: &mut bool,
    ) -> Result<std::convert::Infallible, FeedError> {
        let opening = self.open(signer);
        let mut stream = tokio::time::timeout(OPEN_TIMEOUT, opening)
            .await
            .map_err(|_| FeedError::Silent)??;
        tracing::info!(
            signer = if signer.is_empty() { "node" } else { signer },
            "feed open"
        );
        *opened = true;
        self.tell(FeedEvent::Opened).await?;
        loop {
            let message = tokio::select! {
                message = stream.message() => message?.ok_or(FeedError::Ended)?,
                _ = self.plan.changed() => {
                    if *self.plan.borrow_and_update() == *plan {
                        continue;
                    }
                    return Err(FeedError::Replanned);
                }
            };
            if let Some(event) = interpret(message)? {
                self.tell(event).await?;
            }
        }
    }

    async fn open(&self, signer: &str) -> Result<Streaming<v1::FeedMessage>, FeedError> {
        let mut request = Request::new(v1::WatchStatementsRequest {
            channel: self.channel.clone(),
        });
        let endpoint = if signer.is_empty() {
            let bearer = format!("Bearer {}", self.token)
                .parse()
                .map_err(|_| FeedError::Token)?;
            request.metadata_mut().insert("authorization", bearer);
            self.node.borrow().clone()
        } else {
            endpoint::parse(signer, None)?
        };
        let mut client = SignerServiceClient::new(endpoint.connect().await?);
        Ok(client.watch_statements(request).await?.into_inner())
    }

    async fn tell(&self, event: FeedEvent) -> Result<(), FeedError> {
        self.events
            .send(Event::Feed(event))
            .await
            .map_err(|_| FeedError::Replanned)
    }
}

fn interpret(message: v1::FeedMessage) -> Result<Option<FeedEvent>, FeedError> {
    Ok(match message.kind {
        Some(Kind::Announce(announce)) => {
            let object = announce
                .object
                .and_then(object_key)
                .ok_or(FeedError::Announcement)?;
            let byte_range = announce.byte_range.map(|range| ByteRange {
                offset: range.offset,
                length: range.length,
            });
            Some(FeedEvent::Announce {
                object,
                uri: announce.uri,
                byte_range,
            })
        }
        Some(Kind::Statement(signed)) => Some(FeedEvent::Statement(signed.encode_to_vec().into())),
        Some(Kind::CaughtUp(v1::CaughtUp {})) => Some(FeedEvent::CaughtUp),
        Some(Kind::OriginStatus(status)) => {
            tracing::debug!(state = status.state, problem = status.problem, "origin");
            None
        }
        None => None,
    })
}

fn object_key(key: wire::ObjectKey) -> Option<ObjectKey> {
    let kind = match key.kind() {
        wire::ObjectKind::Unspecified => return None,
        wire::ObjectKind::Segment => ObjectKind::Segment,
        wire::ObjectKind::Init => ObjectKind::Init,
        wire::ObjectKind::Part => ObjectKind::Part,
    };
    let wire::ObjectKey {
        track,
        epoch,
        sequence,
        part,
        ..
    } = key;
    Some(ObjectKey {
        track: TrackIndex(track),
        epoch,
        kind,
        sequence,
        part,
    })
}
