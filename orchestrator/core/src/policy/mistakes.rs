//! What can be wrong with a policy: every mistake at once, each with its key.

use core::fmt;
use std::collections::BTreeSet;

use super::draft::PolicyDraft;

/// Rows that a table in a policy may have: the policy is in every snapshot.
const MOST_ROWS: usize = 1024;
const LEASES: core::ops::RangeInclusive<u64> = 64_000..=10_000_000_000;

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

/// Looks for every mistake in a draft whose missing `target_roots` count as `target_roots`.
pub(super) fn find(draft: &PolicyDraft, target_roots: u32) -> Vec<PolicyMistake> {
    let mut mistakes = Mistakes::default();
    mistakes.within("target_roots", draft.target_roots, 1, 100_000);
    mistakes.within("max_planned_roots", draft.max_planned_roots, 1, 1_000_000);
    mistakes.within("max_depth", draft.max_depth, 1, 64);
    mistakes.within("overhead_permille", draft.overhead_permille, 1000, 10_000);
    mistakes.within("max_children", draft.max_children, 1, 4096);
    mistakes.within("stripes", draft.stripes, 1, 8);
    let moves = draft.max_planned_moves_per_viewer_hour;
    mistakes.within("max_planned_moves_per_viewer_hour", moves, 0, 60);
    if draft
        .max_planned_roots
        .is_some_and(|most| most < target_roots)
    {
        let problem = format!("must be at least target_roots, {target_roots}");
        mistakes.add("max_planned_roots", problem);
    }
    if draft
        .cdn_lease_bps
        .is_some_and(|bps| !LEASES.contains(&bps))
    {
        let problem = format!("must be between {} and {}", LEASES.start(), LEASES.end());
        mistakes.add("cdn_lease_bps", problem);
    }
    mistakes.look_at_budgets(draft);
    mistakes.look_at_sites(draft);
    mistakes.found
}

#[derive(Default)]
struct Mistakes {
    found: Vec<PolicyMistake>,
}

impl Mistakes {
    fn add(&mut self, key: &'static str, problem: String) {
        self.found.push(PolicyMistake { key, problem });
    }

    fn within(&mut self, key: &'static str, value: Option<u32>, low: u32, high: u32) {
        if value.is_some_and(|value| value < low || value > high) {
            self.add(key, format!("must be between {low} and {high}"));
        }
    }

    fn rows(&mut self, key: &'static str, rows: usize) {
        if rows > MOST_ROWS {
            self.add(key, format!("has {rows} rows, more than {MOST_ROWS}"));
        }
    }

    fn look_at_budgets(&mut self, draft: &PolicyDraft) {
        const KEY: &str = "cdn_budget_by_region";
        self.rows(KEY, draft.cdn_budget_by_region.len());
        let mut regions = BTreeSet::new();
        for budget in &draft.cdn_budget_by_region {
            if !regions.insert(budget.region) {
                self.add(KEY, format!("names region {} twice", budget.region));
            }
            if budget.roots == 0 || budget.roots > 1_000_000 {
                let problem = format!("of region {} must be between 1 and 1000000", budget.region);
                self.add(KEY, problem);
            }
        }
    }

    fn look_at_sites(&mut self, draft: &PolicyDraft) {
        const KEY: &str = "sites";
        self.rows(KEY, draft.sites.len());
        let mut subnets = BTreeSet::new();
        for rule in &draft.sites {
            if !subnets.insert(rule.subnet.trunc()) {
                self.add(KEY, format!("names {} twice", rule.subnet.trunc()));
            }
            if rule.site == 0 {
                self.add(
                    KEY,
                    format!("gives {} the site 0, which is none", rule.subnet),
                );
            }
        }
    }
}
