//! From the core to the wire.

use espalier_orchestrator_core as core_;
use espalier_orchestrator_core::link::{
    Attached, Change, Refusal, Said, ToGateway, ToOwner, Whereabouts,
};
use espalier_orchestrator_core::{LinkState, PeerId, PeerRole, SourceState, TrackName};
use espalier_proto::cluster::v1 as wire;
use espalier_proto::cluster::v1::{change, to_gateway, to_owner};
use espalier_proto::v1;

use crate::translate::{assignment_out, generation_out, locality_out, profile_out, source_out};

pub(crate) fn to_owner_out(message: ToOwner) -> wire::ToOwner {
    let kind = match message {
        ToOwner::Open {
            gateway,
            boot,
            opening,
        } => to_owner::Kind::Open(wire::LinkOpen {
            gateway: gateway.0,
            boot,
            opening,
            shard: 0,
        }),
        ToOwner::Change {
            seq,
            channel,
            change,
        } => to_owner::Kind::Change(change_out(seq, &channel, change)),
        ToOwner::Synced => to_owner::Kind::Synced(wire::Synced {}),
        ToOwner::Reports { channel, reports } => to_owner::Kind::Reports(wire::Reports {
            channel: channel.to_string(),
            reports: reports.iter().map(report_out).collect(),
        }),
    };
    wire::ToOwner { kind: Some(kind) }
}

fn change_out(seq: u64, channel: &core_::ChannelId, change: Change) -> wire::Change {
    let (peer, attachment, kind) = match change {
        Change::Attached(attached) => {
            let (peer, attachment) = (attached.session.peer, attached.session.attachment);
            let attached = change::Kind::Attached(attached_out(&attached));
            (peer, attachment, attached)
        }
        Change::Detached { peer, attachment } => (peer, attachment, change::Kind::Detached(())),
        Change::Left { peer, attachment } => (peer, attachment, change::Kind::Left(())),
        Change::Said {
            peer,
            attachment,
            said,
        } => (peer, attachment, said_out(&said)),
    };
    wire::Change {
        seq,
        channel: channel.to_string(),
        peer: peer.0,
        attachment,
        kind: Some(kind),
    }
}

fn attached_out(attached: &Attached) -> wire::Attached {
    let session = &attached.session;
    let role = match session.role {
        PeerRole::Contributor => v1::PeerRole::Contributor,
        PeerRole::Consumer => v1::PeerRole::Consumer,
        PeerRole::Relay => v1::PeerRole::Relay,
    };
    let held = session.held.iter().map(|edge| v1::HeldEdge {
        track: edge.track.to_string(),
        stripe: edge.stripe.into(),
        source: Some(source_out(edge.source)),
        standby: edge.standby.map(source_out),
        children: edge.children.iter().map(PeerId::to_string).collect(),
    });
    wire::Attached {
        open: Some(v1::Open {
            role: role.into(),
            upload_bps: session.upload_bps,
            tracks: session.tracks.iter().map(TrackName::to_string).collect(),
            held: held.collect(),
            generation: session.generation.map(generation_out),
            ..v1::Open::default()
        }),
        proven: attached.proven,
        asked: attached.asked,
        placed: Some(placed_out(&session.profile)),
    }
}

fn placed_out(profile: &core_::PeerProfile) -> wire::Placed {
    wire::Placed {
        profile: Some(profile_out(profile)),
        locality: Some(locality_out(&profile.locality)),
    }
}

fn said_out(said: &Said) -> change::Kind {
    match said {
        Said::Acknowledged(generation) => change::Kind::Acknowledge(v1::Acknowledge {
            generation: Some(generation_out(*generation)),
        }),
        Said::WantTracks(tracks) => change::Kind::WantTracks(v1::WantTracks {
            tracks: tracks.iter().map(TrackName::to_string).collect(),
        }),
        Said::Profile(profile) => change::Kind::Placed(placed_out(profile)),
        Said::Link(report) => {
            let state = match report.state {
                LinkState::Up => v1::LinkState::Up,
                LinkState::Failed => v1::LinkState::Failed,
                LinkState::Dead => v1::LinkState::Dead,
                LinkState::Corrupt => v1::LinkState::Corrupt,
                LinkState::Late => v1::LinkState::Late,
                LinkState::Invalid => v1::LinkState::Invalid,
                LinkState::Closed => v1::LinkState::Closed,
            };
            change::Kind::LinkEvent(v1::LinkEvent {
                neighbour: report.neighbour.to_string(),
                state: state.into(),
                detail: String::new(),
            })
        }
        Said::Source(report) => {
            let state = match report.state {
                SourceState::Flowing => v1::SourceState::Flowing,
                SourceState::Repairing => v1::SourceState::Repairing,
                SourceState::Bypass => v1::SourceState::Bypass,
            };
            change::Kind::SourceEvent(v1::SourceEvent {
                track: report.track.to_string(),
                stripe: report.stripe.into(),
                source: Some(source_out(report.source)),
                state: state.into(),
                generation: report.generation.map(generation_out),
            })
        }
    }
}

fn report_out((peer, report): &(PeerId, core_::PeerReport)) -> wire::PeerReport {
    wire::PeerReport {
        peer: peer.0,
        report: Some(v1::Report {
            bytes_from_cdn: report.bytes_from_cdn,
            bytes_from_peers: report.bytes_from_peers,
            bytes_to_peers: report.bytes_to_peers,
            buffer_ms: report.buffer_ms,
            latency_ms: report.latency_ms,
            stalls: report.stalls,
            stall_ms: report.stall_ms,
            backlogged_ms: report.backlogged_ms,
            backlogged_bytes: report.backlogged_bytes,
            ..v1::Report::default()
        }),
    }
}

pub(crate) fn to_gateway_out(message: ToGateway) -> wire::ToGateway {
    let verdict = |channel: core_::ChannelId, peer: PeerId, attachment, refusal: wire::Refusal| {
        to_gateway::Kind::Verdict(wire::Verdict {
            channel: channel.to_string(),
            peer: peer.0,
            attachment,
            refusal: refusal.into(),
        })
    };
    let kind = match message {
        ToGateway::Acked { through } => to_gateway::Kind::Acked(wire::Acked { through }),
        ToGateway::Admitted {
            channel,
            peer,
            attachment,
        } => verdict(channel, peer, attachment, wire::Refusal::Unspecified),
        ToGateway::Refused {
            channel,
            peer,
            attachment,
            refusal,
        } => {
            let refusal = match refusal {
                Refusal::Taken => wire::Refusal::Taken,
                Refusal::NoChannel => wire::Refusal::NoChannel,
            };
            verdict(channel, peer, attachment, refusal)
        }
        ToGateway::Superseded {
            channel,
            peer,
            by,
            gateway,
        } => to_gateway::Kind::Superseded(wire::Superseded {
            channel: channel.to_string(),
            peer: peer.0,
            by,
            gateway: gateway.0,
        }),
        ToGateway::Assigned {
            channel,
            peer,
            attachment,
            assignment,
            seats,
        } => to_gateway::Kind::Assigned(wire::Assigned {
            channel: channel.to_string(),
            peer: peer.0,
            attachment,
            assignment: Some(assignment_out(&assignment)),
            seats: seats_out(&seats),
        }),
        ToGateway::Seats { channel, seats } => to_gateway::Kind::Seats(wire::Seats {
            channel: channel.to_string(),
            seats: seats_out(&seats),
        }),
        ToGateway::Ended { channel } => to_gateway::Kind::Ended(channel.to_string()),
    };
    wire::ToGateway { kind: Some(kind) }
}

fn seats_out(seats: &[Whereabouts]) -> Vec<wire::Whereabouts> {
    let seat = |seat: &Whereabouts| wire::Whereabouts {
        peer: seat.peer.0,
        gateway: seat.gateway.0,
    };
    seats.iter().map(seat).collect()
}
