//! Bodies of records: openraft's types in postcard.
//!
//! A purge mark begins with its index in the clear, so that the store can read it without Raft's types.

use openraft::RaftTypeConfig;
use openraft::type_config::alias::LogIdOf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;
use crate::key::Key;

/// Encodes a body.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(value)
        .map_err(|error| StoreError::Unreadable(format!("a record cannot be encoded: {error}")))
}

/// Decodes all of a body.
pub(super) fn decode<T: DeserializeOwned>(key: Key, body: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(StoreError::Unreadable(format!(
            "{key} has {} bytes too many",
            rest.len()
        ))),
        Err(error) => Err(StoreError::Unreadable(format!(
            "{key} cannot be decoded: {error}"
        ))),
    }
}

/// Encodes a purge mark.
pub(super) fn encode_mark<C: RaftTypeConfig>(upto: &LogIdOf<C>) -> Result<Vec<u8>, StoreError> {
    let mut body = upto.index.to_be_bytes().to_vec();
    body.extend(encode(upto)?);
    Ok(body)
}

/// Decodes a purge mark.
pub(super) fn decode_mark<C: RaftTypeConfig>(
    key: Key,
    body: &[u8],
) -> Result<LogIdOf<C>, StoreError> {
    let (_, rest) = body
        .split_at_checked(8)
        .ok_or_else(|| StoreError::Unreadable(format!("{key} is cut short")))?;
    decode(key, rest)
}
