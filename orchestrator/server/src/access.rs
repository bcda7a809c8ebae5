//! Who may call what.
//!
//! Invariant: a token's text is never logged and never part of an error.

use core::time::Duration;

use espalier_token::{Claims, VerifierKey, verify, verify_late};
use tonic::metadata::MetadataMap;

use crate::api_token::ApiTokens;
use crate::status::AccessError;

/// How long after its token's end a viewer may come back, if it shows that it was here before.
const RESUME_GRACE: Duration = Duration::from_secs(24 * 3600);

/// The tokens and keys that open doors here.
#[derive(Debug)]
pub(crate) struct Access {
    api_tokens: ApiTokens,
    viewer_keys: Vec<VerifierKey>,
}

impl Access {
    pub(crate) fn new(api_tokens: ApiTokens, viewer_keys: Vec<VerifierKey>) -> Self {
        Self {
            api_tokens,
            viewer_keys,
        }
    }

    /// Admits whoever shows an API token.
    pub(crate) fn api(&self, metadata: &MetadataMap) -> Result<(), AccessError> {
        let name = self
            .api_tokens
            .name_of(bearer(metadata)?)
            .ok_or(AccessError::Unknown)?;
        tracing::trace!(token = name, "an API token was shown");
        Ok(())
    }

    /// Admits whoever shows a viewer's token for this channel. With `resuming`, the token may have expired
    /// a while ago: the caller has shown a ticket.
    pub(crate) fn viewer(
        &self,
        metadata: &MetadataMap,
        channel: &str,
        resuming: bool,
    ) -> Result<Claims, AccessError> {
        let token = bearer(metadata)?;
        let claims = if resuming {
            verify_late(&self.viewer_keys, token, RESUME_GRACE)
        } else {
            verify(&self.viewer_keys, token)
        };
        let claims = claims.map_err(AccessError::Viewer)?;
        if claims.channel == channel {
            Ok(claims)
        } else {
            Err(AccessError::OtherChannel)
        }
    }

    /// Admits whoever may read a channel's statements: its viewers, and holders of API tokens.
    pub(crate) fn reader(&self, metadata: &MetadataMap, channel: &str) -> Result<(), AccessError> {
        match self.api(metadata) {
            Err(AccessError::Unknown) => self.viewer(metadata, channel, false).map(drop),
            other => other,
        }
    }
}

fn bearer(metadata: &MetadataMap) -> Result<&str, AccessError> {
    let value = metadata.get("authorization").ok_or(AccessError::Missing)?;
    let text = value.to_str().map_err(|_| AccessError::Unknown)?;
    let (scheme, token) = text.split_once(' ').ok_or(AccessError::Missing)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(AccessError::Missing)
    }
}
