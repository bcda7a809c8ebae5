//! The `[cluster]` section: a node's place among others.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use espalier_cluster::{ClusterTls, Formation};
use espalier_token::ClusterKey;

use super::reader::Section;
use super::toml_file::{address, pem};

/// The port for other nodes.
pub const DEFAULT_CLUSTER_PORT: u16 = 7301;

/// A node's place among others. Without it, a node is a cluster of one.
#[derive(Debug, Clone)]
pub struct ClusterPlace {
    /// The cluster's key, the same at every node.
    pub key: ClusterKey,
    /// Where other nodes are served.
    pub listen: SocketAddr,
    /// `host:port` at which other nodes reach this one.
    pub advertise: String,
    /// The URI at which peers and callers reach this node.
    pub public_uri: String,
    /// How the node finds its place when it has none yet.
    pub formation: Formation,
    /// Mutual TLS between nodes; `None`: none, for networks that nobody else is on.
    pub tls: Option<ClusterTls>,
}

pub(super) fn read(mut section: Section<'_>, base: &Path) -> Option<ClusterPlace> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_CLUSTER_PORT));
    let listen = address(&mut section, "listen").unwrap_or(any);
    let advertise = section.required_text("advertise");
    let public_uri = section.required_text("public_uri");
    let key = key(&mut section, base);
    let formation = formation(&mut section, advertise.as_deref());
    let tls = section
        .section("tls")
        .and_then(|section| tls(section, base));
    let plain = section.text("between_nodes");
    match plain.as_deref() {
        None if tls.is_none() => section.mistake(
            "tls",
            "is missing: make certificates with `espalier cluster certs`, or write between_nodes = \"plain\" for a \
             network that nobody else is on",
        ),
        None => {}
        Some("plain") if tls.is_none() => {}
        Some(_) => section.mistake("between_nodes", "is not \"plain\", or stands beside tls"),
    }
    section.finish();
    Some(ClusterPlace {
        key: key?,
        listen,
        advertise: advertise?,
        public_uri: public_uri?,
        formation,
        tls,
    })
}

fn key(section: &mut Section<'_>, base: &Path) -> Option<ClusterKey> {
    let path = base.join(section.required_text("key_file")?);
    let problem = match fs::read_to_string(&path) {
        Ok(text) => match ClusterKey::from_text(&text) {
            Ok(key) => return Some(key),
            Err(error) => format!("{} {error}", path.display()),
        },
        Err(error) => format!("cannot read {}: {error}", path.display()),
    };
    section.mistake("key_file", problem);
    None
}

fn formation(section: &mut Section<'_>, advertise: Option<&str>) -> Formation {
    let list: Vec<String> = section
        .texts("bootstrap")
        .into_iter()
        .map(|(_, address)| address)
        .collect();
    if list.is_empty() {
        return Formation::Join;
    }
    if advertise.is_some_and(|own| !list.iter().any(|address| address == own)) {
        section.mistake(
            "bootstrap",
            "does not have this node's own address, advertise",
        );
    }
    Formation::Bootstrap(list)
}

fn tls(mut section: Section<'_>, base: &Path) -> Option<ClusterTls> {
    let authority = pem(&mut section, "authority", base, "CERTIFICATE");
    let certificate = pem(&mut section, "certificate", base, "CERTIFICATE");
    let key = pem(&mut section, "key", base, "PRIVATE KEY");
    section.finish();
    Some(ClusterTls {
        authority_pem: authority?,
        certificate_pem: certificate?,
        key_pem: key?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::NodeConfig;
    use super::*;

    fn config(section: &str) -> Result<NodeConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), ClusterKey::generate().0.to_text()).unwrap();
        fs::write(dir.path().join("none"), "cluster = 1").unwrap();
        let text = format!("data_dir = \"data\"\n[cluster]\n{section}");
        NodeConfig::from_toml(&text, dir.path()).map_err(|mistakes| mistakes.to_string())
    }

    const GOOD: &str = "key_file = \"key\"\nadvertise = \"a:7301\"\npublic_uri = \"http://a:7300\"\n\
                        between_nodes = \"plain\"\n";

    #[test]
    fn a_node_founds_with_others_or_waits_to_be_added() {
        let joining = config(GOOD).unwrap().cluster.unwrap();
        assert_eq!(joining.formation, Formation::Join);
        assert_eq!(joining.listen.to_string(), "0.0.0.0:7301");
        let founding = format!("{GOOD}bootstrap = [\"a:7301\", \"b:7301\"]\n");
        let founding = config(&founding).unwrap().cluster.unwrap();
        let list = vec!["a:7301".to_owned(), "b:7301".to_owned()];
        assert_eq!(founding.formation, Formation::Bootstrap(list));
    }

    #[test]
    fn every_mistake_has_its_key() {
        let table = [
            (GOOD.replace("key_file", "#"), "cluster.key_file"),
            (GOOD.replace("\"key\"", "\"none\""), "cluster.key_file"),
            (GOOD.replace("advertise", "#"), "cluster.advertise"),
            (GOOD.replace("public_uri", "#"), "cluster.public_uri"),
            (GOOD.replace("between_nodes", "#"), "cluster.tls"),
            (
                GOOD.replace("\"plain\"", "\"fancy\""),
                "cluster.between_nodes",
            ),
            (
                format!("{GOOD}bootstrap = [\"b:7301\"]\n"),
                "cluster.bootstrap",
            ),
            (format!("{GOOD}listen = \"x\"\n"), "cluster.listen"),
            (format!("{GOOD}more = 1\n"), "cluster.more"),
        ];
        for (text, key) in table {
            let mistakes = config(&text).unwrap_err();
            assert!(mistakes.contains(key), "{key}: {mistakes}");
        }
    }
}
