//! From whom to take a track: the local reflexes.
//!
//! A pure function of what is known now: no step depends on how things came to be, so a reflex is
//! taken back by itself when its cause goes away, and no order of events can leave a peer without a
//! source.
//!
//! ```text
//! assigned source   usable ──► it (and the one before, until data flows: make before break)
//!                   silent ──► it and the standby; without a usable standby, the CDN too
//!                   opening ─► the one before; else wait: the CDN serves deadlines only
//!                   gone ────► the one before; else the standby; else the CDN
//!                   CDN ─────► the CDN
//! ```

use crate::ids::{PeerId, Source};

/// How a peer is as a source of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The link is being made, for the first time and not for too long.
    Opening,
    /// The link is up and was heard lately, and the peer does not repair its own source for too long.
    Usable,
    /// The link is up, but nothing was heard for a second.
    Silent,
    /// There is no link, or none that can be used.
    Gone,
}

/// A peer as a source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerId,
    pub(crate) condition: Condition,
    /// It says that it repairs its own source.
    pub(crate) repairing: bool,
    /// Data of this track came since it was subscribed to.
    pub(crate) flowed: bool,
}

impl Candidate {
    fn is_usable(&self) -> bool {
        self.condition == Condition::Usable
    }

    /// Usable, and not itself without a source: to repair from somebody who repairs helps nobody.
    fn can_help(&self) -> bool {
        self.is_usable() && !self.repairing
    }
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) assigned: Option<Source>,
    /// The assigned source, if it is a peer.
    pub(crate) source: Option<Candidate>,
    /// The standby, if it is a peer.
    pub(crate) standby: Option<Candidate>,
    /// The source before, while it is to be kept.
    pub(crate) previous: Option<Candidate>,
    /// It was taken from the CDN until the assigned source was named.
    pub(crate) previous_root: bool,
    /// Chunks came from the CDN since the track is taken from there.
    pub(crate) cdn_flowed: bool,
}

/// From whom to take a track now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Decision {
    /// Be subscribed at these peers, and no others.
    pub(crate) subscribe: [Option<PeerId>; 2],
    /// Take everything from the CDN as it comes.
    pub(crate) root: bool,
    /// Where data comes from, or is expected from.
    pub(crate) active: Option<Source>,
    /// Whether data comes from there.
    pub(crate) flowing: bool,
    /// Whether the source failed and nothing has taken over yet.
    pub(crate) repairing: bool,
    /// The source lives and repairs its own: wait for it, until the play-out deadline.
    pub(crate) patient: bool,
    /// Keep the link to the source before.
    pub(crate) keep_previous: bool,
}

/// Decides from whom to take a track.
pub(crate) fn decide(facts: &Facts) -> Decision {
    let previous = facts.previous.filter(Candidate::is_usable);
    match (facts.assigned, facts.source) {
        (Some(Source::Peer(_)), Some(source)) => match source.condition {
            Condition::Usable => from_source(source, previous, facts),
            Condition::Silent => beside_silent(source, facts),
            Condition::Opening => match previous {
                Some(previous) => from_peer(previous, true),
                None if facts.previous_root => from_cdn(facts),
                None => Decision {
                    active: Some(Source::Peer(source.peer)),
                    ..Decision::default()
                },
            },
            Condition::Gone => match previous {
                Some(previous) => from_peer(previous, true),
                None => fall_back(facts),
            },
        },
        (Some(Source::Cdn) | None, _) | (Some(Source::Peer(_)), None) => match previous {
            Some(previous) if !facts.cdn_flowed => Decision {
                root: true,
                ..from_peer(previous, true)
            },
            Some(_) | None => from_cdn(facts),
        },
    }
}

fn from_source(source: Candidate, previous: Option<Candidate>, facts: &Facts) -> Decision {
    match previous {
        Some(previous) if !source.flowed => Decision {
            subscribe: [Some(source.peer), Some(previous.peer)],
            ..from_peer(previous, true)
        },
        None if !source.flowed && facts.previous_root => Decision {
            subscribe: [Some(source.peer), None],
            ..from_cdn(facts)
        },
        Some(_) | None => from_peer(source, false),
    }
}

fn from_peer(peer: Candidate, keep_previous: bool) -> Decision {
    Decision {
        subscribe: [Some(peer.peer), None],
        root: false,
        active: Some(Source::Peer(peer.peer)),
        flowing: peer.flowed && !peer.repairing,
        repairing: peer.repairing,
        patient: peer.repairing,
        keep_previous,
    }
}

/// The source was heard less than four seconds ago: it may come back, so its subscription stays.
fn beside_silent(source: Candidate, facts: &Facts) -> Decision {
    let helper = facts.standby.filter(Candidate::can_help);
    match helper {
        Some(helper) => Decision {
            subscribe: [Some(source.peer), Some(helper.peer)],
            repairing: !helper.flowed,
            ..from_peer(helper, false)
        },
        None => Decision {
            subscribe: [Some(source.peer), None],
            ..repaired_by_cdn(facts)
        },
    }
}

fn fall_back(facts: &Facts) -> Decision {
    match facts.standby.filter(Candidate::can_help) {
        Some(helper) => Decision {
            repairing: !helper.flowed,
            ..from_peer(helper, false)
        },
        None => repaired_by_cdn(facts),
    }
}

fn repaired_by_cdn(facts: &Facts) -> Decision {
    // A standby that repairs stays subscribed: it may be the first to find a source.
    let waiting = facts
        .standby
        .filter(|standby| standby.is_usable() && standby.flowed);
    Decision {
        subscribe: [waiting.map(|standby| standby.peer), None],
        repairing: !facts.cdn_flowed,
        ..from_cdn(facts)
    }
}

fn from_cdn(facts: &Facts) -> Decision {
    Decision {
        root: true,
        active: Some(Source::Cdn),
        flowing: facts.cdn_flowed,
        ..Decision::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);
    const P: PeerId = PeerId(3);

    fn peer(peer: PeerId, condition: Condition) -> Option<Candidate> {
        Some(Candidate {
            peer,
            condition,
            repairing: false,
            flowed: true,
        })
    }

    fn check(
        source: Condition,
        standby: Condition,
        previous: Option<Condition>,
        expect: ([Option<PeerId>; 2], bool, Option<Source>),
    ) {
        let facts = Facts {
            assigned: Some(Source::Peer(S)),
            source: peer(S, source).map(|s| Candidate {
                flowed: previous.is_none(),
                ..s
            }),
            standby: peer(B, standby),
            previous: previous.and_then(|condition| peer(P, condition)),
            previous_root: false,
            cdn_flowed: false,
        };
        let decision = decide(&facts);
        assert_eq!(
            (decision.subscribe, decision.root, decision.active),
            expect,
            "{facts:?}"
        );
    }

    #[test]
    fn the_table_of_reflexes() {
        use Condition::{Gone, Opening, Silent, Usable};
        let (s, b, p) = (Some(S), Some(B), Some(P));
        let from = |peer: PeerId| Some(Source::Peer(peer));
        let cdn = Some(Source::Cdn);
        check(Usable, Usable, None, ([s, None], false, from(S)));
        check(Usable, Gone, Some(Usable), ([s, p], false, from(P)));
        check(Usable, Gone, Some(Gone), ([s, None], false, from(S)));
        check(Silent, Usable, None, ([s, b], false, from(B)));
        check(Silent, Gone, None, ([s, None], true, cdn));
        check(Opening, Usable, None, ([None, None], false, from(S)));
        check(Opening, Usable, Some(Usable), ([p, None], false, from(P)));
        check(Gone, Usable, None, ([b, None], false, from(B)));
        check(Gone, Usable, Some(Usable), ([p, None], false, from(P)));
        check(Gone, Silent, None, ([None, None], true, cdn));
        check(Gone, Gone, Some(Gone), ([None, None], true, cdn));
    }

    #[test]
    fn a_root_keeps_the_peer_before_until_the_cdn_flows() {
        let mut facts = Facts {
            assigned: Some(Source::Cdn),
            source: None,
            standby: None,
            previous: peer(P, Condition::Usable),
            previous_root: false,
            cdn_flowed: false,
        };
        let decision = decide(&facts);
        assert_eq!((decision.subscribe, decision.root), ([Some(P), None], true));
        facts.cdn_flowed = true;
        let decision = decide(&facts);
        assert_eq!((decision.subscribe, decision.root), ([None, None], true));
        assert_eq!(decision.active, Some(Source::Cdn));
    }

    #[test]
    fn a_root_that_gets_a_parent_stays_root_until_the_parent_flows() {
        for (condition, flowed, root) in [
            (Condition::Opening, false, true),
            (Condition::Usable, false, true),
            (Condition::Usable, true, false),
        ] {
            let source = Candidate {
                peer: S,
                condition,
                repairing: false,
                flowed,
            };
            let decision = decide(&Facts {
                assigned: Some(Source::Peer(S)),
                source: Some(source),
                standby: None,
                previous: None,
                previous_root: true,
                cdn_flowed: true,
            });
            assert_eq!(
                (decision.root, decision.flowing),
                (root, true),
                "{condition:?} {flowed}"
            );
        }
    }

    #[test]
    fn a_standby_that_repairs_is_no_help() {
        let repairing = Candidate {
            peer: B,
            condition: Condition::Usable,
            repairing: true,
            flowed: false,
        };
        let decision = decide(&Facts {
            assigned: Some(Source::Peer(S)),
            source: peer(S, Condition::Gone),
            standby: Some(repairing),
            previous: None,
            previous_root: false,
            cdn_flowed: false,
        });
        assert!(decision.root && decision.repairing);
    }
}
