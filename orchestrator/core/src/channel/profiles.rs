//! What peers are, as their sessions say it, kept for the entries.
//!
//! Invariant: a peer whose profile is not the default one has it here for as long as it is in the channel
//! or awaited; an entry says every change.

use std::collections::{BTreeMap, BTreeSet};

use super::ChannelEngine;
use crate::ids::PeerId;
use crate::profile::PeerProfile;
use crate::state::ChannelState;

/// The profiles of a channel's peers.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// Those of whom something is known.
    known: BTreeMap<PeerId, PeerProfile>,
    /// Whose changed since the last entry.
    changed: BTreeSet<PeerId>,
}

impl Profiles {
    /// Takes the profiles that the records have.
    pub(super) fn restore(state: &ChannelState) -> Self {
        let profiles = state
            .peers()
            .map(|(peer, record)| (peer, record.offer.profile));
        let known = profiles.filter(|(_, profile)| *profile != PeerProfile::default());
        Self {
            known: known.collect(),
            changed: BTreeSet::new(),
        }
    }

    pub(super) fn of(&self, peer: PeerId) -> PeerProfile {
        self.known.get(&peer).copied().unwrap_or_default()
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        self.known.remove(&peer);
        self.changed.remove(&peer);
    }

    /// Returns whose profiles changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<PeerId> {
        core::mem::take(&mut self.changed)
    }

    fn set(&mut self, peer: PeerId, profile: PeerProfile) {
        if self.of(peer) == profile {
            return;
        }
        if profile == PeerProfile::default() {
            self.known.remove(&peer);
        } else {
            self.known.insert(peer, profile);
        }
        self.changed.insert(peer);
    }
}

impl ChannelEngine {
    pub(super) fn note_profile(&mut self, peer: PeerId, profile: PeerProfile) {
        self.profiles.set(peer, profile);
    }

    /// Returns what the peer is, as its newest session says it.
    pub fn profile(&self, peer: PeerId) -> PeerProfile {
        self.profiles.of(peer)
    }
}
