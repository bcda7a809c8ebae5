//! The key that signs viewer tokens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::claims::{AUDIENCE, Claims};

/// A private key, or a shared secret, that signs viewer tokens.
///
/// Its `Debug` output names the algorithm and never the key.
#[derive(Clone, Debug)]
pub struct IssuerKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
}

impl IssuerKey {
    /// Reads a PKCS#8 PEM file that holds an Ed25519 (EdDSA) or a P-256 (ES256) private key.
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

    /// Takes a PKCS#8 PEM text that holds an Ed25519 or a P-256 private key.
    ///
    /// # Errors
    /// When it holds no such key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let candidates = [
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(pem)),
            (Algorithm::ES256, EncodingKey::from_ec_pem(pem)),
        ];
        candidates
            .into_iter()
            .filter_map(|(algorithm, key)| {
                Some(Self {
                    algorithm,
                    key: key.ok()?,
                })
            })
            // The PEM reader looks at the key's type only: a P-384 key, or a damaged one, shows when it signs.
            .find(|issuer| {
                jsonwebtoken::crypto::sign(b"probe", &issuer.key, issuer.algorithm).is_ok()
            })
            .ok_or(KeyError::NotAPrivateKey)
    }

    /// Takes a shared secret (HS256) of at least 32 bytes.
    ///
    /// # Errors
    /// When the secret is shorter.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self {
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret),
        })
    }
}

/// Signs `claims` and returns the token.
///
/// # Errors
/// When the key cannot sign, which [`IssuerKey`]'s constructors have ruled out for every key they accept.
pub fn issue(key: &IssuerKey, claims: &Claims) -> Result<String, IssueError> {
    let body = Body {
        aud: AUDIENCE,
        claims,
    };
    jsonwebtoken::encode(&Header::new(key.algorithm), &body, &key.key).map_err(IssueError)
}

#[derive(Serialize)]
struct Body<'a> {
    aud: &'static str,
    #[serde(flatten)]
    claims: &'a Claims,
}

/// Why a key file was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no private key of a supported kind.
    #[error("not a PKCS#8 PEM private key of kind Ed25519 or P-256")]
    NotAPrivateKey,
    /// It is no public key of a supported kind.
    #[error("not a PEM public key of kind Ed25519 or P-256")]
    NotAPublicKey,
    /// The shared secret is too short to be one.
    #[error("the secret has {length} bytes; at least 32 are needed")]
    SecretTooShort {
        /// How many bytes it has.
        length: usize,
    },
}

/// The token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign the token")]
pub struct IssueError(#[source] jsonwebtoken::errors::Error);

pub(crate) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.len() < 32 {
        return Err(KeyError::SecretTooShort {
            length: secret.len(),
        });
    }
    Ok(())
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn trim_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
