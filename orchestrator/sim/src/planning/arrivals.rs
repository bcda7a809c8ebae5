//! Who comes when.
//!
//! First those who will be there at the beginning, each at the time of its birth; from then on newcomers
//! without memory of each other, at a rate that is constant within each second. At a premiere all come within
//! seconds, and each who goes is followed by another: an audience of one size that has only begun to age.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use super::audience::{Audience, Drawn, NEVER, milliseconds};
use super::distribution::{unit, unit_exponential};
use super::scenario::{Day, Flash, Premiere, Scenario};
use crate::dice::Dice;

/// One who will be there at the beginning.
#[derive(Debug, Clone, Copy)]
struct Early {
    born: u32,
    drawn: Drawn,
}

/// Those who come.
#[derive(Debug)]
pub(crate) struct Arriving {
    /// The next is the last.
    early: Vec<Early>,
    /// In milliseconds; newcomers come from then on.
    begin: u32,
    zero: u32,
    /// How many come in a second.
    rate: f64,
    flash: Option<Flash>,
    day: Option<Day>,
    /// At a premiere: when the next ones come.
    seats: Option<BinaryHeap<Reverse<u32>>>,
    next: u32,
    /// The exact time of the next, in seconds.
    exact: f64,
    dice: Dice,
}

impl Arriving {
    pub(crate) fn new(
        scenario: &Scenario,
        audience: &mut Audience,
        begin: u32,
        zero: u32,
        dice: &Dice,
    ) -> Self {
        let premiere = scenario.arrivals.premiere;
        let seats = premiere.map(|premiere| premiere.seats(scenario.peers, begin));
        let mut arriving = Self {
            early: match seats {
                Some(_) => Vec::new(),
                None => early(scenario, audience, begin),
            },
            seats,
            begin,
            zero,
            rate: f64::from(scenario.peers) * audience.turnover(),
            flash: scenario.arrivals.flash,
            day: scenario.arrivals.day,
            next: NEVER,
            exact: f64::from(begin) / 1000.0,
            dice: dice.stream("arrivals", 0),
        };
        arriving.draw_next();
        arriving
    }

    /// When the first comes.
    pub(crate) fn begins(&self) -> u32 {
        match &self.seats {
            Some(_) => self.next_at(),
            None => self.early.last().map_or(self.begin, |early| early.born),
        }
    }

    pub(crate) fn next_at(&self) -> u32 {
        if let Some(seats) = &self.seats {
            return seats.peek().map_or(NEVER, |Reverse(at)| *at);
        }
        self.early.last().map_or(self.next, |early| early.born)
    }

    /// The next of those who have come by now.
    pub(crate) fn pop(&mut self, now: u32, audience: &mut Audience) -> Option<Drawn> {
        if let Some(seats) = &mut self.seats {
            let Reverse(at) = *seats.peek().filter(|Reverse(at)| *at <= now)?;
            seats.pop();
            let drawn = audience.draw();
            seats.push(Reverse(at.saturating_add(milliseconds(drawn.life))));
            return Some(drawn);
        }
        if let Some(early) = self.early.last().copied() {
            return (early.born <= now).then(|| {
                self.early.pop();
                // What is left of its life counts from the beginning.
                let waits = f64::from(self.begin - early.born) / 1000.0;
                let life = early.drawn.life + waits;
                Drawn {
                    life,
                    ..early.drawn
                }
            });
        }
        if self.next > now {
            return None;
        }
        self.draw_next();
        Some(audience.draw())
    }

    /// Draws the time of the next newcomer: where the rates add up to an exponential draw.
    fn draw_next(&mut self) {
        let mut need = unit_exponential(&mut self.dice);
        for _ in 0..1_000_000 {
            let rate = self.rate_at(self.exact);
            let left = self.exact.floor() + 1.0 - self.exact;
            if need <= rate * left {
                self.exact += need / rate;
                self.next = milliseconds(self.exact);
                return;
            }
            need -= rate * left;
            self.exact = self.exact.floor() + 1.0;
        }
        self.next = NEVER;
    }

    /// Newcomers per second in the second of this time.
    fn rate_at(&self, seconds: f64) -> f64 {
        let measured = seconds.floor() - f64::from(self.zero) / 1000.0;
        let day = self.day.map_or(1.0, |day| day.factor(measured));
        let crowd = self.flash.map_or(0.0, |flash| flash.rate(measured));
        self.rate * day + crowd
    }
}

impl Premiere {
    /// When the first on each seat comes.
    fn seats(self, peers: u32, begin: u32) -> BinaryHeap<Reverse<u32>> {
        let span = u64::from(self.over_seconds) * 1000;
        let before = |seat: u32| u64::from(seat) * span / u64::from(peers);
        let first = (0..peers)
            .map(before)
            .filter_map(|ms| u32::try_from(ms).ok());
        first.map(|ms| Reverse(begin.saturating_sub(ms))).collect()
    }
}

impl Flash {
    /// Peers of the crowd per second at this time of the measurement.
    fn rate(&self, measured: f64) -> f64 {
        let from = f64::from(self.at_seconds);
        let during = measured >= from && measured < from + f64::from(self.over_seconds);
        if during {
            f64::from(self.peers) / f64::from(self.over_seconds.max(1))
        } else {
            0.0
        }
    }
}

impl Day {
    /// How many times the night's arrivals come; the measurement begins at night.
    fn factor(&self, measured: f64) -> f64 {
        let angle = measured.max(0.0) / f64::from(self.seconds.max(1)) * core::f64::consts::TAU;
        1.0 + (self.ratio - 1.0) * (1.0 - angle.cos()) / 2.0
    }
}

/// Those who will be there at the beginning, the last born first.
fn early(scenario: &Scenario, audience: &mut Audience, begin: u32) -> Vec<Early> {
    let groups = audience.groups().to_vec();
    let past = f64::from(begin) / 1000.0;
    let mut all = Vec::with_capacity(scenario.peers as usize);
    let mut shares = 0.0;
    let up_to: Vec<f64> = groups
        .iter()
        .map(|group| {
            shares += group.share;
            shares
        })
        .collect();
    for (index, group) in (0_u8..).zip(&groups) {
        let relays = u64::from(group.relays_per_million) * u64::from(scenario.peers);
        let first = if group.relays_per_million > 0 {
            relays.div_ceil(1_000_000)
        } else {
            0
        };
        all.extend((0..first).map(|_| Early {
            born: 0,
            drawn: Drawn {
                group: index,
                relay: true,
                life: f64::INFINITY,
            },
        }));
    }
    for _ in 0..scenario.peers {
        let dice = audience.dice();
        let at = unit(dice);
        let group = up_to.partition_point(|sum| *sum < at).min(groups.len() - 1);
        let life = groups[group].session.shape.draw_ongoing(dice, past);
        // The few who would be older come in the first hours.
        let age = if life.age < past {
            life.age
        } else {
            past * (1.0 - 0.1 * unit(dice))
        };
        all.push(Early {
            born: milliseconds(past - age),
            drawn: Drawn {
                group: u8::try_from(group).unwrap_or(0),
                relay: false,
                life: life.left,
            },
        });
    }
    all.sort_by_key(|early| core::cmp::Reverse(early.born));
    all
}

#[cfg(test)]
mod tests {
    use super::super::network::Geography;
    use super::*;

    fn arriving(name: &str, peers: u32) -> (Arriving, Audience) {
        let scenario = Scenario::load(name).unwrap().with_peers(peers);
        let dice = Dice::new(1);
        let geography = Geography::new(&scenario.network, &scenario.nat);
        let mut audience = Audience::new(&scenario, geography, &dice);
        let arriving = Arriving::new(&scenario, &mut audience, 86_400_000, 86_500_000, &dice);
        (arriving, audience)
    }

    #[test]
    fn as_many_come_as_go() {
        let (mut arriving, mut audience) = arriving("steady", 10_000);
        let mut early = 0;
        while arriving.next_at() <= 86_400_000 && arriving.pop(86_400_000, &mut audience).is_some()
        {
            early += 1;
        }
        let (mut came, end) = (0, 86_400_000 + 1_000_000);
        while arriving.pop(end, &mut audience).is_some() {
            came += 1;
        }
        assert!((10_000..10_200).contains(&early), "{early}");
        // 10,000 viewers who stay 619 s: 16 a second.
        assert!((15_500..16_800).contains(&came), "{came}");
    }

    #[test]
    fn at_a_premiere_each_who_goes_is_followed_by_another() {
        let (mut arriving, mut audience) = arriving("premiere", 1_000);
        assert!(arriving.begins() >= 86_400_000 - 30_000);
        let mut here = BinaryHeap::new();
        let mut came = 0;
        while arriving.next_at() <= 86_400_000 + 600_000 {
            let now = arriving.next_at();
            while here.peek().is_some_and(|Reverse(dies)| *dies <= now) {
                here.pop();
            }
            let drawn = arriving.pop(now, &mut audience).unwrap();
            here.push(Reverse(now.saturating_add(milliseconds(drawn.life))));
            came += 1;
            let all = now > 86_400_000;
            let full = if all { 990..=1_000 } else { 1..=1_000 };
            assert!(full.contains(&here.len()), "{} at {now}", here.len());
        }
        // The short lives go first: more than one a seat in a mean life.
        assert!(came > 2_000, "{came}");
    }

    #[test]
    fn a_crowd_comes_in_its_seconds() {
        let (mut arriving, mut audience) = arriving("flash", 1_000);
        while arriving.pop(86_500_000 + 5_000, &mut audience).is_some() {}
        let mut came = 0;
        while arriving.pop(86_500_000 + 15_000, &mut audience).is_some() {
            came += 1;
        }
        assert!((98_000..100_200).contains(&came), "{came}");
    }
}
