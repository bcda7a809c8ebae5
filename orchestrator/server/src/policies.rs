//! Policies between the wire and the core: the fields as they are given, and which of them an update
//! replaces. What a field may be is [`espalier_orchestrator_core::Policy::validate`]'s to say; here only
//! what is no subnet, region or class at all is a fault.

use espalier_orchestrator_core::{
    PolicyDraft, Privacy, RegionBudget, SiteRule, region_from, region_name,
};
use espalier_proto::v1;

use crate::translate::Faults;

/// Rows of a table that are looked at: more are a mistake, and need not be read to say so.
const MOST_ROWS: usize = 2048;

/// Reads a policy; `field` names it in faults.
pub(crate) fn policy_in(
    faults: &mut Faults,
    field: &str,
    policy: Option<&v1::Policy>,
) -> PolicyDraft {
    let Some(policy) = policy else {
        return PolicyDraft::default();
    };
    PolicyDraft {
        target_roots: policy.target_roots,
        max_planned_roots: policy.max_planned_roots,
        max_depth: policy.max_depth,
        overhead_permille: policy.overhead_permille,
        max_children: policy.max_children,
        cdn_lease_bps: policy.cdn_lease_bps,
        stripes: policy.stripes,
        privacy: privacy_in(faults, field, policy.privacy),
        allow_metered: policy.allow_metered,
        allow_battery: policy.allow_battery,
        allow_mobile: policy.allow_mobile,
        max_planned_moves_per_viewer_hour: policy.max_planned_moves_per_viewer_hour,
        learn_upload: policy.learn_upload,
        cdn_budget_by_region: budgets_in(faults, field, &policy.cdn_budget_by_region),
        sites: sites_in(faults, field, &policy.sites),
    }
}

fn privacy_in(faults: &mut Faults, field: &str, value: i32) -> Option<Privacy> {
    match v1::Privacy::try_from(value) {
        Ok(v1::Privacy::Unspecified) => None,
        Ok(v1::Privacy::Any) => Some(Privacy::Any),
        Ok(v1::Privacy::SameSite) => Some(Privacy::SameSite),
        Ok(v1::Privacy::RelayOnly) => Some(Privacy::RelayOnly),
        Ok(v1::Privacy::SameRegion) => Some(Privacy::SameRegion),
        Err(_unknown) => {
            let problem = "must be ANY, SAME_SITE, RELAY_ONLY or SAME_REGION";
            faults.add(format!("{field}.privacy"), problem);
            None
        }
    }
}

fn budgets_in(faults: &mut Faults, field: &str, given: &[v1::RegionBudget]) -> Vec<RegionBudget> {
    let rows = given.iter().take(MOST_ROWS).enumerate();
    let budgets = rows.filter_map(|(row, budget)| {
        let at = format!("{field}.cdn_budget_by_region[{row}].region");
        let (region, roots) = (region_in(faults, &at, &budget.region)?, budget.roots);
        Some(RegionBudget { region, roots })
    });
    budgets.collect()
}

fn sites_in(faults: &mut Faults, field: &str, given: &[v1::SiteRule]) -> Vec<SiteRule> {
    let rows = given.iter().take(MOST_ROWS).enumerate();
    let rules = rows.filter_map(|(row, rule)| {
        let at = format!("{field}.sites[{row}]");
        let region = region_in(faults, &format!("{at}.region"), &rule.region);
        let subnet = rule.subnet.parse();
        if subnet.is_err() {
            let problem = "is no subnet such as 203.0.113.0/24 or 2001:db8::/32";
            faults.add(format!("{at}.subnet"), problem);
        }
        Some(SiteRule {
            subnet: subnet.ok()?,
            site: rule.site,
            region: region?,
        })
    });
    rules.collect()
}

fn region_in(faults: &mut Faults, field: &str, text: &str) -> Option<u16> {
    let region = region_from(text);
    if region.is_none() {
        faults.add(
            field,
            "must be a country's two letters, or from 1000 to 65535",
        );
    }
    region
}

pub(crate) fn policy_out(record: &PolicyDraft) -> v1::Policy {
    let privacy = record
        .privacy
        .map_or(v1::Privacy::Unspecified, |it| match it {
            Privacy::Any => v1::Privacy::Any,
            Privacy::SameSite => v1::Privacy::SameSite,
            Privacy::RelayOnly => v1::Privacy::RelayOnly,
            Privacy::SameRegion => v1::Privacy::SameRegion,
        });
    let budgets = record.cdn_budget_by_region.iter();
    let sites = record.sites.iter();
    v1::Policy {
        target_roots: record.target_roots,
        max_planned_roots: record.max_planned_roots,
        max_depth: record.max_depth,
        overhead_permille: record.overhead_permille,
        max_children: record.max_children,
        cdn_lease_bps: record.cdn_lease_bps,
        stripes: record.stripes,
        privacy: privacy.into(),
        allow_metered: record.allow_metered,
        allow_battery: record.allow_battery,
        allow_mobile: record.allow_mobile,
        max_planned_moves_per_viewer_hour: record.max_planned_moves_per_viewer_hour,
        learn_upload: record.learn_upload,
        cdn_budget_by_region: budgets
            .map(|budget| v1::RegionBudget {
                region: region_name(budget.region),
                roots: budget.roots,
            })
            .collect(),
        sites: sites
            .map(|rule| v1::SiteRule {
                subnet: rule.subnet.to_string(),
                site: rule.site,
                region: region_name(rule.region),
            })
            .collect(),
    }
}

/// Takes one field, by its name in the API, from another policy; `None`: there is no such field.
pub(crate) fn replace(field: &str) -> Option<fn(&mut PolicyDraft, &PolicyDraft)> {
    macro_rules! fields {
        ($($name:ident),* $(,)?) => {
            match field {
                $(stringify!($name) => Some(|new, given| new.$name.clone_from(&given.$name)),)*
                _ => None,
            }
        };
    }
    fields!(
        target_roots,
        max_planned_roots,
        max_depth,
        overhead_permille,
        max_children,
        cdn_lease_bps,
        stripes,
        privacy,
        allow_metered,
        allow_battery,
        allow_mobile,
        max_planned_moves_per_viewer_hour,
        learn_upload,
        cdn_budget_by_region,
        sites,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> PolicyDraft {
        PolicyDraft {
            target_roots: Some(1),
            max_planned_roots: Some(2),
            max_depth: Some(3),
            overhead_permille: Some(1004),
            max_children: Some(5),
            cdn_lease_bps: Some(6),
            stripes: Some(7),
            privacy: Some(Privacy::RelayOnly),
            allow_metered: Some(true),
            allow_battery: Some(false),
            allow_mobile: Some(true),
            max_planned_moves_per_viewer_hour: Some(8),
            learn_upload: Some(true),
            cdn_budget_by_region: vec![RegionBudget {
                region: 83,
                roots: 9,
            }],
            sites: vec![SiteRule {
                subnet: "2001:db8::/32".parse().unwrap(),
                site: 10,
                region: 1000,
            }],
        }
    }

    #[test]
    fn a_policy_comes_back_as_it_was() {
        for draft in [full(), PolicyDraft::default()] {
            let mut faults = Faults::default();
            let back = policy_in(&mut faults, "policy", Some(&policy_out(&draft)));
            assert_eq!((back, faults.0.len()), (draft, 0));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let policy = v1::Policy {
            privacy: 77,
            cdn_budget_by_region: vec![v1::RegionBudget {
                region: "Europe".to_owned(),
                roots: 1,
            }],
            sites: vec![v1::SiteRule {
                subnet: "10.0.0.0/33".to_owned(),
                site: 1,
                region: "9".to_owned(),
            }],
            ..v1::Policy::default()
        };
        let mut faults = Faults::default();
        policy_in(&mut faults, "policy", Some(&policy));
        let fields: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
        let expected = [
            "policy.privacy",
            "policy.cdn_budget_by_region[0].region",
            "policy.sites[0].region",
            "policy.sites[0].subnet",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn every_field_of_the_wire_can_be_replaced_alone() {
        let message = espalier_proto::v1::Policy::default();
        // The names are those that the message prints of itself.
        let printed = format!("{message:?}");
        let names = printed.split(['{', ',']).skip(1);
        let names: Vec<_> = names.filter_map(|part| part.split(':').next()).collect();
        assert_eq!(names.len(), 15, "{printed}");
        let mut new = PolicyDraft::default();
        for name in names {
            let before = new.clone();
            replace(name.trim()).unwrap()(&mut new, &full());
            assert_ne!(new, before, "{name}");
        }
        assert_eq!(new, full());
        assert!(replace("depth").is_none());
    }
}
