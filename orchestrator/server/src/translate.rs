//! Between the wire's types and the core's: checks what comes in, and never decides.

use core::time::Duration;
use std::time::SystemTime;

use espalier_orchestrator_core as core_;
use espalier_orchestrator_core::{
    Generation, LinkReport, LinkState, NodeState, NodeView, PeerId, PeerReport, PeerRole, Source,
    SourceReport, SourceState, TrackName,
};
use espalier_proto::v1;

use crate::channel::ChannelView;
pub(crate) use crate::placed::{locality_in, locality_out, profile, profile_out};
use crate::status::Violation;

/// Most tracks that a peer may watch, or hold, at once.
pub(crate) const MAX_TRACKS: usize = 64;
/// Into how many stripes a track may be cut.
pub(crate) const MAX_STRIPES: u8 = 8;
/// Most children that a returning peer may name for one track.
const MAX_HELD_CHILDREN: usize = 4_096;
/// Longest detail of a link event that is looked at, bytes.
const MAX_DETAIL: usize = 1_024;

/// Collects what is wrong with a message, so that all of it is reported at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Violation>);

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            problem: problem.into(),
        });
    }

    pub(crate) fn parse<T: core::str::FromStr<Err = core_::IdError>>(
        &mut self,
        field: &str,
        text: &str,
    ) -> Option<T> {
        text.parse()
            .map_err(|error: core_::IdError| self.add(field, error.to_string()))
            .ok()
    }

    pub(crate) fn result<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

pub(crate) fn role(faults: &mut Faults, field: &str, value: i32) -> Option<PeerRole> {
    match v1::PeerRole::try_from(value) {
        Ok(v1::PeerRole::Contributor) => Some(PeerRole::Contributor),
        Ok(v1::PeerRole::Consumer) => Some(PeerRole::Consumer),
        Ok(v1::PeerRole::Relay) => Some(PeerRole::Relay),
        Ok(v1::PeerRole::Unspecified) | Err(_) => {
            faults.add(field, "must be CONTRIBUTOR, CONSUMER or RELAY");
            None
        }
    }
}

pub(crate) fn tracks(faults: &mut Faults, field: &str, names: &[String]) -> Option<Vec<TrackName>> {
    if names.len() > MAX_TRACKS {
        faults.add(field, format!("names more than {MAX_TRACKS} tracks"));
        return None;
    }
    names
        .iter()
        .enumerate()
        .map(|(index, name)| faults.parse(&format!("{field}[{index}]"), name))
        .collect()
}

pub(crate) fn source(faults: &mut Faults, field: &str, source: &v1::Source) -> Option<Source> {
    match &source.kind {
        Some(v1::source::Kind::Cdn(_)) => Some(Source::Cdn),
        Some(v1::source::Kind::Peer(peer)) => faults
            .parse(&format!("{field}.peer"), peer)
            .map(Source::Peer),
        None => {
            faults.add(field, "names neither a peer nor the CDN");
            None
        }
    }
}

pub(crate) fn stripe(faults: &mut Faults, field: &str, given: u32) -> Option<u8> {
    let stripe = u8::try_from(given)
        .ok()
        .filter(|stripe| *stripe < MAX_STRIPES);
    if stripe.is_none() {
        faults.add(field, format!("is not below {MAX_STRIPES}"));
    }
    stripe
}

fn required_source(faults: &mut Faults, field: &str, given: Option<&v1::Source>) -> Option<Source> {
    let Some(given) = given else {
        faults.add(field, "is missing");
        return None;
    };
    source(faults, field, given)
}

pub(crate) fn held(
    faults: &mut Faults,
    field: &str,
    edges: &[v1::HeldEdge],
) -> Option<Vec<core_::HeldEdge>> {
    if edges.len() > MAX_TRACKS * usize::from(MAX_STRIPES) {
        faults.add(field, format!("names more than {MAX_TRACKS} tracks"));
        return None;
    }
    let named = edges.iter().enumerate();
    // An edge without a source holds nothing: a peer that was between two sources says so.
    named
        .filter(|(_, edge)| edge.source.is_some())
        .map(|(index, edge)| held_edge(faults, &format!("{field}[{index}]"), edge))
        .collect()
}

fn held_edge(faults: &mut Faults, field: &str, edge: &v1::HeldEdge) -> Option<core_::HeldEdge> {
    let track = faults.parse(&format!("{field}.track"), &edge.track);
    let stripe = stripe(faults, &format!("{field}.stripe"), edge.stripe);
    let from = required_source(faults, &format!("{field}.source"), edge.source.as_ref());
    let standby = edge
        .standby
        .as_ref()
        .filter(|standby| standby.kind.is_some());
    let standby = standby.map(|standby| source(faults, &format!("{field}.standby"), standby));
    if edge.children.len() > MAX_HELD_CHILDREN {
        faults.add(format!("{field}.children"), "names too many children");
        return None;
    }
    let children: Option<Vec<PeerId>> = edge
        .children
        .iter()
        .enumerate()
        .map(|(index, child)| faults.parse(&format!("{field}.children[{index}]"), child))
        .collect();
    Some(core_::HeldEdge {
        track: track?,
        stripe: stripe?,
        source: from?,
        standby: standby.flatten(),
        children: children?,
    })
}

pub(crate) fn generation(given: v1::Generation) -> Generation {
    Generation {
        incarnation: given.incarnation,
        term: given.term,
        index: given.index,
    }
}

pub(crate) fn link_event(
    peer: PeerId,
    event: &v1::LinkEvent,
) -> Result<LinkReport, Vec<Violation>> {
    let mut faults = Faults::default();
    let neighbour = faults.parse("link_event.neighbour", &event.neighbour);
    let state = match v1::LinkState::try_from(event.state) {
        Ok(v1::LinkState::Up) => Some(LinkState::Up),
        Ok(v1::LinkState::Failed) => Some(LinkState::Failed),
        Ok(v1::LinkState::Dead) => Some(LinkState::Dead),
        Ok(v1::LinkState::Corrupt) => Some(LinkState::Corrupt),
        Ok(v1::LinkState::Late) => Some(LinkState::Late),
        Ok(v1::LinkState::Invalid) => Some(LinkState::Invalid),
        Ok(v1::LinkState::Closed) => Some(LinkState::Closed),
        Ok(v1::LinkState::Unspecified) | Err(_) => {
            faults.add("link_event.state", "is no state of a link");
            None
        }
    };
    if neighbour == Some(peer) {
        faults.add("link_event.neighbour", "is the peer itself");
    }
    if event.detail.len() > MAX_DETAIL {
        faults.add(
            "link_event.detail",
            format!("is longer than {MAX_DETAIL} bytes"),
        );
    }
    let report = neighbour.zip(state);
    faults.result(report).map(|(neighbour, state)| LinkReport {
        peer,
        neighbour,
        state,
    })
}

pub(crate) fn source_event(
    peer: PeerId,
    event: &v1::SourceEvent,
) -> Result<SourceReport, Vec<Violation>> {
    let mut faults = Faults::default();
    let track = faults.parse("source_event.track", &event.track);
    let stripe = stripe(&mut faults, "source_event.stripe", event.stripe);
    let from = required_source(&mut faults, "source_event.source", event.source.as_ref());
    let state = match v1::SourceState::try_from(event.state) {
        Ok(v1::SourceState::Flowing) => Some(SourceState::Flowing),
        Ok(v1::SourceState::Repairing) => Some(SourceState::Repairing),
        Ok(v1::SourceState::Bypass) => Some(SourceState::Bypass),
        Ok(v1::SourceState::Unspecified) | Err(_) => {
            faults.add("source_event.state", "is no state of a source");
            None
        }
    };
    if from == Some(Source::Peer(peer)) {
        faults.add("source_event.source", "is the peer itself");
    }
    let generation = event.generation.map(generation);
    let parts = track.zip(stripe).zip(from).zip(state);
    faults
        .result(parts)
        .map(|(((track, stripe), source), state)| SourceReport {
            peer,
            track,
            stripe,
            source,
            state,
            generation,
        })
}

pub(crate) fn want_tracks(wanted: &v1::WantTracks) -> Result<Vec<TrackName>, Vec<Violation>> {
    let mut faults = Faults::default();
    let names = tracks(&mut faults, "want_tracks.tracks", &wanted.tracks);
    faults.result(names)
}

pub(crate) fn peer_report(report: &v1::Report) -> PeerReport {
    PeerReport {
        bytes_from_cdn: report.bytes_from_cdn,
        bytes_from_peers: report.bytes_from_peers,
        bytes_to_peers: report.bytes_to_peers,
        buffer_ms: report.buffer_ms,
        latency_ms: report.latency_ms,
        stalls: report.stalls,
        stall_ms: report.stall_ms,
        backlogged_ms: report.backlogged_ms,
        backlogged_bytes: report.backlogged_bytes,
    }
}

// ---- outwards ----------------------------------------------------------------------------------

pub(crate) fn generation_out(generation: Generation) -> v1::Generation {
    v1::Generation {
        incarnation: generation.incarnation,
        term: generation.term,
        index: generation.index,
    }
}

pub(crate) fn source_out(source: Source) -> v1::Source {
    let kind = match source {
        Source::Cdn => v1::source::Kind::Cdn(v1::Cdn {}),
        Source::Peer(peer) => v1::source::Kind::Peer(peer.to_string()),
    };
    v1::Source { kind: Some(kind) }
}

pub(crate) fn assignment_out(assignment: &core_::Assignment) -> v1::Assignment {
    let tracks = assignment.tracks.iter().map(|track| v1::TrackAssignment {
        track: track.track.to_string(),
        stripe: track.stripe.into(),
        stripes: track.stripes.into(),
        source: Some(source_out(track.source)),
        standby: track.standby.map(source_out),
        make_before_break: track.make_before_break,
    });
    let children = assignment.children.iter().map(|child| v1::ChildAssignment {
        track: child.track.to_string(),
        stripe: child.stripe.into(),
        peer: child.peer.to_string(),
        standby: child.standby,
    });
    let lease = assignment.cdn_lease;
    v1::Assignment {
        generation: Some(generation_out(assignment.generation)),
        tracks: tracks.collect(),
        children: children.collect(),
        cdn_lease: Some(v1::CdnLease {
            rate_bps: lease.rate_bps,
            burst_bytes: lease.burst_bytes,
            lifetime_ms: u32::try_from(lease.lifetime.as_millis()).unwrap_or(u32::MAX),
        }),
        upload_bps: assignment.upload_bps,
    }
}

pub(crate) fn topology_out(view: &ChannelView) -> v1::Topology {
    v1::Topology {
        generation: Some(generation_out(view.generation)),
        nodes: view.nodes.iter().map(node_out).collect(),
    }
}

fn node_out(node: &NodeView) -> v1::Node {
    let state = match node.state {
        NodeState::Joining => v1::NodeState::Joining,
        NodeState::Active => v1::NodeState::Active,
        NodeState::Moving => v1::NodeState::Moving,
        NodeState::Repairing => v1::NodeState::Repairing,
        NodeState::Bypass => v1::NodeState::Bypass,
    };
    let role = match node.role {
        PeerRole::Contributor => v1::PeerRole::Contributor,
        PeerRole::Consumer => v1::PeerRole::Consumer,
        PeerRole::Relay => v1::PeerRole::Relay,
    };
    v1::Node {
        peer: node.peer.to_string(),
        track: node.track.to_string(),
        stripe: node.stripe.into(),
        source: node.source.map(source_out),
        standby: node.standby.map(source_out),
        depth: node.depth,
        children: node.children.iter().map(PeerId::to_string).collect(),
        state: state.into(),
        role: role.into(),
        upload_bps: node.upload_bps,
        health: node.health.map(|health| v1::PeerHealth {
            bytes_from_cdn: health.bytes_from_cdn,
            bytes_from_peers: health.bytes_from_peers,
            bytes_to_peers: health.bytes_to_peers,
            buffer_ms: health.buffer_ms,
            latency_ms: health.latency_ms,
            stalls: health.stalls,
        }),
        session: node.session,
        profile: Some(profile_out(&node.profile)),
        locality: Some(locality_out(&node.profile.locality)),
    }
}

pub(crate) fn audience_out(audience: core_::Audience) -> v1::Audience {
    v1::Audience {
        peers: audience.peers,
        roots: audience.roots,
        max_depth: audience.max_depth,
        bytes_from_cdn: audience.bytes_from_cdn,
        bytes_from_peers: audience.bytes_from_peers,
        offload: f64::from(audience.offload_permille) / 1000.0,
        stalls: audience.stalls,
    }
}

pub(crate) fn suspect_out(suspect: &crate::channel::SuspectView) -> v1::Suspect {
    v1::Suspect {
        peer: suspect.peer.to_string(),
        accusers: suspect.accusers,
        reports: suspect.reports,
        last_report_time: Some(timestamp(suspect.last_report)),
    }
}

pub(crate) fn finding_out(finding: &core_::Finding) -> v1::Finding {
    v1::Finding {
        invariant: finding.invariant.to_owned(),
        peer: finding
            .peer
            .map(|peer| peer.to_string())
            .unwrap_or_default(),
        track: finding
            .track
            .as_ref()
            .map(TrackName::to_string)
            .unwrap_or_default(),
        detail: finding.detail.clone(),
    }
}

// ---- times ------------------------------------------------------------------------

pub(crate) fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

pub(crate) fn timestamp_ms(milliseconds: i64) -> prost_types::Timestamp {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    timestamp(SystemTime::UNIX_EPOCH + since)
}
