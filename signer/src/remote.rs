//! Mirrors the feed of a signer elsewhere.
//!
//! Invariant: nothing enters the mirror's feed that a trusted key did not sign, announcements aside,
//! which nobody relays.

use std::sync::Arc;
use std::time::Duration;

use espalier_media::{KeyError, PublicKey, TrustedKeys};
use espalier_proto::v1::signer_service_client::SignerServiceClient;
use espalier_proto::v1::{FeedMessage, GetSignerRequest, WatchStatementsRequest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};

use crate::convert::{self, FeedMessageError};
use crate::feed::{FeedEvent, StatementFeed};
use crate::handle::SignerHandle;
use crate::state::SignerState;
use crate::status::{OriginState, OriginStatus, SignerStatus, TrackBook};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// Which feed to mirror.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// Where the signer is: `http://host:port`.
    pub endpoint: String,
    /// The channel's id, for a signer that has several.
    pub channel: String,
    /// Its keys, as pinned when the channel was made.
    pub keys: Vec<PublicKey>,
    /// The origin that it watches.
    pub origin_uri: String,
}

/// What a signer says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteInfo {
    /// The keys that sign.
    pub keys: Vec<PublicKey>,
    /// The origin that it watches.
    pub origin_uri: String,
}

/// Why a remote signer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The endpoint is no URI.
    #[error("{0:?} is not a URI")]
    Endpoint(String),
    /// It cannot be reached.
    #[error("the signer cannot be reached")]
    Unreachable(#[source] tonic::transport::Error),
    /// It refused the call.
    #[error("the signer refused")]
    Refused(#[source] Box<tonic::Status>),
    /// What it says is its key is none.
    #[error("the signer's key cannot be used")]
    Key(#[from] KeyError),
}

/// A signer elsewhere.
#[derive(Debug)]
pub struct RemoteSigner;

impl RemoteSigner {
    /// Asks a signer for its keys and its origin.
    ///
    /// # Errors
    /// [`RemoteError`] says why it cannot be used.
    pub async fn describe(endpoint: &str, channel: &str) -> Result<RemoteInfo, RemoteError> {
        let transport = self::endpoint(endpoint)?
            .timeout(CALL_TIMEOUT)
            .connect()
            .await;
        let mut client = SignerServiceClient::new(transport.map_err(RemoteError::Unreachable)?);
        let request = GetSignerRequest {
            channel: channel.to_owned(),
        };
        let signer = client
            .get_signer(request)
            .await
            .map_err(|s| RemoteError::Refused(Box::new(s)))?;
        let signer = signer.into_inner();
        let keys = signer
            .public_keys
            .iter()
            .map(|key| PublicKey::from_bytes(key));
        Ok(RemoteInfo {
            keys: keys.collect::<Result<_, _>>()?,
            origin_uri: signer.origin_uri,
        })
    }

    /// Starts to mirror a signer's feed; needs a tokio runtime. Connects again, with back-off, for as
    /// long as the handle lives.
    ///
    /// # Errors
    /// [`RemoteError::Endpoint`] if the endpoint is no URI.
    pub fn connect(config: RemoteConfig) -> Result<SignerHandle, RemoteError> {
        let channel = endpoint(&config.endpoint)?.connect_lazy();
        let feed = Arc::new(StatementFeed::new());
        let (status, status_reader) = watch::channel(SignerStatus::default());
        let (state, state_reader) = watch::channel(SignerState::default());
        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        let mirror = Mirror {
            client: SignerServiceClient::new(channel),
            channel: config.channel,
            trusted: TrustedKeys::new(config.keys.iter().copied()),
            feed: Arc::clone(&feed),
            book: TrackBook::default(),
            status,
            _state: state,
        };
        let cancelled = cancel.clone().cancelled_owned();
        tasks.spawn(async move {
            tokio::select! {
                () = cancelled => {}
                () = mirror.run() => {}
            }
        });
        let (keys, origin_uri) = (config.keys, config.origin_uri);
        Ok(SignerHandle::new(
            feed,
            status_reader,
            state_reader,
            keys,
            origin_uri,
            cancel,
            tasks,
        ))
    }
}

fn endpoint(uri: &str) -> Result<Endpoint, RemoteError> {
    let endpoint =
        Endpoint::from_shared(uri.to_owned()).map_err(|_| RemoteError::Endpoint(uri.to_owned()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true))
}

struct Mirror {
    client: SignerServiceClient<Channel>,
    channel: String,
    trusted: TrustedKeys,
    feed: Arc<StatementFeed>,
    book: TrackBook,
    status: watch::Sender<SignerStatus>,
    /// Held so that a host that waits for changes waits, and is not told that there is none to come.
    _state: watch::Sender<SignerState>,
}

impl Mirror {
    async fn run(mut self) {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let (caught_up, problem) = self.read().await;
            if caught_up {
                back_off = FIRST_BACK_OFF;
            }
            tracing::warn!(channel = self.channel, %problem, "the signer's feed ended");
            self.origin(OriginStatus {
                state: OriginState::Unreachable,
                problem,
            });
            tokio::time::sleep(back_off.mul_f64(rand::random_range(0.5..1.0))).await;
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Reads one stream to its end; returns whether it caught up, and why it ended.
    async fn read(&mut self) -> (bool, String) {
        let request = WatchStatementsRequest {
            channel: self.channel.clone(),
        };
        let opening = tokio::time::timeout(CALL_TIMEOUT, self.client.watch_statements(request));
        let mut stream = match opening.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return (false, format!("the signer: {}", status.message())),
            Err(_) => return (false, "the signer does not answer".to_owned()),
        };
        let mut caught_up = false;
        loop {
            match stream.message().await {
                Ok(Some(message)) => caught_up |= self.message(message),
                Ok(None) => return (caught_up, "the signer ended its feed".to_owned()),
                Err(status) => return (caught_up, format!("the signer: {}", status.message())),
            }
        }
    }

    /// Takes one message; returns whether the feed has caught up with it.
    fn message(&mut self, message: FeedMessage) -> bool {
        match convert::from_message(message, &self.trusted) {
            Ok(FeedEvent::CaughtUp) => return true,
            Ok(FeedEvent::Announce(announcement)) => self.feed.announce(announcement),
            Ok(FeedEvent::Origin(status)) => self.origin(status),
            Ok(FeedEvent::Statement(statement)) => {
                let shared = statement.shared_statement();
                if self.feed.statement(statement) == crate::Inserted::New
                    && self.book.observe(&shared)
                {
                    let tracks = self.book.tracks().to_vec();
                    self.status.send_modify(|status| status.tracks = tracks);
                }
            }
            Err(FeedMessageError::Unknown) => {}
            Err(error) => tracing::warn!(channel = self.channel, %error, "refused from the signer"),
        }
        false
    }

    fn origin(&self, origin: OriginStatus) {
        self.feed.origin(origin.clone());
        self.status.send_if_modified(|status| {
            let changed = status.origin != origin;
            status.origin = origin;
            changed
        });
    }
}
