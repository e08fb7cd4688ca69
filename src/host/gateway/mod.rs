//! The gateway: what the VM sends to for whatever is not on its own network.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::wire::Mac;

#[cfg(target_os = "linux")]
mod netlink;

#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
pub use self::{netlink::find, netlink::look, watch::Watch};

/// The VM's way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its address, which `@host` in a rule means too.
    pub address: Ipv4Addr,
    /// The network that it and the VM are in; None if the interface has no address in it.
    pub subnet: Option<Ipv4Net>,
    /// Its MAC; None if it is a machine behind the interface rather than this one.
    pub mac: Option<Mac>,
}

/// The gateway as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network, which counts if the interface has no address in it.
    pub subnet: Option<Ipv4Net>,
}
