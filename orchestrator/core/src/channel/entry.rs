//! From what an event changed to one entry and the assignments that go with it.

use core::time::Duration;

use super::ChannelEngine;
use crate::commands::{
    CdnLease, ChannelCommand, ChildAssignment, DecidedEdge, ENTRY_VERSION, Entry, TrackAssignment,
};
use crate::dispatch::Content;
use crate::forest::Forest;
use crate::forest::node::{NodeRef, PeerRef};
use crate::ids::{Generation, PeerId, Source};

/// The lease, in rates of the peer's tracks, where the policy names none.
const LEASE_RATES: u64 = 4;
/// Leases are multiples of this, so that a rate that breathes is no news for anybody.
const LEASE_STEP_BPS: u64 = 1_000_000;
/// The lease's burst, in seconds of its rate.
const LEASE_BURST_SECONDS: u64 = 4;
/// The lease outlives a long absence of the orchestrator.
const LEASE_LIFETIME: Duration = Duration::from_secs(600);

impl ChannelEngine {
    /// Turns all that was changed since the last call into one entry.
    pub(super) fn close_entry(&mut self) {
        let changes = self.forest.take_changes();
        let mut edges: Vec<DecidedEdge> = Vec::new();
        for (peer, track) in changes.removed {
            let (source, moving_from, successor) = (None, None, None);
            edges.push(DecidedEdge {
                peer,
                track,
                stripe: 0,
                source,
                moving_from,
                successor,
            });
        }
        for node in changes.nodes {
            if let Some((edge, before)) = self.forest.decide(node) {
                self.note_acquaintance(edge, before);
                edges.push(edge);
            }
        }
        edges.sort_by_key(|edge| (edge.peer, edge.track));
        let mut news = false;
        for peer in changes.peers {
            if let Some(known) = self.forest.find(peer) {
                news |= self.dispatch.stage(peer, content(&self.forest, known));
            }
        }
        let joined: Vec<_> = changes.joined.into_iter().collect();
        let left: Vec<_> = changes.left.into_iter().collect();
        if news || !(edges.is_empty() && joined.is_empty() && left.is_empty()) {
            let entry = Entry {
                version: ENTRY_VERSION,
                time: self.now,
                joined,
                left,
                edges,
            };
            self.dispatch.close_entry();
            self.commands.push_back(ChannelCommand::Commit { entry });
        }
    }

    /// Remembers whom a peer has just had as its source: its word about it may be on its way.
    fn note_acquaintance(&mut self, edge: DecidedEdge, before: Option<DecidedEdge>) {
        let Some(before) = before else { return };
        for source in [before.source, before.moving_from] {
            if let Some(Source::Peer(parent)) = source
                && edge.source != source
                && edge.moving_from != source
            {
                self.acquainted.note((edge.peer, parent), self.now);
            }
        }
    }

    pub(super) fn take_committed(&mut self, index: u64) {
        let generation = Generation {
            index,
            ..self.generation
        };
        let Some(send) = self.dispatch.committed(generation) else {
            return;
        };
        self.generation = generation;
        for (peer, assignment) in send {
            self.commands
                .push_back(ChannelCommand::Assign { peer, assignment });
        }
    }
}

/// Everything that the peer must do, as the forest has it now.
pub(crate) fn content(forest: &Forest, peer: PeerRef) -> Content {
    let record = forest.peer(peer);
    let mut tracks = Vec::new();
    let mut children = Vec::new();
    for node in record.nodes.values() {
        tracks.extend(track_assignment(forest, *node));
        children.extend(child_assignments(forest, *node));
    }
    tracks.sort_by(|one, other| one.track.cmp(&other.track));
    children.sort();
    let cdn_lease = lease(forest, peer);
    Content {
        tracks,
        children,
        cdn_lease,
        upload_bps: record.upload_bps,
    }
}

fn track_assignment(forest: &Forest, node: NodeRef) -> Option<TrackAssignment> {
    let record = forest.node(node);
    Some(TrackAssignment {
        track: forest.tree(record.track).name.clone(),
        source: forest.source_at(record.source)?,
        standby: forest.standby_of(node),
        make_before_break: record.former.is_some(),
    })
}

/// Those whom the node serves, those who are leaving it, and those who would come.
fn child_assignments(forest: &Forest, node: NodeRef) -> Vec<ChildAssignment> {
    let record = forest.node(node);
    let track = &forest.tree(record.track).name;
    let child = |peer: PeerId, standby| ChildAssignment {
        track: track.clone(),
        peer,
        standby,
    };
    let served = record.children.union(&record.leaving);
    let mut children: Vec<_> = served
        .map(|served| child(forest.id_of(*served), false))
        .collect();
    let own = forest.id_of(node);
    for protected in &record.protects {
        let waiting = forest.node(*protected).children.iter();
        let waiting = waiting.filter(|waiting| !record.leaving.contains(waiting));
        let waiting = waiting.map(|waiting| forest.id_of(*waiting));
        let waiting = waiting.filter(|waiting| forest.pairs.allowed(*waiting, own));
        children.extend(waiting.map(|waiting| child(waiting, true)));
    }
    children
}

fn lease(forest: &Forest, peer: PeerRef) -> CdnLease {
    let rates = forest.rate_of(peer).saturating_mul(LEASE_RATES);
    let steps = rates.div_ceil(LEASE_STEP_BPS).max(1);
    let rate_bps = forest
        .policy
        .cdn_lease_bps()
        .unwrap_or_else(|| steps.saturating_mul(LEASE_STEP_BPS));
    let burst_bytes = rate_bps.saturating_mul(LEASE_BURST_SECONDS) / 8;
    CdnLease {
        rate_bps,
        burst_bytes,
        lifetime: LEASE_LIFETIME,
    }
}
