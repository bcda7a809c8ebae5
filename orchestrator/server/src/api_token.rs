//! API tokens: kept as hashes, compared in constant time.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::secret;

/// An API token's name and hash. The token itself is kept by whoever uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHash {
    /// What the token is called in logs.
    pub name: String,
    /// SHA-256 of the token's text. Tokens are 256 random bits, so a plain hash cannot be guessed back.
    #[serde(with = "secret::base64_32")]
    pub sha256: [u8; 32],
}

impl TokenHash {
    /// Hashes a token.
    #[must_use]
    pub fn of(name: &str, token: &str) -> Self {
        Self {
            name: name.to_owned(),
            sha256: Sha256::digest(token.as_bytes()).into(),
        }
    }
}

/// The API tokens that a node accepts.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiTokens(Vec<TokenHash>);

impl ApiTokens {
    /// Accepts exactly these.
    #[must_use]
    pub(crate) fn new(tokens: Vec<TokenHash>) -> Self {
        Self(tokens)
    }

    /// Returns the name of the token whose text this is.
    #[must_use]
    pub(crate) fn name_of(&self, token: &str) -> Option<&str> {
        let hash = TokenHash::of("", token).sha256;
        self.0
            .iter()
            .find(|known| same(&known.sha256, &hash))
            .map(|known| known.name.as_str())
    }
}

/// Compares without telling by its duration where the first difference is.
fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter().zip(right).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// Reads a file of further API tokens: a line `NAME SHA256` each, the hash as 64 hexadecimal digits or as
/// base64url; empty lines and lines that start with `#` are skipped.
///
/// # Errors
/// One text for each line that cannot be understood, or one for the file.
pub(crate) fn read_token_file(path: &Path) -> Result<Vec<TokenHash>, Vec<String>> {
    let text = fs::read_to_string(path)
        .map_err(|error| vec![format!("cannot read {}: {error}", path.display())])?;
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()));
    let parsed = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            parse_line(line).ok_or_else(|| {
                format!(
                    "{} line {number}: expected `NAME SHA256-OF-THE-TOKEN`",
                    path.display()
                )
            })
        });
    let (good, bad): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
    if bad.is_empty() {
        Ok(good.into_iter().flatten().collect())
    } else {
        Err(bad.into_iter().filter_map(Result::err).collect())
    }
}

fn parse_line(line: &str) -> Option<TokenHash> {
    let (name, hash) = line.split_once(char::is_whitespace)?;
    let hash = hash.trim();
    let bytes = if hash.len() == 64 {
        from_hex(hash)?
    } else {
        URL_SAFE_NO_PAD.decode(hash).ok()?
    };
    Some(TokenHash {
        name: name.to_owned(),
        sha256: bytes.try_into().ok()?,
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_text_is_accepted() {
        let tokens = ApiTokens::new(vec![TokenHash::of("a", "one"), TokenHash::of("b", "two")]);
        assert_eq!(tokens.name_of("one"), Some("a"));
        assert_eq!(tokens.name_of("two"), Some("b"));
        for wrong in ["", "on", "onee", "One", "three"] {
            assert_eq!(tokens.name_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_file_is_read_and_every_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let hash: String = TokenHash::of("", "one")
            .sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(&path, format!("# ours\n\nci {hash}\n")).unwrap();
        assert_eq!(
            read_token_file(&path).unwrap(),
            [TokenHash::of("ci", "one")]
        );
        fs::write(
            &path,
            format!("ci {hash}\nnonsense\nci 12\nci {}\n", "é".repeat(32)),
        )
        .unwrap();
        let problems = read_token_file(&path).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("line 2"), "{problems:?}");
        assert!(read_token_file(&dir.path().join("none")).is_err());
    }
}
