//! Asks whether an address that DHCP grants, or a name that the VM sends, is free. This is the only
//! thing that the filter asks of the outside.
//!
//! It asks for DHCP messages only, in [`Filter::inspect`](super::Filter::inspect), never on the
//! path of other frames. The implementation knows about the VMs of other softnets.

use std::fmt;
use std::net::Ipv4Addr;

/// Reserves one VM's address and name, so that no other VM uses them.
///
/// Both directions and the main thread call this, so one may end a lease while another begins one.
/// An implementation must let only one call at a time read and change its state. Otherwise an
/// address could be given up that has just been granted again.
pub trait Claims: fmt::Debug + Send + Sync {
    /// Claims `address`, calls `bind` once the claim is certain, and then gives up what was claimed
    /// before. Returns false, without having called `bind` or given up anything, if another VM has
    /// the address. Must not wait for another process.
    fn claim(&self, address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool;

    /// Gives up what is claimed, unless it is the address that `leased` returns. To be called when
    /// a lease has ended, or may have ended.
    fn release_stale(&self, leased: &dyn Fn() -> Option<Ipv4Addr>);

    /// Claims a name, which is one label in lower case, and gives up the one that was claimed
    /// before. Returns false, without having given up anything, if another VM has the name. Must
    /// not wait either.
    fn claim_name(&self, _name: &str) -> bool {
        true
    }
}

/// An implementation for a VM that is alone: every address and name is free.
#[derive(Debug)]
pub struct NoClaims;

impl Claims for NoClaims {
    fn claim(&self, _address: Ipv4Addr, bind: &mut dyn FnMut()) -> bool {
        bind();
        true
    }

    fn release_stale(&self, _leased: &dyn Fn() -> Option<Ipv4Addr>) {}
}
