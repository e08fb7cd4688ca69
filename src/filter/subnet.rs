//! The VM's own network, in the form that is cheapest to test.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::wire::Mac;

/// A network as address and mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    network: u32,
    mask: u32,
}

impl Subnet {
    /// The network with this mask, which is in the form that DHCP uses; `None` if the mask's ones
    /// are not all at the front.
    pub(super) fn of(address: u32, mask: u32) -> Option<Self> {
        Ipv4Net::with_netmask(address.into(), mask.into())
            .ok()
            .map(Self::from)
    }

    /// The network as a prefix.
    pub(super) fn net(self) -> Ipv4Net {
        Ipv4Net::with_netmask(self.network.into(), self.mask.into())
            .expect("only a prefix makes one")
    }

    #[inline]
    pub(super) fn contains(self, address: u32) -> bool {
        address & self.mask == self.network
    }

    /// Whether the address belongs to a single station: it is neither the network address nor the
    /// broadcast address, which networks of one or two addresses do not have (RFC 3021).
    pub(super) fn has_station(self, address: u32) -> bool {
        let is_point_to_point = self.mask >= 0xffff_fffe;
        self.contains(address)
            && (is_point_to_point || address != self.network && !self.is_broadcast(address))
    }

    pub(super) fn is_broadcast(self, address: u32) -> bool {
        self.mask < 0xffff_fffe && address == self.network | !self.mask
    }
}

impl From<Ipv4Net> for Subnet {
    fn from(net: Ipv4Net) -> Self {
        Self {
            network: net.network().into(),
            mask: net.netmask().into(),
        }
    }
}

/// The MAC address to which an IPv4 packet for several stations is sent; `None` for the address of
/// a single station.
pub(super) fn group_mac(address: u32, subnet: Option<Subnet>) -> Option<Mac> {
    let destination = Ipv4Addr::from(address);
    if destination.is_broadcast() || subnet.is_some_and(|subnet| subnet.is_broadcast(address)) {
        Some(Mac::BROADCAST)
    } else {
        destination
            .is_multicast()
            .then(|| Mac::of_ipv4_group(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(address: &str) -> u32 {
        address.parse::<Ipv4Addr>().unwrap().into()
    }

    #[test]
    fn a_network_knows_its_stations() {
        let subnet = Subnet::of(number("192.168.64.1"), number("255.255.255.0")).unwrap();
        assert_eq!(
            subnet,
            Subnet::from("192.168.64.9/24".parse::<Ipv4Net>().unwrap())
        );
        assert!(subnet.has_station(number("192.168.64.254")));
        for other in ["192.168.64.0", "192.168.64.255", "192.168.65.1", "0.0.0.0"] {
            assert!(!subnet.has_station(number(other)), "{other}");
        }
    }

    #[test]
    fn a_network_of_two_has_two_stations() {
        let subnet = Subnet::of(number("10.0.0.1"), number("255.255.255.254")).unwrap();
        assert!(subnet.has_station(number("10.0.0.0")));
        assert!(!subnet.is_broadcast(number("10.0.0.1")));
    }

    #[test]
    fn a_mask_with_holes_is_no_mask() {
        assert_eq!(Subnet::of(number("10.0.0.1"), number("255.0.255.0")), None);
    }

    #[test]
    fn groups_have_their_own_mac() {
        let subnet = Subnet::of(number("192.168.64.1"), number("255.255.255.0"));
        assert_eq!(
            group_mac(number("192.168.64.255"), subnet),
            Some(Mac::BROADCAST)
        );
        assert_eq!(group_mac(number("192.168.64.255"), None), None);
        assert_eq!(
            group_mac(number("255.255.255.255"), None),
            Some(Mac::BROADCAST)
        );
        assert_eq!(
            group_mac(number("224.0.0.251"), None),
            Some(Mac([1, 0, 0x5e, 0, 0, 0xfb]))
        );
        assert_eq!(group_mac(number("192.168.64.2"), subnet), None);
    }
}
