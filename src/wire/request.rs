//! DHCP requests that softnet itself sends for the VM, as whole frames.
//!
//! There are two: the release of its lease, and the request of a client that reboots and asks
//! whether it still has its address (RFC 2131, 4.3.2). Both have the same length, so a frame is one
//! struct with the layout of the wire, written as a whole.

use std::net::Ipv4Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Mac;
use super::dhcp::{self, MessageType};
use super::ethernet::{Ethernet, ethertype};
use super::ipv4::{self, protocol};
use super::udp::{self, Udp};

/// A frame that carries a request.
#[derive(Debug, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Request {
    ethernet: Ethernet,
    ip: ipv4::Header,
    udp: Udp,
    message: dhcp::Header,
    options: [u8; OPTIONS_LEN],
}

impl Request {
    /// The length of every such frame.
    pub const LEN: usize = size_of::<Self>();

    /// The VM releases `address` to the server, which is the gateway.
    #[must_use]
    pub fn release(vm: Mac, address: Ipv4Addr, gateway: Ipv4Addr, gateway_mac: Mac) -> Self {
        let mut frame = Self::new(vm, gateway_mac, address, gateway);
        // A transaction of a single message: any number will do.
        let [_, _, a, b, c, d] = vm.0;
        frame.message.xid.set(u32::from_be_bytes([a, b, c, d]));
        frame.message.client.set(address.into());
        frame.with_options(&[
            (dhcp::MESSAGE_TYPE, &[MessageType::Release.code()]),
            (dhcp::SERVER_IDENTIFIER, &gateway.octets()),
            (dhcp::CLIENT_IDENTIFIER, &dhcp::identifier_of(vm)),
        ])
    }

    /// The VM asks all servers whether it still has `address`.
    #[must_use]
    pub fn reboot(vm: Mac, address: Ipv4Addr, xid: u32) -> Self {
        let everybody = Ipv4Addr::BROADCAST;
        let mut frame = Self::new(vm, Mac::BROADCAST, Ipv4Addr::UNSPECIFIED, everybody);
        frame.message.xid.set(xid);
        frame.message.flags.set(dhcp::BROADCAST_FLAG);
        frame.with_options(&[
            (dhcp::MESSAGE_TYPE, &[MessageType::Request.code()]),
            (dhcp::REQUESTED_ADDRESS, &address.octets()),
            (dhcp::CLIENT_IDENTIFIER, &dhcp::identifier_of(vm)),
            (dhcp::PARAMETER_LIST, &PARAMETERS),
        ])
    }

    /// A request without options.
    fn new(vm: Mac, to: Mac, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let mut frame = Self::new_zeroed();
        frame.ethernet = Ethernet {
            destination: to,
            source: vm,
            ethertype: ethertype::IPV4.into(),
        };
        frame.ip = ipv4::Header::new(protocol::UDP, IP_LEN, source, destination);
        frame.udp = Udp {
            source: udp::DHCP_CLIENT.into(),
            destination: udp::DHCP_SERVER.into(),
            len: UDP_LEN.into(),
            // None, which UDP allows over IPv4 (RFC 768).
            checksum: U16::ZERO,
        };
        frame.message.operation = dhcp::REQUEST;
        frame.message.hardware_type = dhcp::ETHERNET;
        frame.message.hardware_len = dhcp::MAC_LEN;
        frame.message.hardware = vm;
        frame.message.cookie = U32::new(dhcp::COOKIE);
        frame
    }

    /// Writes the options one after another, and the end option. The rest remains padding.
    fn with_options(mut self, options: &[(u8, &[u8])]) -> Self {
        let flat = options.iter().flat_map(|(code, data)| {
            let len = u8::try_from(data.len()).unwrap_or(0);
            [*code, len].into_iter().chain(data.iter().copied())
        });
        for (byte, value) in self.options.iter_mut().zip(flat.chain([dhcp::END])) {
            *byte = value;
        }
        self
    }
}

/// The length of a BOOTP message, 300 bytes in all: some servers accept no less.
const OPTIONS_LEN: usize = 300 - size_of::<dhcp::Header>();
const UDP_LEN: u16 = 8 + 300;
const IP_LEN: u16 = 20 + UDP_LEN;

/// What softnet learns from an ACK: mask, (router,) name servers, and lease time.
const PARAMETERS: [u8; 4] = [1, 3, 6, 51];

const _: () = assert!(Request::LEN == 14 + IP_LEN as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dhcp::Message;
    use crate::wire::ipv4::Ipv4;

    const VM: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 7);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);

    /// The frame's headers and message, with correct lengths and checksums.
    fn read(frame: &Request) -> (&Ethernet, &ipv4::Header, Message<'_>) {
        let (ethernet, carried) = Ethernet::split(frame.as_bytes()).unwrap();
        let packet = Ipv4::parse(carried).unwrap();
        assert_eq!(packet.trailer_len, 0);
        let words = carried[..20].chunks(2);
        let sum: u32 = words
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        // A correct header sums up to all ones.
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        let (udp, data) = Udp::split(packet.payload).unwrap();
        assert_eq!(usize::from(udp.len.get()), packet.payload.len());
        assert_eq!((udp.source.get(), udp.destination.get()), (68, 67));
        (ethernet, packet.header, Message::parse(data).unwrap())
    }

    #[test]
    fn a_release_is_what_the_vm_would_send() {
        let frame = Request::release(VM, ADDRESS, GATEWAY, ROUTER);
        let (ethernet, ip, message) = read(&frame);
        assert_eq!((ethernet.source, ethernet.destination), (VM, ROUTER));
        assert_eq!(ip.source.get(), u32::from(ADDRESS));
        assert_eq!(ip.destination.get(), u32::from(GATEWAY));
        assert_eq!(message.kind, MessageType::Release);
        assert_eq!(message.header.client.get(), u32::from(ADDRESS));
        assert_eq!(message.header.hardware, VM);
        assert_eq!(message.server, Some(u32::from(GATEWAY)));
        assert_eq!(message.identifier.unwrap().data, dhcp::identifier_of(VM));
    }

    #[test]
    fn a_question_is_what_a_client_asks_that_reboots() {
        let frame = Request::reboot(VM, ADDRESS, 0xdead_beef);
        let (ethernet, ip, message) = read(&frame);
        assert_eq!(
            (ethernet.source, ethernet.destination),
            (VM, Mac::BROADCAST)
        );
        assert_eq!((ip.source.get(), ip.destination.get()), (0, u32::MAX));
        assert_eq!(message.kind, MessageType::Request);
        let header = message.header;
        assert_eq!((header.operation, header.hardware), (dhcp::REQUEST, VM));
        assert_eq!(header.xid.get(), 0xdead_beef);
        assert_eq!(header.flags.get(), 0x8000);
        assert_eq!((header.client.get(), header.yours.get()), (0, 0));
        assert_eq!(message.requested, Some(u32::from(ADDRESS)));
        assert_eq!(message.server, None);
        assert_eq!(message.identifier.unwrap().data, dhcp::identifier_of(VM));
        assert_eq!(frame.as_bytes().len(), Request::LEN);
    }
}
