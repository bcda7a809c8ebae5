//! A statement with its signature, as it travels.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{self, DecodeError};
use crate::key::{KeyId, StatementKey, TrustedKeys};
use crate::limits::{MAX_SIGNED_LEN, MAX_STATEMENT_LEN};
use crate::statement::{InvalidStatement, Statement};

/// What every signature covers before the payload, so that a key's other uses never make a statement.
pub const SIGNING_DOMAIN: &[u8] = b"espalier.statement.v1\0";

/// Why a statement could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Peers would refuse it.
    #[error("the statement would be refused")]
    Invalid(#[from] InvalidStatement),
    /// Its encoding exceeds [`MAX_STATEMENT_LEN`].
    #[error("the statement has {0} bytes, more than {MAX_STATEMENT_LEN}")]
    TooLong(usize),
}

/// Why a received statement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It exceeds [`MAX_SIGNED_LEN`] or [`MAX_STATEMENT_LEN`].
    #[error("{0} bytes are more than a statement may have")]
    TooLong(usize),
    /// The bytes are no `Signed`, or the payload no `Statement`.
    #[error("it is not encoded as a statement")]
    Encoding,
    /// The key that signed it is not trusted.
    #[error("signed with key {0}, which is not trusted")]
    UntrustedKey(KeyId),
    /// The signature is not that of the named key over these bytes.
    #[error("the signature does not match")]
    Signature,
    /// A trusted key signed something that is no statement.
    #[error("signed, but no statement")]
    Invalid(#[from] InvalidStatement),
}

/// A verified statement that keeps its exact bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedStatement {
    encoded: Bytes,
    payload: Bytes,
    signature: [u8; 64],
    key_id: KeyId,
    statement: Arc<Statement>,
}

impl SignedStatement {
    /// Signs a statement.
    ///
    /// # Errors
    /// [`SignError`] if peers would refuse it.
    pub fn sign(statement: Statement, key: &StatementKey) -> Result<Self, SignError> {
        let payload = codec::encode_statement(&statement);
        if payload.len() > MAX_STATEMENT_LEN {
            return Err(SignError::TooLong(payload.len()));
        }
        // What was just encoded is read back, so that a signer can never make what a peer refuses.
        let statement = codec::decode_statement(payload.clone()).map_err(|error| match error {
            DecodeError::Encoding => InvalidStatement::Malformed("the encoding"),
            DecodeError::Invalid(invalid) => invalid,
        })?;
        let signature = key.sign(&signed_bytes(&payload));
        let key_id = key.public_key().id();
        let encoded = codec::encode_signed(&payload, &signature, key_id);
        Ok(Self {
            encoded,
            payload,
            signature,
            key_id,
            statement: Arc::new(statement),
        })
    }

    /// Reads an encoded `espalier.wire.v1.Signed` and verifies it.
    ///
    /// # Errors
    /// [`StatementError`] says why it is refused.
    pub fn decode(encoded: Bytes, trusted: &TrustedKeys) -> Result<Self, StatementError> {
        if encoded.len() > MAX_SIGNED_LEN {
            return Err(StatementError::TooLong(encoded.len()));
        }
        let (payload, signature, key_id) =
            codec::decode_signed(encoded).ok_or(StatementError::Encoding)?;
        Self::from_parts(payload, &signature, &key_id, trusted)
    }

    /// Verifies the fields of an `espalier.wire.v1.Signed` that is decoded already.
    ///
    /// # Errors
    /// [`StatementError`] says why it is refused.
    pub fn from_parts(
        payload: Bytes,
        signature: &[u8],
        key_id: &[u8],
        trusted: &TrustedKeys,
    ) -> Result<Self, StatementError> {
        if payload.len() > MAX_STATEMENT_LEN {
            return Err(StatementError::TooLong(payload.len()));
        }
        let signature: [u8; 64] = signature
            .try_into()
            .map_err(|_| StatementError::Signature)?;
        let key_id = KeyId(key_id.try_into().map_err(|_| StatementError::Encoding)?);
        let key = trusted
            .get(key_id)
            .ok_or(StatementError::UntrustedKey(key_id))?;
        if !key.verifies(&signed_bytes(&payload), &signature) {
            return Err(StatementError::Signature);
        }
        let statement = codec::decode_statement(payload.clone()).map_err(|error| match error {
            DecodeError::Encoding => StatementError::Encoding,
            DecodeError::Invalid(invalid) => StatementError::Invalid(invalid),
        })?;
        let encoded = codec::encode_signed(&payload, &signature, key_id);
        Ok(Self {
            encoded,
            payload,
            signature,
            key_id,
            statement: Arc::new(statement),
        })
    }

    /// Returns what it says.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Returns what it says, shared.
    #[must_use]
    pub fn shared_statement(&self) -> Arc<Statement> {
        Arc::clone(&self.statement)
    }

    /// Returns the encoded `espalier.wire.v1.Signed`: the body of a `Statement` frame.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Returns the exact bytes that were signed, without the domain.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Returns the signature.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// Returns the id of the key that signed it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }
}

impl fmt::Debug for SignedStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedStatement")
            .field("statement", &self.statement)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    [SIGNING_DOMAIN, payload].concat()
}
