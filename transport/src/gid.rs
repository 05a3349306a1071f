//! Which of an RDMA device's addresses (GIDs) are meant: by how their packets travel, and by the network they are in. Plain text and numbers, so
//! that it is the same on hosts without RDMA.

use std::net::IpAddr;
use std::str::FromStr;

use crate::session::Gid;

/// How packets of an address travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GidType {
    /// Ethernet alone: not routed.
    RoceV1,
    /// In UDP, routed as other traffic is.
    #[default]
    RoceV2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `roce-v1` or `roce-v2`")]
pub struct NotGidType;

impl FromStr for GidType {
    type Err = NotGidType;

    fn from_str(text: &str) -> Result<GidType, NotGidType> {
        match text {
            "roce-v1" => Ok(GidType::RoceV1),
            "roce-v2" => Ok(GidType::RoceV2),
            _ => Err(NotGidType),
        }
    }
}

/// A network that an address has to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    network: u128,
    bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network, such as 10.0.0.0/24 or fd00::/64")]
pub struct NotSubnet;

impl FromStr for Subnet {
    type Err = NotSubnet;

    fn from_str(text: &str) -> Result<Subnet, NotSubnet> {
        let (address, bits) = text.split_once('/').ok_or(NotSubnet)?;
        let address: IpAddr = address.parse().map_err(|_| NotSubnet)?;
        let bits: u32 = bits.parse().map_err(|_| NotSubnet)?;
        let (mapped, before) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 96),
            IpAddr::V6(address) => (address, 0),
        };
        match bits.checked_add(before) {
            Some(bits) if bits <= 128 => Ok(Subnet { network: mapped.to_bits(), bits }),
            Some(_) | None => Err(NotSubnet),
        }
    }
}

impl Subnet {
    /// Whether the address is in it; one of IPv4 is written as its mapped one.
    pub fn holds(self, gid: Gid) -> bool {
        let differing = self.network ^ u128::from_be_bytes(gid);
        self.bits == 0 || differing >> (128 - self.bits) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let gid = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let holds = |subnet: &str, text: &str| subnet.parse::<Subnet>().unwrap().holds(gid(text));
        assert!(holds("10.77.0.0/24", "10.77.0.1") && !holds("10.77.0.0/24", "10.77.1.1"));
        assert!(holds("0.0.0.0/0", "10.77.0.1") && !holds("0.0.0.0/0", "fe80::1"));
        assert!(holds("fd00::/64", "fd00::5") && !holds("fd00::/64", "fd01::5"));
        assert!(holds("::/0", "10.0.0.1") && holds("10.1.2.3/32", "10.1.2.3"));
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/", "10.0.0.0/4294967295"] {
            assert_eq!(wrong.parse::<Subnet>(), Err(NotSubnet), "{wrong}");
        }
    }

    #[test]
    fn types_have_names() {
        assert_eq!(("roce-v1".parse(), "roce-v2".parse()), (Ok(GidType::RoceV1), Ok(GidType::RoceV2)));
        assert_eq!("ib".parse::<GidType>(), Err(NotGidType));
    }
}
