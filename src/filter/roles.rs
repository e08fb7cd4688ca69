//! Who is who on the VM's network, and how the network is set up: the part of a snapshot that is
//! about stations and not about rules.
//!
//! ```text
//!   VM --- bridge --- gateway (the host) --- other networks
//!                       router, DHCP server, boot server
//! ```
//!
//! For now the gateway has every role. A check asks for the role that it means, so that another
//! station can take a role over here alone.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;

use super::Config;
use super::policy::Mode;
use super::prefix::Destination;
use super::subnet::Subnet;
use crate::wire::Mac;

/// The stations of a VM's network, as they are for one batch of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles {
    /// The host's station on the VM's network.
    pub(super) gateway: Station,
    /// The VM's network, once it is known.
    pub(super) subnet: Option<Subnet>,
    /// The name servers of the lease.
    pub(crate) name_servers: NameServers,
    pub(crate) mode: Mode,
    /// Whether neighbours are isolated from each other.
    pub(crate) isolation: bool,
    /// The longest frame that the interface takes, in bytes with the Ethernet header.
    pub(super) max_frame: usize,
}

/// A station: its address, and its MAC address once that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Station {
    pub(crate) address: u32,
    /// [`UNKNOWN_MAC`], or the address as a number, which is compared in one instruction.
    mac: u64,
}

/// The name servers of a lease. There are at most as many as are remembered; resolvers use three
/// (`MAXNS` of resolv.h).
pub type NameServers = ArrayVec<Ipv4Addr, NAME_SERVERS_MAX>;

impl Roles {
    pub(super) fn new(config: &Config<'_>) -> Self {
        Self {
            gateway: Station::new(config.gateway, config.gateway_mac),
            subnet: config.subnet.map(Subnet::from),
            name_servers: NameServers::new(),
            mode: config.mode,
            isolation: config.isolation || config.mode == Mode::Host,
            max_frame: config.max_frame,
        }
    }

    /// The station that grants leases.
    #[inline]
    pub(super) fn dhcp_server(&self) -> Station {
        self.gateway
    }

    /// The station through which other networks are reached.
    #[inline]
    pub(super) fn router(&self) -> Station {
        self.gateway
    }

    /// Whether this is the address of another station of the VM's network.
    #[inline]
    pub(super) fn is_neighbour(&self, address: u32) -> bool {
        address != self.gateway.address && self.subnet.is_some_and(|net| net.contains(address))
    }

    /// A name server from the lease is reachable on port 53 even if the table refuses its address,
    /// because it is often the resolver of a company's network.
    pub(super) fn allow_name_server(
        &self,
        verdict: Destination,
        peer: u32,
        is_dns: bool,
    ) -> Destination {
        if is_dns && verdict.may_be_name_server() && self.is_name_server(peer) {
            Destination::Pass
        } else {
            verdict
        }
    }

    fn is_name_server(&self, address: u32) -> bool {
        self.name_servers.contains(&Ipv4Addr::from(address))
    }
}

impl Station {
    pub(crate) fn new(address: Ipv4Addr, mac: Option<Mac>) -> Self {
        Self {
            address: address.into(),
            mac: mac.map_or(UNKNOWN_MAC, Mac::to_u64),
        }
    }

    /// Whether this is the station's MAC address; always false while that is unknown.
    #[inline]
    pub(super) fn has_mac(self, mac: Mac) -> bool {
        mac.to_u64() == self.mac
    }

    pub(super) fn mac(self) -> Option<Mac> {
        (self.mac != UNKNOWN_MAC).then(|| Mac::from_u64(self.mac))
    }

    pub(super) fn set_mac(&mut self, mac: Mac) {
        self.mac = mac.to_u64();
    }
}

pub(super) const NAME_SERVERS_MAX: usize = 4;

/// Above every MAC address, which has 48 bits.
const UNKNOWN_MAC: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_whose_mac_is_unknown_has_none() {
        let mut station = Station::new(Ipv4Addr::new(192, 168, 64, 1), None);
        assert!(!station.has_mac(Mac([0; 6])) && !station.has_mac(Mac([0xff; 6])));
        assert_eq!(station.mac(), None);
        station.set_mac(Mac([2, 0, 0, 0, 0, 1]));
        assert!(station.has_mac(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(station.mac(), Some(Mac([2, 0, 0, 0, 0, 1])));
    }
}
