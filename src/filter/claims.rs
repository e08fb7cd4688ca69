//! Whether an address that DHCP grants is free, or a name that a VM gives itself: what the
//! filter has to ask the world.
//!
//! It is asked with DHCP messages alone, in [`Filter::inspect`](super::Filter::inspect), and never
//! on the path of other frames. Who answers knows of the VMs that others run.

use std::fmt;
use std::net::Ipv4Addr;

/// Keeps the address and the name of one VM from all others'.
///
/// Both directions and the main thread call it, so that a lease may end on one of them while
/// another begins. Whoever implements it lets one call at a time look and act, or an address
/// could be given up that was granted anew meanwhile.
pub trait Claims: fmt::Debug + Send + Sync {
    /// Claims `address`, calls `bind` once it is certain to be the VM's, and gives up what was
    /// claimed before. False, without having called `bind` or given up anything, when another
    /// VM has it. Must not wait for another process.
    fn claim(&self, address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool;

    /// Gives up what is claimed unless it is what `leased` answers: to be called when a lease
    /// has ended, or may have.
    fn settle(&self, leased: &dyn Fn() -> Option<Ipv4Addr>);

    /// Claims a name, one label in lower case, and gives up the one that was claimed before.
    /// False, without having given up anything, when another VM has it. Must not wait either.
    fn claim_name(&self, _name: &str) -> bool {
        true
    }
}

/// Every address and name is free: for a VM beside which there is no other.
#[derive(Debug)]
pub struct NoClaims;

impl Claims for NoClaims {
    fn claim(&self, _address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool {
        bind();
        true
    }

    fn settle(&self, _leased: &dyn Fn() -> Option<Ipv4Addr>) {}
}
