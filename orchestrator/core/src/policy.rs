//! What a channel's owner wants of its trees, validated once.
//!
//! A [`PolicyDraft`] is what somebody wrote; a [`Policy`] is complete and within its limits.

mod draft;
mod mistakes;
mod sites;

use serde::{Deserialize, Serialize};

use crate::events::PeerRole;
use crate::profile::{DeviceClass, PeerProfile};

pub use draft::{PolicyDraft, Privacy, RegionBudget, SiteRule};
pub use mistakes::{PolicyError, PolicyMistake};
pub use sites::SiteTable;

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
    pub(crate) stripes: u8,
    pub(crate) privacy: Privacy,
    pub(crate) allow_metered: bool,
    pub(crate) allow_battery: bool,
    pub(crate) allow_mobile: bool,
    pub(crate) max_planned_moves_per_viewer_hour: u32,
    pub(crate) learn_upload: bool,
    /// Ordered by region.
    pub(crate) cdn_budget_by_region: Vec<RegionBudget>,
    pub(crate) sites: SiteTable,
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
            stripes: 1,
            privacy: Privacy::Any,
            allow_metered: false,
            allow_battery: false,
            allow_mobile: false,
            max_planned_moves_per_viewer_hour: 1,
            learn_upload: false,
            cdn_budget_by_region: Vec::new(),
            sites: SiteTable::default(),
        }
    }
}

impl Policy {
    /// Completes and checks a draft.
    ///
    /// # Errors
    /// Every mistake in it, each with its key.
    pub fn validate(draft: &PolicyDraft) -> Result<Self, PolicyError> {
        let policy = Self::default().with(draft);
        let mistakes = mistakes::find(draft, policy.target_roots);
        if mistakes.is_empty() {
            Ok(policy)
        } else {
            Err(PolicyError { mistakes })
        }
    }

    fn with(self, draft: &PolicyDraft) -> Self {
        let mut budgets = draft.cdn_budget_by_region.clone();
        budgets.sort_by_key(|budget| budget.region);
        let stripes = draft.stripes.and_then(|stripes| u8::try_from(stripes).ok());
        Self {
            target_roots: draft.target_roots.unwrap_or(self.target_roots),
            max_planned_roots: draft.max_planned_roots.or(self.max_planned_roots),
            max_depth: draft.max_depth.unwrap_or(self.max_depth),
            overhead_permille: draft.overhead_permille.unwrap_or(self.overhead_permille),
            max_children: draft.max_children.unwrap_or(self.max_children),
            max_relay_children: draft.max_children.unwrap_or(self.max_relay_children),
            cdn_lease_bps: draft.cdn_lease_bps.or(self.cdn_lease_bps),
            stripes: stripes.unwrap_or(self.stripes),
            privacy: draft.privacy.unwrap_or(self.privacy),
            allow_metered: draft.allow_metered.unwrap_or(self.allow_metered),
            allow_battery: draft.allow_battery.unwrap_or(self.allow_battery),
            allow_mobile: draft.allow_mobile.unwrap_or(self.allow_mobile),
            max_planned_moves_per_viewer_hour: draft
                .max_planned_moves_per_viewer_hour
                .unwrap_or(self.max_planned_moves_per_viewer_hour),
            learn_upload: draft.learn_upload.unwrap_or(self.learn_upload),
            cdn_budget_by_region: budgets,
            sites: SiteTable::new(&draft.sites),
        }
    }

    /// Whether a planner can work with it at all. What comes from a log may be anything; this rule is part
    /// of the entry's version, so it is not [`Policy::validate`]'s, which may change.
    pub(crate) fn is_workable(&self) -> bool {
        self.target_roots >= 1
            && (1..=64).contains(&self.max_depth)
            && (1..=8).contains(&self.stripes)
    }

    /// How many peers the CDN feeds if the audience's upload allows.
    pub fn target_roots(&self) -> u32 {
        self.target_roots
    }

    /// How many peers the planner may have the CDN feed.
    pub fn max_planned_roots(&self) -> Option<u32> {
        self.max_planned_roots
    }

    /// How many peers of this region the planner may have the CDN feed; `None`: no limit of its own.
    pub fn cdn_budget_of(&self, region: u16) -> Option<u32> {
        let budgets = &self.cdn_budget_by_region;
        let at = budgets.binary_search_by_key(&region, |budget| budget.region);
        Some(budgets.get(at.ok()?)?.roots)
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

    /// Into how many stripes each track is cut: 1 to 8.
    pub fn stripes(&self) -> u8 {
        self.stripes
    }

    /// Who may be whose neighbour.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// Planned moves per viewer and hour in the steady state, at the most.
    pub fn max_planned_moves_per_viewer_hour(&self) -> u32 {
        self.max_planned_moves_per_viewer_hour
    }

    /// Whether what a contributor claims to upload is only the most that is planned with.
    pub fn learn_upload(&self) -> bool {
        self.learn_upload
    }

    /// Which subnets are which site.
    pub fn sites(&self) -> &SiteTable {
        &self.sites
    }

    /// Whether a peer like this may have children at all, whatever it offers. A relay's operator has
    /// decided for it.
    pub fn may_serve(&self, role: PeerRole, profile: &PeerProfile) -> bool {
        match role {
            PeerRole::Consumer => false,
            PeerRole::Relay => true,
            PeerRole::Contributor => {
                (self.allow_metered || !profile.metered)
                    && (self.allow_battery || !profile.on_battery)
                    && (self.allow_mobile || profile.device != DeviceClass::Mobile)
            }
        }
    }

    /// What one child of a track with this payload rate costs its parent, in wire bit/s; at least 1.
    /// What a child of one stripe of a track costs, wire bit/s.
    pub(crate) fn stripe_cost(&self, rate_bps: u64) -> u64 {
        self.edge_cost(rate_bps.div_ceil(u64::from(self.stripes.max(1))))
    }

    pub(crate) fn edge_cost(&self, rate_bps: u64) -> u64 {
        let cost = u128::from(rate_bps) * u128::from(self.overhead_permille);
        u64::try_from(cost.div_ceil(1000))
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

#[cfg(test)]
mod tests;
