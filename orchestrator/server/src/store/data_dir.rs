//! The node's data directory: its lock, its secrets, its API tokens.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use serde::{Deserialize, Serialize};

use super::channels::ChannelStore;
use super::document::{self, Format, StoreError};
use crate::api_token::TokenHash;
use crate::secret;

const NODE: Format = Format {
    name: "espalier-node-1",
    remedy: "delete it: peers then attach anew, as if they had never been here",
};
const TOKENS: Format = Format {
    name: "espalier-api-tokens-1",
    remedy: "delete it and admin.token: a new admin token is then made",
};

/// An open data directory, locked against every other node.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    // Held, never read: closing it releases the lock.
    _lock: File,
}

/// What a node keeps secret, apart from its channels' keys.
#[derive(Clone)]
pub(crate) struct NodeSecrets {
    /// The HMAC key of resume tickets.
    pub ticket_key: [u8; 32],
    /// The key that signs viewer tokens issued by this node.
    pub issuer_key: SigningKey,
    /// The admin's API token, if its file is still there.
    pub admin_token: Option<String>,
    /// The hashes of the API tokens that this node made.
    pub api_tokens: Vec<TokenHash>,
}

#[derive(Serialize, Deserialize)]
struct NodeDocument {
    #[serde(with = "secret::base64_32")]
    ticket_key: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct TokensDocument {
    tokens: Vec<TokenHash>,
}

impl DataDir {
    /// Opens, or makes, the directory, for this user only, and locks it.
    ///
    /// # Errors
    /// When it cannot be made or opened, or another node has it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        make_dir(path)?;
        make_dir(&path.join("channels"))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(StoreError::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &lock_path)(error)),
        }
    }

    /// The channels' part of the directory.
    #[must_use]
    pub(crate) fn channels(&self) -> ChannelStore {
        ChannelStore::new(self.path.join("channels"))
    }

    /// Reads the node's secrets, and makes those that were never made.
    ///
    /// # Errors
    /// When the disk fails, or a file is damaged.
    pub(crate) fn secrets(&self) -> Result<NodeSecrets, StoreError> {
        let (admin_token, api_tokens) = self.api_tokens()?;
        Ok(NodeSecrets {
            ticket_key: self.ticket_key()?,
            issuer_key: self.issuer_key()?,
            admin_token,
            api_tokens,
        })
    }

    fn ticket_key(&self) -> Result<[u8; 32], StoreError> {
        let path = self.path.join("node");
        if let Some(node) = document::read::<NodeDocument>(&path, NODE)? {
            return Ok(node.ticket_key);
        }
        let node = NodeDocument {
            ticket_key: secret::random(),
        };
        document::write(&path, NODE, &node)?;
        Ok(node.ticket_key)
    }

    /// The issuer's key is a plain PEM file, so that `espalier token issue --key` can use it too.
    fn issuer_key(&self) -> Result<SigningKey, StoreError> {
        let path = self.path.join("issuer.pem");
        let damaged = |problem: String| StoreError::Damaged {
            path: path.clone(),
            problem,
            remedy: "delete it: viewer tokens issued with it are then void",
        };
        if let Some(bytes) = document::read_bytes(&path)? {
            let text = str::from_utf8(&bytes).map_err(|_| damaged("it is no text".to_owned()))?;
            return SigningKey::from_pkcs8_pem(text)
                .map_err(|error| damaged(format!("it is no Ed25519 key: {error}")));
        }
        let key = SigningKey::from_bytes(&secret::random());
        let pem = key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| StoreError::io("encode", &path)(std::io::Error::other(error)))?;
        document::write_bytes(&path, pem.as_bytes())?;
        Ok(key)
    }

    /// The token's own file comes first: a crash in between must not leave a hash whose token is lost.
    fn api_tokens(&self) -> Result<(Option<String>, Vec<TokenHash>), StoreError> {
        let hashes = self.path.join("api-tokens");
        let admin = self.path.join("admin.token");
        if let Some(document) = document::read::<TokensDocument>(&hashes, TOKENS)? {
            let token = document::read_bytes(&admin)?
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(|text| text.trim().to_owned());
            return Ok((token, document.tokens));
        }
        let token = format!("esp_{}", URL_SAFE_NO_PAD.encode(secret::random::<32>()));
        document::write_bytes(&admin, format!("{token}\n").as_bytes())?;
        let tokens = vec![TokenHash::of("admin", &token)];
        document::write(
            &hashes,
            TOKENS,
            &TokensDocument {
                tokens: tokens.clone(),
            },
        )?;
        Ok((Some(token), tokens))
    }
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::io("create", path))?;
    let writable = fs::metadata(path).map_err(StoreError::io("read", path))?;
    if !writable.is_dir() {
        return Err(StoreError::io("use", path)(std::io::Error::other(
            "it is no directory",
        )));
    }
    Ok(())
}
