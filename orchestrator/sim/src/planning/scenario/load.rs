//! Reading scenarios, and refusing those that make no sense.

use std::path::Path;

use super::{Group, Scenario};
use crate::planning::distribution::Shape;

/// The scenarios that are part of the program, by name.
const BUILT_IN: [(&str, &str); 15] = [
    ("steady", include_str!("../../../scenarios/steady.toml")),
    ("premiere", include_str!("../../../scenarios/premiere.toml")),
    ("flash", include_str!("../../../scenarios/flash.toml")),
    ("flash-w1", include_str!("../../../scenarios/flash-w1.toml")),
    ("flash-w4", include_str!("../../../scenarios/flash-w4.toml")),
    (
        "flash-warm",
        include_str!("../../../scenarios/flash-warm.toml"),
    ),
    (
        "region-loss",
        include_str!("../../../scenarios/region-loss.toml"),
    ),
    ("asn-loss", include_str!("../../../scenarios/asn-loss.toml")),
    ("diurnal", include_str!("../../../scenarios/diurnal.toml")),
    (
        "free-riders",
        include_str!("../../../scenarios/free-riders.toml"),
    ),
    ("abr", include_str!("../../../scenarios/abr.toml")),
    (
        "nat-hostile",
        include_str!("../../../scenarios/nat-hostile.toml"),
    ),
    (
        "wrong-capacity",
        include_str!("../../../scenarios/wrong-capacity.toml"),
    ),
    ("sports", include_str!("../../../scenarios/sports.toml")),
    ("relays", include_str!("../../../scenarios/relays.toml")),
];

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Neither a built-in nor a file.
    #[error(
        "{name} is neither a file nor one of the built-in scenarios: {}",
        names()
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// Why it is no file.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or not a scenario.
    #[error("{name} is not a scenario")]
    Malformed {
        /// The name or file.
        name: String,
        /// Where it is wrong.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It says what cannot be.
    #[error("{name}: {problem}")]
    Impossible {
        /// The scenario.
        name: String,
        /// What cannot be.
        problem: String,
    },
}

fn names() -> String {
    Scenario::built_in().collect::<Vec<_>>().join(", ")
}

impl Scenario {
    /// The names of the built-in scenarios.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Reads a built-in scenario by its name, or a file.
    ///
    /// # Errors
    /// If there is none, or it makes no sense.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        let text = match built_in {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name)).map_err(|source| {
                let name = name.to_owned();
                ScenarioError::Unknown { name, source }
            })?,
        };
        Self::parse(name, &text)
    }

    /// Reads a scenario.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|source| ScenarioError::Malformed {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        match scenario.problem() {
            None => Ok(scenario),
            Some(problem) => Err(ScenarioError::Impossible {
                name: name.to_owned(),
                problem,
            }),
        }
    }

    /// Makes it as large as that; a crowd grows with it.
    #[must_use]
    pub fn with_peers(mut self, peers: u32) -> Self {
        if let Some(flash) = &mut self.arrivals.flash {
            let scaled = u64::from(flash.peers) * u64::from(peers) / u64::from(self.peers.max(1));
            flash.peers = u32::try_from(scaled).unwrap_or(u32::MAX).max(1);
        }
        self.peers = peers;
        self
    }

    /// How many roots are wanted in each tree.
    pub fn target_roots(&self) -> u32 {
        let wanted = u64::from(self.peers) * u64::from(self.channel.target_roots_per_million);
        u32::try_from(wanted / 1_000_000).unwrap_or(u32::MAX).max(1)
    }

    /// Whether there is one track in one stripe.
    pub fn is_one_tree(&self) -> bool {
        self.channel.tracks.len() == 1 && self.channel.stripes == 1
    }

    fn problem(&self) -> Option<String> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let all: f64 = self.groups.iter().map(|group| group.share).sum();
        let tracks: f64 = self.channel.tracks.iter().map(|track| track.share).sum();
        let rules = [
            (self.peers > 0, "peers must not be 0"),
            (self.seconds > 0, "seconds must not be 0"),
            (
                (all - 1.0).abs() < 1e-6,
                "the groups' shares must add up to 1",
            ),
            (
                (tracks - 1.0).abs() < 1e-6,
                "the tracks' shares must add up to 1",
            ),
            (self.channel.tracks.len() <= 8, "more than 8 tracks"),
            (
                self.past_seconds <= 1_000_000,
                "past_seconds must not exceed 1,000,000",
            ),
            (
                (1..=8).contains(&self.channel.stripes),
                "there must be 1 to 8 stripes",
            ),
            (
                self.arrivals.premiere.is_none()
                    || (self.arrivals.flash.is_none() && self.arrivals.day.is_none()),
                "at a premiere there is neither a flash crowd nor a day",
            ),
            (self.network.regions > 0, "there must be a region"),
            (self.network.providers > 0, "there must be a provider"),
            (
                share(self.nat.port_restricted + self.nat.symmetric + self.nat.no_udp),
                "the NAT classes' shares must not exceed 1",
            ),
        ];
        let broken = rules.iter().find(|(holds, _)| !holds);
        let group = |group: &Group| {
            let shapes = [&group.session.shape, &group.upload.shape];
            let shape = shapes.into_iter().find_map(Shape::problem);
            let shares = [
                group.consumers,
                group.usable,
                group.metered,
                group.on_battery,
            ];
            let shares =
                (!shares.into_iter().all(share)).then_some("a share must lie within 0 and 1");
            let ends = group.relays_per_million > 0 || group.session.shape.mean().is_finite();
            let ends = (!ends).then_some("viewers must leave some time");
            let problem = shape.or(shares).or(ends)?;
            Some(format!("group {}: {problem}", group.name))
        };
        let broken = broken.map(|(_, problem)| (*problem).to_owned());
        broken.or_else(|| self.groups.iter().find_map(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_one_and_has_its_name() {
        for name in Scenario::built_in() {
            let scenario = Scenario::load(name).unwrap();
            assert_eq!(scenario.name, name);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = include_str!("../../../scenarios/steady.toml");
        for (from, to) in [
            ("share = 1.0", "share = 0.5"),
            ("peers = 1_000_000", "peers = 0"),
            ("sigma = 1.5443", "sigma = -1.0"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Scenario::parse("changed", &text.replace(from, to)).unwrap_err();
            assert!(matches!(error, ScenarioError::Impossible { .. }), "{error}");
        }
        let unknown = text.replace("peers = ", "pears = ");
        let error = Scenario::parse("changed", &unknown).unwrap_err();
        assert!(matches!(error, ScenarioError::Malformed { .. }), "{error}");
        assert!(Scenario::load("no-such-scenario").is_err());
    }

    #[test]
    fn a_crowd_grows_with_the_audience() {
        let flash = Scenario::load("flash").unwrap();
        let (peers, crowd) = (flash.peers, flash.arrivals.flash.unwrap().peers);
        let larger = flash.with_peers(peers * 3);
        assert_eq!(larger.arrivals.flash.unwrap().peers, crowd * 3);
    }
}
