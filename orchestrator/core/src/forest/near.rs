//! Who is near whom, and who can reach whom: houses (one public address), regions, NATs and privacy.
//!
//! A tree's index is kept by area: the region (a configured site counts as one), and within it the group of
//! the NAT, because peers behind the stricter NATs can only be served by peers of the other group. The first
//! [`REGIONS`] regions that a channel meets have areas of their own; the others share one.

use std::collections::BTreeMap;

use super::Forest;
use super::node::{Flags, NodeRef, PeerRef};
use crate::id_map::IdMap;
use crate::policy::Privacy;
use crate::profile::{Locality, NatClass, PeerProfile};

/// Regions and sites that are told apart.
const REGIONS: usize = 60;

/// Peers that anybody can reach, or of whom nothing is known.
const EASY: u8 = 0;
/// Peers behind a NAT that some others cannot get through.
const HARD: u8 = 1;

/// The houses and regions of a channel's audience.
#[derive(Debug, Default)]
pub(super) struct Near {
    /// The newest peer of each house: a public address that somebody has.
    houses: IdMap<u64, PeerRef>,
    /// The regions that have areas of their own.
    regions: BTreeMap<(u32, u16), u8>,
}

impl Near {
    fn region(&mut self, locality: Locality) -> u8 {
        let region = match locality {
            Locality {
                site: 0, region, ..
            } => (0, region),
            Locality { site, .. } => (site, 0),
        };
        if region == (0, 0) {
            return 0;
        }
        let known = self.regions.len();
        if known >= REGIONS {
            return self.regions.get(&region).copied().unwrap_or_default();
        }
        let next = u8::try_from(known + 1).unwrap_or_default();
        *self.regions.entry(region).or_insert(next)
    }
}

/// Whether datagrams can get through between two such NATs, whoever starts.
pub(crate) fn passes(one: NatClass, other: NatClass) -> bool {
    use NatClass::{NoUdp, Open, PortRestricted, Symmetric, Unknown};
    match (one, other) {
        (NoUdp, _) | (_, NoUdp) => false,
        (Symmetric, Symmetric | PortRestricted) | (PortRestricted, Symmetric) => false,
        (Unknown | Open, _) | (_, Unknown | Open) | (PortRestricted, PortRestricted) => true,
    }
}

fn is_hard(nat: NatClass) -> bool {
    match nat {
        NatClass::Unknown | NatClass::Open => false,
        NatClass::PortRestricted | NatClass::Symmetric | NatClass::NoUdp => true,
    }
}

impl Forest {
    /// The area of each of the peer's nodes in their trees' indices.
    pub(super) fn area_of(&mut self, peer: PeerRef) -> u8 {
        let profile = self.peer(peer).profile;
        let group = if is_hard(profile.nat) { HARD } else { EASY };
        self.near.region(profile.locality) * 2 + group
    }

    /// The groups of NATs that can serve a node, the one with fewer customers first.
    pub(super) fn groups_for(&self, node: NodeRef) -> &'static [u8] {
        let record = self.node(node);
        if record.area() & 1 == EASY {
            return &[HARD, EASY];
        }
        match self.peer(record.peer).profile.nat {
            NatClass::Symmetric => &[EASY],
            NatClass::NoUdp => &[],
            NatClass::Unknown | NatClass::Open | NatClass::PortRestricted => &[HARD, EASY],
        }
    }

    pub(super) fn can_connect(&self, one: NodeRef, other: NodeRef) -> bool {
        let (one, other) = (self.node(one), self.node(other));
        if (one.area() | other.area()) & 1 == EASY {
            return true;
        }
        let nat = |node: &super::Node| self.peer(node.peer).profile.nat;
        self.is_one_house(one.peer, other.peer) || passes(nat(one), nat(other))
    }

    fn is_one_house(&self, one: PeerRef, other: PeerRef) -> bool {
        let lan = |peer| self.peer(peer).profile.locality.lan;
        lan(one) != 0 && lan(one) == lan(other)
    }

    pub(super) fn keeps_privacy(&self, one: NodeRef, other: NodeRef) -> bool {
        let privacy = self.policy.privacy();
        if matches!(privacy, Privacy::Any | Privacy::RelayOnly) {
            return true;
        }
        let (one, other) = (self.node(one).peer, self.node(other).peer);
        let [here, there] = [one, other].map(|peer| self.peer(peer).profile.locality);
        match privacy {
            Privacy::Any | Privacy::RelayOnly => true,
            Privacy::SameSite => {
                (here.site != 0 && here.site == there.site) || self.is_one_house(one, other)
            }
            Privacy::SameRegion => {
                (here.region != 0 && here.region == there.region) || self.is_one_house(one, other)
            }
        }
    }

    /// Notes a peer's public address.
    pub(super) fn move_in(&mut self, peer: PeerRef) {
        let lan = self.peer(peer).profile.locality.lan;
        if lan == 0 {
            return;
        }
        let next = self.near.houses.insert(lan, peer);
        self.peer_mut(peer).housemates = [None, next];
        if let Some(next) = next {
            self.peer_mut(next).housemates[0] = Some(peer);
            self.mark_housed(next);
        }
    }

    pub(super) fn move_out(&mut self, peer: PeerRef) {
        let record = self.peer_mut(peer);
        let lan = record.profile.locality.lan;
        let [before, after] = core::mem::take(&mut record.housemates);
        if lan == 0 {
            return;
        }
        if let Some(after) = after {
            self.peer_mut(after).housemates[0] = before;
        }
        match (before, after) {
            (Some(before), after) => self.peer_mut(before).housemates[1] = after,
            (None, Some(after)) => drop(self.near.houses.insert(lan, after)),
            (None, None) => drop(self.near.houses.remove(lan)),
        }
    }

    /// Its nodes look at home first. A mark that is out of date costs a look.
    fn mark_housed(&mut self, peer: PeerRef) {
        let mut next = self.peer(peer).first_node;
        while let Some(node) = next.get() {
            let record = self.node_mut(node);
            record.flags.set(Flags::HOUSED, true);
            next = record.next_of_peer;
        }
    }

    /// Whether others have the peer's public address.
    pub(super) fn is_housed(&self, peer: PeerRef) -> bool {
        self.peer(peer).housemates != [None; 2]
    }

    /// Others with the peer's public address, those that came last before it first.
    pub(super) fn housemates(&self, peer: PeerRef) -> impl Iterator<Item = PeerRef> + '_ {
        let walk = move |way: usize| {
            let next = move |mate: &PeerRef| self.peer(*mate).housemates[way];
            core::iter::successors(self.peer(peer).housemates[way], next)
        };
        walk(1).chain(walk(0))
    }

    /// Takes in what else a peer is.
    pub(super) fn set_profile(&mut self, peer: PeerRef, profile: PeerProfile) {
        if self.peer(peer).profile == profile {
            return;
        }
        self.move_out(peer);
        self.peer_mut(peer).profile = profile;
        self.move_in(peer);
        let (area, housed) = (self.area_of(peer), self.is_housed(peer));
        let mut next = self.peer(peer).first_node;
        while let Some(node) = next.get() {
            self.unlist(node);
            let record = self.node_mut(node);
            record.set_area(area);
            record.flags.set(Flags::HOUSED, housed);
            next = record.next_of_peer;
            self.reindex(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lets_nothing_in_reaches_only_those_who_let_everything_in() {
        use NatClass::{NoUdp, Open, PortRestricted, Symmetric, Unknown};
        for (one, other, expect) in [
            (Open, Symmetric, true),
            (PortRestricted, PortRestricted, true),
            (PortRestricted, Symmetric, false),
            (Symmetric, Symmetric, false),
            (Unknown, Symmetric, true),
            (NoUdp, Open, false),
        ] {
            assert_eq!(passes(one, other), expect, "{one:?} {other:?}");
            assert_eq!(passes(other, one), expect, "{other:?} {one:?}");
        }
    }
}
