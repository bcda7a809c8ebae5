//! Random bytes, and how secrets are written in JSON.

use rand::TryRngCore as _;

/// Returns `N` bytes from the operating system's generator.
///
/// # Panics
/// When the operating system has no random bytes to give, which leaves nothing safe to do.
#[must_use]
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .expect("invariant: the operating system gives random bytes");
    bytes
}

/// Returns a random number that is never zero, so that zero can mean "none".
#[must_use]
pub(crate) fn random_id() -> u64 {
    u64::from_be_bytes(random()).max(1)
}

/// 32 bytes as base64url text, for serde.
pub(crate) mod base64_32 {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = URL_SAFE_NO_PAD.decode(&text).map_err(D::Error::custom)?;
        bytes
            .try_into()
            .map_err(|_| D::Error::custom("not 32 bytes"))
    }
}
