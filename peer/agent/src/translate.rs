//! Between the control plane's messages and the engine's own types.
//!
//! Total: whatever a node sends becomes a value or a [`Malformed`], never a panic. What can be left
//! out without changing the rest (a child with a broken id) is an error all the same: an assignment is
//! whole, and half of one is none.

use std::time::Duration;

use espalier_media::TrustedKeys;
use espalier_peer_core as core;
use espalier_proto::v1;

use crate::config::{Circumstances, Device};

use crate::session::SessionRequest;

/// Into how many stripes a node may cut a track.
const MAX_STRIPES: u8 = 8;

/// What a node said makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("{0:?} is not a peer's id")]
    Peer(String),
    #[error("a source names neither a peer nor the CDN")]
    Source,
    #[error("an assignment has no generation")]
    Generation,
    #[error("a track is cut into {stripes} stripes and one of them is number {stripe}")]
    Stripe { stripe: u32, stripes: u32 },
    #[error("the stripes of track {0:?} do not fit together")]
    Stripes(String),
    #[error("a public key is malformed: {0}")]
    Key(String),
}

/// The keys to trust and the incarnation, from a Welcome.
pub(crate) fn welcome(welcome: &v1::Welcome) -> Result<core::Welcome, Malformed> {
    let keys = welcome.public_keys.iter().map(AsRef::as_ref);
    let keys =
        TrustedKeys::from_encoded(keys).map_err(|error| Malformed::Key(error.to_string()))?;
    Ok(core::Welcome {
        incarnation: welcome.incarnation,
        keys,
    })
}

/// An assignment.
pub(crate) fn assignment(assignment: v1::Assignment) -> Result<core::Assignment, Malformed> {
    let v1::Assignment {
        generation: given,
        tracks,
        children,
        cdn_lease,
        upload_bps,
    } = assignment;
    let tracks = tracks.into_iter().map(track_assignment);
    let tracks: Vec<core::TrackAssignment> = tracks.collect::<Result<_, _>>()?;
    fit_together(&tracks)?;
    Ok(core::Assignment {
        generation: generation(given.ok_or(Malformed::Generation)?),
        tracks,
        children: children
            .into_iter()
            .map(child_assignment)
            .collect::<Result<_, _>>()?,
        cdn_lease: cdn_lease.map(|lease| core::CdnLease {
            rate_bps: lease.rate_bps,
            burst_bytes: lease.burst_bytes,
            lifetime: Duration::from_millis(u64::from(lease.lifetime_ms)),
        }),
        upload_bps,
    })
}

fn track_assignment(track: v1::TrackAssignment) -> Result<core::TrackAssignment, Malformed> {
    let (stripe, stripes) = stripe(track.stripe, track.stripes.max(1))?;
    Ok(core::TrackAssignment {
        track: core::TrackName(track.track),
        stripe,
        stripes,
        source: track.source.map(source).transpose()?,
        standby: track.standby.map(source).transpose()?,
        make_before_break: track.make_before_break,
    })
}

fn child_assignment(child: v1::ChildAssignment) -> Result<core::ChildAssignment, Malformed> {
    let (stripe, _) = stripe(child.stripe, u32::from(MAX_STRIPES))?;
    Ok(core::ChildAssignment {
        track: core::TrackName(child.track),
        stripe,
        peer: peer(&child.peer)?,
        standby: child.standby,
    })
}

/// The number of a stripe, and of how many it is one.
fn stripe(stripe: u32, stripes: u32) -> Result<(u8, u8), Malformed> {
    let count = u8::try_from(stripes)
        .ok()
        .filter(|count| *count <= MAX_STRIPES);
    let number = u8::try_from(stripe).ok().filter(|_| stripe < stripes);
    number
        .zip(count)
        .ok_or(Malformed::Stripe { stripe, stripes })
}

/// Whether every stripe of each track is named, and once.
fn fit_together(tracks: &[core::TrackAssignment]) -> Result<(), Malformed> {
    for track in tracks {
        let same = || tracks.iter().filter(|other| other.track == track.track);
        let agree = same().all(|other| other.stripes == track.stripes);
        let once = same().filter(|other| other.stripe == track.stripe).count() == 1;
        if !agree || !once || same().count() != usize::from(track.stripes) {
            return Err(Malformed::Stripes(track.track.0.clone()));
        }
    }
    Ok(())
}

/// A peer's id.
pub(crate) fn peer(text: &str) -> Result<core::PeerId, Malformed> {
    text.parse().map_err(|_| Malformed::Peer(text.to_owned()))
}

fn source(source: v1::Source) -> Result<core::Source, Malformed> {
    match source.kind.ok_or(Malformed::Source)? {
        v1::source::Kind::Peer(id) => Ok(core::Source::Peer(peer(&id)?)),
        v1::source::Kind::Cdn(v1::Cdn {}) => Ok(core::Source::Cdn),
    }
}

fn generation(generation: v1::Generation) -> core::Generation {
    let v1::Generation {
        incarnation,
        term,
        index,
    } = generation;
    core::Generation {
        incarnation,
        term,
        index,
    }
}

/// A generation, to the control plane.
pub(crate) fn generation_out(generation: core::Generation) -> v1::Generation {
    let core::Generation {
        incarnation,
        term,
        index,
    } = generation;
    v1::Generation {
        incarnation,
        term,
        index,
    }
}

/// A source, to the control plane.
pub(crate) fn source_out(source: core::Source) -> v1::Source {
    let kind = match source {
        core::Source::Peer(peer) => v1::source::Kind::Peer(peer.to_string()),
        core::Source::Cdn => v1::source::Kind::Cdn(v1::Cdn {}),
    };
    v1::Source { kind: Some(kind) }
}

/// A link's state, to the control plane.
pub(crate) fn link_out(
    peer: core::PeerId,
    state: core::LinkState,
    detail: String,
) -> SessionRequest {
    let state = match state {
        core::LinkState::Up => v1::LinkState::Up,
        core::LinkState::Failed => v1::LinkState::Failed,
        core::LinkState::Dead => v1::LinkState::Dead,
        core::LinkState::Corrupt => v1::LinkState::Corrupt,
        core::LinkState::Late => v1::LinkState::Late,
        core::LinkState::Invalid => v1::LinkState::Invalid,
        core::LinkState::Closed => v1::LinkState::Closed,
    };
    SessionRequest::Link(v1::LinkEvent {
        neighbour: peer.to_string(),
        state: state.into(),
        detail,
    })
}

/// A track's source, to the control plane.
pub(crate) fn source_report_out(report: core::SourceReport) -> SessionRequest {
    let state = match report.state {
        core::SourceState::Flowing => v1::SourceState::Flowing,
        core::SourceState::Repairing => v1::SourceState::Repairing,
        core::SourceState::Bypass => v1::SourceState::Bypass,
    };
    SessionRequest::Source(v1::SourceEvent {
        track: report.track.0,
        stripe: report.stripe.into(),
        source: report.source.map(source_out),
        state: state.into(),
        generation: Some(generation_out(report.generation)),
    })
}

/// The peers that an assignment names.
pub(crate) fn neighbours(assignment: &core::Assignment) -> Vec<core::PeerId> {
    let sources = assignment
        .tracks
        .iter()
        .flat_map(|track| [track.source, track.standby])
        .flatten()
        .filter_map(core::Source::peer);
    sources
        .chain(assignment.children.iter().map(|child| child.peer))
        .collect()
}

/// What the peer says of itself before it has observed its network.
pub(crate) fn profile_out(circumstances: Circumstances) -> v1::Profile {
    let device = match circumstances.device {
        Device::Unknown => v1::DeviceClass::Unspecified,
        Device::Desktop => v1::DeviceClass::Desktop,
        Device::Tv => v1::DeviceClass::Tv,
        Device::Mobile => v1::DeviceClass::Mobile,
        Device::Server => v1::DeviceClass::Server,
    };
    v1::Profile {
        device: device.into(),
        metered: circumstances.metered,
        on_battery: circumstances.on_battery,
        nat: v1::NatClass::Unspecified.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_source(id: &str) -> Option<v1::Source> {
        Some(v1::Source {
            kind: Some(v1::source::Kind::Peer(id.to_owned())),
        })
    }

    fn whole() -> v1::Assignment {
        v1::Assignment {
            generation: Some(v1::Generation {
                incarnation: 1,
                term: 2,
                index: 3,
            }),
            tracks: vec![v1::TrackAssignment {
                track: "v0".to_owned(),
                stripe: 0,
                stripes: 1,
                source: peer_source("00000000000000aa"),
                standby: Some(v1::Source {
                    kind: Some(v1::source::Kind::Cdn(v1::Cdn {})),
                }),
                make_before_break: true,
            }],
            children: vec![v1::ChildAssignment {
                track: "v0".to_owned(),
                stripe: 0,
                peer: "00000000000000bb".to_owned(),
                standby: true,
            }],
            cdn_lease: Some(v1::CdnLease {
                rate_bps: 8,
                burst_bytes: 9,
                lifetime_ms: 10,
            }),
            upload_bps: 11,
        }
    }

    #[test]
    fn an_assignment_keeps_everything() {
        let read = assignment(whole()).unwrap();
        let track = &read.tracks[0];
        assert_eq!(
            read.generation,
            core::Generation {
                incarnation: 1,
                term: 2,
                index: 3
            }
        );
        assert_eq!(track.source, Some(core::Source::Peer(core::PeerId(0xaa))));
        assert_eq!(track.standby, Some(core::Source::Cdn));
        assert!(track.make_before_break && read.children[0].standby);
        assert_eq!(read.cdn_lease.unwrap().lifetime, Duration::from_millis(10));
        assert_eq!(neighbours(&read), [core::PeerId(0xaa), core::PeerId(0xbb)]);
        assert_eq!(
            source_out(core::Source::Peer(core::PeerId(0xaa))),
            peer_source("00000000000000aa").unwrap()
        );
    }

    #[test]
    fn half_an_assignment_is_none() {
        let broken = |change: fn(&mut v1::Assignment)| {
            let mut message = whole();
            change(&mut message);
            assignment(message).unwrap_err()
        };
        assert_eq!(broken(|a| a.generation = None), Malformed::Generation);
        assert_eq!(
            broken(|a| a.tracks[0].source = peer_source("AA")),
            Malformed::Peer("AA".to_owned())
        );
        assert_eq!(
            broken(|a| a.tracks[0].standby = Some(v1::Source { kind: None })),
            Malformed::Source
        );
        assert_eq!(
            broken(|a| a.children[0].peer = String::new()),
            Malformed::Peer(String::new())
        );
    }

    #[test]
    fn the_stripes_of_a_track_are_all_named_once() {
        let striped = |named: &[(u32, u32)]| {
            let mut message = whole();
            let template = message.tracks[0].clone();
            let entry = |(stripe, stripes): &(u32, u32)| v1::TrackAssignment {
                stripe: *stripe,
                stripes: *stripes,
                ..template.clone()
            };
            message.tracks = named.iter().map(entry).collect();
            assignment(message).map(|read| read.tracks.len())
        };
        let unfit = Err(Malformed::Stripes("v0".to_owned()));
        let bad = |stripe, stripes| Err(Malformed::Stripe { stripe, stripes });
        for (named, expected) in [
            (&[(0, 0)][..], Ok(1)),
            (&[(1, 2), (0, 2)], Ok(2)),
            (&[(0, 2)], unfit.clone()),
            (&[(0, 2), (0, 2)], unfit.clone()),
            (&[(0, 2), (1, 3)], unfit),
            (&[(2, 2)], bad(2, 2)),
            (&[(0, 9)], bad(0, 9)),
            (&[(256, 300)], bad(256, 300)),
        ] {
            assert_eq!(striped(named), expected, "{named:?}");
        }
    }

    #[test]
    fn broken_keys_are_refused() {
        let message = v1::Welcome {
            public_keys: vec![vec![1, 2]],
            ..Default::default()
        };
        assert!(matches!(welcome(&message), Err(Malformed::Key(_))));
    }
}
