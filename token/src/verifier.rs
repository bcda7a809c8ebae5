//! The keys that viewer tokens are checked with.

use core::time::Duration;
use std::fmt;
use std::path::Path;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::claims::{AUDIENCE, Claims, thumbprint_is_valid};
use crate::issuer::{KeyError, check_secret, read, trim_line_break};

/// Longest token that is looked at, bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// By how much an issuer's clock may differ from ours, seconds.
const CLOCK_SKEW_SECONDS: u64 = 10;

/// A public key, or a shared secret, that viewer tokens are checked with.
#[derive(Clone)]
pub struct VerifierKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerifierKey {
    /// Reads a PEM file that holds an Ed25519 (EdDSA) or a P-256 (ES256) public key.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no such key.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        Self::from_pem(&read(path.as_ref())?)
    }

    /// Reads a shared secret (HS256) of at least 32 bytes: the file's bytes without a final line break.
    ///
    /// # Errors
    /// When the file cannot be read, or is too short to be a secret.
    pub fn from_secret_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        Self::from_secret(trim_line_break(&read(path.as_ref())?))
    }

    /// Takes a PEM text that holds an Ed25519 or a P-256 public key.
    ///
    /// # Errors
    /// When it holds no such key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let ed = DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key, 32));
        // An uncompressed P-256 point: 0x04 and two coordinates of 32 bytes.
        let ec = || DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key, 65));
        let (algorithm, key, length) = ed.or_else(|_| ec()).map_err(|_| KeyError::NotAPublicKey)?;
        if key.as_bytes().len() != length {
            return Err(KeyError::NotAPublicKey);
        }
        Ok(Self { algorithm, key })
    }

    /// Takes a raw Ed25519 public key.
    #[must_use]
    pub fn from_ed25519(public_key: &[u8; 32]) -> Self {
        Self {
            algorithm: Algorithm::EdDSA,
            key: DecodingKey::from_ed_der(public_key),
        }
    }

    /// Takes a shared secret (HS256) of at least 32 bytes.
    ///
    /// # Errors
    /// When the secret is shorter.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret),
        })
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifierKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Checks `token` against `keys` and the system's clock, and returns its claims. Whether the channel is
/// the right one is the caller's to compare.
///
/// # Errors
/// When no key accepts the token, or it has expired, is for another audience, or is malformed.
pub fn verify(keys: &[VerifierKey], token: &str) -> Result<Claims, VerifyError> {
    verify_late(keys, token, Duration::ZERO)
}

/// As [`verify`], but takes a token that expired up to `grace` ago: for whoever proves in another way that
/// it was let in while the token held.
///
/// # Errors
/// As [`verify`].
pub fn verify_late(
    keys: &[VerifierKey],
    token: &str,
    grace: Duration,
) -> Result<Claims, VerifyError> {
    if token.len() > MAX_TOKEN {
        return Err(VerifyError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| error_of(&error))?;
    let claims = keys
        .iter()
        .filter(|key| key.algorithm == header.alg)
        .map(|key| verify_with(key, token, grace))
        // A key whose signature check fails says nothing about the others; any other verdict is about the
        // token itself and stands.
        .find(|result| !matches!(result, Err(VerifyError::UnknownSigner)))
        .unwrap_or(Err(VerifyError::UnknownSigner))?;
    if !claims.keys.iter().all(|print| thumbprint_is_valid(print)) {
        return Err(VerifyError::Malformed);
    }
    Ok(claims)
}

fn verify_with(key: &VerifierKey, token: &str, grace: Duration) -> Result<Claims, VerifyError> {
    let mut validation = Validation::new(key.algorithm);
    // The same leeway holds for `nbf`; a grace is given only to tokens that were valid before.
    validation.leeway = CLOCK_SKEW_SECONDS.saturating_add(grace.as_secs());
    validation.validate_nbf = true;
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(error_of(&error)),
    }
}

/// Why a token was refused. It never carries the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It is no JWT, or not one of ours.
    #[error("the viewer token is malformed")]
    Malformed,
    /// None of the known keys signed it.
    #[error("the viewer token is signed by no known issuer")]
    UnknownSigner,
    /// Its time is over.
    #[error("the viewer token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the viewer token is not valid yet")]
    NotYetValid,
    /// It is for something else than espalier.
    #[error("the viewer token is for another audience")]
    WrongAudience,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is jsonwebtoken's and grows"
)]
fn error_of(error: &jsonwebtoken::errors::Error) -> VerifyError {
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => VerifyError::UnknownSigner,
        ErrorKind::ExpiredSignature => VerifyError::Expired,
        ErrorKind::ImmatureSignature => VerifyError::NotYetValid,
        ErrorKind::InvalidAudience => VerifyError::WrongAudience,
        _ => VerifyError::Malformed,
    }
}
