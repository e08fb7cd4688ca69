//! The facts about a well-formed packet that rules and connection tracking need.

use super::flows::fragments::Part;
use super::flows::{self, Key};
use super::policy::{Kind, PortPair};
use super::validate;
use crate::direction::Direction;
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{Ipv4, Plain, protocol};
use crate::wire::udp;

/// What rules and connection tracking need to know about a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The other machine's address.
    pub(super) peer: u32,
    /// Whether it is unfragmented, and to or from port 53 of the other machine.
    pub(super) is_dns: bool,
    pub(super) kind: Kind,
    pub(super) ports: Option<PortPair>,
    pub(super) part: Option<Part>,
    pub(super) membership: Membership,
}

/// Which connection a packet can belong to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Membership {
    /// This one, which it may open.
    Connection(Key, flows::Kind),
    /// It is an error about a packet of this one.
    ErrorAbout(Key),
    /// None.
    None,
}

/// The connection that an ordinary packet can belong to.
#[inline(always)]
pub(super) fn ordinary(plain: &Plain, way: Direction) -> (Key, flows::Kind) {
    let (source, destination) = (plain.source_port.get(), plain.destination_port.get());
    let header = &plain.header;
    let (vm_port, peer, peer_port) = match way {
        Direction::Outbound => (source, header.destination.get(), destination),
        Direction::Inbound => (destination, header.source.get(), source),
    };
    let key = Key::new(header.protocol, vm_port, peer, peer_port);
    let kind = match header.protocol {
        protocol::TCP => flows::Kind::Tcp(plain.flags()),
        _ => flows::Kind::Udp,
    };
    (key, kind)
}

/// What rules need to know about a packet, and which connection it can belong to. A first fragment
/// has ports too. Later fragments have none, and do not arrive without the first.
pub(super) fn of(carried: &[u8], way: Direction) -> Option<Facts> {
    let packet = Ipv4::parse(carried)?;
    let (header, payload) = (packet.header, packet.payload);
    let protocol = header.protocol;
    let peer = match way {
        Direction::Outbound => header.destination.get(),
        Direction::Inbound => header.source.get(),
    };
    let kind = Kind::of(protocol);
    let part = packet.fragment().map(|place| Part {
        peer,
        protocol,
        identification: header.identification.get(),
        offset: place.offset,
        len: payload.len(),
        is_last: place.is_last,
    });
    let is_later = part.is_some_and(|part| part.offset != 0);
    let has_ports = matches!(kind, Kind::Tcp | Kind::Udp) && !is_later;
    let ports = payload.first_chunk().filter(|_| has_ports);
    let ports = ports.map(|[a, b, c, d]| {
        let (source, destination) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let (own, remote) = match way {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        PortPair {
            is_tcp: kind == Kind::Tcp,
            remote,
            own,
        }
    });
    let to = |vm_port, peer_port, kind| {
        Membership::Connection(Key::new(protocol, vm_port, peer, peer_port), kind)
    };
    let membership = match (kind, ports) {
        _ if is_later => Membership::None,
        (Kind::Tcp, Some(PortPair { remote, own, .. })) => {
            let flags = payload.get(TCP_FLAGS).copied().unwrap_or(0);
            to(own, remote, flows::Kind::Tcp(flags))
        }
        (Kind::Udp, Some(PortPair { remote, own, .. })) => to(own, remote, flows::Kind::Udp),
        (Kind::Icmp, _) => match Icmp::split(payload) {
            Some((message, quoted)) if message.is_error() => about(quoted, way),
            Some((message, _)) => match message.echo() {
                Some((is_request, id)) => to(id, 0, flows::Kind::Echo { is_request }),
                None => to(0, 0, flows::Kind::Other),
            },
            None => Membership::None,
        },
        _ => to(0, 0, flows::Kind::Other),
    };
    let is_whole = validate::ipv4(carried).is_ok_and(|(_, transport)| transport.port().is_some());
    let is_dns = is_whole && ports.is_some_and(|ports| ports.remote == udp::DNS);
    Some(Facts {
        peer,
        is_dns,
        kind,
        ports,
        part,
        membership,
    })
}

/// The connection of the packet that an ICMP error quotes, which went in the other direction.
fn about(quoted: &[u8], way: Direction) -> Membership {
    let Some((header, start)) = icmp::quoted(quoted).and_then(|header| {
        let payload = quoted.get(header.header_len()?..)?;
        Some((header, payload.first_chunk::<8>()?))
    }) else {
        return Membership::None;
    };
    let [a, b, c, d, e, f, ..] = *start;
    let (source, destination) = match header.protocol {
        protocol::TCP | protocol::UDP => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        // The identifier of an echo, which takes the place of the VM's port.
        protocol::ICMP => {
            let id = u16::from_be_bytes([e, f]);
            match way {
                Direction::Inbound => (id, 0),
                Direction::Outbound => (0, id),
            }
        }
        _ => (0, 0),
    };
    let (vm_port, peer, peer_port) = match way {
        Direction::Inbound => (source, header.destination.get(), destination),
        Direction::Outbound => (destination, header.source.get(), source),
    };
    Membership::ErrorAbout(Key::new(header.protocol, vm_port, peer, peer_port))
}

/// Where the flags are in a TCP header.
const TCP_FLAGS: usize = 13;
