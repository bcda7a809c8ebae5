//! From what an event changed to one entry and the assignments that go with it.

use core::time::Duration;

use super::ChannelEngine;
use crate::commands::{CdnLease, ChannelCommand, ChildAssignment, TrackAssignment};
use crate::dispatch::Content;
use crate::forest::node::{NodeRef, PeerRef, TreeKey};
use crate::forest::{Changes, Forest};
use crate::ids::{Generation, PeerId, Source};
use crate::state::{DecidedEdge, DecidedPeer, Edge, Entry, Offer, Parting, Telling, TrackRecord};

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
        let said = core::mem::take(&mut self.said);
        let mut entry = Entry {
            policy: changes.policy.then(|| self.forest.policy.clone().into()),
            tracks: self.changed_tracks(&changes),
            peers: self.decided_peers(&changes),
            edges: self.decided_edges(&changes),
            accusations: said.accusations,
            forgotten: said.forgotten,
            follows: Some(self.entries),
            ..Entry::new(self.generation.incarnation, self.now)
        };
        let parted = changes.parted.into_iter();
        let parting = |((one, other), until)| Parting { one, other, until };
        entry.parted = parted.map(parting).collect();
        entry.left = changes.left;
        for peer in changes.peers {
            if let Some(known) = self.forest.find(peer)
                && let Some(digest) = self.dispatch.stage(peer, content(&self.forest, known))
            {
                entry.told.push(Telling { peer, digest });
            }
        }
        if !entry.is_empty() {
            self.entries += 1;
            self.dispatch.close_entry();
            self.commands.push_back(ChannelCommand::Commit { entry });
        }
    }

    fn changed_tracks(&mut self, changes: &Changes) -> Option<Vec<TrackRecord>> {
        let tracks = changes.tracks.then(|| self.forest.track_records());
        let tracks = tracks.filter(|tracks| *tracks != self.tracks)?;
        self.tracks.clone_from(&tracks);
        Some(tracks)
    }

    fn decided_peers(&self, changes: &Changes) -> Vec<DecidedPeer> {
        let known = |peer: &PeerId| Some(self.forest.peer(self.forest.find(*peer)?));
        let records = changes.offers.iter().filter_map(known);
        let decided = records.map(|record| DecidedPeer {
            peer: record.id,
            record: Offer {
                role: record.role,
                upload_bps: record.upload_bps,
                profile: record.profile,
                wanted: record.wanted.clone(),
                joined_at: record.joined_at,
            },
        });
        decided.collect()
    }

    /// The edges of peers that have left go with them.
    fn decided_edges(&mut self, changes: &Changes) -> Vec<DecidedEdge> {
        let mut edges: Vec<DecidedEdge> = Vec::new();
        for (peer, TreeKey { track, stripe }) in &changes.removed {
            let (peer, track, stripe, edge) = (*peer, *track, *stripe, None);
            if changes.left.binary_search(&peer).is_err() {
                edges.push(DecidedEdge {
                    peer,
                    track,
                    stripe,
                    edge,
                });
            }
        }
        for node in &changes.nodes {
            if let Some((decided, before)) = self.forest.decide(*node) {
                self.note_acquaintance(&decided, before);
                edges.push(decided);
            }
        }
        edges.sort_by_key(|edge| (edge.peer, edge.track, edge.stripe));
        edges
    }

    /// Remembers whom a peer has just had as its source: its word about it may be on its way.
    fn note_acquaintance(&mut self, decided: &DecidedEdge, before: Option<Edge>) {
        let (Some(edge), Some(before)) = (decided.edge, before) else {
            return;
        };
        for source in [Some(before.source), before.moving_from] {
            if let Some(Source::Peer(parent)) = source
                && Some(edge.source) != source
                && edge.moving_from != source
            {
                self.acquainted.note((decided.peer, parent), self.now);
            }
        }
    }

    pub(super) fn take_committed(&mut self, index: u64, entries: usize) {
        let generation = Generation {
            index,
            ..self.generation
        };
        let Some(send) = self.dispatch.committed(generation, entries) else {
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
    for node in forest.nodes_of(peer) {
        tracks.extend(track_assignment(forest, node));
        children.extend(child_assignments(forest, node));
    }
    tracks.sort_by(|one, other| (&one.track, one.stripe).cmp(&(&other.track, other.stripe)));
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
    let tree = forest.tree_of(node);
    Some(TrackAssignment {
        track: tree.name.clone(),
        stripe: tree.key.stripe,
        stripes: forest.policy.stripes(),
        source: forest.source_at(record.place())?,
        standby: forest.standby_of(node),
        make_before_break: record.is_moving(),
    })
}

/// Those whom the node serves, those who are leaving it, and those who would come.
fn child_assignments(forest: &Forest, node: NodeRef) -> Vec<ChildAssignment> {
    let tree = forest.tree_of(node);
    let child = |child: NodeRef, standby| ChildAssignment {
        track: tree.name.clone(),
        stripe: tree.key.stripe,
        peer: forest.id_of(child),
        standby,
    };
    let served = forest.children(node).chain(forest.leaving(node));
    let mut children: Vec<_> = served.map(|served| child(served, false)).collect();
    for protected in forest.protected_by(node) {
        let leaves = |waiting: &NodeRef| forest.leaving(node).any(|leaver| leaver == *waiting);
        let waiting = forest
            .children(protected)
            .filter(|waiting| !leaves(waiting));
        let waiting = waiting.filter(|waiting| forest.may_meet(*waiting, node));
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
