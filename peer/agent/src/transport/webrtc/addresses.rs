//! Which local addresses a link binds.

use std::net::{IpAddr, SocketAddr};

/// Returns the addresses to bind, each with a port of the system's choice: those that are `wanted`,
/// or every usable one of this machine. Enumerated for each link, so a network change is followed.
pub(super) fn to_bind(wanted: &[IpAddr]) -> Vec<SocketAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    if wanted.is_empty() {
        addresses = usable(local_addresses());
    } else {
        for ip in wanted {
            if ip.is_unspecified() {
                let same_family = local_addresses()
                    .into_iter()
                    .filter(|a| a.is_ipv4() == ip.is_ipv4());
                addresses.extend(usable(same_family.collect()));
            } else {
                addresses.push(*ip);
            }
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
        .into_iter()
        .map(|ip| SocketAddr::new(ip, 0))
        .collect()
}

fn local_addresses() -> Vec<IpAddr> {
    match rtc::shared::ifaces::ifaces() {
        Ok(interfaces) => interfaces
            .into_iter()
            .filter_map(|i| i.addr)
            .map(|a| a.ip())
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the local addresses");
            Vec::new()
        }
    }
}

/// Loopback is useful only where there is nothing else, and a link-local address means nothing to
/// another machine without its scope.
fn usable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (loopback, other): (Vec<IpAddr>, Vec<IpAddr>) = addresses
        .into_iter()
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !is_link_local(ip))
        .partition(IpAddr::is_loopback);
    if other.is_empty() { loopback } else { other }
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn loopback_is_the_last_resort() {
        let cases: &[(&[&str], &[&str])] = &[
            (&[], &[]),
            (&["127.0.0.1", "::1"], &["127.0.0.1", "::1"]),
            (&["127.0.0.1", "10.0.0.2"], &["10.0.0.2"]),
            (&["127.0.0.1", "fe80::1", "169.254.3.4"], &["127.0.0.1"]),
            (&["2001:db8::1", "0.0.0.0", "224.0.0.1"], &["2001:db8::1"]),
        ];
        for (given, expected) in cases {
            assert_eq!(usable(ips(given)), ips(expected), "given {given:?}");
        }
    }

    #[test]
    fn wanted_addresses_are_bound_as_they_are() {
        let wanted = ips(&["127.0.0.1", "127.0.0.1", "::1"]);
        assert_eq!(
            to_bind(&wanted),
            vec![
                "127.0.0.1:0".parse().unwrap(),
                "[::1]:0".parse::<SocketAddr>().unwrap()
            ]
        );
    }

    #[test]
    fn every_machine_has_something_to_bind() {
        assert!(!to_bind(&[]).is_empty());
        assert!(to_bind(&ips(&["0.0.0.0"])).iter().all(SocketAddr::is_ipv4));
    }
}
