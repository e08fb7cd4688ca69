//! The gateway: where the VM sends everything that is not on its own network.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::wire::Mac;

pub mod linux;

/// The VM's gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its address, for which `@host` stands in a rule.
    pub address: Ipv4Addr,
    /// Its network, which is also the VM's; None if the interface has no address in it.
    pub subnet: Option<Ipv4Net>,
    /// Its MAC address; None if it is a machine behind the interface rather than this host.
    pub mac: Option<Mac>,
}

/// The gateway as given by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayArg {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network, which is used if the interface has no address in it.
    pub subnet: Option<Ipv4Net>,
}
