//! A channel as its shard keeps it, and as this node uses it: opened, with its key.

use espalier_orchestrator_core::ChannelId;
use espalier_orchestrator_core::PolicyDraft;
use espalier_orchestrator_core::state::{ChannelSettings, Sealed};
use serde::{Deserialize, Serialize};

use crate::seal::{SealError, Sealer};
use crate::secret;

/// What a channel is, as far as somebody decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelRecord {
    /// The channel's id.
    pub id: ChannelId,
    /// The HLS playlist.
    pub origin_uri: String,
    /// Where its signer runs; `None`: in the nodes.
    pub signer_uri: Option<String>,
    /// The policy, as it was given: absent fields take their defaults when they are used.
    pub policy: PolicyDraft,
    /// When it was created, milliseconds since the Unix epoch.
    pub create_time_ms: i64,
    /// Changes with each update.
    pub etag: String,
    /// Names this channel's state: another incarnation does not descend from it.
    pub incarnation: u64,
    /// Who signs.
    pub signing: SigningRecord,
}

/// Who signs a channel's statements.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SigningRecord {
    /// The nodes, with this Ed25519 seed.
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

/// What is kept of a channel cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It opens, but is not what was written.
    #[error("what is kept of the channel cannot be read")]
    Form(#[from] serde_json::Error),
}

impl ChannelRecord {
    /// The channel as its shard keeps it.
    pub(super) fn settings(&self, sealer: &Sealer) -> Result<ChannelSettings, RecordError> {
        let signing = serde_json::to_vec(&self.signing)?;
        Ok(ChannelSettings {
            incarnation: self.incarnation,
            origin_uri: self.origin_uri.clone(),
            signer_uri: self.signer_uri.clone(),
            policy: self.policy.clone(),
            create_time_ms: self.create_time_ms,
            etag: self.etag.clone(),
            signing: sealer.seal(&purpose(&self.id, self.incarnation), &signing)?,
        })
    }

    /// The channel, from what its shard keeps.
    pub(super) fn open(
        id: ChannelId,
        settings: ChannelSettings,
        sealer: &Sealer,
    ) -> Result<Self, RecordError> {
        let signing = sealer.open(&purpose(&id, settings.incarnation), &settings.signing)?;
        Ok(Self {
            id,
            origin_uri: settings.origin_uri,
            signer_uri: settings.signer_uri,
            policy: settings.policy,
            create_time_ms: settings.create_time_ms,
            etag: settings.etag,
            incarnation: settings.incarnation,
            signing: serde_json::from_slice(&signing)?,
        })
    }
}

fn purpose(id: &ChannelId, incarnation: u64) -> String {
    format!("signing of channel {id}, incarnation {incarnation:016x}")
}

/// A signer's state, as its shard keeps it: it holds no secret.
pub(super) fn signer_state_out(
    state: &espalier_signer::SignerState,
) -> Result<Sealed, serde_json::Error> {
    serde_json::to_vec(state).map(Sealed::new)
}

/// A signer's state, from what its shard keeps; none was kept of a new channel.
pub(super) fn signer_state_in(
    kept: &Sealed,
) -> Result<espalier_signer::SignerState, serde_json::Error> {
    if kept.as_bytes().is_empty() {
        return Ok(espalier_signer::SignerState::default());
    }
    serde_json::from_slice(kept.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_only_for_its_own_channel() {
        let sealer = Sealer::new(&[1; 32]);
        for signing in [
            SigningRecord::Own([7; 32]),
            SigningRecord::Remote(vec![PublicKeyRecord([9; 32])]),
        ] {
            let record = ChannelRecord {
                id: "news".parse().unwrap(),
                origin_uri: "http://127.0.0.1/live.m3u8".to_owned(),
                signer_uri: None,
                policy: PolicyDraft {
                    max_depth: Some(5),
                    ..PolicyDraft::default()
                },
                create_time_ms: 1,
                etag: "e".to_owned(),
                incarnation: u64::MAX,
                signing,
            };
            let settings = record.settings(&sealer).unwrap();
            let open =
                |id: &str| ChannelRecord::open(id.parse().unwrap(), settings.clone(), &sealer);
            assert_eq!(open("news").unwrap(), record);
            assert!(open("sport").is_err());
        }
    }

    #[test]
    fn a_new_channel_has_an_empty_signer_state_and_a_kept_one_comes_back() {
        let none = signer_state_in(&Sealed::default()).unwrap();
        assert_eq!(none, espalier_signer::SignerState::default());
        let kept = signer_state_out(&none).unwrap();
        assert_eq!(signer_state_in(&kept).unwrap(), none);
        assert!(signer_state_in(&Sealed::new(b"{".to_vec())).is_err());
    }
}
