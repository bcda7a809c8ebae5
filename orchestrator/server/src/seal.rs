//! Seals secrets for the replicated state, which lies on every node's disk, with the cluster's key.
//!
//! Each is sealed for one purpose and opens for no other, so that none can be put in another's place.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use espalier_orchestrator_core::state::Sealed;

use crate::secret;

const NONCE: usize = 24;

/// A sealed secret does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} does not open with this cluster's key: the key is another's, or the secret is damaged"
)]
pub struct SealError {
    what: String,
}

/// Seals and opens with one key.
pub(crate) struct Sealer(XChaCha20Poly1305);

impl Sealer {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// Seals a secret; `what` says what it is.
    ///
    /// # Errors
    /// When the secret is longer than the cipher takes, which none of ours is.
    pub(crate) fn seal(&self, what: &str, secret: &[u8]) -> Result<Sealed, SealError> {
        let nonce = secret::random::<NONCE>();
        let payload = Payload {
            msg: secret,
            aad: what.as_bytes(),
        };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| failed(what))?;
        Ok(Sealed::new([&nonce[..], &sealed].concat()))
    }

    /// Opens what was sealed as `what`.
    ///
    /// # Errors
    /// When it was sealed with another key or for another purpose, or is damaged.
    pub(crate) fn open(&self, what: &str, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) = sealed
            .as_bytes()
            .split_first_chunk::<NONCE>()
            .ok_or_else(|| failed(what))?;
        let payload = Payload {
            msg: sealed,
            aad: what.as_bytes(),
        };
        let opened = self.0.decrypt(&XNonce::from(*nonce), payload);
        opened.map_err(|_| failed(what))
    }
}

fn failed(what: &str) -> SealError {
    SealError {
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_for_its_purpose_with_its_key_and_as_it_was_sealed() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal("a", b"secret").unwrap();
        assert_eq!(sealer.open("a", &sealed).unwrap(), b"secret");
        assert_ne!(sealed, sealer.seal("a", b"secret").unwrap());
        assert!(sealer.open("b", &sealed).is_err());
        assert!(Sealer::new(&[8; 32]).open("a", &sealed).is_err());
        let bytes = sealed.as_bytes();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(sealer.open("a", &Sealed::new(bad)).is_err(), "byte {at}");
            let cut = Sealed::new(bytes[..at].to_vec());
            assert!(sealer.open("a", &cut).is_err(), "cut at {at}");
        }
    }
}
