//! Which site an address is in: the longest subnet that contains it.
//!
//! Invariant: rules lie in the order in which they are tried, so the first that contains an address is
//! the answer.

use core::cmp::Reverse;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::draft::SiteRule;

/// Subnets and the sites that they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SiteTable {
    /// The longest prefixes first.
    rules: Vec<SiteRule>,
}

impl SiteTable {
    /// Makes the table of these rules.
    pub fn new(rules: &[SiteRule]) -> Self {
        let rules = rules.iter().map(|rule| SiteRule {
            subnet: rule.subnet.trunc(),
            ..*rule
        });
        let mut rules: Vec<_> = rules.collect();
        rules.sort_by_key(|rule| (Reverse(rule.subnet.prefix_len()), rule.subnet));
        Self { rules }
    }

    /// Returns the rule of the smallest subnet that the address is in. An IPv4 address that came mapped
    /// into IPv6 counts as what it is.
    pub fn find(&self, address: IpAddr) -> Option<&SiteRule> {
        let address = address.to_canonical();
        self.rules
            .iter()
            .find(|rule| rule.subnet.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(subnet: &str, site: u32, region: u16) -> SiteRule {
        SiteRule {
            subnet: subnet.parse().unwrap(),
            site,
            region,
        }
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let mut rules = vec![
            rule("203.0.113.0/24", 1, 7),
            rule("203.0.113.64/26", 2, 7),
            rule("2001:db8::/32", 3, 8),
            rule("203.0.113.77/32", 4, 0),
        ];
        for _ in 0..2 {
            let table = SiteTable::new(&rules);
            for (address, site) in [
                ("203.0.113.1", Some(1)),
                ("203.0.113.65", Some(2)),
                ("203.0.113.77", Some(4)),
                ("::ffff:203.0.113.77", Some(4)),
                ("203.0.114.1", None),
                ("2001:db8::9", Some(3)),
                ("2001:db9::9", None),
            ] {
                let found = table.find(address.parse().unwrap());
                assert_eq!(found.map(|rule| rule.site), site, "{address}");
            }
            rules.reverse();
        }
        assert_eq!(SiteTable::default().find("::1".parse().unwrap()), None);
    }

    #[test]
    fn host_bits_of_a_subnet_do_not_count() {
        let one = SiteTable::new(&[rule("203.0.113.9/24", 1, 0)]);
        assert_eq!(one, SiteTable::new(&[rule("203.0.113.0/24", 1, 0)]));
    }
}
