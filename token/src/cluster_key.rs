//! The key of a cluster: what `espalier cluster init` writes once and every node reads.
//!
//! It names the cluster, seals the secrets that the nodes replicate, and lets the first administrator in. Whoever
//! has it can read every secret of the cluster. Nothing here touches a file.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const PREAMBLE: &str = "\
# The key of an Espalier cluster. Every node needs it; whoever else has it can read the cluster's secrets.
";

/// The key of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    /// The cluster's name for itself: 16 random bytes in hexadecimal.
    pub cluster: String,
    /// Seals the secrets that the nodes replicate.
    pub seal: [u8; 32],
    /// SHA-256 of the first administrator's API token.
    pub admin_token_sha256: [u8; 32],
}

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    cluster: String,
    seal: String,
    admin_token_sha256: String,
}

/// Why a text is no cluster key.
#[derive(Debug, thiserror::Error)]
pub enum ClusterKeyError {
    /// It is no TOML, or has other fields.
    #[error("is not the key of a cluster: {0}")]
    Form(String),
    /// The cluster's name is none.
    #[error("`cluster` is not 32 hexadecimal digits")]
    Cluster,
    /// A field does not hold 32 bytes.
    #[error("`{0}` is not 32 bytes in base64url")]
    Bytes(&'static str),
}

impl ClusterKey {
    /// Makes a new cluster's key, and the first administrator's API token.
    ///
    /// # Panics
    /// When the operating system has no random bytes to give, which leaves nothing safe to do.
    #[must_use]
    pub fn generate() -> (Self, String) {
        let token = URL_SAFE_NO_PAD.encode(random::<32>());
        let cluster = random::<16>();
        let key = Self {
            cluster: cluster.iter().map(|byte| format!("{byte:02x}")).collect(),
            seal: random(),
            admin_token_sha256: Sha256::digest(token.as_bytes()).into(),
        };
        (key, token)
    }

    /// Writes the key as the text of its file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let encode = |bytes: &[u8; 32]| URL_SAFE_NO_PAD.encode(bytes);
        format!(
            "{PREAMBLE}cluster = \"{}\"\nseal = \"{}\"\nadmin_token_sha256 = \"{}\"\n",
            self.cluster,
            encode(&self.seal),
            encode(&self.admin_token_sha256)
        )
    }

    /// Reads the text of a key's file.
    ///
    /// # Errors
    /// When it is no key. The error repeats nothing of the secret.
    pub fn from_text(text: &str) -> Result<Self, ClusterKeyError> {
        let text: Text = toml::from_str(text)
            .map_err(|error| ClusterKeyError::Form(error.message().to_owned()))?;
        let hexadecimal = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if text.cluster.len() != 32 || !text.cluster.bytes().all(hexadecimal) {
            return Err(ClusterKeyError::Cluster);
        }
        Ok(Self {
            seal: bytes("seal", &text.seal)?,
            admin_token_sha256: bytes("admin_token_sha256", &text.admin_token_sha256)?,
            cluster: text.cluster,
        })
    }
}

/// Shows whose it is and nothing of the secret.
impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng
        .try_fill_bytes(&mut bytes)
        .expect("invariant: the operating system gives random bytes");
    bytes
}

fn bytes(field: &'static str, text: &str) -> Result<[u8; 32], ClusterKeyError> {
    let decoded = URL_SAFE_NO_PAD.decode(text);
    decoded
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ClusterKeyError::Bytes(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_two_keys_differ() {
        let (key, token) = ClusterKey::generate();
        assert_eq!(ClusterKey::from_text(&key.to_text()).unwrap(), key);
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        assert_eq!(key.admin_token_sha256, hash);
        let (other, other_token) = ClusterKey::generate();
        assert!(other.cluster != key.cluster && other.seal != key.seal && other_token != token);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let good = ClusterKey::generate().0.to_text();
        let seal = good.lines().find(|line| line.starts_with("seal")).unwrap();
        let table = [
            (String::new(), "is not the key"),
            ("cluster = 3".to_owned(), "is not the key"),
            (format!("{good}more = 1\n"), "is not the key"),
            (
                good.replace("cluster = \"", "cluster = \"x"),
                "32 hexadecimal",
            ),
            (good.replace(seal, "seal = \"c2hvcnQ\""), "`seal`"),
        ];
        for (text, expect) in table {
            let error = ClusterKey::from_text(&text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert!(!error.contains(&seal[8..20]), "{error}");
        }
    }

    #[test]
    fn a_log_shows_no_secret() {
        let (key, _) = ClusterKey::generate();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.cluster) && !shown.contains(&URL_SAFE_NO_PAD.encode(key.seal)));
        assert!(!shown.contains("seal"));
    }
}
