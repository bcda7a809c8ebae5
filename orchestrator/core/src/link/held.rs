//! What a peer has, and with whom, once it follows an assignment.

use std::collections::BTreeSet;

use crate::commands::{Assignment, TrackAssignment};
use crate::events::HeldEdge;
use crate::ids::{PeerId, Source};

/// Returns the edges of a peer that follows the assignment.
pub(super) fn held_after(assignment: &Assignment) -> Vec<HeldEdge> {
    let held = |track: &TrackAssignment| HeldEdge {
        track: track.track.clone(),
        stripe: track.stripe,
        source: track.source,
        standby: track.standby,
        children: assignment
            .children
            .iter()
            .filter(|child| child.track == track.track && child.stripe == track.stripe)
            .filter(|child| !child.standby)
            .map(|child| child.peer)
            .collect(),
    };
    assignment.tracks.iter().map(held).collect()
}

/// Returns every peer that the edges name.
pub fn neighbours_held(held: &[HeldEdge]) -> BTreeSet<PeerId> {
    let sources = held
        .iter()
        .flat_map(|edge| [Some(edge.source), edge.standby]);
    let children = held.iter().flat_map(|edge| edge.children.iter().copied());
    sources.filter_map(peer_of).chain(children).collect()
}

/// Returns every peer that the assignment names.
pub fn neighbours_assigned(assignment: &Assignment) -> BTreeSet<PeerId> {
    let sources = assignment
        .tracks
        .iter()
        .flat_map(|track| [Some(track.source), track.standby]);
    let children = assignment.children.iter().map(|child| child.peer);
    sources.filter_map(peer_of).chain(children).collect()
}

fn peer_of(source: Option<Source>) -> Option<PeerId> {
    match source {
        Some(Source::Peer(peer)) => Some(peer),
        Some(Source::Cdn) | None => None,
    }
}
