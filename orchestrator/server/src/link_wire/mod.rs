//! Between the link's messages in the core and on the wire.
//!
//! Nodes are trusted, but not to be of the same release: what cannot be read is an error, and ends the stream.

mod incoming;
mod outgoing;

pub(crate) use incoming::{to_gateway_in, to_owner_in};
pub(crate) use outgoing::{to_gateway_out, to_owner_out};

/// A message of another node that makes no sense here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} of another node cannot be read")]
pub(crate) struct Unreadable(pub(crate) &'static str);

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use espalier_orchestrator_core as core_;
    use espalier_orchestrator_core::NodeId;
    use espalier_orchestrator_core::link::{
        Attached, Change, Refusal, Said, ToGateway, ToOwner, Whereabouts,
    };
    use espalier_orchestrator_core::{Generation, PeerId, Source};

    use super::*;

    const PEER: PeerId = PeerId(u64::MAX - 7);

    fn news() -> core_::ChannelId {
        "news".parse().unwrap()
    }

    fn generation() -> Generation {
        Generation {
            incarnation: 3,
            term: 2,
            index: 1,
        }
    }

    fn profile() -> core_::PeerProfile {
        core_::PeerProfile {
            device: core_::DeviceClass::Tv,
            nat: core_::NatClass::Symmetric,
            locality: core_::Locality {
                lan: u64::MAX,
                site: 3,
                asn: 64_496,
                region: 83,
            },
            ..core_::PeerProfile::default()
        }
    }

    fn changes() -> Vec<Change> {
        let session = core_::SessionOpened {
            peer: PEER,
            attachment: 77,
            role: core_::PeerRole::Relay,
            upload_bps: 5,
            profile: profile(),
            tracks: vec!["v0".parse().unwrap()],
            held: vec![core_::HeldEdge {
                track: "v0".parse().unwrap(),
                stripe: 3,
                source: Source::Peer(PeerId(1)),
                standby: Some(Source::Cdn),
                children: vec![PeerId(2)],
            }],
            generation: Some(generation()),
        };
        let (peer, attachment) = (PEER, 77);
        let said = |said| Change::Said {
            peer,
            attachment,
            said,
        };
        let attached = |proven, asked| {
            Change::Attached(Attached {
                session: session.clone(),
                proven,
                asked,
            })
        };
        let link = core_::LinkReport {
            peer,
            neighbour: PeerId(4),
            state: core_::LinkState::Late,
        };
        let source = core_::SourceReport {
            peer,
            track: "v0".parse().unwrap(),
            stripe: 5,
            source: Source::Cdn,
            state: core_::SourceState::Bypass,
            generation: Some(generation()),
        };
        vec![
            attached(true, false),
            attached(false, true),
            Change::Detached { peer, attachment },
            Change::Left { peer, attachment },
            said(Said::Acknowledged(generation())),
            said(Said::WantTracks(vec!["v1".parse().unwrap()])),
            said(Said::Profile(profile())),
            said(Said::Link(link)),
            said(Said::Source(source)),
        ]
    }

    #[test]
    fn what_gateways_say_arrives_as_it_was() {
        let channel = news();
        let mut messages = vec![ToOwner::Synced];
        messages.extend(changes().into_iter().map(|change| ToOwner::Change {
            seq: 9,
            channel: channel.clone(),
            change,
        }));
        let report = core_::PeerReport {
            bytes_from_cdn: 1,
            bytes_from_peers: 2,
            bytes_to_peers: 3,
            buffer_ms: 4,
            latency_ms: 5,
            stalls: 6,
            stall_ms: 7,
            backlogged_ms: 8,
            backlogged_bytes: 9,
        };
        messages.push(ToOwner::Reports {
            channel,
            reports: vec![(PEER, report)],
        });
        messages.push(ToOwner::Open {
            gateway: NodeId(1),
            boot: 2,
            opening: 3,
        });
        for message in messages {
            let there = to_owner_in(to_owner_out(message.clone())).unwrap();
            assert_eq!(there, message);
        }
    }

    #[test]
    fn what_owners_say_arrives_as_it_was() {
        let (channel, peer, attachment) = (news(), PEER, 77);
        let assignment = core_::Assignment {
            generation: generation(),
            tracks: vec![core_::TrackAssignment {
                track: "v0".parse().unwrap(),
                stripe: 1,
                stripes: 4,
                source: Source::Peer(PeerId(1)),
                standby: Some(Source::Cdn),
                make_before_break: true,
            }],
            children: vec![core_::ChildAssignment {
                track: "v0".parse().unwrap(),
                stripe: 2,
                peer: PeerId(2),
                standby: true,
            }],
            cdn_lease: core_::CdnLease {
                rate_bps: 1,
                burst_bytes: 2,
                lifetime: Duration::from_millis(3),
            },
            upload_bps: 4,
        };
        let gateway = NodeId(5);
        let seats = vec![Whereabouts { peer, gateway }];
        let mut messages = vec![
            ToGateway::Acked { through: 8 },
            ToGateway::Admitted {
                channel: channel.clone(),
                peer,
                attachment,
            },
            ToGateway::Superseded {
                channel: channel.clone(),
                peer,
                by: 6,
                gateway,
            },
            ToGateway::Assigned {
                channel: channel.clone(),
                peer,
                attachment,
                assignment,
                seats: seats.clone(),
            },
            ToGateway::Seats {
                channel: channel.clone(),
                seats,
            },
            ToGateway::Ended {
                channel: channel.clone(),
            },
        ];
        messages.extend(
            [Refusal::Taken, Refusal::NoChannel].map(|refusal| ToGateway::Refused {
                channel: channel.clone(),
                peer,
                attachment,
                refusal,
            }),
        );
        for message in messages {
            let there = to_gateway_in(to_gateway_out(message.clone())).unwrap();
            assert_eq!(there, message);
        }
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        use espalier_proto::cluster::v1 as wire;
        use wire::{change, to_gateway, to_owner};
        let change = |kind, channel: &str| wire::ToOwner {
            kind: Some(to_owner::Kind::Change(wire::Change {
                seq: 1,
                channel: channel.to_owned(),
                peer: 1,
                attachment: 1,
                kind,
            })),
        };
        for message in [
            wire::ToOwner { kind: None },
            change(None, "news"),
            change(Some(change::Kind::Detached(())), "News"),
            change(
                Some(change::Kind::Attached(wire::Attached::default())),
                "news",
            ),
            change(Some(change::Kind::Acknowledge(Default::default())), "news"),
            change(Some(change::Kind::SourceEvent(Default::default())), "news"),
        ] {
            assert!(to_owner_in(message.clone()).is_err(), "{message:?}");
        }
        let assigned = wire::Assigned {
            channel: "news".to_owned(),
            ..wire::Assigned::default()
        };
        for kind in [None, Some(to_gateway::Kind::Assigned(assigned))] {
            let message = wire::ToGateway { kind };
            assert!(to_gateway_in(message.clone()).is_err(), "{message:?}");
        }
    }
}
