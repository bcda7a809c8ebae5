//! Where a peer is, from the address that its gateway sees: ids only, so that nobody behind the gateway
//! learns an address.
//!
//! The policy's subnets come before the node's own, the smallest of each first; a region that neither
//! names is the country that the database has. What cannot be told is 0.
//!
//! Limits: nothing is asked of anybody, so an address behind a proxy that names no client is no place at
//! all; a peer that moves to another network is seen there when it attaches again.

use std::net::IpAddr;

use espalier_orchestrator_core::{Locality, SiteRule, SiteTable};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::config::LocalityConfig;

const LABEL: &[u8] = b"espalier.lan.v1\0";

/// Tells where addresses are.
pub(crate) struct Locator {
    config: LocalityConfig,
    key: [u8; 32],
}

impl Locator {
    /// Uses this configuration, and a key that all nodes of the cluster have: they must agree on who is behind
    /// one address.
    pub(crate) fn new(config: LocalityConfig, key: [u8; 32]) -> Self {
        Self { config, key }
    }

    /// Returns the peer's own address: that of its connection, or the one that a proxy of ours names last.
    pub(crate) fn client(&self, connection: Option<IpAddr>, forwarded: &[&str]) -> Option<IpAddr> {
        let seen = connection?.to_canonical();
        if !self.is_proxy(seen) {
            return Some(seen);
        }
        // Each proxy adds to the end whom it was called by; what is further left anybody may have written.
        let hops = forwarded.iter().rev().flat_map(|line| line.rsplit(','));
        let hops = hops.map(|hop| hop.trim().parse::<IpAddr>().ok());
        let mut hops = hops.map(|hop| hop.map(|address| address.to_canonical()));
        hops.find(|hop| !hop.is_some_and(|address| self.is_proxy(address)))?
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        let mut proxies = self.config.proxies.iter();
        proxies.any(|subnet| subnet.contains(&address))
    }

    /// Returns where the address is, by a channel's table and then the node's.
    pub(crate) fn locate(&self, client: Option<IpAddr>, sites: &[SiteRule]) -> Locality {
        let Some(client) = client.map(|address| address.to_canonical()) else {
            return Locality::default();
        };
        let rules = [
            SiteTable::new(sites).find(client).copied(),
            self.own(client),
        ];
        let rules = rules.into_iter().flatten();
        let region = rules.clone().map(|rule| rule.region).find(|it| *it != 0);
        Locality {
            lan: self.lan(client),
            site: rules.clone().next().map_or(0, |rule| rule.site),
            asn: self
                .config
                .systems
                .as_ref()
                .map_or(0, |it| it.system(client)),
            region: region.unwrap_or_else(|| self.country(client)),
        }
    }

    fn own(&self, client: IpAddr) -> Option<SiteRule> {
        self.config.sites.find(client).copied()
    }

    fn country(&self, client: IpAddr) -> u16 {
        let countries = self.config.countries.as_ref();
        countries.map_or(0, |it| it.country(client))
    }

    /// A hash that nobody without the key can turn back, although there are few addresses. Behind one IPv4
    /// address, or within one IPv6 network of 64 bits, it is the same; it is never 0.
    fn lan(&self, client: IpAddr) -> u64 {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key)
            .expect("invariant: HMAC takes keys of every length");
        mac.update(LABEL);
        match client {
            IpAddr::V4(address) => mac.update(&address.octets()),
            IpAddr::V6(address) => mac.update(&address.octets()[..8]),
        }
        let hash = mac.finalize().into_bytes();
        let first = hash.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use espalier_orchestrator_core::region_from;

    use super::*;
    use crate::config::geo::tests::{Value, database};

    fn rule(subnet: &str, site: u32, region: &str) -> SiteRule {
        SiteRule {
            subnet: subnet.parse().unwrap(),
            site,
            region: region_from(region).unwrap(),
        }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn locator() -> Locator {
        let iso = Value::Text("DE");
        let country = Value::Map(vec![("country", Value::Map(vec![("iso_code", iso)]))]);
        let system = Value::Map(vec![("autonomous_system_number", Value::Number(64_496))]);
        let config = LocalityConfig {
            sites: SiteTable::new(&[
                rule("203.0.113.0/24", 1, "FR"),
                rule("2001:db8:5::/48", 5, ""),
            ]),
            proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            countries: Some(Arc::new(database("203.0.112.0/20", &country))),
            systems: Some(Arc::new(database("203.0.112.0/20", &system))),
        };
        Locator::new(config, [7; 32])
    }

    #[test]
    fn the_policy_comes_before_the_node_and_the_node_before_the_database() {
        let policy = [
            rule("203.0.113.128/25", 2, ""),
            rule("198.51.100.0/24", 3, "1000"),
        ];
        let locator = locator();
        for (address, site, region, asn) in [
            // The policy's site, the node's region.
            ("203.0.113.200", 2, "FR", 64_496),
            ("203.0.113.5", 1, "FR", 64_496),
            ("203.0.112.5", 0, "DE", 64_496),
            ("198.51.100.1", 3, "1000", 0),
            ("::ffff:198.51.100.1", 3, "1000", 0),
            ("192.0.2.1", 0, "", 0),
            ("2001:db8:5::9", 5, "", 0),
        ] {
            let found = locator.locate(ip(address), &policy);
            assert_eq!(found.site, site, "{address}");
            assert_eq!(found.region, region_from(region).unwrap(), "{address}");
            assert_eq!(found.asn, asn, "{address}");
        }
        assert_eq!(locator.locate(None, &policy), Locality::default());
    }

    #[test]
    fn a_lan_is_an_address_or_an_ipv6_network_and_says_nothing_without_the_key() {
        let locator = locator();
        let lan = |address| locator.locate(ip(address), &[]).lan;
        assert_eq!(lan("192.0.2.1"), lan("::ffff:192.0.2.1"));
        assert_ne!(lan("192.0.2.1"), lan("192.0.2.2"));
        assert_eq!(lan("2001:db8:1:2::1"), lan("2001:db8:1:2:ffff::2"));
        assert_ne!(lan("2001:db8:1:2::1"), lan("2001:db8:1:3::1"));
        let other = Locator::new(LocalityConfig::default(), [8; 32]);
        assert_ne!(lan("192.0.2.1"), other.locate(ip("192.0.2.1"), &[]).lan);
    }

    #[test]
    fn only_our_own_proxies_are_believed() {
        let locator = locator();
        let client = |connection: &str, forwarded: &[&str]| {
            let found = locator.client(ip(connection), forwarded);
            found.map(|address| address.to_string())
        };
        for (connection, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.9"][..], Some("192.0.2.1")),
            ("::ffff:192.0.2.1", &[], Some("192.0.2.1")),
            ("10.1.2.3", &[], None),
            ("10.1.2.3", &["198.51.100.9"], Some("198.51.100.9")),
            // What the client made up comes first; another proxy of ours may come last.
            (
                "10.1.2.3",
                &["6.6.6.6, 198.51.100.9, 10.0.0.7"],
                Some("198.51.100.9"),
            ),
            ("10.1.2.3", &["6.6.6.6", "2001:db8::1"], Some("2001:db8::1")),
            ("10.1.2.3", &["198.51.100.9, unknown"], None),
            ("::1", &["10.0.0.7"], None),
        ] {
            let found = client(connection, forwarded);
            assert_eq!(found.as_deref(), expected, "{connection} {forwarded:?}");
        }
        assert_eq!(locator.client(None, &["192.0.2.1"]), None);
    }
}
