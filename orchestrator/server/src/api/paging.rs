//! Page sizes and page tokens (AIP-158).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use espalier_orchestrator_core::ChannelId;

use crate::status::{ChannelError, Violation};

const DEFAULT_SIZE: usize = 100;
const MAX_SIZE: usize = 1_000;
const PREFIX: &str = "after:";

/// Reads a page size: none is the default, too many are as many as may be.
pub(super) fn size(requested: i32) -> Result<usize, ChannelError> {
    match usize::try_from(requested) {
        Ok(0) => Ok(DEFAULT_SIZE),
        Ok(size) => Ok(size.min(MAX_SIZE)),
        Err(_) => Err(violation("page_size", "is negative")),
    }
}

/// Reads a page token: the id behind which the page begins.
pub(super) fn after(token: &str) -> Result<Option<ChannelId>, ChannelError> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let id = text
        .as_deref()
        .and_then(|text| text.strip_prefix(PREFIX)?.parse().ok());
    id.map(Some)
        .ok_or_else(|| violation("page_token", "comes from no list call of this node"))
}

/// Makes the token of the page that begins behind `id`.
pub(super) fn token(id: &ChannelId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{PREFIX}{id}"))
}

fn violation(field: &str, problem: &str) -> ChannelError {
    ChannelError::Invalid(vec![Violation {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_default_and_a_limit() {
        for (requested, expect) in [(0, 100), (1, 1), (1_000, 1_000), (i32::MAX, 1_000)] {
            assert_eq!(size(requested).unwrap(), expect);
        }
        assert!(size(-1).is_err());
    }

    #[test]
    fn tokens_come_back_and_others_are_refused() {
        let id: ChannelId = "news".parse().unwrap();
        assert_eq!(after(&token(&id)).unwrap(), Some(id));
        assert_eq!(after("").unwrap(), None);
        for wrong in [
            "news",
            "!",
            &URL_SAFE_NO_PAD.encode("news"),
            &URL_SAFE_NO_PAD.encode("after:X"),
        ] {
            assert!(after(wrong).is_err(), "{wrong}");
        }
    }
}
