//! What a peer is besides its role and its upload: the device, how it is powered and paid for, what its
//! network address translator lets through, and where it is.
//!
//! Everything here is an id or a class. Addresses stay in the gateway: who plans sees only whether two
//! peers have the same one. 0 and `Unknown` mean that nobody knows; they never match each other.

use serde::{Deserialize, Serialize};

/// What a peer is, apart from what it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct PeerProfile {
    /// What it runs on.
    pub device: DeviceClass,
    /// Each byte costs its owner money.
    pub metered: bool,
    /// It is not plugged in.
    pub on_battery: bool,
    /// What its network address translator lets through.
    pub nat: NatClass,
    /// Where it is.
    pub locality: Locality,
}

/// What a peer runs on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub enum DeviceClass {
    /// It did not say.
    #[default]
    Unknown,
    /// A desktop or a laptop.
    Desktop,
    /// A television set or a set-top box.
    Tv,
    /// A telephone or a tablet.
    Mobile,
    /// A machine that nobody sits at.
    Server,
}

/// What a peer's network address translator lets through, as the peer's own observations show it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub enum NatClass {
    /// It has not observed anything (yet).
    #[default]
    Unknown,
    /// No translation: the address that others see is the peer's own.
    Open,
    /// The same mapping towards everybody: both ends can open a way by sending first.
    PortRestricted,
    /// Another mapping towards each destination: its port cannot be foretold.
    Symmetric,
    /// No datagram comes back.
    NoUdp,
}

/// Where a peer is, from the nearest circle to the widest; 0: unknown.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub struct Locality {
    /// A keyed hash of the public address: equal behind one translator.
    #[serde(with = "postcard::fixint::le")]
    pub lan: u64,
    /// The site whose subnet the public address is in, by the channel's policy or the node's table.
    pub site: u32,
    /// The autonomous system that announces the public address.
    pub asn: u32,
    /// The region: the policy's, the table's, or the database's country.
    pub region: u16,
}

/// Numbers of regions below this one stand for countries.
const FIRST_OWN_REGION: u16 = 1000;

/// Returns the region that a text names: a country's two letters, or an operator's own number from 1000 on.
/// An empty text names none: 0.
pub fn region_from(text: &str) -> Option<u16> {
    match text.as_bytes() {
        [] => Some(0),
        [one, other] if one.is_ascii_alphabetic() && other.is_ascii_alphabetic() => {
            let letter = |byte: &u8| u16::from(byte.to_ascii_uppercase() - b'A');
            Some(letter(one) * 26 + letter(other) + 1)
        }
        _ => text.parse().ok().filter(|own| *own >= FIRST_OWN_REGION),
    }
}

/// Returns the text that [`region_from`] reads as this region.
pub fn region_name(region: u16) -> String {
    let letter = |index: u16| char::from(b'A' + u8::try_from(index % 26).unwrap_or(0));
    match region {
        0 => String::new(),
        1..=676 => [letter((region - 1) / 26), letter(region - 1)]
            .iter()
            .collect(),
        677.. => region.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_countries_or_an_operators_own_numbers() {
        for (text, region) in [
            ("", Some(0)),
            ("AA", Some(1)),
            ("de", Some(83)),
            ("DE", Some(83)),
            ("ZZ", Some(676)),
            ("1000", Some(1000)),
            ("65535", Some(65535)),
            ("999", None),
            ("65536", None),
            ("D", None),
            ("D1", None),
            ("Europe", None),
        ] {
            assert_eq!(region_from(text), region, "{text}");
        }
        for region in (0..=676).chain(1000..=u16::MAX) {
            assert_eq!(region_from(&region_name(region)), Some(region));
        }
    }

    #[test]
    fn nothing_is_known_of_a_peer_that_says_nothing() {
        let unknown = PeerProfile::default();
        assert_eq!(unknown.nat, NatClass::Unknown);
        assert_eq!(unknown.device, DeviceClass::Unknown);
        assert!(!unknown.metered && !unknown.on_battery);
        let Locality {
            lan,
            site,
            asn,
            region,
        } = unknown.locality;
        assert_eq!((lan, site, asn, region), (0, 0, 0, 0));
    }

    #[test]
    fn a_profile_is_small_in_a_record_and_in_memory() {
        assert!(core::mem::size_of::<PeerProfile>() <= 32);
        let bytes = postcard::to_allocvec(&PeerProfile::default()).unwrap();
        assert_eq!(bytes.len(), 15);
    }
}
