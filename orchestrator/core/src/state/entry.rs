//! What one event of a channel decided, as the log carries it: facts to be noted, nothing to be decided
//! again.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::codec::{DecodeError, EntryTooLong, Reader, Writer, millis};
use crate::events::PeerRole;
use crate::ids::{PeerId, Source, TrackIndex, TrackName};
use crate::policy::Policy;
use crate::profile::PeerProfile;

/// The version of [`Entry`] that this program writes, and the only one that it reads.
pub const ENTRY_VERSION: u16 = 5;

const WHAT: &str = "a channel's entry";

/// Everything that one event decided: never split over two entries. Its parts are applied in the order
/// in which they stand here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`ENTRY_VERSION`] of the writer.
    pub version: u16,
    /// Of the channel's state: an entry for another incarnation changes nothing.
    pub incarnation: u64,
    /// How many entries of the channel come before this one. It is built on all of them: if one of them is
    /// not in the log, this one changes nothing. `None`: whatever comes before it.
    pub follows: Option<u64>,
    /// The channel's time, which never goes back, in whole milliseconds.
    #[serde(with = "millis")]
    pub time: Duration,
    /// The policy that is planned with from here on, if it changed.
    pub policy: Option<Box<Policy>>,
    /// All tracks from here on, if one of them changed.
    pub tracks: Option<Vec<TrackRecord>>,
    /// Peers that are not in the channel any more, and with them their edges.
    pub left: Vec<PeerId>,
    /// Peers that are in the channel from here on, or offer or want something else.
    pub peers: Vec<DecidedPeer>,
    /// The edges as they are from here on, each (peer, track) at most once.
    pub edges: Vec<DecidedEdge>,
    /// Pairs that must not be planned.
    pub parted: Vec<Parting>,
    /// Accusations of corrupt bytes.
    pub accusations: Vec<Accusation>,
    /// Suspects whose accusations are forgotten.
    pub forgotten: Vec<PeerId>,
    /// Peers whose assignment changed: this entry's place in the log is their newest generation.
    pub told: Vec<Telling>,
}

/// A peer's assignment has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// Whose.
    pub peer: PeerId,
    /// Of what it says, so that a new owner can tell whether what it would say is news.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
}

/// A peer as it is from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedPeer {
    /// Who.
    pub peer: PeerId,
    /// How it is.
    pub record: Offer,
}

/// What a peer is willing to do and wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is willing to do.
    pub role: PeerRole,
    /// Its upload budget, wire bit/s.
    pub upload_bps: u64,
    /// What it is besides.
    pub profile: PeerProfile,
    /// The tracks that it wants, by name; empty: the defaults.
    pub wanted: Vec<TrackName>,
    /// When it joined, in channel time.
    #[serde(with = "millis")]
    pub joined_at: Duration,
}

/// Where one peer takes one stripe of one track from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedEdge {
    /// The child.
    pub peer: PeerId,
    /// The track.
    pub track: TrackIndex,
    /// The stripe; 0 until tracks are striped.
    pub stripe: u8,
    /// Its place; `None`: the peer is not in this tree any more.
    pub edge: Option<Edge>,
}

/// A peer's place in one tree, with all that a new owner's planner has to know about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The parent.
    pub source: Source,
    /// What the source replaces, as long as the move lasts.
    pub moving_from: Option<Source>,
    /// The old source's budget does not cover this peer any more.
    pub evicted: bool,
    /// The peer that takes over this one's children, with its budget reserved.
    pub successor: Option<PeerId>,
    /// Data has flowed: it may have children.
    pub warm: bool,
    /// When the join or the move is given up, in channel time.
    #[serde(with = "millis::option")]
    pub deadline: Option<Duration>,
    /// No planned move before, in channel time.
    #[serde(with = "millis")]
    pub hold_until: Duration,
    /// The number of this root among all that ever were; 0: it is none.
    pub root_since: u64,
}

/// A track as it is planned with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackRecord {
    /// Its number.
    pub index: TrackIndex,
    /// Its name.
    pub name: TrackName,
    /// Whether a peer that names no tracks gets it.
    pub default: bool,
    /// The payload rate planned with, bit/s.
    pub rate_bps: u64,
    /// The rate is known, not assumed.
    pub measured: bool,
}

/// Two peers that must not be planned as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// The one with the lower id.
    pub one: PeerId,
    /// The other.
    pub other: PeerId,
    /// Until when, in channel time; [`Duration::MAX`]: for good.
    #[serde(with = "millis")]
    pub until: Duration,
}

/// A peer's word that another sent it corrupt bytes, at the entry's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accusation {
    /// Who says so.
    pub accuser: PeerId,
    /// Of whom.
    pub suspect: PeerId,
}

impl Entry {
    /// Makes an entry that decides nothing yet.
    pub fn new(incarnation: u64, time: Duration) -> Self {
        Self {
            version: ENTRY_VERSION,
            incarnation,
            follows: None,
            time,
            policy: None,
            tracks: None,
            left: Vec::new(),
            peers: Vec::new(),
            edges: Vec::new(),
            parted: Vec::new(),
            accusations: Vec::new(),
            forgotten: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Whether nothing is decided.
    pub fn is_empty(&self) -> bool {
        let Self {
            version: _,
            incarnation: _,
            follows: _,
            time: _,
            policy,
            tracks,
            left,
            peers,
            edges,
            parted,
            accusations,
            forgotten,
            told,
        } = self;
        policy.is_none()
            && tracks.is_none()
            && left.is_empty()
            && peers.is_empty()
            && edges.is_empty()
            && parted.is_empty()
            && accusations.is_empty()
            && forgotten.is_empty()
            && told.is_empty()
    }

    /// Writes the entry as bytes, the version first.
    ///
    /// # Errors
    /// When it is longer than any may be.
    pub fn encode(&self) -> Result<Vec<u8>, EntryTooLong> {
        let mut writer = Writer::default();
        writer.put(self);
        writer.finish()
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// When another version wrote it, or the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Reader::new(WHAT, bytes)?.version(ENTRY_VERSION)?;
        let mut reader = Reader::new(WHAT, bytes)?;
        let entry = reader.take()?;
        reader.finish()?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyDraft, Privacy, RegionBudget, SiteRule};
    use crate::profile::{DeviceClass, Locality, NatClass};

    fn profile() -> PeerProfile {
        PeerProfile {
            device: DeviceClass::Tv,
            metered: true,
            on_battery: true,
            nat: NatClass::Symmetric,
            locality: Locality {
                lan: u64::MAX,
                site: 3,
                asn: u32::MAX,
                region: 2,
            },
        }
    }

    fn policy() -> Policy {
        let draft = PolicyDraft {
            stripes: Some(4),
            privacy: Some(Privacy::SameRegion),
            cdn_budget_by_region: vec![RegionBudget {
                region: 2,
                roots: 9,
            }],
            sites: vec![SiteRule {
                subnet: "2001:db8::/32".parse().unwrap(),
                site: 3,
                region: 2,
            }],
            ..PolicyDraft::default()
        };
        Policy::validate(&draft).unwrap()
    }

    fn full() -> Entry {
        let (one, other) = (PeerId(u64::MAX), PeerId(7));
        let offer = Offer {
            role: PeerRole::Contributor,
            upload_bps: 4_000_000,
            profile: profile(),
            wanted: vec!["v0".parse().unwrap(), "a-en".parse().unwrap()],
            joined_at: Duration::from_millis(1_800_000_000_000),
        };
        let edge = Edge {
            source: Source::Peer(other),
            moving_from: Some(Source::Cdn),
            evicted: true,
            successor: Some(other),
            warm: true,
            deadline: Some(Duration::from_millis(15_001)),
            hold_until: Duration::ZERO,
            root_since: 12,
        };
        let (track, stripe) = (TrackIndex(1), 0);
        Entry {
            policy: Some(Box::new(policy())),
            tracks: Some(vec![TrackRecord {
                index: track,
                name: "v0".parse().unwrap(),
                default: true,
                rate_bps: 1_500_000,
                measured: true,
            }]),
            left: vec![other],
            peers: vec![DecidedPeer {
                peer: one,
                record: offer,
            }],
            edges: vec![
                DecidedEdge {
                    peer: one,
                    track,
                    stripe,
                    edge: Some(edge),
                },
                DecidedEdge {
                    peer: other,
                    track,
                    stripe,
                    edge: None,
                },
            ],
            parted: vec![Parting {
                one: other,
                other: one,
                until: Duration::MAX,
            }],
            accusations: vec![Accusation {
                accuser: one,
                suspect: other,
            }],
            forgotten: vec![one],
            told: vec![Telling {
                peer: one,
                digest: u64::MAX,
            }],
            follows: Some(u64::MAX),
            ..Entry::new(u64::MAX, Duration::from_millis(42))
        }
    }

    #[test]
    fn bytes_say_everything_and_begin_with_the_version() {
        for entry in [full(), Entry::new(1, Duration::ZERO)] {
            let bytes = entry.encode().unwrap();
            assert_eq!(bytes[0], 5);
            assert_eq!(Entry::decode(&bytes), Ok(entry));
        }
        assert!(!full().is_empty());
        assert!(Entry::new(1, Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = full().encode().unwrap();
        bytes[0] = 6;
        let error = DecodeError::UnknownVersion {
            what: WHAT,
            version: 6,
        };
        assert_eq!(Entry::decode(&bytes), Err(error));
    }

    #[test]
    fn truncated_and_longer_and_garbled_bytes_are_errors_or_entries_and_never_panics() {
        let bytes = full().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..end]).is_err(), "{end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            Entry::decode(&longer),
            Err(DecodeError::Damaged { what: WHAT })
        );
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut garbled = bytes.clone();
                garbled[at] ^= flip;
                // What can be read must be what can be written.
                if let Ok(entry) = Entry::decode(&garbled) {
                    assert_eq!(Entry::decode(&entry.encode().unwrap()), Ok(entry));
                }
            }
        }
    }

    #[test]
    fn a_usual_entry_is_small() {
        let mut entry = full();
        (entry.policy, entry.tracks) = (None, None);
        assert!(entry.encode().unwrap().len() < 230);
    }
}
