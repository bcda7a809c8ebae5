//! From the wire to the core.

use core::time::Duration;

use espalier_orchestrator_core as core_;
use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::link::{
    Attached, Change, Refusal, Said, ToGateway, ToOwner, Whereabouts,
};
use espalier_orchestrator_core::{ChannelId, PeerId, Source, TrackName};
use espalier_proto::cluster::v1 as wire;
use espalier_proto::cluster::v1::{change, to_gateway, to_owner};
use espalier_proto::v1;

use super::Unreadable;
use crate::translate::{self, Faults};

pub(crate) fn to_owner_in(message: wire::ToOwner) -> Result<ToOwner, Unreadable> {
    Ok(match message.kind.ok_or(Unreadable("an empty message"))? {
        to_owner::Kind::Open(open) => ToOwner::Open {
            gateway: NodeId(open.gateway),
            boot: open.boot,
            opening: open.opening,
        },
        to_owner::Kind::Change(change) => {
            let channel = channel_in(&change.channel)?;
            let seq = change.seq;
            let change = change_in(change)?;
            ToOwner::Change {
                seq,
                channel,
                change,
            }
        }
        to_owner::Kind::Synced(wire::Synced {}) => ToOwner::Synced,
        to_owner::Kind::Reports(reports) => {
            let channel = channel_in(&reports.channel)?;
            let reports = reports.reports.into_iter().map(|of| {
                let peer = PeerId(of.peer);
                (peer, translate::peer_report(&of.report.unwrap_or_default()))
            });
            ToOwner::Reports {
                channel,
                reports: reports.collect(),
            }
        }
    })
}

fn change_in(change: wire::Change) -> Result<Change, Unreadable> {
    let (peer, attachment) = (PeerId(change.peer), change.attachment);
    let said = match change.kind.ok_or(Unreadable("a change"))? {
        change::Kind::Attached(attached) => {
            return attached_in(peer, attachment, attached).map(Change::Attached);
        }
        change::Kind::Detached(()) => return Ok(Change::Detached { peer, attachment }),
        change::Kind::Left(()) => return Ok(Change::Left { peer, attachment }),
        change::Kind::Acknowledge(acknowledge) => {
            let generation = acknowledge.generation.map(translate::generation);
            Said::Acknowledged(generation.ok_or(Unreadable("an acknowledgement"))?)
        }
        change::Kind::WantTracks(wanted) => {
            let tracks = translate::want_tracks(&wanted);
            Said::WantTracks(tracks.map_err(|_violations| Unreadable("a wish for tracks"))?)
        }
        change::Kind::Placed(placed) => {
            let profile = placed_in(Some(&placed));
            Said::Profile(profile.ok_or(Unreadable("a peer's place"))?)
        }
        change::Kind::LinkEvent(event) => {
            let report = translate::link_event(peer, &event);
            Said::Link(report.map_err(|_violations| Unreadable("a word about a link"))?)
        }
        change::Kind::SourceEvent(event) => {
            let report = translate::source_event(peer, &event);
            Said::Source(report.map_err(|_violations| Unreadable("a word about a source"))?)
        }
    };
    Ok(Change::Said {
        peer,
        attachment,
        said,
    })
}

fn attached_in(
    peer: PeerId,
    attachment: u64,
    attached: wire::Attached,
) -> Result<Attached, Unreadable> {
    let unreadable = Unreadable("a session");
    let open = attached.open.ok_or(unreadable)?;
    let mut faults = Faults::default();
    let role = translate::role(&mut faults, "role", open.role);
    let tracks = translate::tracks(&mut faults, "tracks", &open.tracks);
    let held = translate::held(&mut faults, "held", &open.held);
    let parts = (|| Some((role?, tracks?, held?)))();
    let (role, tracks, held) = faults.result(parts).map_err(|_violations| unreadable)?;
    let session = core_::SessionOpened {
        peer,
        attachment,
        role,
        upload_bps: open.upload_bps,
        profile: placed_in(attached.placed.as_ref()).ok_or(unreadable)?,
        tracks,
        held,
        generation: open.generation.map(translate::generation),
    };
    Ok(Attached {
        session,
        proven: attached.proven,
        asked: attached.asked,
    })
}

fn placed_in(placed: Option<&wire::Placed>) -> Option<core_::PeerProfile> {
    let Some(placed) = placed else {
        return Some(core_::PeerProfile::default());
    };
    let locality = match &placed.locality {
        Some(locality) => translate::locality_in(locality)?,
        None => core_::Locality::default(),
    };
    Some(translate::profile(placed.profile.as_ref(), locality))
}

pub(crate) fn to_gateway_in(message: wire::ToGateway) -> Result<ToGateway, Unreadable> {
    Ok(match message.kind.ok_or(Unreadable("an empty message"))? {
        to_gateway::Kind::Acked(acked) => ToGateway::Acked {
            through: acked.through,
        },
        to_gateway::Kind::Verdict(verdict) => verdict_in(&verdict)?,
        to_gateway::Kind::Superseded(superseded) => ToGateway::Superseded {
            channel: channel_in(&superseded.channel)?,
            peer: PeerId(superseded.peer),
            by: superseded.by,
            gateway: NodeId(superseded.gateway),
        },
        to_gateway::Kind::Assigned(assigned) => {
            let assignment = assigned.assignment.as_ref().and_then(assignment_in);
            ToGateway::Assigned {
                channel: channel_in(&assigned.channel)?,
                peer: PeerId(assigned.peer),
                attachment: assigned.attachment,
                assignment: assignment.ok_or(Unreadable("an assignment"))?,
                seats: seats_in(&assigned.seats),
            }
        }
        to_gateway::Kind::Seats(seats) => ToGateway::Seats {
            channel: channel_in(&seats.channel)?,
            seats: seats_in(&seats.seats),
        },
        to_gateway::Kind::Ended(channel) => ToGateway::Ended {
            channel: channel_in(&channel)?,
        },
    })
}

fn verdict_in(verdict: &wire::Verdict) -> Result<ToGateway, Unreadable> {
    let channel = channel_in(&verdict.channel)?;
    let (peer, attachment) = (PeerId(verdict.peer), verdict.attachment);
    let refusal = match wire::Refusal::try_from(verdict.refusal) {
        Ok(wire::Refusal::Unspecified) => {
            return Ok(ToGateway::Admitted {
                channel,
                peer,
                attachment,
            });
        }
        Ok(wire::Refusal::Taken) => Refusal::Taken,
        Ok(wire::Refusal::NoChannel) => Refusal::NoChannel,
        Err(_unknown) => return Err(Unreadable("a refusal")),
    };
    Ok(ToGateway::Refused {
        channel,
        peer,
        attachment,
        refusal,
    })
}

fn assignment_in(assignment: &v1::Assignment) -> Option<core_::Assignment> {
    let track = |track: &v1::TrackAssignment| {
        Some(core_::TrackAssignment {
            track: track.track.parse().ok()?,
            stripe: stripe_in(track.stripe)?,
            stripes: u8::try_from(track.stripes.max(1)).ok()?,
            source: source_in(track.source.as_ref()?)?,
            standby: match &track.standby {
                Some(standby) => Some(source_in(standby)?),
                None => None,
            },
            make_before_break: track.make_before_break,
        })
    };
    let child = |child: &v1::ChildAssignment| {
        Some(core_::ChildAssignment {
            track: child.track.parse::<TrackName>().ok()?,
            stripe: stripe_in(child.stripe)?,
            peer: child.peer.parse().ok()?,
            standby: child.standby,
        })
    };
    let lease = assignment.cdn_lease?;
    Some(core_::Assignment {
        generation: translate::generation(assignment.generation?),
        tracks: assignment.tracks.iter().map(track).collect::<Option<_>>()?,
        children: assignment
            .children
            .iter()
            .map(child)
            .collect::<Option<_>>()?,
        cdn_lease: core_::CdnLease {
            rate_bps: lease.rate_bps,
            burst_bytes: lease.burst_bytes,
            lifetime: Duration::from_millis(u64::from(lease.lifetime_ms)),
        },
        upload_bps: assignment.upload_bps,
    })
}

fn source_in(source: &v1::Source) -> Option<Source> {
    translate::source(&mut Faults::default(), "source", source)
}

fn stripe_in(stripe: u32) -> Option<u8> {
    translate::stripe(&mut Faults::default(), "stripe", stripe)
}

fn seats_in(seats: &[wire::Whereabouts]) -> Vec<Whereabouts> {
    let seat = |seat: &wire::Whereabouts| Whereabouts {
        peer: PeerId(seat.peer),
        gateway: NodeId(seat.gateway),
    };
    seats.iter().map(seat).collect()
}

fn channel_in(channel: &str) -> Result<ChannelId, Unreadable> {
    channel.parse().map_err(|_| Unreadable("a channel's id"))
}
