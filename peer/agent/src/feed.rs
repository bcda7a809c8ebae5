//! The signer's feed: opens it while the engine wants it, and passes on what it says.
//!
//! Where there are two signers two feeds are open, so that one that falls silent, which takes seconds to
//! notice, delays nothing: they say the same, and the engine takes the first word. The signers, in the order
//! of the Welcome, are dealt to the two in turn; each tries its own from the first, waits with jitter once all
//! have failed, and after each loss. For the engine they are one feed, lost when both are. Nothing is
//! verified here (the engine does), nor is it decided whether a feed is needed.

use std::sync::Arc;
use std::time::Duration;

use espalier_media::{ByteRange, ObjectKey, ObjectKind, TrackIndex};
use espalier_peer_core::{Event, FeedEvent};
use espalier_proto::v1::{self, feed_message::Kind, signer_service_client::SignerServiceClient};
use espalier_proto::wire::v1 as wire;
use prost::Message as _;
use tokio::sync::{Mutex, mpsc, watch};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::backoff::Backoff;
use crate::endpoint;
use crate::error_chain;

/// How many feeds are open at once, where there are as many signers.
const FEEDS: usize = 2;
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
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    pub(crate) channel: String,
    /// The node that the session is attached to, or was last, and another if one is known.
    pub(crate) nodes: watch::Receiver<Vec<Endpoint>>,
    /// The viewer's token; only the node is shown it.
    pub(crate) token: String,
    pub(crate) plan: watch::Receiver<FeedPlan>,
    pub(crate) events: mpsc::Sender<Event>,
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
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
    pub(crate) async fn run(self) {
        let open = Arc::new(Mutex::new(0));
        let readers = (0..FEEDS).map(|hand| {
            let reader = Reader {
                feed: self.clone(),
                hand,
                open: Arc::clone(&open),
            };
            reader.run()
        });
        futures::future::join_all(readers).await;
    }
}

/// One of the feeds that are open at once.
#[derive(Debug)]
struct Reader {
    feed: Feed,
    /// Which of them: it reads every [`FEEDS`]th signer from here on.
    hand: usize,
    /// How many of them are open; held while the engine is told, so that it hears of it in order.
    open: Arc<Mutex<usize>>,
}

/// A signer, as it is dialled.
#[derive(Debug)]
struct Signer {
    /// Empty: a node.
    uri: String,
    endpoint: Endpoint,
}

impl Reader {
    async fn run(mut self) {
        let mut backoff = Backoff::reconnecting();
        loop {
            let ready = |plan: &FeedPlan| plan.wanted && !plan.signers.is_empty();
            let Ok(plan) = self
                .feed
                .plan
                .wait_for(ready)
                .await
                .map(|plan| plan.clone())
            else {
                return;
            };
            self.feed.plan.mark_unchanged();
            let mut opened = false;
            for signer in self.signers(&plan) {
                match self.read(&signer, &plan, &mut opened).await {
                    Ok(gone) => match gone {},
                    Err(FeedError::Replanned) => break,
                    Err(error) => {
                        tracing::debug!(
                            signer = signer.uri,
                            error = error_chain(&error),
                            "no feed"
                        );
                    }
                }
                if opened {
                    break;
                }
            }
            if opened {
                backoff.reset();
                let mut open = self.open.lock().await;
                *open -= 1;
                if *open == 0 && self.tell(FeedEvent::Lost).await.is_err() {
                    return;
                }
            }
            if !self.pause(backoff.wait()).await {
                return;
            }
        }
    }

    /// This reader's share of the signers, in order of preference.
    fn signers(&self, plan: &FeedPlan) -> Vec<Signer> {
        let mut signers = Vec::new();
        for uri in &plan.signers {
            let endpoints = if uri.is_empty() {
                self.feed.nodes.borrow().clone()
            } else {
                match endpoint::parse(uri, None) {
                    Ok(endpoint) => vec![endpoint],
                    Err(error) => {
                        tracing::debug!(uri, %error, "a signer's name is of no use");
                        continue;
                    }
                }
            };
            signers.extend(endpoints.into_iter().map(|endpoint| Signer {
                uri: uri.clone(),
                endpoint,
            }));
        }
        signers.into_iter().skip(self.hand).step_by(FEEDS).collect()
    }

    /// Waits, but no longer than the plan holds. False: the engine's task is gone.
    async fn pause(&mut self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            changed = self.feed.plan.changed() => changed.is_ok(),
        }
    }

    async fn read(
        &mut self,
        signer: &Signer,
        plan: &FeedPlan,
        opened: &mut bool,
    ) -> Result<std::convert::Infallible, FeedError> {
        let opening = self.open(signer);
        let mut stream = tokio::time::timeout(OPEN_TIMEOUT, opening)
            .await
            .map_err(|_| FeedError::Silent)??;
        let name = if signer.uri.is_empty() {
            "node"
        } else {
            signer.uri.as_str()
        };
        tracing::info!(signer = name, at = %signer.endpoint.uri(), "feed open");
        *opened = true;
        let mut open = self.open.lock().await;
        *open += 1;
        if *open == 1 {
            self.tell(FeedEvent::Opened).await?;
        }
        drop(open);
        loop {
            let message = tokio::select! {
                message = stream.message() => message?.ok_or(FeedError::Ended)?,
                _ = self.feed.plan.changed() => {
                    if *self.feed.plan.borrow_and_update() == *plan {
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

    async fn open(&self, signer: &Signer) -> Result<Streaming<v1::FeedMessage>, FeedError> {
        let mut request = Request::new(v1::WatchStatementsRequest {
            channel: self.feed.channel.clone(),
        });
        if signer.uri.is_empty() {
            let bearer = format!("Bearer {}", self.feed.token)
                .parse()
                .map_err(|_| FeedError::Token)?;
            request.metadata_mut().insert("authorization", bearer);
        }
        let mut client = SignerServiceClient::new(signer.endpoint.connect().await?);
        Ok(client.watch_statements(request).await?.into_inner())
    }

    async fn tell(&self, event: FeedEvent) -> Result<(), FeedError> {
        self.feed
            .events
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use espalier_proto::v1::signer_service_server::{SignerService, SignerServiceServer};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
    use tonic::{Response, Status};

    use super::*;

    type Words = mpsc::Sender<Result<v1::FeedMessage, Status>>;

    /// Hands the test what each feed is to say.
    struct Puppet(mpsc::Sender<Words>);

    #[tonic::async_trait]
    impl SignerService for Puppet {
        async fn get_signer(
            &self,
            _: Request<v1::GetSignerRequest>,
        ) -> Result<Response<v1::Signer>, Status> {
            Err(Status::unimplemented("not asked here"))
        }

        type WatchStatementsStream =
            Pin<Box<dyn futures::Stream<Item = Result<v1::FeedMessage, Status>> + Send>>;

        async fn watch_statements(
            &self,
            _: Request<v1::WatchStatementsRequest>,
        ) -> Result<Response<Self::WatchStatementsStream>, Status> {
            let (words, stream) = mpsc::channel(4);
            self.0.send(words).await.unwrap();
            Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
        }
    }

    async fn puppet() -> (Endpoint, mpsc::Receiver<Words>) {
        let (opened, feeds) = mpsc::channel(4);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(SignerServiceServer::new(Puppet(opened)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (endpoint::parse(&uri, None).unwrap(), feeds)
    }

    async fn within<T>(what: impl Future<Output = Option<T>>) -> T {
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, what).await.unwrap().unwrap()
    }

    fn caught_up() -> Result<v1::FeedMessage, Status> {
        Ok(v1::FeedMessage {
            kind: Some(Kind::CaughtUp(v1::CaughtUp {})),
        })
    }

    #[tokio::test]
    async fn one_silent_signer_delays_nothing_and_the_feed_is_lost_with_the_second() {
        let ((one, mut at_one), (other, mut at_other)) = (puppet().await, puppet().await);
        let (nodes, attached) = watch::channel(vec![one, other]);
        let plan = FeedPlan {
            wanted: true,
            signers: vec![String::new()],
        };
        let (plan, planned) = watch::channel(plan);
        let (events, mut heard) = mpsc::channel(16);
        let feed = Feed {
            channel: "news".to_owned(),
            nodes: attached,
            token: "t".to_owned(),
            plan: planned,
            events,
        };
        let running = tokio::spawn(feed.run());
        let silent = within(at_one.recv()).await;
        let speaks = within(at_other.recv()).await;
        let mut next = async || {
            let Event::Feed(event) = within(heard.recv()).await else {
                panic!("only feeds are heard of");
            };
            event
        };
        assert!(matches!(next().await, FeedEvent::Opened));
        speaks.send(caught_up()).await.unwrap();
        assert!(matches!(next().await, FeedEvent::CaughtUp));
        // One of the two is still there, so nothing is lost, nor opened when the first comes back.
        drop(silent);
        let again = within(at_one.recv()).await;
        again.send(caught_up()).await.unwrap();
        assert!(matches!(next().await, FeedEvent::CaughtUp));
        nodes.send_replace(Vec::new());
        drop(again);
        drop(speaks);
        assert!(matches!(next().await, FeedEvent::Lost));
        drop(plan);
        tokio::time::timeout(Duration::from_secs(60), running)
            .await
            .unwrap()
            .unwrap();
    }
}
