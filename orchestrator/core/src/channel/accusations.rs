//! Corrupt bytes: who says so, and what follows.

use super::ChannelEngine;
use crate::commands::Alarm;
use crate::ids::PeerId;
use crate::state::Accusation;

impl ChannelEngine {
    /// Separates the two for good. The accusation counts only if the accuser could have received
    /// anything from the suspect.
    pub(super) fn take_accusation(&mut self, accuser: PeerId, suspect: PeerId) {
        let acquainted = self.are_acquainted(accuser, suspect);
        let first = self.forest.pairs.allowed(accuser, suspect);
        self.forest.separate(accuser, suspect);
        self.forest.break_pair(accuser, suspect, self.now);
        if !acquainted {
            return;
        }
        if first {
            self.raise(Alarm::PairSeparated { accuser, suspect });
        }
        let verdict = self.suspects.accuse(accuser, suspect, self.now);
        let accusation = Accusation { accuser, suspect };
        self.said.accusations.push(accusation);
        self.said.forgotten.extend(verdict.forgotten);
        for peer in verdict.changed {
            self.apply_verdict(peer);
        }
        if verdict.serial {
            self.raise(Alarm::SerialAccuser { peer: accuser });
            if let Some(known) = self.forest.find(accuser) {
                self.forest.set_distrusted(known, true);
            }
        }
    }

    fn apply_verdict(&mut self, peer: PeerId) {
        let quarantined = self.suspects.is_quarantined(peer);
        if let Some(known) = self.forest.find(peer) {
            self.forest.set_quarantined(known, quarantined, self.now);
        }
        if quarantined {
            let accusers = self.suspects.credible_accusers(peer);
            let accusers = u32::try_from(accusers).unwrap_or(u32::MAX);
            self.raise(Alarm::PeerQuarantined { peer, accusers });
        }
    }
}
