//! A certificate authority for one cluster, and its nodes' certificates.
//!
//! Each node's certificate names the cluster and the node's id as a URI (RFC 5280, 4.2.1.6), besides the names and
//! addresses at which it is reached; it serves for both ends of mutual TLS. Keys are ECDSA P-256.

use std::path::Path;
use std::str::FromStr;

use espalier_process::{Failure, OrFail as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::files::{write_public, write_secret};

/// How long the authority is good for.
const AUTHORITY_DAYS: i64 = 3650;

/// A node's id, and how the others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeNames {
    pub(crate) id: u64,
    pub(crate) hosts: Vec<String>,
}

impl FromStr for NodeNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, hosts) = text
            .split_once('=')
            .ok_or("write it like 1=10.0.0.1 or 1=node1.example,10.0.0.1")?;
        let id = id
            .parse()
            .map_err(|_| format!("`{id}` is no node's id, which is a number"))?;
        let hosts: Vec<_> = hosts.split(',').map(str::to_owned).collect();
        if hosts.iter().any(|host| url::Host::parse(host).is_err()) {
            return Err("after the = stand names or addresses, without ports".to_owned());
        }
        Ok(Self { id, hosts })
    }
}

/// Makes the nodes' certificates, and the authority unless it is there. Returns the files that were written.
pub(crate) fn make(
    directory: &Path,
    cluster: &str,
    nodes: &[NodeNames],
    days: u32,
) -> Result<Vec<String>, Failure> {
    let mut written = Vec::new();
    let authority = if directory.join("ca.pem").exists() {
        read_authority(directory)?
    } else {
        make_authority(directory, cluster, &mut written)?
    };
    for node in nodes {
        let key = new_key()?;
        let certificate = node_params(cluster, node, days)?
            .signed_by(&key, &authority)
            .or_fail("a certificate cannot be signed")?;
        let file = |ending: &str| format!("node-{}.{ending}", node.id);
        written.push(write_secret(directory, &file("key"), &key.serialize_pem())?);
        written.push(write_public(directory, &file("pem"), &certificate.pem())?);
    }
    Ok(written)
}

fn read_authority(directory: &Path) -> Result<Issuer<'static, KeyPair>, Failure> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).or_usage(format!("cannot read {}", path.display()))
    };
    let key = KeyPair::from_pem(&read("ca.key")?).or_usage("ca.key is no private key")?;
    Issuer::from_ca_cert_pem(&read("ca.pem")?, key).or_usage("ca.pem is no certificate authority")
}

fn make_authority(
    directory: &Path,
    cluster: &str,
    written: &mut Vec<String>,
) -> Result<Issuer<'static, KeyPair>, Failure> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let name = format!("Espalier cluster {cluster}");
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = validity(AUTHORITY_DAYS);
    let key = new_key()?;
    let certificate = params
        .self_signed(&key)
        .or_fail("the authority's certificate cannot be signed")?;
    written.push(write_secret(directory, "ca.key", &key.serialize_pem())?);
    written.push(write_public(directory, "ca.pem", &certificate.pem())?);
    Ok(Issuer::new(params, key))
}

fn node_params(cluster: &str, node: &NodeNames, days: u32) -> Result<CertificateParams, Failure> {
    let bad = format!("node {} has a name that no certificate takes", node.id);
    let mut params = CertificateParams::new(node.hosts.clone()).or_usage(&bad)?;
    let own = format!("espalier://{cluster}/nodes/{}", node.id);
    let own = own.try_into().or_usage(&bad)?;
    params.subject_alt_names.push(SanType::URI(own));
    let name = format!("Espalier node {}", node.id);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    (params.not_before, params.not_after) = validity(days.into());
    Ok(params)
}

fn new_key() -> Result<KeyPair, Failure> {
    KeyPair::generate().or_fail("no key can be made")
}

/// From yesterday on, so that clocks that are a little behind accept it.
fn validity(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::days(1), now + Duration::days(days))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(u64, &[&str])>) {
        let names = text.parse::<NodeNames>().ok();
        let names = names.as_ref().map(|names| {
            let hosts: Vec<_> = names.hosts.iter().map(String::as_str).collect();
            (names.id, hosts)
        });
        assert_eq!(
            names,
            expect.map(|(id, hosts)| (id, hosts.to_vec())),
            "{text}"
        );
    }

    #[test]
    fn a_nodes_names_are_an_id_and_hosts() {
        check("1=10.0.0.1", Some((1, &["10.0.0.1"])));
        check("12=node.example,::1", None);
        check(
            "2=node.example,10.0.0.2",
            Some((2, &["node.example", "10.0.0.2"])),
        );
        for bad in ["", "1", "=a", "x=a", "1=", "1=a,", "1=a b", "1=a:7301"] {
            check(bad, None);
        }
    }

    #[test]
    fn the_authority_is_made_once_and_nothing_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let node = |id| NodeNames {
            id,
            hosts: vec!["localhost".to_owned()],
        };
        let first = make(directory.path(), "c0ffee", &[node(1), node(2)], 30).unwrap();
        assert_eq!(first.len(), 6);
        let authority = std::fs::read(directory.path().join("ca.pem")).unwrap();
        let later = make(directory.path(), "c0ffee", &[node(3)], 30).unwrap();
        assert_eq!(later.len(), 2);
        assert_eq!(
            authority,
            std::fs::read(directory.path().join("ca.pem")).unwrap()
        );
        assert!(make(directory.path(), "c0ffee", &[node(1)], 30).is_err());
    }
}
