//! The section `[locality]`: how a node finds out where its peers are.

use std::path::Path;
use std::sync::Arc;

use espalier_orchestrator_core::{SiteRule, SiteTable, region_from};
use ipnet::IpNet;

use super::geo::GeoDatabase;
use super::reader::Section;

/// How a node finds out where its peers are.
#[derive(Debug, Clone, Default)]
pub struct LocalityConfig {
    /// Which subnets are which site, beside the channels' policies.
    pub(crate) sites: SiteTable,
    /// Connections from here are a proxy's, which says whose they are.
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) countries: Option<Arc<GeoDatabase>>,
    pub(crate) systems: Option<Arc<GeoDatabase>>,
}

pub(super) fn read(mut section: Section<'_>, base: &Path) -> LocalityConfig {
    let countries = database(&mut section, "country_database", base);
    let systems = database(&mut section, "asn_database", base);
    let proxies = section.texts("proxies");
    let proxies = proxies
        .iter()
        .filter_map(|(key, text)| subnet(&section, key, text));
    let proxies = proxies.collect();
    let rules: Vec<_> = section
        .sections("sites")
        .into_iter()
        .filter_map(site)
        .collect();
    section.finish();
    LocalityConfig {
        sites: SiteTable::new(&rules),
        proxies,
        countries,
        systems,
    }
}

fn database(section: &mut Section<'_>, key: &str, base: &Path) -> Option<Arc<GeoDatabase>> {
    let path = base.join(section.text(key)?);
    match GeoDatabase::open(&path) {
        Ok(database) => Some(Arc::new(database)),
        Err(error) => {
            section.mistake(key, format!("cannot use {}: {error}", path.display()));
            None
        }
    }
}

fn subnet(section: &Section<'_>, key: &str, text: &str) -> Option<IpNet> {
    let parsed = text.parse();
    if parsed.is_err() {
        section.mistake(key, format!("`{text}` is no subnet such as 203.0.113.0/24"));
    }
    parsed.ok()
}

fn site(mut section: Section<'_>) -> Option<SiteRule> {
    let text = section.required_text("subnet");
    let subnet = text.and_then(|text| subnet(&section, "subnet", &text));
    let site = section.number("site", 0, 1, u32::MAX);
    if site == 0 {
        section.mistake("site", "is missing");
    }
    let region = section.text("region").unwrap_or_default();
    let known = region_from(&region);
    if known.is_none() {
        let problem = format!("`{region}` is no country such as DE, nor a number from 1000 on");
        section.mistake("region", problem);
    }
    section.finish();
    Some(SiteRule {
        subnet: subnet?,
        site,
        region: known?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::NodeConfig;
    use super::super::geo::tests::{Value, bytes};

    #[test]
    fn everything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let record = Value::Map(vec![("autonomous_system_number", Value::Number(9))]);
        fs::write(dir.path().join("asn.mmdb"), bytes("192.0.2.0/24", &record)).unwrap();
        let text = "data_dir = \"d\"\n[locality]\nasn_database = \"asn.mmdb\"\n\
                    proxies = [\"10.0.0.0/8\"]\n[[locality.sites]]\nsubnet = \"192.0.2.0/24\"\n\
                    site = 3\nregion = \"DE\"";
        let config = NodeConfig::from_toml(text, dir.path()).unwrap().locality;
        let address = "192.0.2.9".parse().unwrap();
        assert_eq!(config.sites.find(address).unwrap().site, 3);
        assert_eq!(config.systems.unwrap().system(address), 9);
        assert_eq!(config.proxies.len(), 1);
        assert!(config.countries.is_none());
    }

    #[test]
    fn every_mistake_is_named() {
        let text = "data_dir = \"d\"\n[locality]\ncountry_database = \"none.mmdb\"\n\
                    proxies = [\"10.0.0.0/8\", \"x\"]\nfoo = 1\n[[locality.sites]]\n\
                    subnet = \"y\"\nregion = \"Europe\"";
        let dir = tempfile::tempdir().unwrap();
        let mistakes = NodeConfig::from_toml(text, dir.path()).unwrap_err();
        let mut keys: Vec<_> = mistakes.0.iter().map(|it| it.key.as_str()).collect();
        keys.sort_unstable();
        let expected = [
            "locality.country_database",
            "locality.foo",
            "locality.proxies[1]",
            "locality.sites[0].region",
            "locality.sites[0].site",
            "locality.sites[0].subnet",
        ];
        assert_eq!(keys, expected, "{mistakes}");
    }
}
