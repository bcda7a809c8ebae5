//! The configuration file.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use espalier_token::{KeyError, VerifierKey};

use super::reader::{ConfigMistakes, Mistake, Section};
use super::{
    DEFAULT_ADMIN_PORT, DEFAULT_PORT, Limits, LocalityConfig, NodeConfig, TlsConfig, WebOrigins,
    cluster, locality, stun, web,
};
use crate::api_token::{TokenHash, read_token_file};

impl NodeConfig {
    /// Reads and checks a configuration file and the files that it names. Relative paths are relative to
    /// the file's own directory.
    ///
    /// # Errors
    /// Every mistake that there is, each with its key.
    pub fn from_toml_file(path: &Path) -> Result<Self, ConfigMistakes> {
        let text = fs::read_to_string(path).map_err(|error| {
            let problem = format!("cannot be read: {error}");
            ConfigMistakes(vec![Mistake {
                key: path.display().to_string(),
                problem,
            }])
        })?;
        Self::from_toml(&text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads and checks a configuration. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// Every mistake that there is, each with its key.
    pub fn from_toml(text: &str, base: &Path) -> Result<Self, ConfigMistakes> {
        let table = text.parse::<toml::Table>().map_err(|error| {
            let problem = format!("is not TOML: {}", error.to_string().trim_end());
            ConfigMistakes(vec![Mistake {
                key: "the file".to_owned(),
                problem,
            }])
        })?;
        let mistakes = RefCell::new(Vec::new());
        let mut root = Section::root(table, &mistakes);
        let config = read(&mut root, base);
        root.finish();
        let mistakes = mistakes.into_inner();
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigMistakes(mistakes))
        }
    }
}

fn read(root: &mut Section<'_>, base: &Path) -> NodeConfig {
    let data_dir = root.required_text("data_dir").map(|path| base.join(path));
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listen = address(root, "listen").unwrap_or_else(|| any(DEFAULT_PORT));
    let admin_default = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_ADMIN_PORT));
    let admin_listen = address(root, "admin_listen").unwrap_or(admin_default);
    if listen == admin_listen && listen.port() != 0 {
        root.mistake("admin_listen", "is the same address as listen");
    }
    NodeConfig {
        data_dir,
        listen,
        admin_listen: Some(admin_listen),
        tls: root.section("tls").and_then(|section| tls(section, base)),
        issuers: root
            .sections("issuers")
            .into_iter()
            .filter_map(|it| issuer(it, base))
            .collect(),
        api_tokens: api_tokens(root, base),
        stun_uris: stun_uris(root),
        stun: root.section("stun").map(stun::read),
        web_origins: root.section("web").map_or(WebOrigins::Local, web::read),
        locality: root
            .section("locality")
            .map_or_else(LocalityConfig::default, |section| {
                locality::read(section, base)
            }),
        cluster: root
            .section("cluster")
            .and_then(|section| cluster::read(section, base)),
        limits: root
            .section("limits")
            .map_or_else(Limits::default, |mut section| {
                let limits = Limits::read(&mut section);
                section.finish();
                limits
            }),
    }
}

pub(super) fn address(root: &mut Section<'_>, key: &str) -> Option<SocketAddr> {
    let text = root.text(key)?;
    let parsed = text.parse();
    if parsed.is_err() {
        root.mistake(
            key,
            format!("`{text}` is no address such as 0.0.0.0:7300 or [::]:7300"),
        );
    }
    parsed.ok()
}

fn tls(mut section: Section<'_>, base: &Path) -> Option<TlsConfig> {
    let certificate = pem(&mut section, "certificate", base, "CERTIFICATE");
    let key = pem(&mut section, "key", base, "PRIVATE KEY");
    section.finish();
    Some(TlsConfig {
        certificate_pem: certificate?,
        key_pem: key?,
    })
}

/// Reads a PEM file. What is inside is checked when the listener starts; here only that it is the right file.
pub(super) fn pem(
    section: &mut Section<'_>,
    key: &str,
    base: &Path,
    kind: &str,
) -> Option<Vec<u8>> {
    let path = base.join(section.required_text(key)?);
    match fs::read(&path) {
        Ok(bytes) if contains(&bytes, format!("{kind}-----").as_bytes()) => Some(bytes),
        Ok(_) => {
            section.mistake(key, format!("{} holds no PEM {kind}", path.display()));
            None
        }
        Err(error) => {
            section.mistake(key, format!("cannot read {}: {error}", path.display()));
            None
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn issuer(mut section: Section<'_>, base: &Path) -> Option<VerifierKey> {
    let public = section.text("public_key").map(|path| base.join(path));
    let secret = section.text("secret_file").map(|path| base.join(path));
    let key = match (public, secret) {
        (Some(path), None) => checked(
            &section,
            "public_key",
            &path,
            VerifierKey::from_pem_file(&path),
        ),
        (None, Some(path)) => checked(
            &section,
            "secret_file",
            &path,
            VerifierKey::from_secret_file(&path),
        ),
        (None, None) => {
            section.mistake("public_key", "is missing (or secret_file, for HS256)");
            None
        }
        (Some(_), Some(_)) => {
            section.mistake(
                "secret_file",
                "cannot stand beside public_key: an issuer has one key",
            );
            None
        }
    };
    section.finish();
    key
}

fn checked(
    section: &Section<'_>,
    key: &str,
    path: &Path,
    outcome: Result<VerifierKey, KeyError>,
) -> Option<VerifierKey> {
    let problem = match outcome {
        Ok(verifier) => return Some(verifier),
        Err(KeyError::Read { path, source }) => format!("cannot read {}: {source}", path.display()),
        Err(error) => format!("{}: {error}", path.display()),
    };
    section.mistake(key, problem);
    None
}

fn api_tokens(root: &mut Section<'_>, base: &Path) -> Vec<TokenHash> {
    let Some(path) = root
        .text("api_tokens_file")
        .map(|path| -> PathBuf { base.join(path) })
    else {
        return Vec::new();
    };
    read_token_file(&path).unwrap_or_else(|problems| {
        for problem in problems {
            root.mistake("api_tokens_file", problem);
        }
        Vec::new()
    })
}

fn stun_uris(root: &mut Section<'_>) -> Vec<String> {
    let uris = root.texts("stun_uris");
    for (key, uri) in &uris {
        let host = uri
            .strip_prefix("stun:")
            .or_else(|| uri.strip_prefix("stuns:"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' '])) {
            root.mistake(
                key,
                format!("`{uri}` is no STUN server such as stun:stun.example.org:3478"),
            );
        }
    }
    uris.into_iter().map(|(_, uri)| uri).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        match NodeConfig::from_toml(text, Path::new("/nonexistent")) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.to_string().lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn the_shortest_file_gives_the_defaults() {
        let config =
            NodeConfig::from_toml("data_dir = \"data\"", Path::new("/etc/espalier")).unwrap();
        assert_eq!(config.data_dir, Some(PathBuf::from("/etc/espalier/data")));
        assert_eq!(config.listen.to_string(), "0.0.0.0:7300");
        assert_eq!(config.admin_listen.unwrap().to_string(), "127.0.0.1:7302");
        assert_eq!(config.limits, Limits::default());
        assert!(config.tls.is_none() && config.issuers.is_empty() && config.stun_uris.is_empty());
    }

    #[test]
    fn the_sample_in_deploy_is_valid_and_shows_every_limit_with_its_default() {
        let sample = include_str!("../../../../deploy/node.toml");
        let base = Path::new("/etc/espalier");
        let config = NodeConfig::from_toml(sample, base).unwrap();
        let (_, limits) = sample.split_once("# [limits]").unwrap();
        let limits = limits.replace("\n# ", "\n");
        let shown = format!("data_dir = \"d\"\n[limits]{limits}");
        assert_eq!(
            NodeConfig::from_toml(&shown, base).unwrap().limits,
            config.limits
        );
        assert_eq!(
            limits.matches(" = ").count(),
            13,
            "a limit is missing from the sample"
        );
    }

    #[test]
    fn the_cluster_in_deploy_is_valid_and_its_nodes_find_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let key = espalier_token::ClusterKey::generate().0.to_text();
        fs::write(dir.path().join("cluster.key"), key).unwrap();
        for name in ["public.pem", "node.pem", "ca.pem"] {
            fs::write(dir.path().join(name), "-----BEGIN CERTIFICATE-----").unwrap();
        }
        for name in ["public.key", "node.key"] {
            fs::write(dir.path().join(name), "-----BEGIN PRIVATE KEY-----").unwrap();
        }
        let samples = [
            include_str!("../../../../deploy/cluster/node-1.toml"),
            include_str!("../../../../deploy/cluster/node-2.toml"),
            include_str!("../../../../deploy/cluster/node-3.toml"),
        ];
        let drop_in = include_str!("../../../../deploy/cluster/credentials.conf");
        let mut founders = Vec::new();
        for sample in samples {
            let credentials = "/run/credentials/espalier-orchestrator.service/";
            for file in sample.split(credentials).skip(1) {
                let file = file.split('"').next().unwrap();
                assert!(
                    drop_in.contains(&format!("LoadCredential={file}:")),
                    "{file}"
                );
            }
            let here = sample.replace(credentials, "");
            let config = NodeConfig::from_toml(&here, dir.path()).unwrap();
            let place = config.cluster.unwrap();
            let espalier_cluster::Formation::Bootstrap(list) = place.formation else {
                panic!("{sample}");
            };
            founders.push((list.iter().position(|it| *it == place.advertise), list));
        }
        assert!(founders.iter().all(|(_, list)| *list == founders[0].1));
        let places: Vec<_> = founders.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn every_single_mistake_is_reported_with_its_key() {
        let table = [
            ("", "data_dir: is missing"),
            (
                "data_dir = 1",
                "data_dir: expected a text in quotes, found a value of type integer",
            ),
            (
                "data_dir = \"d\"\nlisten = \"7300\"",
                "listen: `7300` is no address",
            ),
            ("data_dir = \"d\"\nlisten = true", "listen: expected a text"),
            (
                "data_dir = \"d\"\nadmin_listen = \"x\"",
                "admin_listen: `x` is no address",
            ),
            (
                "data_dir = \"d\"\nlisten = \"127.0.0.1:7302\"",
                "admin_listen: is the same address as listen",
            ),
            ("data_dir = \"d\"\nlistne = \"x\"", "listne: is no key"),
            ("data_dir = \"d\"\ntls = 1", "tls: expected a section"),
            (
                "data_dir = \"d\"\n[tls]\nkey = \"k\"",
                "tls.certificate: is missing",
            ),
            (
                "data_dir = \"d\"\n[tls]\ncertificate = \"c\"",
                "tls.key: is missing",
            ),
            (
                "data_dir = \"d\"\n[[issuers]]",
                "issuers[0].public_key: is missing",
            ),
            (
                "data_dir = \"d\"\n[[issuers]]\npublic_key = \"a\"\nsecret_file = \"b\"",
                "issuers[0].secret_file: cannot stand beside public_key",
            ),
            (
                "data_dir = \"d\"\n[[issuers]]\npublic_key = \"a\"",
                "issuers[0].public_key: cannot read",
            ),
            ("data_dir = \"d\"\nissuers = 1", "issuers: expected a list"),
            (
                "data_dir = \"d\"\nissuers = [1]",
                "issuers[0]: expected a section",
            ),
            (
                "data_dir = \"d\"\napi_tokens_file = \"t\"",
                "api_tokens_file: cannot read",
            ),
            (
                "data_dir = \"d\"\nstun_uris = [\"http://x\"]",
                "stun_uris[0]: `http://x` is no STUN",
            ),
            (
                "data_dir = \"d\"\nstun_uris = [3]",
                "stun_uris[0]: expected a text",
            ),
            (
                "data_dir = \"d\"\n[limits]\nmax_channels = 0",
                "limits.max_channels: 0 is not between",
            ),
            (
                "data_dir = \"d\"\n[limits]\nmax_channels = -1",
                "limits.max_channels: -1 is not between",
            ),
            (
                "data_dir = \"d\"\n[limits]\nmax_channels = \"1\"",
                "limits.max_channels: expected a whole",
            ),
            (
                "data_dir = \"d\"\n[limits]\nmax = 0",
                "limits.max: is no key",
            ),
            ("data_dir = ", "the file: is not TOML"),
        ];
        for (text, expect) in table {
            let found = mistakes(text);
            assert!(
                found.iter().any(|line| line.starts_with(expect)),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn several_mistakes_are_reported_at_once() {
        let found =
            mistakes("listen = 1\nfoo = 2\n[limits]\nmax_channels = 0\nsession_queue = \"x\"");
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn files_that_are_named_are_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "pub.pem",
            include_str!("../../../../token/tests/keys/p256.pub.pem"),
        );
        write(
            "private.pem",
            include_str!("../../../../token/tests/keys/p256.pem"),
        );
        write("secret", &"s".repeat(32));
        write("short", "s");
        write("cert.pem", "-----BEGIN CERTIFICATE-----\n");
        let good = "data_dir = \"d\"\n[[issuers]]\npublic_key = \"pub.pem\"\n[[issuers]]\n\
                    secret_file = \"secret\"\n[tls]\ncertificate = \"cert.pem\"\nkey = \"private.pem\"";
        let config = NodeConfig::from_toml(good, dir.path()).unwrap();
        assert_eq!(config.issuers.len(), 2);
        assert!(config.tls.is_some());
        let bad = "data_dir = \"d\"\n[[issuers]]\npublic_key = \"private.pem\"\n[[issuers]]\n\
                   secret_file = \"short\"\n[tls]\ncertificate = \"pub.pem\"\nkey = \"pub.pem\"";
        let found = NodeConfig::from_toml(bad, dir.path()).unwrap_err();
        let keys: Vec<&str> = found.0.iter().map(|mistake| mistake.key.as_str()).collect();
        let expect = [
            "tls.certificate",
            "tls.key",
            "issuers[0].public_key",
            "issuers[1].secret_file",
        ];
        assert_eq!(keys, expect, "{found}");
    }
}
