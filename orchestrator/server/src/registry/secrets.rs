//! The secrets that all nodes share: made once by whoever first leads the meta group.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use espalier_orchestrator_core::state::{MetaEntry, MetaOp};
use openraft::async_runtime::WatchReceiver as _;

use super::Registry;
use crate::seal::SealError;
use crate::secret;

const TICKET_KEY: &str = "ticket key";
const ISSUER_KEY: &str = "viewer issuer's key";
/// How long news of the meta group is waited for before it is looked at again.
const LOOK: Duration = Duration::from_millis(200);

/// What the nodes keep secret, apart from their channels' keys.
#[derive(Clone)]
pub(crate) struct NodeSecrets {
    /// The HMAC key of resume tickets.
    pub(crate) ticket_key: [u8; 32],
    /// The key that signs viewer tokens issued by the nodes.
    pub(crate) issuer_key: SigningKey,
}

/// The nodes' secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// One does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// One is no key.
    #[error("the {0} is none")]
    Length(&'static str),
}

impl Registry {
    /// The nodes' secrets, once they are there: waits for a leader of the meta group if need be.
    ///
    /// # Errors
    /// When they do not open with this node's key.
    pub(crate) async fn secrets(&self) -> Result<NodeSecrets, SecretsError> {
        let mut applied = self.cluster.meta().applied();
        let mut leadership = self.cluster.meta().leadership();
        loop {
            if let Some(secrets) = self.known_secrets()? {
                return Ok(secrets);
            }
            self.make_missing().await?;
            // A time limit, because a leader may have made only some of them.
            let news = async {
                tokio::select! {
                    _changed = applied.changed() => {}
                    _changed = leadership.changed() => {}
                }
            };
            let _waited = tokio::time::timeout(LOOK, news).await;
        }
    }

    fn known_secrets(&self) -> Result<Option<NodeSecrets>, SecretsError> {
        let (Some(ticket_key), Some(issuer)) = (self.secret(TICKET_KEY)?, self.secret(ISSUER_KEY)?)
        else {
            return Ok(None);
        };
        let issuer_key = SigningKey::from_bytes(&issuer);
        Ok(Some(NodeSecrets {
            ticket_key,
            issuer_key,
        }))
    }

    fn secret(&self, name: &'static str) -> Result<Option<[u8; 32]>, SecretsError> {
        let sealed = self
            .cluster
            .meta()
            .read(|_, state| state.secrets().get(name).cloned());
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let opened = self.sealer.open(name, &sealed)?;
        let key = opened.try_into().map_err(|_| SecretsError::Length(name))?;
        Ok(Some(key))
    }

    /// Makes what is missing, if this node leads the meta group: in its term, so that two leaders never
    /// make two of one kind.
    async fn make_missing(&self) -> Result<(), SecretsError> {
        let meta = self.cluster.meta();
        let Some(term) = meta.current_leadership().leading_term() else {
            return Ok(());
        };
        let mut ops = Vec::new();
        for name in [TICKET_KEY, ISSUER_KEY] {
            if self.secret(name)?.is_none() {
                let secret = self.sealer.seal(name, &secret::random::<32>())?;
                let name = name.to_owned();
                ops.push(MetaOp::PutSecret { name, secret });
            }
        }
        let entry = MetaEntry::new(term, ops).encode();
        let entry = entry.expect("invariant: two keys are no long entry");
        if let Err(error) = meta.propose(term, entry.into()).await {
            tracing::debug!(%error, "the nodes' secrets were not made here");
        }
        Ok(())
    }
}
