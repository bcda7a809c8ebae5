//! Who comes, who goes, and who only lost its session.

use super::{ChannelEngine, content};
use crate::commands::{Alarm, ChannelCommand};
use crate::events::SessionOpened;
use crate::forest::Returning;
use crate::ids::{PeerId, TrackName};
use crate::profile::PeerProfile;

impl ChannelEngine {
    pub(super) fn open(&mut self, mut opened: SessionOpened) {
        let (peer, role, claim) = (opened.peer, opened.role, opened.upload_bps);
        if !self.sessions.attach(peer, opened.attachment) {
            return;
        }
        // A peer that holds nothing although it was told something has started anew: the place that
        // it had is empty.
        let anew = opened.held.is_empty() && opened.generation.is_none();
        if anew && self.dispatch.was_told(peer) {
            self.remove(&[peer]);
            self.sessions.attach(peer, opened.attachment);
        }
        self.weigh_claim(&mut opened);
        if !opened.held.is_empty() || opened.generation.is_some() {
            self.counters.returns(peer);
        }
        if let Some(generation) = self.dispatch.attach(peer, opened.generation)
            && let Some(known) = self.forest.find(peer)
        {
            let assignment = content(&self.forest, known).at(generation);
            self.commands
                .push_back(ChannelCommand::Assign { peer, assignment });
        }
        if let Some(known) = self.forest.find(peer) {
            self.forest.set_session(known, true);
            let offered = (opened.role, opened.upload_bps, opened.profile);
            self.forest.set_offer(known, offered, self.now);
            self.forest.want(known, opened.tracks.clone(), self.now);
            self.take_held(&opened);
        } else if opened.held.is_empty() {
            self.join(opened);
        } else if let Some(recovery) = &mut self.recovery {
            recovery.open(opened, self.now);
        } else {
            let SessionOpened {
                peer,
                role,
                upload_bps,
                profile,
                tracks,
                held,
                ..
            } = opened;
            let wanted = tracks;
            let returning = Returning {
                peer,
                role,
                upload_bps,
                profile,
                session: true,
                wanted,
                held,
            };
            self.forest.adopt(vec![returning], self.now);
            self.apply_record(peer);
        }
        self.start_upload(peer, role, claim);
    }

    fn join(&mut self, opened: SessionOpened) {
        if let Some(recovery) = &mut self.recovery {
            // It was awaited with what it held, and holds nothing any more.
            recovery.remove(opened.peer);
        }
        let offered = (opened.role, opened.upload_bps, opened.profile);
        let peer = self.forest.add_peer(opened.peer, offered, self.now);
        self.apply_record(opened.peer);
        self.forest.want(peer, opened.tracks, self.now);
        self.forest.touched(opened.peer);
    }

    /// Takes in that a peer is something else than it was.
    pub(super) fn change_profile(&mut self, peer: PeerId, profile: PeerProfile) {
        if let Some(recovery) = &mut self.recovery {
            recovery.set_profile(peer, profile);
        }
        if let Some(known) = self.forest.find(peer) {
            let record = self.forest.peer(known);
            let offered = (record.role, record.upload_bps, profile);
            self.forest.set_offer(known, offered, self.now);
        }
    }

    /// Makes what is remembered of a peer hold again.
    pub(super) fn apply_record(&mut self, peer: PeerId) {
        if let Some(known) = self.forest.find(peer) {
            if self.suspects.is_quarantined(peer) {
                self.forest.set_quarantined(known, true, self.now);
            }
            self.forest
                .set_distrusted(known, self.suspects.is_serial(peer));
        }
    }

    pub(super) fn lose(&mut self, peer: PeerId, attachment: u64) {
        if !self.sessions.detach(peer, attachment, self.now) {
            return;
        }
        self.dispatch.detach(peer);
        if let Some(recovery) = &mut self.recovery {
            recovery.set_session(peer, false);
        }
        if let Some(known) = self.forest.find(peer) {
            self.forest.set_session(known, false);
        }
        if self.deaths.contains(&peer) {
            self.presume_gone(&[peer], true);
        }
    }

    /// Nothing reaches the peer, and its absence does not count.
    pub(super) fn silence(&mut self, peer: PeerId) {
        self.sessions.silence(peer);
        self.dispatch.detach(peer);
        if let Some(recovery) = &mut self.recovery {
            recovery.set_session(peer, false);
        }
        if let Some(known) = self.forest.find(peer) {
            self.forest.set_session(known, false);
        }
    }

    /// Starts the clock of everybody who has no session and never had one with this engine.
    pub(super) fn count_absence(&mut self) {
        for (peer, _) in self.forest.peers() {
            self.sessions.miss(peer, self.now);
        }
    }

    pub(super) fn leave(&mut self, peer: PeerId) {
        self.remove(&[peer]);
    }

    pub(super) fn presume_gone(&mut self, peers: &[PeerId], reported: bool) {
        for peer in peers {
            self.raise(Alarm::PeerPresumedGone {
                peer: *peer,
                reported,
            });
        }
        self.remove(peers);
    }

    fn remove(&mut self, peers: &[PeerId]) {
        for peer in peers {
            self.sessions.remove(*peer);
            self.dispatch.remove(*peer);
            self.counters.remove(*peer);
            self.uploads.remove(peer);
            if let Some(recovery) = &mut self.recovery {
                recovery.remove(*peer);
            }
        }
        let known: Vec<_> = peers
            .iter()
            .filter_map(|peer| self.forest.find(*peer))
            .collect();
        self.forest.remove_peers(&known, self.now);
    }

    pub(super) fn want(&mut self, peer: PeerId, tracks: Vec<TrackName>) {
        if let Some(recovery) = &mut self.recovery {
            recovery.want(peer, tracks.clone());
        }
        if let Some(known) = self.forest.find(peer) {
            self.forest.want(known, tracks, self.now);
        }
    }

    /// Ends the waiting for peers of an engine before this one, when it is time and the tracks are
    /// known.
    pub(super) fn recover_if_due(&mut self) {
        let due = |recovery: &mut crate::recovery::Recovery| recovery.ends() <= self.now;
        if !self.forest.has_trees() {
            return;
        }
        let Some(recovery) = self.recovery.take_if(due) else {
            return;
        };
        let (peers, reports) = recovery.into_parts();
        let ids: Vec<_> = peers.iter().map(|peer| peer.peer).collect();
        let edges = self.forest.adopt(peers, self.now);
        for peer in &ids {
            self.apply_record(*peer);
        }
        if !ids.is_empty() {
            let peers = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            self.raise(Alarm::Recovered { peers, edges });
        }
        for report in reports {
            self.take_source_report(&report);
        }
    }
}
