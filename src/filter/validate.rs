//! Checks the form of a frame, which is the same in both directions, before its sender matters.

use super::verdict::DropReason;
use crate::batch::Slot;
use crate::wire::arp::{self, Arp};
use crate::wire::dhcp::Message;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{self, Fragment, Ipv4, Plain, protocol};
use crate::wire::tcp::Tcp;
use crate::wire::udp::{self, Udp};

/// Splits a frame that is short enough for the interface.
#[inline]
pub(super) fn ethernet(frame: &[u8], max_frame: usize) -> Result<(&Ethernet, &[u8]), DropReason> {
    if frame.len() > max_frame {
        return Err(DropReason::Oversize);
    }
    Ethernet::split(frame).ok_or(DropReason::Runt)
}

/// The reason for dropping a frame that is neither ARP nor IPv4.
#[cold]
pub(super) fn foreign_ethertype(number: u16) -> DropReason {
    match number {
        ethertype::IPV6 => DropReason::Ipv6,
        ethertype::VLAN | ethertype::PROVIDER_VLAN => DropReason::Vlan,
        _ if ethertype::OLD_PROVIDER_VLANS.contains(&number) => DropReason::Vlan,
        ethertype::EAPOL => DropReason::Eapol,
        ..=ethertype::LLC_MAX => DropReason::Llc,
        _ => DropReason::EtherType,
    }
}

/// An ARP request or reply whose sender is also the sender of the frame.
pub(super) fn arp<'a>(ethernet: &Ethernet, carried: &'a [u8]) -> Result<&'a Arp, DropReason> {
    let arp = Arp::parse(carried).ok_or(DropReason::ArpMalformed)?;
    if !matches!(arp.operation.get(), arp::REQUEST | arp::REPLY) {
        return Err(DropReason::ArpOperation);
    }
    if arp.sender_mac != ethernet.source {
        return Err(DropReason::ArpSenderMac);
    }
    Ok(arp)
}

/// An IPv4 packet without harmful options or fragments, and what matters of its payload. On the
/// path of every frame, its two halves are called separately.
pub(super) fn ipv4(carried: &[u8]) -> Result<(&ipv4::Header, Transport), DropReason> {
    let plain = plain(carried).map(|(plain, transport)| (&plain.header, transport));
    plain.map_or_else(|| other_ipv4(carried), Ok)
}

/// Recognizes most traffic by a few comparisons at fixed offsets: a whole TCP or UDP packet without
/// IP options. `None` says nothing about the packet.
#[inline]
pub(super) fn plain(carried: &[u8]) -> Option<(&Plain, Transport)> {
    let plain = Plain::parse(carried)?;
    let (source, destination) = (plain.source_port.get(), plain.destination_port.get());
    let transport = match plain.header.protocol {
        protocol::TCP => Transport::Tcp {
            port: destination,
            opens: plain.opens_connection(),
        },
        _ => Transport::Udp(source, destination),
    };
    Some((plain, transport))
}

/// Handles all other packets.
#[inline(never)]
pub(super) fn other_ipv4(carried: &[u8]) -> Result<(&ipv4::Header, Transport), DropReason> {
    let packet = Ipv4::parse(carried).ok_or(DropReason::Ipv4Malformed)?;
    if packet.trailer_len != 0 && carried.len() > PADDED_MAX {
        return Ok((packet.header, Transport::Trailed));
    }
    if !packet.has_only_harmless_options() {
        return Err(DropReason::Ipv4Options);
    }
    let transport = match packet.fragment() {
        None => transport(&packet)?,
        Some(place) => fragment(&packet, place)?,
    };
    Ok((packet.header, transport))
}

/// What matters of a packet's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// TCP to this port; some segments open a connection.
    Tcp { port: u16, opens: bool },
    /// UDP from one port to another.
    Udp(u16, u16),
    /// An ICMP message of this type that is not an error, or the first fragment of one.
    Icmp(u8),
    /// An ICMP error, or the first fragment of one, about a packet that was sent.
    IcmpError(Quote),
    /// The first fragment of a TCP segment that opens a connection.
    OpeningFragment,
    /// A packet without ports, or a fragment, for which no exception is ever made; also a UDP
    /// datagram that is shorter than its packet.
    Other,
    /// There are bytes behind the packet, which [`cut_trailer`] removes.
    Trailed,
}

impl Transport {
    /// The destination port, if it has one.
    #[inline]
    pub(super) fn port(self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } | Self::Udp(_, port) => Some(port),
            _ => None,
        }
    }
}

/// The addresses of the packet that an ICMP error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) source: u32,
    pub(super) destination: u32,
}

/// Checks the header that follows the IPv4 header in a whole packet.
fn transport(packet: &Ipv4<'_>) -> Result<Transport, DropReason> {
    let payload = packet.payload;
    let transport = match packet.header.protocol {
        protocol::UDP => Udp::split(payload).and_then(|(udp, _)| datagram(udp, payload.len())),
        protocol::TCP => Tcp::parse(payload).map(|tcp| Transport::Tcp {
            port: tcp.destination.get(),
            opens: tcp.opens_connection(),
        }),
        protocol::ICMP => return icmp(payload),
        // IPv6 in IPv4 (RFC 4213) would get past every rule.
        protocol::IPV6 => return Err(DropReason::Ipv6InIpv4),
        _ => Some(Transport::Other),
    };
    transport.ok_or(DropReason::TransportMalformed)
}

/// A datagram may be shorter than its packet: then UDP options follow (RFC 9868). No client or
/// server sends DHCP in that form, and no exception is made for a datagram that a receiver which
/// knows these options reads differently.
fn datagram(udp: &Udp, room: usize) -> Option<Transport> {
    let (source, destination) = (udp.source.get(), udp.destination.get());
    let len = usize::from(udp.len.get());
    if len == room {
        return Some(Transport::Udp(source, destination));
    }
    let is_dhcp = [source, destination]
        .iter()
        .any(|port| matches!(*port, udp::DHCP_SERVER | udp::DHCP_CLIENT | udp::PXE));
    let is_within = (size_of::<Udp>()..room).contains(&len);
    (is_within && !is_dhcp).then_some(Transport::Other)
}

/// There is only one gateway, so nobody has another route or router to announce (hosts must believe
/// such an announcement, RFC 1122, 3.2.2.2). Some queries and answers are only useful to spy or to
/// slow others down. An error must say which packet it is about.
fn icmp(payload: &[u8]) -> Result<Transport, DropReason> {
    match payload.first() {
        Some(&icmp::REDIRECT) => return Err(DropReason::IcmpRedirect),
        Some(
            &(icmp::SOURCE_QUENCH
            | icmp::ROUTER_ADVERTISEMENT
            | icmp::ROUTER_SOLICITATION
            | icmp::INFORMATION_REQUEST..=icmp::ADDRESS_MASK_REPLY
            | icmp::EXTENDED_ECHO_REQUEST
            | icmp::EXTENDED_ECHO_REPLY),
        ) => return Err(DropReason::IcmpType),
        _ => {}
    }
    let (header, data) = Icmp::split(payload).ok_or(DropReason::TransportMalformed)?;
    if header.has_absurd_mtu() {
        return Err(DropReason::IcmpMtu);
    }
    if !header.is_error() {
        return Ok(Transport::Icmp(header.kind));
    }
    let quoted = icmp::quoted(data).ok_or(DropReason::IcmpQuote)?;
    Ok(Transport::IcmpError(Quote {
        source: quoted.source.get(),
        destination: quoted.destination.get(),
    }))
}

/// Fragments pass if the first contains the whole transport header, and no later one can overwrite
/// it (RFC 1858, RFC 3128), or overwrite what was read of an ICMP error's quote.
#[cold]
fn fragment(packet: &Ipv4<'_>, place: Fragment) -> Result<Transport, DropReason> {
    let (protocol, len) = (packet.header.protocol, packet.payload.len());
    let is_first = place.offset == 0;
    let read = match protocol {
        protocol::ICMP => icmp::QUOTE_END,
        _ => HEADER_LEN_MAX,
    };
    let is_within_header = !is_first && place.offset < read;
    let is_uneven = !place.is_last && !len.is_multiple_of(8);
    // Reassembled, it would exceed the largest packet: the ping of death.
    let is_beyond_end = place.offset + len > usize::from(u16::MAX) - size_of::<ipv4::Header>();
    if len == 0 || is_within_header || is_uneven || is_beyond_end {
        return Err(DropReason::Fragment);
    }
    match protocol {
        protocol::IPV6 => Err(DropReason::Ipv6InIpv4),
        _ if !is_first => Ok(Transport::Other),
        protocol::TCP => match Tcp::parse(packet.payload) {
            Some(tcp) if tcp.opens_connection() => Ok(Transport::OpeningFragment),
            Some(_) => Ok(Transport::Other),
            None => Err(DropReason::Fragment),
        },
        protocol::ICMP => icmp(packet.payload),
        protocol::UDP => match Udp::split(packet.payload) {
            // No client or server fragments DHCP. A fragment would escape inspection here.
            Some((udp, _)) if is_dhcp(udp) => Err(DropReason::Fragment),
            // More fragments follow, so the datagram must be longer than this one.
            Some((udp, _)) if usize::from(udp.len.get()) > len => Ok(Transport::Other),
            _ => Err(DropReason::TransportMalformed),
        },
        _ => Ok(Transport::Other),
    }
}

fn is_dhcp(udp: &Udp) -> bool {
    matches!(
        (udp.source.get(), udp.destination.get()),
        (_, udp::DHCP_SERVER | udp::DHCP_CLIENT) | (udp::DHCP_CLIENT, udp::PXE)
    )
}

/// A DHCP message and the headers that it came with.
#[derive(Debug)]
pub(super) struct Dhcp<'a> {
    pub(super) ethernet: &'a Ethernet,
    pub(super) ip: &'a ipv4::Header,
    pub(super) udp: &'a Udp,
    pub(super) message: Message<'a>,
}

/// Parses a DHCP message again, for the rare frame in which [`transport`] has found one.
pub(super) fn dhcp(frame: &[u8]) -> Option<Dhcp<'_>> {
    let (ethernet, carried) = Ethernet::split(frame)?;
    let packet = Ipv4::parse(carried)?;
    let (udp, data) = Udp::split(packet.payload)?;
    Some(Dhcp {
        ethernet,
        ip: packet.header,
        udp,
        message: Message::parse(data)?,
    })
}

/// Cuts off what follows the packet or message, if the frame is longer than padding would make it,
/// and returns whether it did. This may be a switch's timestamp, or the trailer of a redundant
/// network (PRP).
pub(super) fn cut_trailer(slot: &mut Slot<'_>) -> bool {
    let Some((ethernet, carried)) = Ethernet::split(slot.frame()) else {
        return false;
    };
    let trailer_len = match ethernet.ethertype.get() {
        ethertype::IPV4 => Ipv4::parse(carried).map(|packet| packet.trailer_len),
        ethertype::ARP => carried.len().checked_sub(size_of::<Arp>()),
        _ => None,
    };
    let len = slot.frame().len();
    match trailer_len {
        Some(trailer_len @ 1..) if carried.len() > PADDED_MAX => {
            slot.set_len(len - trailer_len);
            true
        }
        _ => false,
    }
}

/// Whether more than padding follows an ARP message.
pub(super) fn is_trailed(carried: &[u8]) -> bool {
    carried.len() > PADDED_MAX
}

/// The most that a frame of minimum length carries: hardware pads to 60 bytes, or to 64 if the
/// frame check sequence is counted (IEEE 802.3, 4.2.3.3).
const PADDED_MAX: usize = 64 - Ethernet::LEN;

/// No later fragment may begin before this, the end of a TCP header.
const HEADER_LEN_MAX: usize = size_of::<Tcp>();

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with this protocol, fragment field and payload.
    fn packet(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let [high, low] = fragment.to_be_bytes();
        let len = u8::try_from(20 + payload.len()).unwrap();
        let header = [
            0x45, 0, 0, len, 0, 0, high, low, 64, protocol, 0, 0, 10, 0, 0, 2, 1, 2, 3, 4,
        ];
        [&header, payload].concat()
    }

    fn outcome(packet: &[u8]) -> Result<Transport, DropReason> {
        ipv4(packet).map(|(_, transport)| transport)
    }

    #[test]
    fn ports_are_read_with_and_without_options() {
        let tcp = [
            0xc0, 0, 0, 53, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0,
        ];
        let udp = [0, 68, 0, 67, 0, 8, 0, 0];
        for (protocol, payload, expected) in [
            (
                protocol::TCP,
                &tcp[..],
                Transport::Tcp {
                    port: 53,
                    opens: false,
                },
            ),
            (protocol::UDP, &udp[..], Transport::Udp(68, 67)),
        ] {
            let plain = packet(protocol, 0x4000, payload);
            assert_eq!(outcome(&plain), Ok(expected));
            let mut with_options = plain.clone();
            with_options.splice(20..20, [1, 1, 1, 0]);
            with_options[0] = 0x46;
            with_options[3] += 4;
            assert_eq!(outcome(&with_options), Ok(expected));
            let mut padded = plain.clone();
            padded.resize(46, 0);
            assert_eq!(outcome(&padded), Ok(expected));
            padded.resize(51, 0);
            assert_eq!(outcome(&padded), Ok(Transport::Trailed));
        }
    }

    #[test]
    fn fragments_never_have_ports() {
        let udp = [0xc0, 0, 0, 53, 0, 99, 0, 0];
        assert_eq!(
            outcome(&packet(protocol::UDP, 0x2000, &udp)),
            Ok(Transport::Other)
        );
        assert_eq!(
            outcome(&packet(protocol::UDP, 3, &udp)),
            Ok(Transport::Other)
        );
        let dhcp = [0xc0, 0, 0, 67, 0, 99, 0, 0];
        assert_eq!(
            outcome(&packet(protocol::UDP, 0x2000, &dhcp)),
            Err(DropReason::Fragment)
        );
    }

    #[test]
    fn other_ethertypes_have_their_own_reasons() {
        for (number, reason) in [
            (0x86dd, DropReason::Ipv6),
            (0x8100, DropReason::Vlan),
            (0x9300, DropReason::Vlan),
            (0x888e, DropReason::Eapol),
            (0, DropReason::Llc),
            (1500, DropReason::Llc),
            (1501, DropReason::EtherType),
            (0x88cc, DropReason::EtherType),
        ] {
            assert_eq!(foreign_ethertype(number), reason, "{number:#x}");
        }
    }
}
