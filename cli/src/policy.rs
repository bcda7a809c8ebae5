//! A channel's policy as a TOML file.

use std::collections::BTreeMap;
use std::path::Path;

use espalier_process::{BitRate, Failure, OrFail};
use espalier_proto::v1::{self, Policy};
use serde::Deserialize;

/// The file's form: the fields of `espalier.v1.Policy`, with the rate as people write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    target_roots: Option<u32>,
    max_planned_roots: Option<u32>,
    max_depth: Option<u32>,
    overhead_permille: Option<u32>,
    max_children: Option<u32>,
    cdn_lease: Option<BitRateText>,
    stripes: Option<u32>,
    privacy: Option<Privacy>,
    allow_metered: Option<bool>,
    allow_battery: Option<bool>,
    allow_mobile: Option<bool>,
    max_planned_moves_per_viewer_hour: Option<u32>,
    learn_upload: Option<bool>,
    #[serde(default)]
    cdn_budget_by_region: BTreeMap<String, u32>,
    #[serde(default)]
    sites: Vec<Site>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Privacy {
    Any,
    SameSite,
    RelayOnly,
    SameRegion,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    subnet: String,
    site: u32,
    #[serde(default)]
    region: String,
}

/// `"8mbit"`, or a number of bits per second.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BitRateText {
    Number(u64),
    Text(String),
}

/// Reads a policy. Limits are the orchestrator's to check.
///
/// # Errors
///
/// A usage failure for a file that cannot be read or understood.
pub(crate) fn read(path: &Path) -> Result<Policy, Failure> {
    let text = std::fs::read_to_string(path)
        .or_usage(format!("cannot read the policy {}", path.display()))?;
    parse(&text).map_err(|why| {
        Failure::usage(format!("{} is no policy", path.display()))
            .because(why)
            .next("`espalier channel create --help` lists what a policy may name")
    })
}

fn parse(text: &str) -> Result<Policy, String> {
    let file: PolicyFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let budgets = file.cdn_budget_by_region.into_iter();
    let sites = file.sites.into_iter();
    Ok(Policy {
        target_roots: file.target_roots,
        max_planned_roots: file.max_planned_roots,
        max_depth: file.max_depth,
        overhead_permille: file.overhead_permille,
        max_children: file.max_children,
        cdn_lease_bps: file.cdn_lease.map(rate).transpose()?,
        stripes: file.stripes,
        privacy: privacy(file.privacy).into(),
        allow_metered: file.allow_metered,
        allow_battery: file.allow_battery,
        allow_mobile: file.allow_mobile,
        max_planned_moves_per_viewer_hour: file.max_planned_moves_per_viewer_hour,
        learn_upload: file.learn_upload,
        cdn_budget_by_region: budgets
            .map(|(region, roots)| v1::RegionBudget { region, roots })
            .collect(),
        sites: sites
            .map(|site| v1::SiteRule {
                subnet: site.subnet,
                site: site.site,
                region: site.region,
            })
            .collect(),
    })
}

fn privacy(named: Option<Privacy>) -> v1::Privacy {
    match named {
        None => v1::Privacy::Unspecified,
        Some(Privacy::Any) => v1::Privacy::Any,
        Some(Privacy::SameSite) => v1::Privacy::SameSite,
        Some(Privacy::RelayOnly) => v1::Privacy::RelayOnly,
        Some(Privacy::SameRegion) => v1::Privacy::SameRegion,
    }
}

fn rate(text: BitRateText) -> Result<u64, String> {
    match text {
        BitRateText::Number(bits) => Ok(bits),
        BitRateText::Text(text) => text
            .parse::<BitRate>()
            .map(BitRate::bits_per_second)
            .map_err(|error| format!("cdn_lease: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(region: &str, roots: u32) -> v1::RegionBudget {
        let region = region.to_owned();
        v1::RegionBudget { region, roots }
    }

    fn site(subnet: &str, site: u32, region: &str) -> v1::SiteRule {
        let (subnet, region) = (subnet.to_owned(), region.to_owned());
        v1::SiteRule {
            subnet,
            site,
            region,
        }
    }

    #[test]
    fn every_field_is_read() {
        let policy = parse(
            "target_roots = 2\nmax_planned_roots = 9\nmax_depth = 6\noverhead_permille = 1150\n\
             max_children = 4\ncdn_lease = \"8mbit\"\nstripes = 4\nprivacy = \"same-site\"\n\
             allow_metered = true\nallow_battery = false\nallow_mobile = true\n\
             max_planned_moves_per_viewer_hour = 2\nlearn_upload = true\n[cdn_budget_by_region]\nDE = 10\n1000 = 20\n\
             [[sites]]\nsubnet = \"203.0.113.0/24\"\nsite = 7\nregion = \"DE\"\n\
             [[sites]]\nsubnet = \"2001:db8::/32\"\nsite = 8",
        )
        .unwrap();
        assert_eq!(
            policy,
            Policy {
                target_roots: Some(2),
                max_planned_roots: Some(9),
                max_depth: Some(6),
                overhead_permille: Some(1150),
                max_children: Some(4),
                cdn_lease_bps: Some(8_000_000),
                stripes: Some(4),
                privacy: v1::Privacy::SameSite.into(),
                allow_metered: Some(true),
                allow_battery: Some(false),
                allow_mobile: Some(true),
                max_planned_moves_per_viewer_hour: Some(2),
                learn_upload: Some(true),
                cdn_budget_by_region: vec![budget("1000", 20), budget("DE", 10)],
                sites: vec![
                    site("203.0.113.0/24", 7, "DE"),
                    site("2001:db8::/32", 8, "")
                ],
            }
        );
    }

    #[test]
    fn an_empty_file_takes_every_default() {
        assert_eq!(parse(""), Ok(Policy::default()));
        assert_eq!(parse("cdn_lease = 5").unwrap().cdn_lease_bps, Some(5));
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            ("max_dept = 3", "max_dept"),
            ("max_depth = -1", "max_depth"),
            ("max_depth = \"deep\"", "max_depth"),
            ("cdn_lease = \"8mb\"", "cdn_lease"),
            ("privacy = \"none\"", "privacy"),
            ("[[sites]]\nsubnet = \"x\"", "site"),
            ("max_depth", "line 1"),
        ];
        for (text, expected) in table {
            let why = parse(text).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }
}
