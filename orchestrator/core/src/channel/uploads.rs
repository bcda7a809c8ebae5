//! What is planned with of each peer's upload, where the policy says that it is learned.
//!
//! A peer's record has the budget that was planned with last, so a new owner goes on from there; the claim
//! comes with the session. Relays are believed: their operator has measured. A peer that comes back to an
//! engine without records, with edges that it holds, is believed until it is seen to be late.

use std::collections::BTreeMap;

use super::ChannelEngine;
use crate::events::{PeerReport, PeerRole, SessionOpened};
use crate::forest::node::PeerRef;
use crate::ids::{PeerId, Source};
use crate::upload::{Costs, LEAST_START_BPS, Upload};

/// Those of contributors with a session.
pub(super) type Uploads = BTreeMap<PeerId, Upload>;

impl ChannelEngine {
    /// Puts what is planned with in the place of the claim.
    pub(super) fn weigh_claim(&mut self, opened: &mut SessionOpened) {
        let (peer, claim) = (opened.peer, opened.upload_bps);
        if !self.forest.policy.learn_upload() || opened.role != PeerRole::Contributor {
            self.uploads.remove(&peer);
            return;
        }
        let known = self.forest.find(peer);
        let planned = known.map(|known| self.forest.peer(known).upload_bps);
        if let Some(upload) = self.uploads.get_mut(&peer) {
            upload.claim(claim);
        } else if planned.is_some() || !opened.held.is_empty() {
            let upload = Upload::resumed(claim, planned.unwrap_or(claim));
            self.uploads.insert(peer, upload);
        }
        opened.upload_bps = match self.uploads.get(&peer) {
            Some(_) => planned.unwrap_or(claim).min(claim),
            None => claim.min(LEAST_START_BPS),
        };
    }

    /// Now that it is known what the peer watches: what a newcomer starts with.
    pub(super) fn start_upload(&mut self, peer: PeerId, role: PeerRole, claim: u64) {
        if !self.forest.policy.learn_upload() || role != PeerRole::Contributor {
            return;
        }
        if let Some(known) = self.forest.find(peer) {
            let costs = self.costs(known);
            let new = || Upload::new(claim, costs);
            self.uploads.entry(peer).or_insert_with(new);
            self.plan_upload(peer);
        }
    }

    pub(super) fn learn_from_report(&mut self, peer: PeerId, report: &PeerReport) {
        let Some(known) = self.forest.find(peer) else {
            return;
        };
        let costs = self.costs(known);
        if let Some(upload) = self.uploads.get_mut(&peer) {
            upload.report(report, costs, self.now);
            self.plan_upload(peer);
        }
    }

    pub(super) fn learn_from_lateness(&mut self, parent: PeerId, child: PeerId) {
        let Some(known) = self.forest.find(parent) else {
            return;
        };
        let costs = self.costs(known);
        if self.takes_from(child, parent)
            && let Some(upload) = self.uploads.get_mut(&parent)
        {
            upload.late(child, costs, self.now);
            self.plan_upload(parent);
        }
    }

    fn takes_from(&self, child: PeerId, parent: PeerId) -> bool {
        let forest = &self.forest;
        let nodes = forest.find(child).map(|child| forest.nodes_of(child));
        let mut places = nodes.into_iter().flatten();
        places.any(|node| forest.source_at(forest.node(node).place()) == Some(Source::Peer(parent)))
    }

    /// Plans with what has been learned.
    fn plan_upload(&mut self, peer: PeerId) {
        let (Some(upload), Some(known)) = (self.uploads.get(&peer), self.forest.find(peer)) else {
            return;
        };
        let planned = upload.planned_bps(self.costs(known));
        let record = self.forest.peer(known);
        let offered = (record.role, planned, record.profile);
        self.forest.set_offer(known, offered, self.now);
    }

    fn costs(&self, peer: PeerRef) -> Costs {
        let policy = &self.forest.policy;
        Costs {
            child_bps: policy.edge_cost(self.forest.rate_of(peer)),
            overhead_permille: policy.overhead_permille(),
        }
    }
}
