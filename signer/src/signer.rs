//! The shell round the watcher: HTTP and time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use espalier_media::{HashedObject, StatementKey};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::feed::StatementFeed;
use crate::fetch::{FetchError, OriginClient, PlaylistAnswer};
use crate::handle::SignerHandle;
use crate::pipeline::RequestId;
use crate::state::SignerState;
use crate::status::{SignerStatus, TrackBook};
use crate::watcher::{Command, OriginWatcher};

/// How long to sleep when nothing is planned: an answer wakes the shell anyway.
const IDLE: Duration = Duration::from_secs(3600);

/// What to sign, and with what.
#[derive(Debug, Clone)]
pub struct SignerConfig {
    /// The origin's master or media playlist, HTTP or HTTPS.
    pub origin_uri: String,
    /// The key.
    pub key: StatementKey,
    /// What the last run left, or the default at the first.
    pub state: SignerState,
}

/// Why a signer could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The origin's URI cannot be used.
    #[error("{0:?} is not an HTTP or HTTPS URI")]
    Origin(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Http(#[source] reqwest::Error),
}

/// Watches an origin and signs what it lists.
#[derive(Debug)]
pub struct Signer;

impl Signer {
    /// Starts to watch; needs a tokio runtime. Whatever the origin does, it goes on until the last
    /// handle is dropped or one is shut down.
    ///
    /// # Errors
    /// [`StartError`] if it cannot even begin. An origin that is not there is no error.
    pub fn start(config: SignerConfig) -> Result<SignerHandle, StartError> {
        let origin_uri = checked_origin(&config.origin_uri)?;
        let client = OriginClient::new().map_err(StartError::Http)?;
        let feed = Arc::new(StatementFeed::new());
        let (status, status_reader) = watch::channel(SignerStatus::default());
        let (state, state_reader) = watch::channel(config.state.clone());
        let keys = vec![config.key.public_key()];
        let started = Instant::now();
        let watcher =
            OriginWatcher::new(origin_uri.clone(), config.key, config.state, Duration::ZERO);
        let shell = Shell {
            watcher,
            client,
            started,
            requests: JoinSet::new(),
            downloads: BTreeMap::new(),
            feed: Arc::clone(&feed),
            book: TrackBook::default(),
            status,
            state,
        };
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let cancelled = cancel.clone().cancelled_owned();
        tasks.spawn(async move {
            tokio::select! {
                () = cancelled => {}
                () = shell.run() => {}
            }
        });
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

fn checked_origin(uri: &str) -> Result<String, StartError> {
    let url = Url::parse(uri).map_err(|_| StartError::Origin(uri.to_owned()))?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    usable
        .then(|| url.to_string())
        .ok_or_else(|| StartError::Origin(uri.to_owned()))
}

struct Shell {
    watcher: OriginWatcher,
    client: OriginClient,
    started: Instant,
    /// As many as the watcher commands: one poll and a few downloads per track.
    requests: JoinSet<Answer>,
    /// How to stop those that read objects.
    downloads: BTreeMap<RequestId, AbortHandle>,
    feed: Arc<StatementFeed>,
    book: TrackBook,
    status: watch::Sender<SignerStatus>,
    state: watch::Sender<SignerState>,
}

enum Answer {
    Playlist(RequestId, Result<PlaylistAnswer, FetchError>),
    Object(RequestId, Result<HashedObject, FetchError>),
}

impl Shell {
    async fn run(mut self) {
        loop {
            while let Some(command) = self.watcher.poll_command() {
                self.execute(command);
            }
            let timeout = self.watcher.poll_timeout();
            let wake = timeout.map_or_else(|| Instant::now() + IDLE, |at| self.started + at);
            tokio::select! {
                Some(answer) = self.requests.join_next() => self.answered(answer),
                () = tokio::time::sleep_until(wake) => {
                    let now = self.started.elapsed();
                    self.watcher.handle_timeout(now);
                }
            }
        }
    }

    fn answered(&mut self, answer: Result<Answer, tokio::task::JoinError>) {
        let now = self.started.elapsed();
        match answer {
            Ok(Answer::Playlist(request, answer)) => {
                self.watcher.handle_playlist(request, answer, now);
            }
            Ok(Answer::Object(request, result)) => {
                self.downloads.remove(&request);
                self.watcher.handle_object(request, result, now);
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::FetchPlaylist { request, uri, etag } => {
                let client = self.client.clone();
                self.requests.spawn(async move {
                    Answer::Playlist(request, client.playlist(&uri, etag.as_deref()).await)
                });
            }
            Command::FetchObject {
                request,
                uri,
                byte_range,
            } => {
                let client = self.client.clone();
                let reading = self.requests.spawn(async move {
                    Answer::Object(request, client.object(&uri, byte_range).await)
                });
                self.downloads.insert(request, reading);
            }
            Command::CancelObject(request) => {
                if let Some(reading) = self.downloads.remove(&request) {
                    reading.abort();
                }
            }
            Command::Announce(announcement) => self.feed.announce(announcement),
            Command::Tell(statement) => self.tell(statement),
            Command::Origin(origin) => {
                tracing::info!(state = ?origin.state, problem = origin.problem, "origin");
                self.feed.origin(origin.clone());
                self.status.send_modify(|status| status.origin = origin);
            }
            Command::State(state) => {
                self.state.send_replace(state);
            }
        }
    }

    fn tell(&mut self, statement: espalier_media::SignedStatement) {
        let shared = statement.shared_statement();
        let inserted = self.feed.statement(statement);
        match shared.as_object() {
            Some(descriptor) => tracing::debug!(?inserted, key = %descriptor.key, "object"),
            None => tracing::debug!(?inserted, track = ?shared.track(), "header"),
        }
        if self.book.observe(&shared) {
            let tracks = self.book.tracks().to_vec();
            self.status.send_modify(|status| status.tracks = tracks);
        }
    }
}
