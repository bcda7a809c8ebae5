//! Resource names: `channels/{channel}`.

use espalier_orchestrator_core::ChannelId;

use crate::status::{ChannelError, Violation};

/// Reads a channel's resource name.
///
/// # Errors
/// A violation of `field` when it is none.
pub(super) fn channel_id(field: &str, name: &str) -> Result<ChannelId, ChannelError> {
    let id = name
        .strip_prefix("channels/")
        .and_then(|id| id.parse().ok());
    id.ok_or_else(|| {
        let problem = format!(
            "is no channel's name such as channels/news: `{}`",
            short(name)
        );
        ChannelError::Invalid(vec![Violation {
            field: field.to_owned(),
            problem,
        }])
    })
}

/// A text cut to a length that fits into an error.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_channels_and_an_id() {
        assert_eq!(
            channel_id("name", "channels/news").unwrap().as_str(),
            "news"
        );
        let long = format!("channels/{}", "a".repeat(64));
        for wrong in [
            "",
            "news",
            "channels/",
            "channels/News",
            "channel/news",
            "channels/a/b",
            &long,
        ] {
            assert!(
                matches!(channel_id("name", wrong), Err(ChannelError::Invalid(_))),
                "{wrong}"
            );
        }
    }
}
