//! The distributions that an audience is drawn from, each with where it was published.
//!
//! Times are seconds and uploads bit/s, as the scenario's file says; nothing here knows which.

use rand::RngCore;
use rand_distr::{Distribution as _, Exp1, LogNormal, StandardNormal};
use serde::Deserialize;

use crate::dice::Dice;

/// A distribution and its source.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Published {
    /// What it is.
    #[serde(flatten)]
    pub shape: Shape,
    /// Where it was published, or that it is assumed.
    pub source: String,
}

/// What a distribution is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Shape {
    /// The logarithm is normal.
    Lognormal {
        /// The logarithm's mean: the median is its exponential.
        mu: f64,
        /// The logarithm's standard deviation.
        sigma: f64,
    },
    /// Without memory.
    Exponential {
        /// Its mean.
        mean: f64,
    },
    /// Always the same.
    Constant {
        /// Which.
        value: f64,
    },
    /// Longer than any run.
    Forever,
}

/// A life that is seen in the middle: how long it has lasted and how long it will.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ongoing {
    pub(crate) age: f64,
    pub(crate) left: f64,
}

impl Shape {
    /// Says what is wrong with the numbers, if anything is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        match *self {
            Self::Lognormal { mu, sigma } if !(mu.is_finite() && positive(sigma)) => {
                Some("mu must be a number and sigma a positive one")
            }
            Self::Exponential { mean } if !positive(mean) => Some("mean must be positive"),
            Self::Constant { value } if !(value.is_finite() && value >= 0.0) => {
                Some("value must not be negative")
            }
            Self::Lognormal { .. }
            | Self::Exponential { .. }
            | Self::Constant { .. }
            | Self::Forever => None,
        }
    }

    pub(crate) fn mean(&self) -> f64 {
        match *self {
            Self::Lognormal { mu, sigma } => (mu + sigma * sigma / 2.0).exp(),
            Self::Exponential { mean } => mean,
            Self::Constant { value } => value,
            Self::Forever => f64::INFINITY,
        }
    }

    pub(crate) fn draw(&self, dice: &mut Dice) -> f64 {
        match *self {
            Self::Lognormal { mu, sigma } => {
                let normal: f64 = StandardNormal.sample(dice);
                (mu + sigma * normal).exp()
            }
            Self::Exponential { mean } => mean * unit_exponential(dice),
            Self::Constant { value } => value,
            Self::Forever => f64::INFINITY,
        }
    }

    /// Draws one of the lives that are going on at a moment of the steady state: the long ones are met
    /// more often, and each at any point of it. `oldest` is the age of those that last for ever.
    pub(crate) fn draw_ongoing(&self, dice: &mut Dice, oldest: f64) -> Ongoing {
        let part = unit(dice);
        let life = match *self {
            // The length-biased lognormal is a lognormal.
            Self::Lognormal { mu, sigma } => {
                LogNormal::new(mu + sigma * sigma, sigma).map_or(0.0, |biased| biased.sample(dice))
            }
            Self::Exponential { mean } => {
                let (age, left) = (mean * unit_exponential(dice), mean * unit_exponential(dice));
                return Ongoing { age, left };
            }
            Self::Constant { value } => value,
            Self::Forever => {
                let age = part * oldest;
                let left = f64::INFINITY;
                return Ongoing { age, left };
            }
        };
        Ongoing {
            age: part * life,
            left: (1.0 - part) * life,
        }
    }

    /// The chance per second to end at this age, of those that have reached it.
    pub(crate) fn hazard(&self, age: f64) -> f64 {
        match *self {
            Self::Lognormal { mu, sigma } => {
                let age = age.max(1e-3);
                let z = (age.ln() - mu) / sigma;
                let density =
                    (-z * z / 2.0).exp() / (age * sigma * (2.0 * core::f64::consts::PI).sqrt());
                density / survival(z).max(1e-300)
            }
            Self::Exponential { mean } => 1.0 / mean,
            Self::Constant { .. } | Self::Forever => 0.0,
        }
    }
}

/// The standard normal's upper tail (Abramowitz and Stegun 26.2.17, to 7.5e-8; its asymptotic series
/// beyond).
fn survival(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - survival(-z);
    }
    let density = (-z * z / 2.0).exp() / (2.0 * core::f64::consts::PI).sqrt();
    if z > 4.0 {
        let square = 1.0 / (z * z);
        return density / z * (1.0 - square + 3.0 * square * square);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    density
        * series
            .iter()
            .rev()
            .fold(0.0, |sum, factor| (sum + factor) * t)
}

/// Between 0 and 1.
pub(crate) fn unit(dice: &mut Dice) -> f64 {
    let bits = u32::try_from(dice.next() >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

pub(crate) fn unit_exponential(dice: &mut Dice) -> f64 {
    Exp1.sample(dice)
}

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)
    }

    fn next_u64(&mut self) -> u64 {
        self.next()
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        for chunk in to.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VELOSO: Shape = Shape::Lognormal {
        mu: 5.2355,
        sigma: 1.5443,
    };

    #[test]
    fn the_mean_of_many_draws_is_the_mean() {
        let mut dice = Dice::new(1);
        for shape in [VELOSO, Shape::Exponential { mean: 30.0 }] {
            let draws = 400_000;
            let sum: f64 = (0..draws).map(|_| shape.draw(&mut dice)).sum();
            let ratio = sum / f64::from(draws) / shape.mean();
            assert!((0.95..1.05).contains(&ratio), "{shape:?}: {ratio}");
        }
        assert!((VELOSO.mean() - 619.0).abs() < 1.0);
    }

    #[test]
    fn the_hazard_is_the_share_that_ends() {
        let mut dice = Dice::new(2);
        for age in [10.0, 100.0, 1000.0] {
            let (mut reached, mut ended) = (0.0, 0.0);
            for _ in 0..2_000_000 {
                let life = VELOSO.draw(&mut dice);
                reached += f64::from(u8::from(life > age));
                ended += f64::from(u8::from(life > age && life < age * 1.05));
            }
            let ratio = ended / reached / (age * 0.05) / VELOSO.hazard(age * 1.025);
            assert!((0.93..1.07).contains(&ratio), "at {age}: {ratio}");
        }
    }

    #[test]
    fn an_ongoing_life_has_as_much_before_as_after_it() {
        let mut dice = Dice::new(3);
        let draws = 200_000;
        let (mut age, mut left) = (0.0, 0.0);
        for _ in 0..draws {
            let life = VELOSO.draw_ongoing(&mut dice, 1.0);
            age += life.age.ln();
            left += life.left.ln();
        }
        assert!(((age - left) / f64::from(draws)).abs() < 0.02);
    }
}
