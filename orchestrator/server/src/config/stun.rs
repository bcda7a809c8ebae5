//! The section `[stun]`: the node's own STUN ports.

use std::net::{Ipv4Addr, SocketAddr};

use super::reader::Section;
use super::toml_file::address;

/// The port of STUN.
const DEFAULT_STUN_PORT: u16 = 3478;

/// The node's own STUN ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunConfig {
    /// The first port and the address of both; port 0: any free one.
    pub listen: SocketAddr,
    /// The second port; 0: any free one.
    pub second_port: u16,
    /// The host that peers are told; empty: the one that they dialled.
    pub host: String,
}

pub(super) fn read(mut section: Section<'_>) -> StunConfig {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_STUN_PORT));
    let listen = address(&mut section, "listen").unwrap_or(any);
    let next = listen.port().checked_add(1).unwrap_or(DEFAULT_STUN_PORT);
    let next = if listen.port() == 0 { 0 } else { next };
    let second_port = section.number("second_port", next, 0, u16::MAX);
    if second_port == listen.port() && second_port != 0 {
        section.mistake("second_port", "is the same as listen's");
    }
    let host = section.text("host").unwrap_or_default();
    if host.contains(['/', ' ', ':']) {
        section.mistake(
            "host",
            format!("`{host}` is no host's name or IPv4 address"),
        );
    }
    section.finish();
    StunConfig {
        listen,
        second_port,
        host,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ConfigMistakes, NodeConfig};
    use super::*;

    fn parse(section: &str) -> Result<Option<StunConfig>, ConfigMistakes> {
        let text = format!("data_dir = \"d\"\n{section}");
        Ok(NodeConfig::from_toml(&text, Path::new("/x"))?.stun)
    }

    #[test]
    fn the_second_port_is_the_next_one() {
        assert_eq!(parse("").unwrap(), None);
        for (section, listen, second_port) in [
            ("[stun]", "0.0.0.0:3478", 3479),
            ("[stun]\nlisten = \"[::]:5000\"", "[::]:5000", 5001),
            ("[stun]\nlisten = \"1.2.3.4:0\"", "1.2.3.4:0", 0),
            ("[stun]\nlisten = \"1.2.3.4:65535\"", "1.2.3.4:65535", 3478),
            ("[stun]\nsecond_port = 9", "0.0.0.0:3478", 9),
        ] {
            let config = parse(section).unwrap().unwrap();
            assert_eq!(config.listen, listen.parse().unwrap(), "{section}");
            assert_eq!(config.second_port, second_port, "{section}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (section, key) in [
            ("[stun]\nlisten = \"3478\"", "stun.listen"),
            ("[stun]\nsecond_port = 3478", "stun.second_port"),
            ("[stun]\nhost = \"stun:x\"", "stun.host"),
            ("[stun]\nport = 1", "stun.port"),
        ] {
            let mistakes = parse(section).unwrap_err();
            assert_eq!(mistakes.0[0].key, key, "{mistakes}");
        }
    }
}
