//! What a viewer token says.

use core::time::Duration;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The audience (`aud`) that every viewer token names.
pub const AUDIENCE: &str = "espalier";

/// What a viewer token says: which channel, from when until when, and which keys to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The channel's id, as in `channels/{channel}`.
    pub channel: String,
    /// When the token expires (`exp`), seconds since the Unix epoch.
    #[serde(rename = "exp")]
    pub expires_at: u64,
    /// When the token was issued (`iat`), seconds since the Unix epoch.
    #[serde(rename = "iat", default)]
    pub issued_at: u64,
    /// Thumbprints (SHA-256 of the 32-byte Ed25519 public key, 64 lower-case hex digits) of the keys whose
    /// statements the viewer accepts. Empty: whatever keys the channel has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Claims {
    /// Returns claims for `channel` that hold from `now` for `ttl`, and pin no keys.
    #[must_use]
    pub fn new(channel: impl Into<String>, now: SystemTime, ttl: Duration) -> Self {
        let issued_at = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        Self {
            channel: channel.into(),
            expires_at: issued_at.saturating_add(ttl.as_secs()),
            issued_at,
            keys: Vec::new(),
        }
    }
}

/// Returns whether `text` has the form of a key's thumbprint: 64 lower-case hexadecimal digits.
#[must_use]
pub fn thumbprint_is_valid(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
