//! The channels' files: one directory a channel, which appears and disappears whole.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::document::{self, Format, StoreError};
use crate::secret;

const CHANNEL: Format = Format {
    name: "espalier-channel-1",
    remedy: "delete the channel's directory and create the channel again (its viewers then need new tokens only if they pin its key)",
};
const TERM: Format = Format {
    name: "espalier-term-1",
    remedy: "delete the channel's directory and create the channel again",
};
const SIGNER: Format = Format {
    name: "espalier-signer-state-1",
    remedy: "delete it: the signer then starts its epochs anew, and viewers must reload",
};

/// What a channel is, as far as somebody decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelRecord {
    /// The channel's id.
    pub id: String,
    /// The HLS playlist.
    pub origin_uri: String,
    /// Where its signer runs; `None`: in this node.
    pub signer_uri: Option<String>,
    /// The policy, as it was given.
    pub policy: PolicyRecord,
    /// When it was created, milliseconds since the Unix epoch.
    pub create_time_ms: i64,
    /// Changes with each update.
    pub etag: String,
    /// Names this channel's state: another incarnation does not descend from it.
    pub incarnation: u64,
    /// Who signs.
    pub signing: SigningRecord,
}

/// A channel's policy as it was given: absent fields take their defaults when they are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyRecord {
    /// How many peers the CDN feeds if the audience's upload allows.
    pub target_roots: Option<u32>,
    /// How many peers the planner may have the CDN feed.
    pub max_planned_roots: Option<u32>,
    /// Depth 1 is a root.
    pub max_depth: Option<u32>,
    /// Wire bytes per payload byte, per mille.
    pub overhead_permille: Option<u32>,
    /// Children at the most.
    pub max_children: Option<u32>,
    /// What one peer may take from the CDN while its sources fail, bit/s.
    pub cdn_lease_bps: Option<u64>,
}

/// Who signs a channel's statements.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SigningRecord {
    /// This node, with this Ed25519 seed.
    Own(#[serde(with = "secret::base64_32")] [u8; 32]),
    /// A signer elsewhere, whose public keys were pinned when the channel was created.
    Remote(Vec<PublicKeyRecord>),
}

impl core::fmt::Debug for SigningRecord {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Own(_) => formatter.write_str("Own"),
            Self::Remote(keys) => write!(formatter, "Remote({} keys)", keys.len()),
        }
    }
}

/// A pinned Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PublicKeyRecord(#[serde(with = "secret::base64_32")] pub [u8; 32]);

/// Reads and writes channels in one directory.
#[derive(Debug, Clone)]
pub(crate) struct ChannelStore {
    path: PathBuf,
}

impl ChannelStore {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads every channel, and clears away what an interrupted creation or deletion left.
    ///
    /// # Errors
    /// When the disk fails, or a channel's file is damaged or missing.
    pub(crate) fn load(&self) -> Result<Vec<ChannelRecord>, StoreError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(StoreError::io("read", &self.path))? {
            let path = entry.map_err(StoreError::io("read", &self.path))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with('.') {
                fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
                continue;
            }
            records.push(read_channel(&path, &name)?);
        }
        records.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(records)
    }

    /// Adds a channel. It is there whole, or not at all.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn create(&self, record: &ChannelRecord) -> Result<(), StoreError> {
        let building = self.path.join(format!(".{}.new", record.id));
        if building.exists() {
            fs::remove_dir_all(&building).map_err(StoreError::io("remove", &building))?;
        }
        fs::create_dir(&building).map_err(StoreError::io("create", &building))?;
        document::write(&building.join("channel"), CHANNEL, record)?;
        let path = self.dir(&record.id);
        fs::rename(&building, &path).map_err(StoreError::io("create", &path))?;
        document::sync_parent(&path)
    }

    /// Replaces a channel's record.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn update(&self, record: &ChannelRecord) -> Result<(), StoreError> {
        document::write(&self.dir(&record.id).join("channel"), CHANNEL, record)
    }

    /// Removes a channel and its keys.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn delete(&self, id: &str) -> Result<(), StoreError> {
        let path = self.dir(id);
        let doomed = self.path.join(format!(".{id}.deleted"));
        fs::rename(&path, &doomed).map_err(StoreError::io("remove", &path))?;
        document::sync_parent(&path)?;
        fs::remove_dir_all(&doomed).map_err(StoreError::io("remove", &doomed))
    }

    /// Starts a new term: one that is higher than every term this channel had, in every run.
    ///
    /// Without a replicated log, the term is what tells one owner's decisions from the next one's: a
    /// restart is a new owner.
    ///
    /// # Errors
    /// When the disk fails, or the file is damaged.
    pub(crate) fn next_term(&self, id: &str) -> Result<u64, StoreError> {
        let path = self.dir(id).join("term");
        let term = document::read::<u64>(&path, TERM)?
            .unwrap_or(0)
            .saturating_add(1);
        document::write(&path, TERM, &term)?;
        Ok(term)
    }

    /// Reads what the channel's signer needs to go on where it stopped.
    ///
    /// # Errors
    /// When the disk fails, or the file is damaged.
    pub(crate) fn signer_state<T: DeserializeOwned>(
        &self,
        id: &str,
    ) -> Result<Option<T>, StoreError> {
        document::read(&self.dir(id).join("signer"), SIGNER)
    }

    /// Keeps what the channel's signer needs to go on where it stopped. A channel that was deleted
    /// meanwhile stays deleted.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn save_signer_state<T: Serialize>(
        &self,
        id: &str,
        state: &T,
    ) -> Result<(), StoreError> {
        let dir = self.dir(id);
        if !dir.exists() {
            return Ok(());
        }
        document::write(&dir.join("signer"), SIGNER, state)
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }
}

fn read_channel(path: &Path, name: &str) -> Result<ChannelRecord, StoreError> {
    let file = path.join("channel");
    let damaged = |problem: String| StoreError::Damaged {
        path: file.clone(),
        problem,
        remedy: CHANNEL.remedy,
    };
    let record: ChannelRecord = document::read(&file, CHANNEL)?
        .ok_or_else(|| damaged("it is missing from its channel's directory".to_owned()))?;
    if record.id != name {
        return Err(damaged(format!("it is the file of channel {}", record.id)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DataDir;

    fn record(id: &str) -> ChannelRecord {
        ChannelRecord {
            id: id.to_owned(),
            origin_uri: "http://127.0.0.1/live.m3u8".to_owned(),
            signer_uri: None,
            policy: PolicyRecord {
                max_depth: Some(5),
                ..PolicyRecord::default()
            },
            create_time_ms: 1,
            etag: "e".to_owned(),
            incarnation: u64::MAX,
            signing: SigningRecord::Own([7; 32]),
        }
    }

    #[test]
    fn a_reopened_directory_has_the_same_channels_keys_and_tokens() {
        let temp = tempfile::tempdir().unwrap();
        let (first, channels) = {
            let dir = DataDir::open(temp.path()).unwrap();
            let store = dir.channels();
            store.create(&record("b")).unwrap();
            let mut remote = record("a");
            remote.signing = SigningRecord::Remote(vec![PublicKeyRecord([9; 32])]);
            store.create(&remote).unwrap();
            store.save_signer_state("a", &vec![1]).unwrap();
            assert_eq!(store.next_term("a").unwrap(), 1);
            assert!(matches!(
                DataDir::open(temp.path()),
                Err(StoreError::InUse { .. })
            ));
            (dir.secrets().unwrap(), store.load().unwrap())
        };
        let dir = DataDir::open(temp.path()).unwrap();
        let again = dir.secrets().unwrap();
        assert_eq!(again.ticket_key, first.ticket_key);
        assert_eq!(again.issuer_key.to_bytes(), first.issuer_key.to_bytes());
        assert_eq!(again.admin_token, first.admin_token);
        assert_eq!(again.api_tokens, first.api_tokens);
        assert_eq!(dir.channels().load().unwrap(), channels);
        assert_eq!(
            channels.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(dir.channels().next_term("a").unwrap(), 2);
        assert_eq!(dir.channels().next_term("b").unwrap(), 1);
        assert_eq!(
            dir.channels().signer_state::<Vec<u8>>("a").unwrap(),
            Some(vec![1])
        );
        assert_eq!(dir.channels().signer_state::<Vec<u8>>("b").unwrap(), None);
    }

    #[test]
    fn interrupted_creations_and_deletions_leave_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        let store = dir.channels();
        store.create(&record("kept")).unwrap();
        for left in [".half.new", ".old.deleted"] {
            fs::create_dir(temp.path().join("channels").join(left)).unwrap();
        }
        assert_eq!(store.load().unwrap(), [record("kept")]);
        assert_eq!(
            fs::read_dir(temp.path().join("channels")).unwrap().count(),
            1
        );
        store.delete("kept").unwrap();
        assert_eq!(store.load().unwrap(), []);
        store.save_signer_state("kept", &1).unwrap();
        assert_eq!(store.load().unwrap(), [], "a deleted channel stays deleted");
    }

    #[test]
    fn damage_is_reported_with_what_to_do_and_nothing_is_emptied() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.secrets().unwrap();
        let store = dir.channels();
        store.create(&record("news")).unwrap();
        store.next_term("news").unwrap();
        for file in [
            "channels/news/channel",
            "channels/news/term",
            "node",
            "issuer.pem",
            "api-tokens",
        ] {
            let path = temp.path().join(file);
            let good = fs::read(&path).unwrap();
            let mut bad = good.clone();
            let middle = bad.len() * 2 / 3;
            bad.truncate(middle);
            fs::write(&path, &bad).unwrap();
            let outcome = store
                .load()
                .map(drop)
                .and(store.next_term("news").map(drop))
                .and(dir.secrets().map(drop));
            let error = outcome.expect_err(file).to_string();
            assert!(
                error.contains("damaged") && error.contains("delete"),
                "{file}: {error}"
            );
            assert_eq!(fs::read(&path).unwrap(), bad, "{file} was touched");
            fs::write(&path, &good).unwrap();
        }
        store.load().unwrap();
        fs::remove_file(temp.path().join("channels/news/channel")).unwrap();
        assert!(store.load().unwrap_err().to_string().contains("missing"));
    }
}
