//! Watches the gateway, whose MAC address may change.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::super::{Gateway, GatewayArg};
use super::find;
use crate::host::HostError;
use crate::wire::Mac;

/// Detects that the gateway's MAC address has changed.
///
/// A bridge takes the lowest MAC of its ports unless it was given one (net/bridge/br_stp_if.c,
/// br_stp_recalculate_bridge_id), so starting another VM can change it.
#[derive(Debug)]
pub struct Watch {
    tap: String,
    gateway: Gateway,
    events: Socket,
    /// Whether something may have changed since the last look.
    stale: bool,
    /// Whether something has happened since the last call of [`take_event`](Self::take_event).
    happened: bool,
}

impl Watch {
    /// Watches `gateway`, which [`find`] has found behind `tap`.
    ///
    /// # Errors
    /// If the system does not allow rtnetlink.
    pub fn new(tap: &str, gateway: Gateway) -> Result<Self, HostError> {
        let open = || -> io::Result<_> {
            let mut events = Socket::new(NETLINK_ROUTE)?;
            events.bind_auto()?;
            for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR] {
                events.add_membership(group)?;
            }
            Ok(events)
        };
        let events = open().map_err(HostError::system("watch the gateway"))?;
        Ok(Self {
            tap: tap.to_owned(),
            gateway,
            events,
            stale: true,
            happened: false,
        })
    }

    /// The gateway's MAC, if it has changed. Looks only if an interface or an address has changed
    /// since the last look that found one, and does not block.
    ///
    /// # Errors
    /// The same as for [`find`].
    pub fn new_mac(&mut self) -> Result<Option<Mac>, HostError> {
        self.drain();
        if !self.stale {
            return Ok(None);
        }
        let named = GatewayArg {
            address: self.gateway.address,
            subnet: None,
        };
        let now = find(&self.tap, Some(named))?;
        // An interface that is being reconfigured may have lost the address for a moment, or not
        // have it yet.
        self.stale = now.mac.is_none();
        let new = now.mac.filter(|mac| Some(*mac) != self.gateway.mac);
        self.gateway.mac = new.or(self.gateway.mac);
        Ok(new)
    }

    /// Whether an interface or an address of this host may have changed since the last call.
    pub fn take_event(&mut self) -> bool {
        self.drain();
        mem::take(&mut self.happened)
    }

    fn drain(&mut self) {
        loop {
            match self
                .events
                .recv(&mut Vec::with_capacity(1), libc::MSG_DONTWAIT)
            {
                Ok(_) => (self.stale, self.happened) = (true, true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                // There were so many that some were lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    (self.stale, self.happened) = (true, true);
                }
                Err(_) => break,
            }
        }
    }
}

impl AsFd for Watch {
    /// A descriptor that is readable when an interface or an address has changed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The multicast groups for changes of interfaces and of IPv4 addresses (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_new_once() {
        let gateway = find("lo", None).unwrap();
        let mut watch = Watch::new("lo", gateway).unwrap();
        assert_eq!(watch.new_mac().unwrap(), None);
        let wrong = Gateway {
            mac: None,
            ..gateway
        };
        let mut watch = Watch::new("lo", wrong).unwrap();
        assert_eq!(watch.new_mac().unwrap(), Some(Mac([0; 6])));
        watch.stale = true;
        assert_eq!(watch.new_mac().unwrap(), None);
    }
}
