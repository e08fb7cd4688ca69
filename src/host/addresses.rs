//! The addresses that this host answers to besides the gateway: the kernel accepts tunnels there,
//! and `--block @host` closes them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use tracing::warn;

use super::HostError;
use crate::filter::{HOST_ADDRESSES_MAX, Rules};

/// Tells the rules the host's addresses, and again whenever they have changed.
#[derive(Debug)]
pub struct HostAddresses {
    /// Whether they may have changed since the rules were told.
    is_stale: bool,
    has_warned: bool,
}

impl HostAddresses {
    /// Does not know any yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_stale: true,
            has_warned: false,
        }
    }

    /// Makes the next call of [`update_rules`](Self::update_rules) list them again.
    pub fn may_have_changed(&mut self) {
        self.is_stale = true;
    }

    /// Tells the rules, if the addresses may have changed.
    ///
    /// # Errors
    /// If the system does not list them. The rules keep the last list, and the next call tries
    /// again.
    pub fn update_rules(&mut self, rules: &Rules) -> Result<(), HostError> {
        if !self.is_stale {
            return Ok(());
        }
        let addresses = answered()?;
        self.is_stale = false;
        if addresses.len() > HOST_ADDRESSES_MAX && !self.has_warned {
            self.has_warned = true;
            warn!(
                "only the first {HOST_ADDRESSES_MAX} of the host's {} addresses are told from the \
                 internet: block the networks of the others by their prefixes",
                addresses.len()
            );
        }
        rules.set_host_addresses(addresses);
        Ok(())
    }
}

impl Default for HostAddresses {
    fn default() -> Self {
        Self::new()
    }
}

/// All IPv4 addresses that the host answers to, except loopback, in order and without duplicates.
fn answered() -> Result<Vec<Ipv4Addr>, HostError> {
    let interfaces = getifaddrs().map_err(HostError::system("list the host's addresses"))?;
    let mut found: Vec<Ipv4Addr> = interfaces
        .filter_map(|interface| {
            let mask = ipv4(interface.netmask);
            Some(answered_by(
                ipv4(interface.address)?,
                mask,
                ipv4(interface.broadcast),
            ))
        })
        .flatten()
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// An interface accepts what is sent to its address, and UDP also what is sent to its network's
/// broadcast address: the configured one, or the one that follows from the mask (Linux has both,
/// net/ipv4/fib_frontend.c, `fib_add_ifaddr`). Before Linux 5.14, and on BSD, it also accepts the
/// first address of the network (4.2BSD's form).
fn answered_by(
    address: Ipv4Addr,
    mask: Option<Ipv4Addr>,
    broadcast: Option<Ipv4Addr>,
) -> impl Iterator<Item = Ipv4Addr> {
    let net = mask
        .and_then(|mask| Ipv4Net::with_netmask(address, mask).ok())
        .filter(|net| net.prefix_len() < 31);
    let ends = net.map(|net| [net.network(), net.broadcast()]);
    let all = [Some(address), broadcast].into_iter().flatten();
    all.chain(ends.into_iter().flatten())
        .filter(|it| !it.is_loopback() && !it.is_unspecified() && !it.is_broadcast())
}

fn ipv4(address: Option<SockaddrStorage>) -> Option<Ipv4Addr> {
    Some(address?.as_sockaddr_in()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered_by(address: &str, mask: &str, broadcast: &str) -> Vec<String> {
        let parse = |text: &str| text.parse().ok();
        let found = super::answered_by(parse(address).unwrap(), parse(mask), parse(broadcast));
        found.map(|address| address.to_string()).collect()
    }

    #[test]
    fn an_interface_answers_to_its_broadcast_addresses_too() {
        let all = ["4.4.4.4", "4.4.4.9", "4.4.4.0", "4.4.4.255"];
        assert_eq!(answered_by("4.4.4.4", "255.255.255.0", "4.4.4.9"), all);
        for mask in ["255.255.255.255", "255.255.255.254", "255.0.255.0", ""] {
            assert_eq!(answered_by("4.4.4.4", mask, ""), ["4.4.4.4"], "{mask}");
        }
    }

    #[test]
    fn what_the_rules_have_anyway_is_left_out() {
        assert!(answered_by("127.0.0.1", "255.0.0.0", "127.255.255.255").len() < 2);
        let found = answered_by("4.4.4.4", "255.255.255.255", "255.255.255.255");
        assert_eq!(found, ["4.4.4.4"]);
        assert_eq!(answered_by("4.4.4.4", "", "0.0.0.0"), ["4.4.4.4"]);
    }

    #[test]
    fn the_system_lists_addresses_without_loopback() {
        let found = answered().unwrap();
        assert!(found.is_sorted());
        assert!(found.iter().all(|address| address.octets()[0] != 127));
    }
}
