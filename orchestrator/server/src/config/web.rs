//! The section `[web]`: whose pages browsers may call this node from.

use url::{Origin, Url};

use super::reader::Section;

/// Whose pages browsers may call this node from, beside the node's own.
///
/// Tokens come in headers that a page has to set itself, never in cookies: the list keeps other people's pages
/// from using a node's bandwidth, and is no protection of anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebOrigins {
    /// Pages that this machine itself serves.
    Local,
    /// Everybody's.
    Any,
    /// These, as browsers write them: `https://example.com`, `https://example.com:8443`.
    Listed(Vec<String>),
}

impl WebOrigins {
    /// Whether the pages of an origin, as browsers write it, may call.
    #[must_use]
    pub fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|listed| listed == origin),
            Self::Local => is_local(origin),
        }
    }
}

fn is_local(origin: &str) -> bool {
    let Ok(url) = Url::parse(origin) else {
        return false;
    };
    let web = matches!(url.scheme(), "http" | "https");
    web && match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

pub(super) fn read(mut section: Section<'_>) -> WebOrigins {
    let mut origins = Vec::new();
    let mut any = false;
    let texts = section.texts("origins");
    let listed = !texts.is_empty();
    for (key, text) in texts {
        match text.as_str() {
            "*" => any = true,
            text if is_origin(text) => origins.push(text.to_owned()),
            text => section.mistake(
                &key,
                format!("`{text}` is no origin such as https://example.com, and not `*`"),
            ),
        }
    }
    section.finish();
    match (any, listed) {
        (true, _) => WebOrigins::Any,
        (false, true) => WebOrigins::Listed(origins),
        (false, false) => WebOrigins::Local,
    }
}

/// Whether this is how a browser writes an origin: without a path, without the scheme's own port.
fn is_origin(text: &str) -> bool {
    let origin = Url::parse(text).map(|url| url.origin());
    match origin {
        Ok(origin @ Origin::Tuple(..)) => origin.ascii_serialization() == text,
        Ok(Origin::Opaque(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ConfigMistakes, NodeConfig};
    use super::*;

    fn parse(section: &str) -> Result<WebOrigins, ConfigMistakes> {
        let text = format!("data_dir = \"d\"\n{section}");
        Ok(NodeConfig::from_toml(&text, Path::new("/x"))?.web_origins)
    }

    #[test]
    fn pages_of_this_machine_may_call_unless_others_are_named() {
        let table = [
            ("", "http://localhost:5173", true),
            ("", "https://127.0.0.1", true),
            ("", "http://[::1]:8080", true),
            ("", "http://player.localhost", true),
            ("", "https://localhost.example.com", false),
            ("", "https://example.com", false),
            ("", "null", false),
            ("", "file://localhost", false),
            ("[web]\norigins = [\"*\"]", "https://example.com", true),
            (
                "[web]\norigins = [\"https://example.com\"]",
                "https://example.com",
                true,
            ),
            (
                "[web]\norigins = [\"https://example.com\"]",
                "http://example.com",
                false,
            ),
            (
                "[web]\norigins = [\"https://example.com\"]",
                "http://localhost",
                false,
            ),
        ];
        for (section, origin, admitted) in table {
            let origins = parse(section).unwrap();
            assert_eq!(origins.admits(origin), admitted, "{section} {origin}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (section, key) in [
            ("[web]\norigins = [\"example.com\"]", "web.origins[0]"),
            (
                "[web]\norigins = [\"*\", \"https://example.com/\"]",
                "web.origins[1]",
            ),
            (
                "[web]\norigins = [\"https://example.com:443\"]",
                "web.origins[0]",
            ),
            ("[web]\norigins = \"*\"", "web.origins"),
            ("[web]\norigin = []", "web.origin"),
        ] {
            let mistakes = parse(section).unwrap_err();
            assert_eq!(mistakes.0[0].key, key, "{mistakes}");
        }
    }
}
