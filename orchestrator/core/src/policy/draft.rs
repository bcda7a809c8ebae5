//! A policy as somebody wrote it: absent fields take their defaults, and nothing is checked yet.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
    /// Into how many stripes each track is cut, each with a tree of its own; default 1, at most 8.
    pub stripes: Option<u32>,
    /// Who may be whose neighbour; default: anybody.
    pub privacy: Option<Privacy>,
    /// Whether peers on metered connections may have children; default no.
    pub allow_metered: Option<bool>,
    /// Whether peers that run on battery may have children; default no.
    pub allow_battery: Option<bool>,
    /// Whether telephones and tablets may have children; default no.
    pub allow_mobile: Option<bool>,
    /// Planned moves per viewer and hour in the steady state, at the most; default 1.
    pub max_planned_moves_per_viewer_hour: Option<u32>,
    /// Whether what a contributor claims to upload is only the most that is planned with, and what it has
    /// shown to carry counts; default no.
    pub learn_upload: Option<bool>,
    /// How many peers of a region the planner may have the CDN feed; regions not named have no limit of
    /// their own.
    pub cdn_budget_by_region: Vec<RegionBudget>,
    /// Which subnets are which site.
    pub sites: Vec<SiteRule>,
}

/// Who may be whose neighbour: peers learn their neighbours' addresses.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub enum Privacy {
    /// Anybody anybody's.
    #[default]
    Any,
    /// Only peers of one site, or behind one address.
    SameSite,
    /// Viewers take from relays only.
    RelayOnly,
    /// Only peers of one region.
    SameRegion,
}

/// How many peers of one region the CDN may feed by plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionBudget {
    /// Which region; 0 stands for those whose region is not known.
    pub region: u16,
    /// How many.
    pub roots: u32,
}

/// A subnet that belongs to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRule {
    /// The public addresses.
    pub subnet: IpNet,
    /// The site's number, not 0.
    pub site: u32,
    /// The region that the site is in; 0: not said.
    pub region: u16,
}
