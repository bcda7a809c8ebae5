//! What a peer is and where it is, between the wire and the core.
//!
//! A peer says what it is; where it is comes from its gateway. Unknown classes of a newer peer count as
//! not said.

use espalier_orchestrator_core::{
    DeviceClass, Locality, NatClass, PeerProfile, region_from, region_name,
};
use espalier_proto::v1;

/// What a peer says of itself, at the place where its gateway sees it.
pub(crate) fn profile(said: Option<&v1::Profile>, locality: Locality) -> PeerProfile {
    let Some(said) = said else {
        return PeerProfile {
            locality,
            ..PeerProfile::default()
        };
    };
    PeerProfile {
        device: match said.device() {
            v1::DeviceClass::Unspecified => DeviceClass::Unknown,
            v1::DeviceClass::Desktop => DeviceClass::Desktop,
            v1::DeviceClass::Tv => DeviceClass::Tv,
            v1::DeviceClass::Mobile => DeviceClass::Mobile,
            v1::DeviceClass::Server => DeviceClass::Server,
        },
        metered: said.metered,
        on_battery: said.on_battery,
        nat: match said.nat() {
            v1::NatClass::Unspecified => NatClass::Unknown,
            v1::NatClass::Open => NatClass::Open,
            v1::NatClass::PortRestricted => NatClass::PortRestricted,
            v1::NatClass::Symmetric => NatClass::Symmetric,
            v1::NatClass::NoUdp => NatClass::NoUdp,
        },
        locality,
    }
}

pub(crate) fn profile_out(profile: &PeerProfile) -> v1::Profile {
    let device = match profile.device {
        DeviceClass::Unknown => v1::DeviceClass::Unspecified,
        DeviceClass::Desktop => v1::DeviceClass::Desktop,
        DeviceClass::Tv => v1::DeviceClass::Tv,
        DeviceClass::Mobile => v1::DeviceClass::Mobile,
        DeviceClass::Server => v1::DeviceClass::Server,
    };
    let nat = match profile.nat {
        NatClass::Unknown => v1::NatClass::Unspecified,
        NatClass::Open => v1::NatClass::Open,
        NatClass::PortRestricted => v1::NatClass::PortRestricted,
        NatClass::Symmetric => v1::NatClass::Symmetric,
        NatClass::NoUdp => v1::NatClass::NoUdp,
    };
    v1::Profile {
        device: device.into(),
        metered: profile.metered,
        on_battery: profile.on_battery,
        nat: nat.into(),
    }
}

/// Where another gateway saw a peer; `None`: no gateway of this release says such a thing.
pub(crate) fn locality_in(said: &v1::Locality) -> Option<Locality> {
    Some(Locality {
        lan: said.lan,
        site: said.site,
        asn: said.asn,
        region: region_from(&said.region)?,
    })
}

pub(crate) fn locality_out(locality: &Locality) -> v1::Locality {
    v1::Locality {
        lan: locality.lan,
        site: locality.site,
        asn: locality.asn,
        region: region_name(locality.region),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_comes_back_as_it_was() {
        let devices = [
            DeviceClass::Unknown,
            DeviceClass::Desktop,
            DeviceClass::Tv,
            DeviceClass::Mobile,
            DeviceClass::Server,
        ];
        let nats = [
            NatClass::Unknown,
            NatClass::Open,
            NatClass::PortRestricted,
            NatClass::Symmetric,
            NatClass::NoUdp,
        ];
        for (device, nat) in devices.into_iter().zip(nats) {
            let known = PeerProfile {
                device,
                metered: true,
                on_battery: nat == NatClass::Open,
                nat,
                locality: Locality {
                    lan: u64::MAX,
                    site: 7,
                    asn: 64_496,
                    region: 83,
                },
            };
            let there = locality_in(&locality_out(&known.locality)).unwrap();
            assert_eq!(profile(Some(&profile_out(&known)), there), known);
        }
    }

    #[test]
    fn what_is_not_said_or_not_known_here_is_unknown() {
        let newer = v1::Profile {
            device: 99,
            nat: 99,
            ..v1::Profile::default()
        };
        for said in [None, Some(&newer)] {
            assert_eq!(profile(said, Locality::default()), PeerProfile::default());
        }
        let nowhere = v1::Locality {
            region: "Atlantis".to_owned(),
            ..v1::Locality::default()
        };
        assert_eq!(locality_in(&nowhere), None);
    }
}
