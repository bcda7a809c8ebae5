//! What lies between two peers: regions, providers, access lines, and which NATs let whom through.
//!
//! Regions lie on a ring; the way between two grows with their distance on it. Which pairs connect
//! follows from their NAT classes, and a few of the others fail as well, always the same ones.

use espalier_orchestrator_core::NatClass;

use super::distribution::unit;
use super::scenario::{Nat, Network};
use crate::dice::{Dice, mix};

/// Where a peer is and what it is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spot {
    pub(crate) region: u16,
    /// Its provider, counted over all regions.
    pub(crate) provider: u16,
    /// What its access adds one way, in tenths of a millisecond.
    pub(crate) access: u16,
    pub(crate) nat: NatClass,
}

/// Places and ways.
#[derive(Debug, Clone)]
pub(crate) struct Geography {
    network: Network,
    nat: Nat,
    /// Of the audience, up to and with each region.
    regions: Vec<f64>,
    /// Of a region's peers, up to and with each provider.
    providers: Vec<f64>,
}

impl Geography {
    pub(crate) fn new(network: &Network, nat: &Nat) -> Self {
        Self {
            network: network.clone(),
            nat: nat.clone(),
            regions: zipf(network.regions),
            providers: zipf(network.providers),
        }
    }

    /// Draws where a peer is.
    pub(crate) fn draw(&self, dice: &mut Dice) -> Spot {
        let region = index_of(&self.regions, unit(dice));
        let provider = index_of(&self.providers, unit(dice));
        let access = self.network.access_ms.shape.draw(dice) * 10.0;
        Spot {
            region,
            provider: region * self.network.providers + provider,
            access: whole(access.min(2_000.0)),
            nat: self.draw_nat(dice),
        }
    }

    fn draw_nat(&self, dice: &mut Dice) -> NatClass {
        let nat = &self.nat;
        if nat.symmetric + nat.port_restricted + nat.no_udp <= 0.0 {
            return NatClass::Open;
        }
        let at = unit(dice);
        if at < nat.symmetric {
            NatClass::Symmetric
        } else if at < nat.symmetric + nat.port_restricted {
            NatClass::PortRestricted
        } else if at < nat.symmetric + nat.port_restricted + nat.no_udp {
            NatClass::NoUdp
        } else {
            NatClass::Open
        }
    }

    /// One way between two peers, milliseconds.
    pub(crate) fn way_ms(&self, from: Spot, to: Spot) -> f64 {
        let access = f64::from(from.access) + f64::from(to.access);
        self.between_ms(from.region, to.region) + access / 10.0
    }

    /// One way between two regions.
    fn between_ms(&self, one: u16, other: u16) -> f64 {
        let Network {
            near_ms, far_ms, ..
        } = self.network;
        let apart = one.abs_diff(other);
        let apart = apart.min(self.network.regions - apart);
        let half = f64::from((self.network.regions / 2).max(1));
        near_ms + (far_ms - near_ms) * f64::from(apart) / half
    }

    /// Whether these two connect, if both are there.
    pub(crate) fn connects(&self, one: (u32, Spot), other: (u32, Spot)) -> bool {
        let pair = (one.0.min(other.0), one.0.max(other.0));
        let drawn = mix(u64::from(pair.0) << 32 | u64::from(pair.1)) % 1000;
        let fails = drawn < u64::from(self.nat.failing_permille);
        could_connect(one.1.nat, other.1.nat) && !fails
    }

    /// The region whose part of the audience is nearest to this, with that part.
    pub(crate) fn region_of_share(&self, share: f64) -> (u16, f64) {
        let parts = shares(&self.regions);
        let apart = |part: f64| (part - share).abs();
        let best = (0..)
            .zip(parts)
            .min_by(|one, other| apart(one.1).total_cmp(&apart(other.1)));
        best.unwrap_or((0, 1.0))
    }

    /// One provider of each region (of the same rank), until they have about this part of the audience.
    pub(crate) fn providers_of_share(&self, share: f64) -> Vec<u16> {
        let parts = shares(&self.providers);
        let apart = |part: f64| (part - share).abs();
        let ranked = (0..)
            .zip(parts)
            .min_by(|one, other| apart(one.1).total_cmp(&apart(other.1)));
        let rank = ranked.map_or(0, |(rank, _)| rank);
        let all = 0..self.network.regions;
        all.map(|region| region * self.network.providers + rank)
            .collect()
    }
}

/// Whether two NATs let each other through without a relay.
pub(crate) fn could_connect(one: NatClass, other: NatClass) -> bool {
    use NatClass::{NoUdp, Open, PortRestricted, Symmetric, Unknown};
    match (one, other) {
        (NoUdp, _) | (_, NoUdp) => false,
        (Open | Unknown, _) | (_, Open | Unknown) => true,
        (PortRestricted, PortRestricted) => true,
        (Symmetric, PortRestricted | Symmetric) | (PortRestricted, Symmetric) => false,
    }
}

/// Zipf's law with exponent 1, added up.
fn zipf(count: u16) -> Vec<f64> {
    let all: f64 = (1..=count).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut sum = 0.0;
    let up_to = |rank: u16| {
        sum += 1.0 / f64::from(rank) / all;
        sum
    };
    (1..=count).map(up_to).collect()
}

fn shares(sums: &[f64]) -> Vec<f64> {
    let before = core::iter::once(0.0).chain(sums.iter().copied());
    sums.iter()
        .zip(before)
        .map(|(sum, before)| sum - before)
        .collect()
}

fn index_of(sums: &[f64], at: f64) -> u16 {
    let index = sums.partition_point(|sum| *sum < at).min(sums.len() - 1);
    u16::try_from(index).unwrap_or(0)
}

/// To the next whole number; what does not fit is cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value has been brought into the type's range"
)]
fn whole(x: f64) -> u16 {
    x.round().clamp(0.0, f64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::Scenario;

    fn geography() -> Geography {
        let scenario = Scenario::load("nat-hostile").unwrap();
        Geography::new(&scenario.network, &scenario.nat)
    }

    #[test]
    fn regions_have_their_parts_and_the_far_ones_are_far() {
        let geography = geography();
        let mut dice = Dice::new(1);
        let draws = 100_000;
        let spots: Vec<_> = (0..draws).map(|_| geography.draw(&mut dice)).collect();
        let first = spots.iter().filter(|spot| spot.region == 0).count();
        let part = geography.region_of_share(1.0);
        assert_eq!(part.0, 0);
        assert!((first as f64 / f64::from(draws) - part.1).abs() < 0.01);
        let at = |region| Spot {
            region,
            ..Spot::default()
        };
        assert!((geography.way_ms(at(0), at(0)) - 12.0).abs() < 1e-9);
        assert!((geography.way_ms(at(0), at(8)) - 120.0).abs() < 1e-9);
        assert!((geography.way_ms(at(15), at(0)) - geography.way_ms(at(0), at(1))).abs() < 1e-9);
    }

    #[test]
    fn who_connects_is_mutual() {
        use NatClass::{NoUdp, Open, PortRestricted, Symmetric};
        for one in [Open, PortRestricted, Symmetric, NoUdp] {
            for other in [Open, PortRestricted, Symmetric, NoUdp] {
                assert_eq!(could_connect(one, other), could_connect(other, one));
            }
        }
        assert!(!could_connect(Symmetric, Symmetric));
        assert!(!could_connect(PortRestricted, Symmetric));
        assert!(could_connect(Open, Symmetric));
        assert!(!could_connect(Open, NoUdp));
    }

    #[test]
    fn providers_of_a_share_are_one_in_each_region() {
        let geography = geography();
        let providers = geography.providers_of_share(0.15);
        assert_eq!(providers.len(), 16);
        let mut dice = Dice::new(2);
        let hit = (0..50_000).filter(|_| providers.contains(&geography.draw(&mut dice).provider));
        let part = hit.count() as f64 / 50_000.0;
        assert!((0.1..0.2).contains(&part), "{part}");
    }
}
