//! Gives the VM's lease back when softnet stops, so that the addresses of a busy host are not
//! eaten by VMs that are gone.
//!
//! One DHCPRELEASE (RFC 2131, 4.4.6), as the VM would send it on a clean shutdown, goes out
//! behind the last frame. Apple's bootpd then ends the lease at once (bootp-494.60.3,
//! dhcpd.c), without a change of anything else on the host; so does dnsmasq. It does no harm
//! after the VM's own.

use std::net::Ipv4Addr;

use tracing::{debug, info};

use crate::batch::Batch;
use crate::endpoint::{Sent, Sink};
use crate::filter::LeaseCell;
use crate::forward;
use crate::wire::{Mac, dhcp, ethernet, ipv4, udp};

/// Sends a release of the lease to `gateway`, if the VM at `vm` has a lease that has not run
/// out. To be called when nobody else sends any more.
pub fn give_back(sink: &mut impl Sink, lease: &LeaseCell, vm: Mac, gateway: Ipv4Addr) {
    let now = forward::now();
    let Some(held) = lease.lease().filter(|lease| now < lease.expires) else {
        return;
    };
    let gateway_mac = lease.gateway_mac().unwrap_or(Mac::BROADCAST);
    let frame = frame(vm, held.address, gateway_mac, gateway);
    let mut batch = Batch::new(frame.len());
    let (mut slots, lens) = batch.fill(1);
    if let (Some(slot), Some(len)) = (slots.next(), lens.first_mut()) {
        slot[..frame.len()].copy_from_slice(&frame);
        *len = FRAME_LEN.into();
    }
    drop(slots);
    batch.set_received(1);
    batch.queue(0);
    match sink.send(&mut batch) {
        Sent::All => info!("gave the VM's address {} back", held.address),
        sent => debug!("cannot give the VM's address back: {sent:?}"),
    }
}

fn frame(
    vm: Mac,
    address: Ipv4Addr,
    gateway_mac: Mac,
    gateway: Ipv4Addr,
) -> [u8; FRAME_LEN as usize] {
    let mut frame = [0; FRAME_LEN as usize];
    let mut rest = frame.as_mut_slice();
    let mut put = |bytes: &[u8]| {
        let (target, behind) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        target.copy_from_slice(bytes);
        rest = behind;
    };
    put(&gateway_mac.0);
    put(&vm.0);
    put(&ethernet::ethertype::IPV4.to_be_bytes());

    // Version and header length, type of service, total length, identification, fragment,
    // time to live, protocol, checksum (below), source, destination.
    put(&[0x45, 0]);
    put(&IP_LEN.to_be_bytes());
    put(&[0, 0, 0, 0, 64, ipv4::protocol::UDP, 0, 0]);
    put(&address.octets());
    put(&gateway.octets());

    put(&udp::DHCP_CLIENT.to_be_bytes());
    put(&udp::DHCP_SERVER.to_be_bytes());
    put(&(IP_LEN - 20).to_be_bytes());
    // No checksum, which UDP allows over IPv4 (RFC 768).
    put(&[0, 0]);

    // Ethernet with addresses of 6 bytes, and no relay.
    put(&[dhcp::REQUEST, 1, 6, 0]);
    // A transaction of one message: any number will do.
    put(&vm.0[2..]);
    put(&[0; 4]);
    put(&address.octets());
    put(&[0; 12]);
    put(&vm.0);
    put(&[0; 10 + 64 + 128]);
    put(&dhcp::COOKIE.to_be_bytes());
    put(&[dhcp::MESSAGE_TYPE, 1, dhcp::RELEASE]);
    put(&[dhcp::SERVER_IDENTIFIER, 4]);
    put(&gateway.octets());
    put(&[dhcp::END]);

    let checksum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The checksum of an IPv4 header whose own field for it is zero (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|word| u16::from_be_bytes([word[0], word[1]]));
    !words.fold(0_u16, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// A message is at least 300 bytes long, as BOOTP had it: some servers take no less.
const IP_LEN: u16 = 20 + 8 + 300;
const FRAME_LEN: u16 = 14 + IP_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::Ethernet;
    use crate::wire::ipv4::Ipv4;
    use crate::wire::udp::Udp;

    #[test]
    fn a_release_is_what_the_vm_would_send() {
        let (vm, router) = (Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1]));
        let address = Ipv4Addr::new(192, 168, 64, 7);
        let gateway = Ipv4Addr::new(192, 168, 64, 1);
        let frame = frame(vm, address, router, gateway);

        let (ethernet, packet) = Ethernet::split(&frame).unwrap();
        assert_eq!((ethernet.source, ethernet.destination), (vm, router));
        // A right header sums up to all ones.
        assert_eq!(checksum(&packet[..20]), 0);
        let packet = Ipv4::parse(packet).unwrap();
        assert_eq!(packet.header.source.get(), u32::from(address));
        assert_eq!(packet.header.destination.get(), u32::from(gateway));
        let (udp, data) = Udp::split(packet.payload).unwrap();
        assert_eq!(usize::from(udp.len.get()), packet.payload.len());
        assert_eq!((udp.source.get(), udp.destination.get()), (68, 67));
        let message = dhcp::Message::parse(data).unwrap();
        assert_eq!(message.kind, dhcp::RELEASE);
        assert_eq!(message.header.client.get(), u32::from(address));
        assert_eq!(message.header.hardware, vm);
        assert_eq!(message.server, Some(u32::from(gateway)));
    }
}
