//! A channel's signer: in this node, or mirrored from where it runs.
//!
//! Keeps the signer's state and tells the channel's engine which tracks there are and what they
//! cost. It signs nothing and watches no origin itself: that is espalier-signer's.

use std::collections::BTreeSet;
use std::sync::Arc;

use espalier_media::{KeyError, MasterHeader, PublicKey, StatementKey, Track, TrackKind};
use espalier_orchestrator_core::{ChannelEvent, ChannelId, ShardId, TrackIndex, TrackInfo};
use espalier_signer::{
    RemoteConfig, RemoteError, RemoteSigner, Signer, SignerConfig, SignerHandle, SignerState,
    SignerStatus, StartError,
};

use crate::channel::ChannelHandle;
use crate::registry::{ChannelRecord, PublicKeyRecord, Registry, RegistryError, SigningRecord};
use crate::status::ChannelError;

/// Why a channel's signer did not start.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The signer in this node refused.
    #[error("the signer did not start")]
    Start(#[from] StartError),
    /// The signer elsewhere cannot be mirrored.
    #[error("the signer elsewhere cannot be mirrored")]
    Remote(#[from] RemoteError),
    /// A pinned key is none.
    #[error("a pinned public key is none")]
    Key(#[from] KeyError),
}

/// Starts the channel's signer from what it kept, or the mirror of it.
///
/// # Errors
/// When its keys are none. An origin or a signer that is not there is no error.
pub(crate) fn start(
    record: &ChannelRecord,
    state: SignerState,
) -> Result<SignerHandle, SigningError> {
    match &record.signing {
        SigningRecord::Own(seed) => Ok(Signer::start(SignerConfig {
            origin_uri: record.origin_uri.clone(),
            key: StatementKey::from_seed(seed),
            state,
        })?),
        SigningRecord::Remote(keys) => {
            let keys: Result<Vec<_>, _> = keys
                .iter()
                .map(|key| PublicKey::from_bytes(&key.0))
                .collect();
            Ok(RemoteSigner::connect(RemoteConfig {
                endpoint: record.signer_uri.clone().unwrap_or_default(),
                channel: record.id.to_string(),
                keys: keys?,
                origin_uri: record.origin_uri.clone(),
            })?)
        }
    }
}

/// Asks the signer at `uri` for the keys to pin.
///
/// # Errors
/// When it does not answer, or has no keys.
pub(crate) async fn pin(
    uri: &str,
    channel: &str,
    origin_uri: &str,
) -> Result<Vec<PublicKeyRecord>, ChannelError> {
    let info = RemoteSigner::describe(uri, channel)
        .await
        .map_err(|error| {
            let problem = crate::error_chain(&error);
            ChannelError::SignerUnreachable {
                uri: uri.to_owned(),
                problem,
            }
        })?;
    if info.keys.is_empty() {
        let problem = "has no key to sign with".to_owned();
        return Err(ChannelError::SignerUnfit {
            uri: uri.to_owned(),
            problem,
        });
    }
    if info.origin_uri != origin_uri {
        // The signer may reach the same origin under another name, beside the packager.
        tracing::warn!(
            channel,
            signer = info.origin_uri,
            origin_uri,
            "the signer names another origin"
        );
    }
    Ok(info
        .keys
        .into_iter()
        .map(|key| PublicKeyRecord(key.to_bytes()))
        .collect())
}

/// Tells the engine of tracks and rates as they change, until the signer stops.
pub(crate) async fn feed_engine(signer: SignerHandle, channel: ChannelHandle) {
    let mut status = signer.watch_status();
    let mut told: Vec<TrackInfo> = Vec::new();
    loop {
        let now = status.borrow_and_update().clone();
        let tracks = signer
            .master()
            .map(|master| track_infos(&master, &now))
            .unwrap_or_default();
        for event in changes(&told, &tracks) {
            if channel.tell(event).await.is_err() {
                return;
            }
        }
        if !tracks.is_empty() {
            told = tracks;
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Where a signer's state is kept.
pub(crate) struct Kept {
    pub(crate) registry: Arc<Registry>,
    pub(crate) shard: ShardId,
    pub(crate) channel: ChannelId,
    pub(crate) incarnation: u64,
}

/// Keeps the signer's state in the cluster's as it changes, until the signer stops. Of the nodes that sign,
/// only the channel's owner can: they all come to the same state.
pub(crate) async fn keep_state(signer: SignerHandle, kept: Kept) {
    let mut state = signer.watch_state();
    drop(signer);
    while state.changed().await.is_ok() {
        let now = state.borrow_and_update().clone();
        let of = (&kept.channel, kept.incarnation);
        match kept.registry.keep_signer_state(kept.shard, of, &now).await {
            Ok(()) | Err(RegistryError::NoLeader) => {}
            Err(error) => tracing::warn!(
                channel = %kept.channel,
                error = crate::error_chain(&error),
                "the signer's state was not kept"
            ),
        }
    }
}

fn track_infos(master: &MasterHeader, status: &SignerStatus) -> Vec<TrackInfo> {
    let defaults = default_tracks(master);
    let info = |track: &Track| {
        let measured = status
            .tracks
            .iter()
            .find(|known| known.index == track.index);
        let measured = measured.map_or(0, |known| known.rate_bps);
        Some(TrackInfo {
            index: TrackIndex(track.index.0),
            name: track.name.parse().ok()?,
            // Until three segments have been seen, what the origin promises is the better guess.
            rate_bps: if measured == 0 {
                track.bandwidth_bps
            } else {
                measured
            },
            default: defaults.contains(&track.index),
        })
    };
    master.tracks.iter().filter_map(info).collect()
}

/// The first variant, and of each group that plays with it the default rendition, or else the first.
fn default_tracks(master: &MasterHeader) -> BTreeSet<espalier_media::TrackIndex> {
    let variant = master
        .tracks
        .iter()
        .find(|track| track.kind == TrackKind::Variant);
    let Some(variant) = variant.or(master.tracks.first()) else {
        return BTreeSet::new();
    };
    let rendition = |group: &String| {
        let of_group = || {
            master
                .tracks
                .iter()
                .filter(move |track| track.kind != TrackKind::Variant && track.group == *group)
        };
        of_group()
            .find(|track| track.default_rendition)
            .or_else(|| of_group().next())
    };
    let beside = variant
        .plays_with
        .iter()
        .filter_map(rendition)
        .map(|track| track.index);
    std::iter::once(variant.index).chain(beside).collect()
}

fn changes(before: &[TrackInfo], after: &[TrackInfo]) -> Vec<ChannelEvent> {
    if after.is_empty() {
        // Not read yet: what the engine knows stays.
        return Vec::new();
    }
    let shape = |track: &TrackInfo| (track.index, track.name.clone(), track.default);
    if !before.iter().map(shape).eq(after.iter().map(shape)) {
        return vec![ChannelEvent::TracksChanged {
            tracks: after.to_vec(),
        }];
    }
    before
        .iter()
        .zip(after)
        .filter(|(old, new)| old.rate_bps != new.rate_bps)
        .map(|(_, new)| ChannelEvent::TrackRate {
            track: new.index,
            rate_bps: new.rate_bps,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: u32, rate_bps: u64) -> TrackInfo {
        TrackInfo {
            index: TrackIndex(index),
            name: format!("t{index}").parse().unwrap(),
            rate_bps,
            default: index == 0,
        }
    }

    #[test]
    fn the_engine_hears_of_new_tracks_whole_and_of_new_rates_one_by_one() {
        let before = [info(0, 1), info(1, 2)];
        assert_eq!(changes(&before, &before), []);
        assert_eq!(changes(&before, &[]), []);
        assert_eq!(
            changes(&before, &[info(0, 1), info(1, 3)]),
            [ChannelEvent::TrackRate {
                track: TrackIndex(1),
                rate_bps: 3
            }]
        );
        for after in [vec![info(0, 1)], vec![info(0, 1), info(2, 2)]] {
            assert_eq!(
                changes(&before, &after),
                [ChannelEvent::TracksChanged {
                    tracks: after.clone()
                }]
            );
        }
    }
}
