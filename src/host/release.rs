//! Releases the VM's lease when softnet stops, so that a busy host does not run out of addresses
//! because of VMs that are gone.
//!
//! One DHCPRELEASE (RFC 2131, 4.4.6), as the VM would send it on a clean shutdown, is sent after
//! the last frame. Apple's bootpd then ends the lease at once (bootp-494.60.3, dhcpd.c), without
//! changing anything else on the host; so does dnsmasq. A second release after the VM's own does no
//! harm.

use std::net::Ipv4Addr;

use tracing::{debug, info};
use zerocopy::IntoBytes;

use crate::batch::Batch;
use crate::clock::Tick;
use crate::endpoint::{Sent, Sink};
use crate::filter::{LeaseCell, Rules};
use crate::wire::Mac;
use crate::wire::request::Request;

/// Sends a release of the lease to the DHCP server, if the VM at `vm` has an unexpired lease. Must be
/// called when no other thread sends any more. Returns the address if the release was sent.
pub fn give_back(
    sink: &mut impl Sink,
    lease: &LeaseCell,
    rules: &Rules,
    vm: Mac,
) -> Option<Ipv4Addr> {
    let now = Tick::now();
    let held = lease.lease().filter(|lease| now < lease.expires)?;
    let (server, mac) = rules.dhcp_server();
    let frame = Request::release(vm, held.address, server, mac.unwrap_or(Mac::BROADCAST));
    let frame = frame.as_bytes();
    let mut batch = Batch::new(Request::LEN);
    let (slots, lens) = batch.fill(1);
    for (slot, len) in slots.zip(lens) {
        slot[..frame.len()].copy_from_slice(frame);
        *len = u32::try_from(frame.len()).unwrap_or(0);
    }
    batch.set_received(1);
    batch.queue(0);
    match sink.send(&mut batch) {
        Sent::All => {
            info!("released the VM's address {}", held.address);
            Some(held.address)
        }
        sent => {
            debug!("cannot release the VM's address: {sent:?}");
            None
        }
    }
}
