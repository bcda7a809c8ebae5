//! The keys that sign statements, and the sets of keys that viewers trust.

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// Says which key to check a signature with: the first 8 bytes of SHA-256 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a key is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are not an Ed25519 public key.
    #[error("not an Ed25519 public key of 32 bytes")]
    Public,
    /// The text is not an Ed25519 private key.
    #[error("not an Ed25519 private key in PKCS#8 PEM")]
    Private,
}

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// [`KeyError::Public`] if they are no usable key; weak keys are refused too.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = VerifyingKey::try_from(bytes).map_err(|_| KeyError::Public)?;
        if key.is_weak() {
            Err(KeyError::Public)
        } else {
            Ok(Self(key))
        }
    }

    /// Returns the 32 bytes of RFC 8032.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Returns the key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// Whether the signature is this key's over the message. Strict: a signature has one form.
    #[must_use]
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }
}

/// A private key that signs statements. Not printed, wiped when dropped.
#[derive(Clone)]
pub struct StatementKey(SigningKey);

impl StatementKey {
    /// Makes the key of a seed, which must come from a cryptographic random generator.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads a PKCS#8 PEM text (`-----BEGIN PRIVATE KEY-----`).
    ///
    /// # Errors
    /// [`KeyError::Private`] if it is none, or of another algorithm.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|_| KeyError::Private)
    }

    /// Writes a PKCS#8 PEM text. It is the secret itself: keep it in files of mode 0600.
    ///
    /// # Errors
    /// [`KeyError::Private`] if it cannot be encoded, which does not happen with an Ed25519 key.
    pub fn to_pkcs8_pem(&self) -> Result<String, KeyError> {
        let pem = self
            .0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|_| KeyError::Private)?;
        Ok(pem.to_string())
    }

    /// Returns the public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message.
    #[must_use]
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for StatementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementKey({})", self.public_key().id())
    }
}

/// The public keys whose statements are accepted. Cheap to look up, small.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedKeys(BTreeMap<KeyId, PublicKey>);

impl TrustedKeys {
    /// Collects keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }

    /// Reads keys of 32 bytes each, as a `Welcome` or a `Channel` carries them.
    ///
    /// # Errors
    /// [`KeyError::Public`] if one of them is none.
    pub fn from_encoded<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, KeyError> {
        keys.into_iter()
            .map(PublicKey::from_bytes)
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }

    /// Finds the key with this id.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&PublicKey> {
        self.0.get(&id)
    }

    /// Returns the keys.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.values()
    }

    /// Whether no key is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
