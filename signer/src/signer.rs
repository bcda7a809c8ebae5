//! The shell round the watcher: HTTP, time and hashing.

use espalier_media::StatementKey;

use crate::handle::SignerHandle;
use crate::state::SignerState;

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
    /// Starts to watch; needs a tokio runtime. Whatever the origin does, it goes on until the handle
    /// is dropped or shut down.
    ///
    /// # Errors
    /// [`StartError`] if it cannot even begin. An origin that is not there is no error.
    pub fn start(config: SignerConfig) -> Result<SignerHandle, StartError> {
        let _ = config;
        unimplemented!()
    }
}
