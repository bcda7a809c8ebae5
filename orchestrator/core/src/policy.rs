//! What a channel's owner wants of its trees, validated once.
//!
//! A [`PolicyDraft`] is what somebody wrote; a [`Policy`] is complete and within its limits.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::events::PeerRole;

/// A policy as written: absent fields take their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyDraft {
    /// How many peers the CDN feeds if the audience's upload allows; default 1.
    pub target_roots: Option<u32>,
    /// How many peers the planner may have the CDN feed; default: no limit.
    pub max_planned_roots: Option<u32>,
    /// Depth 1 is a root; default 12, at most 64.
    pub max_depth: Option<u32>,
    /// Wire bytes per payload byte, per mille; default 1200.
    pub overhead_permille: Option<u32>,
    /// Children at the most, whatever the upload; default 16 (relays: 256).
    pub max_children: Option<u32>,
    /// What one peer may take from the CDN while its sources fail; default 4 times its tracks' rate.
    pub cdn_lease_bps: Option<u64>,
}

/// A complete policy within its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub(crate) target_roots: u32,
    pub(crate) max_planned_roots: Option<u32>,
    pub(crate) max_depth: u32,
    pub(crate) overhead_permille: u32,
    pub(crate) max_children: u32,
    pub(crate) max_relay_children: u32,
    pub(crate) cdn_lease_bps: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            target_roots: 1,
            max_planned_roots: None,
            max_depth: 12,
            overhead_permille: 1200,
            max_children: 16,
            max_relay_children: 256,
            cdn_lease_bps: None,
        }
    }
}

impl Policy {
    /// Completes and checks a draft.
    ///
    /// # Errors
    /// Every mistake in it, each with its key.
    pub fn validate(draft: &PolicyDraft) -> Result<Self, PolicyError> {
        let mut mistakes = Vec::new();
        let mut within = |key, value: Option<u32>, low: u32, high: u32| {
            if value.is_some_and(|value| value < low || value > high) {
                let problem = format!("must be between {low} and {high}");
                mistakes.push(PolicyMistake { key, problem });
            }
        };
        within("target_roots", draft.target_roots, 1, 100_000);
        within("max_planned_roots", draft.max_planned_roots, 1, 1_000_000);
        within("max_depth", draft.max_depth, 1, 64);
        within("overhead_permille", draft.overhead_permille, 1000, 10_000);
        within("max_children", draft.max_children, 1, 4096);
        let policy = Self::default().with(draft);
        if policy
            .max_planned_roots
            .is_some_and(|most| most < policy.target_roots)
        {
            let problem = format!("must be at least target_roots, {}", policy.target_roots);
            mistakes.push(PolicyMistake {
                key: "max_planned_roots",
                problem,
            });
        }
        if draft
            .cdn_lease_bps
            .is_some_and(|bps| !(64_000..=10_000_000_000).contains(&bps))
        {
            let problem = "must be between 64000 and 10000000000".to_owned();
            mistakes.push(PolicyMistake {
                key: "cdn_lease_bps",
                problem,
            });
        }
        if mistakes.is_empty() {
            Ok(policy)
        } else {
            Err(PolicyError { mistakes })
        }
    }

    fn with(self, draft: &PolicyDraft) -> Self {
        Self {
            target_roots: draft.target_roots.unwrap_or(self.target_roots),
            max_planned_roots: draft.max_planned_roots.or(self.max_planned_roots),
            max_depth: draft.max_depth.unwrap_or(self.max_depth),
            overhead_permille: draft.overhead_permille.unwrap_or(self.overhead_permille),
            max_children: draft.max_children.unwrap_or(self.max_children),
            max_relay_children: draft.max_children.unwrap_or(self.max_relay_children),
            cdn_lease_bps: draft.cdn_lease_bps.or(self.cdn_lease_bps),
        }
    }

    /// Whether a planner can work with it at all. What comes from a log may be anything; this rule is part
    /// of the entry's version, so it is not [`Policy::validate`]'s, which may change.
    pub(crate) fn is_workable(&self) -> bool {
        self.target_roots >= 1 && (1..=64).contains(&self.max_depth)
    }

    /// How many peers the CDN feeds if the audience's upload allows.
    pub fn target_roots(&self) -> u32 {
        self.target_roots
    }

    /// How many peers the planner may have the CDN feed.
    pub fn max_planned_roots(&self) -> Option<u32> {
        self.max_planned_roots
    }

    /// The greatest depth; a root has depth 1.
    pub fn max_depth(&self) -> u32 {
        self.max_depth
    }

    /// Wire bytes per payload byte, per mille.
    pub fn overhead_permille(&self) -> u32 {
        self.overhead_permille
    }

    /// Children at the most, whatever the upload.
    pub fn max_children(&self, role: PeerRole) -> u32 {
        match role {
            PeerRole::Contributor => self.max_children,
            PeerRole::Relay => self.max_relay_children,
            PeerRole::Consumer => 0,
        }
    }

    /// What one peer may take from the CDN while its sources fail; `None`: four times its tracks' rate.
    pub fn cdn_lease_bps(&self) -> Option<u64> {
        self.cdn_lease_bps
    }

    /// What one child of a track with this payload rate costs its parent, in wire bit/s; at least 1.
    pub(crate) fn edge_cost(&self, rate_bps: u64) -> u64 {
        let cost = u128::from(rate_bps) * u128::from(self.overhead_permille);
        u64::try_from(cost.div_ceil(1000))
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

/// One mistake in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyMistake {
    /// The field, as the API names it.
    pub key: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// Every mistake in a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// At least one.
    pub mistakes: Vec<PolicyMistake>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy has mistakes: ")?;
        for (i, mistake) in self.mistakes.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{} {}", mistake.key, mistake.problem)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_draft_is_the_default() {
        assert_eq!(
            Policy::validate(&PolicyDraft::default()),
            Ok(Policy::default())
        );
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let draft = PolicyDraft {
            target_roots: Some(0),
            max_planned_roots: Some(0),
            max_depth: Some(65),
            overhead_permille: Some(999),
            max_children: Some(0),
            cdn_lease_bps: Some(1),
        };
        let error = Policy::validate(&draft).unwrap_err();
        let keys: Vec<_> = error.mistakes.iter().map(|mistake| mistake.key).collect();
        let all = [
            "target_roots",
            "max_planned_roots",
            "max_depth",
            "overhead_permille",
            "max_children",
            "cdn_lease_bps",
        ];
        assert_eq!(keys, all);
        assert!(
            error
                .to_string()
                .contains("max_depth must be between 1 and 64")
        );
    }

    #[test]
    fn fewer_planned_roots_than_wanted_is_a_mistake() {
        let draft = PolicyDraft {
            target_roots: Some(3),
            max_planned_roots: Some(2),
            ..PolicyDraft::default()
        };
        let error = Policy::validate(&draft).unwrap_err();
        assert_eq!(error.mistakes[0].key, "max_planned_roots");
    }

    #[test]
    fn an_edge_costs_its_rate_and_the_overhead_rounded_up() {
        let policy = Policy::default();
        for (rate, cost) in [(1_500_000, 1_800_000), (0, 1), (1, 2), (u64::MAX, u64::MAX)] {
            assert_eq!(policy.edge_cost(rate), cost);
        }
    }

    #[test]
    fn an_explicit_number_of_children_holds_for_relays_too() {
        let draft = PolicyDraft {
            max_children: Some(3),
            ..PolicyDraft::default()
        };
        let policy = Policy::validate(&draft).unwrap();
        assert_eq!(policy.max_children(PeerRole::Relay), 3);
        assert_eq!(Policy::default().max_children(PeerRole::Relay), 256);
        assert_eq!(policy.max_children(PeerRole::Consumer), 0);
    }
}
