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
use crate::clock::Tick;
use crate::endpoint::{Sent, Sink};
use crate::filter::LeaseCell;
use crate::wire::{Mac, dhcp, ethernet, ipv4, udp};

/// Sends a release of the lease to `gateway`, if the VM at `vm` has a lease that has not run
/// out. To be called when nobody else sends any more. Returns the address if it was sent.
pub fn give_back(
    sink: &mut impl Sink,
    lease: &LeaseCell,
    vm: Mac,
    gateway: Ipv4Addr,
) -> Option<Ipv4Addr> {
    let now = Tick::now();
    let held = lease.lease().filter(|lease| now < lease.expires)?;
    let gateway_mac = lease.gateway_mac().unwrap_or(Mac::BROADCAST);
    let frame = frame(vm, held.address, gateway_mac, gateway);
    let mut batch = Batch::new(FRAME_LEN_MAX);
    let (slots, lens) = batch.fill(1);
    for (slot, len) in slots.zip(lens) {
        slot[..frame.len()].copy_from_slice(&frame);
        *len = u32::try_from(frame.len()).unwrap_or(0);
    }
    batch.set_received(1);
    batch.queue(0);
    match sink.send(&mut batch) {
        Sent::All => {
            info!("gave the VM's address {} back", held.address);
            Some(held.address)
        }
        sent => {
            debug!("cannot give the VM's address back: {sent:?}");
            None
        }
    }
}

fn frame(vm: Mac, address: Ipv4Addr, gateway_mac: Mac, gateway: Ipv4Addr) -> Vec<u8> {
    let mut message = Vec::with_capacity(FRAME_LEN_MAX);
    // Ethernet with addresses of 6 bytes, and no relay.
    message.extend([dhcp::REQUEST, 1, 6, 0]);
    // A transaction of one message: any number will do.
    message.extend_from_slice(&vm.0[2..]);
    message.extend([0; 4]);
    message.extend(address.octets());
    message.extend([0; 12]);
    message.extend(vm.0);
    message.extend([0; 10 + 64 + 128]);
    message.extend(dhcp::COOKIE.to_be_bytes());
    message.extend([dhcp::MESSAGE_TYPE, 1, dhcp::RELEASE]);
    message.extend([dhcp::SERVER_IDENTIFIER, 4]);
    message.extend(gateway.octets());
    // The identifier that the filter gave the VM, if it used any; and to a server that knows
    // it by its hardware address alone it is the same.
    message.extend([dhcp::CLIENT_IDENTIFIER, 7]);
    message.extend(dhcp::identifier_of(vm));
    message.push(dhcp::END);
    message.resize(message.len().max(MESSAGE_LEN_MIN), 0);

    let len = |headers: usize| {
        u16::try_from(headers + message.len())
            .unwrap_or(0)
            .to_be_bytes()
    };
    // Version and header length, type of service, total length, identification, fragment,
    // time to live, protocol, checksum (below), source, destination.
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&len(20 + 8));
    ip[8..10].copy_from_slice(&[64, ipv4::protocol::UDP]);
    ip[12..16].copy_from_slice(&address.octets());
    ip[16..20].copy_from_slice(&gateway.octets());
    let checksum = checksum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    [
        gateway_mac.0.as_slice(),
        &vm.0,
        &ethernet::ethertype::IPV4.to_be_bytes(),
        &ip,
        &udp::DHCP_CLIENT.to_be_bytes(),
        &udp::DHCP_SERVER.to_be_bytes(),
        &len(8),
        // No checksum, which UDP allows over IPv4 (RFC 768).
        &[0, 0],
        &message,
    ]
    .concat()
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

/// As BOOTP had it: some servers take no less.
const MESSAGE_LEN_MIN: usize = 300;
const FRAME_LEN_MAX: usize = 14 + 20 + 8 + MESSAGE_LEN_MIN;

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
        assert_eq!(frame.len(), FRAME_LEN_MAX);

        let (ethernet, packet) = Ethernet::split(&frame).unwrap();
        assert_eq!((ethernet.source, ethernet.destination), (vm, router));
        // A right header sums up to all ones.
        assert_eq!(checksum(&packet[..20]), 0);
        let packet = Ipv4::parse(packet).unwrap();
        assert_eq!(packet.trailer_len, 0);
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
        assert_eq!(message.identifier.unwrap().data, dhcp::identifier_of(vm));
    }
}
