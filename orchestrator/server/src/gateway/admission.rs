//! Checks the first message of a session.

use espalier_orchestrator_core::{ChannelId, Generation, HeldEdge, PeerId, PeerRole, TrackName};
use espalier_proto::v1;

use crate::config::Limits;
use crate::status::{SessionError, Violation};
use crate::translate::{self, Faults};

/// The protocol versions that peers of this release speak to each other, lowest and highest.
pub(crate) const SUPPORTED_VERSIONS: (u32, u32) = (1, 1);
/// Longest ticket that is looked at, bytes. Ours have 41.
const MAX_TICKET: usize = 256;
/// Longest name that a peer's software may give itself, bytes.
const MAX_AGENT: usize = 128;

/// A checked `Open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) peer: PeerId,
    pub(crate) channel: ChannelId,
    pub(crate) role: PeerRole,
    pub(crate) upload_bps: u64,
    /// What the peer says that it is.
    pub(crate) profile: Option<v1::Profile>,
    pub(crate) tracks: Vec<TrackName>,
    pub(crate) held: Vec<HeldEdge>,
    pub(crate) generation: Option<Generation>,
    pub(crate) ticket: Vec<u8>,
    /// The peer's own count of its attempts to attach; 0: it does not count.
    pub(crate) attempt: u64,
}

impl Admission {
    /// Checks an `Open`.
    ///
    /// # Errors
    /// Everything that is wrong with it at once; or that it speaks no version that others speak.
    pub(crate) fn check(open: v1::Open, limits: &Limits) -> Result<Self, SessionError> {
        let mut faults = Faults::default();
        let peer = faults.parse("open.peer", &open.peer);
        let channel = faults.parse("open.channel", &open.channel);
        let role = translate::role(&mut faults, "open.role", open.role);
        let tracks = translate::tracks(&mut faults, "open.tracks", &open.tracks);
        let held = translate::held(&mut faults, "open.held", &open.held);
        if open.upload_bps > limits.max_upload_bps {
            faults.add(
                "open.upload_bps",
                format!("is more than {}", limits.max_upload_bps),
            );
        }
        if open.ticket.len() > MAX_TICKET {
            faults.add("open.ticket", format!("is longer than {MAX_TICKET} bytes"));
        }
        if open.agent.len() > MAX_AGENT {
            faults.add("open.agent", format!("is longer than {MAX_AGENT} bytes"));
        }
        if open.min_version == 0 || open.min_version > open.max_version {
            faults.add(
                "open.min_version",
                "must be at least 1 and at most max_version",
            );
        }
        let parts = (|| Some((peer?, channel?, role?, tracks?, held?)))();
        let (peer, channel, role, tracks, held) =
            faults.result(parts).map_err(SessionError::Invalid)?;
        let (lowest, highest) = SUPPORTED_VERSIONS;
        if open.min_version > highest || open.max_version < lowest {
            return Err(SessionError::Versions {
                supported: format!("{lowest} to {highest}"),
            });
        }
        Ok(Self {
            peer,
            channel,
            role,
            // A consumer has no children, so what it could upload is nobody's to plan with.
            upload_bps: if role == PeerRole::Consumer {
                0
            } else {
                open.upload_bps
            },
            profile: open.profile,
            tracks,
            held,
            generation: open.generation.map(translate::generation),
            ticket: open.ticket,
            attempt: open.attempt,
        })
    }

    /// The channel that an `Open` names, if it names one: what a token is checked against before anything
    /// else is looked at.
    pub(crate) fn channel_of(open: &v1::Open) -> Result<ChannelId, SessionError> {
        open.channel
            .parse()
            .map_err(|error: espalier_orchestrator_core::IdError| {
                let violation = Violation {
                    field: "open.channel".to_owned(),
                    problem: error.to_string(),
                };
                SessionError::Invalid(vec![violation])
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> v1::Open {
        v1::Open {
            peer: "00000000000000ff".to_owned(),
            channel: "news".to_owned(),
            role: v1::PeerRole::Contributor.into(),
            upload_bps: 4_000_000,
            min_version: 1,
            max_version: 1,
            ..v1::Open::default()
        }
    }

    fn fields(open: v1::Open) -> Vec<String> {
        match Admission::check(open, &Limits::default()) {
            Err(SessionError::Invalid(violations)) => violations
                .into_iter()
                .map(|violation| violation.field)
                .collect(),
            other => panic!("expected violations, got {other:?}"),
        }
    }

    #[test]
    fn every_field_is_checked() {
        type Change = fn(&mut v1::Open);
        let held = |change: fn(&mut v1::HeldEdge)| {
            let mut edge = v1::HeldEdge {
                track: "v0".to_owned(),
                source: Some(v1::Source {
                    kind: Some(v1::source::Kind::Cdn(v1::Cdn {})),
                }),
                ..v1::HeldEdge::default()
            };
            change(&mut edge);
            v1::Open {
                held: vec![edge],
                ..open()
            }
        };
        let table: [(&str, Change); 11] = [
            ("open.peer", |open| open.peer = "FF".to_owned()),
            ("open.channel", |open| open.channel = "News".to_owned()),
            ("open.role", |open| open.role = 0),
            ("open.role", |open| open.role = 99),
            ("open.tracks[1]", |open| {
                open.tracks = vec!["a".to_owned(), "a b".to_owned()]
            }),
            ("open.tracks", |open| open.tracks = vec!["a".to_owned(); 65]),
            ("open.upload_bps", |open| open.upload_bps = u64::MAX),
            ("open.ticket", |open| open.ticket = vec![0; 300]),
            ("open.agent", |open| open.agent = "x".repeat(200)),
            ("open.min_version", |open| open.min_version = 0),
            ("open.min_version", |open| {
                (open.min_version, open.max_version) = (3, 2)
            }),
        ];
        for (field, change) in table {
            let mut bad = open();
            change(&mut bad);
            assert_eq!(fields(bad), [field]);
        }
        assert_eq!(
            fields(held(|edge| edge.track.clear())),
            ["open.held[0].track"]
        );
        assert_eq!(
            fields(held(|edge| edge.source = Some(v1::Source { kind: None }))),
            ["open.held[0].source"]
        );
        assert_eq!(
            fields(held(|edge| edge.children = vec!["x".to_owned()])),
            ["open.held[0].children[0]"]
        );
        assert_eq!(fields(v1::Open::default()).len(), 4, "all at once");
    }

    #[test]
    fn versions_must_overlap() {
        let newer = v1::Open {
            min_version: 2,
            max_version: 3,
            ..open()
        };
        let refused = Admission::check(newer, &Limits::default());
        assert!(matches!(refused, Err(SessionError::Versions { .. })));
        let both = v1::Open {
            min_version: 1,
            max_version: 3,
            ..open()
        };
        assert!(Admission::check(both, &Limits::default()).is_ok());
    }

    #[test]
    fn a_consumer_offers_nothing() {
        let consumer = v1::Open {
            role: v1::PeerRole::Consumer.into(),
            ..open()
        };
        assert_eq!(
            Admission::check(consumer, &Limits::default())
                .unwrap()
                .upload_bps,
            0
        );
    }
}
