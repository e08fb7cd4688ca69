//! What the bench sends: frames of a VM and of its gateway, and the DHCP exchange that gives
//! the filter a lease to judge them by.
//!
//! Addresses outside of the laboratory are drawn from a fixed sequence, so that two runs see
//! the same frames. A frame has room for a stamp: its number and the time when it was sent.

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use super::network::{Conversation, Network};
use crate::direction::Direction;
use crate::wire::dhcp::MessageType;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::icmp::ECHO_REQUEST;
use crate::wire::ipv4::Header;
use crate::wire::ipv4::protocol::{ICMP, TCP, UDP};
use crate::wire::udp::Udp;
use crate::wire::{Mac, checksum, dhcp};

/// Kinds of traffic, named by the lengths of their frames or by what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// UDP to (or from) one address, in frames of so many bytes.
    Flow(usize),
    /// Segments of one TCP connection that follow each other, in frames of so many bytes.
    Stream(usize),
    /// The simple IMIX: of twelve frames seven have 64 bytes, four 594, one 1514.
    Imix,
    /// 64 bytes, TCP, UDP and ICMP, to many addresses: what branch predictors do not like.
    Mixed,
    /// UDP in frames of 64 bytes with so many servers.
    Flows(usize),
    /// The same with one server, and in every second frame to another one from another port.
    Flood,
    /// 64 bytes with the source address of somebody else.
    Spoofed,
}

impl Traffic {
    /// A set of frames of this kind between the two, to be sent round and round in this order.
    #[must_use]
    pub fn frames(self, direction: Direction, between: &Conversation) -> Vec<Vec<u8>> {
        let (peer, vm) = (between.peer, between.network.vm);
        let frame = |peer, local, protocol, len| {
            let between = Conversation { peer, ..*between };
            frame(direction, &between, local, protocol, len)
        };
        match self {
            Self::Flow(len) => vec![frame(peer, vm, UDP, len)],
            Self::Stream(len) => (0..STREAM)
                .map(|number| segment(direction, between, number, len))
                .collect(),
            Self::Imix => IMIX.iter().map(|&len| frame(peer, vm, UDP, len)).collect(),
            Self::Mixed => addresses()
                .take(MIXED)
                .zip(
                    [TCP, TCP, UDP, TCP, UDP, TCP, ICMP, TCP]
                        .into_iter()
                        .cycle(),
                )
                .map(|(peer, protocol)| frame(peer, vm, protocol, 64))
                .collect(),
            Self::Flows(count) => addresses()
                .take(count)
                .map(|peer| frame(peer, vm, UDP, 64))
                .collect(),
            Self::Flood => addresses()
                .zip(1024..u16::MAX)
                .take(FLOODED)
                .flat_map(|(other, vm_port)| {
                    let other = Conversation {
                        peer: other,
                        vm_port,
                        ..*between
                    };
                    let other = self::frame(direction, &other, vm, UDP, 64);
                    [frame(peer, vm, UDP, 64), other]
                })
                .collect(),
            Self::Spoofed => addresses()
                .map(|address| neighbour(between, address))
                .filter(|stolen| ![vm, peer].contains(stolen))
                .take(MIXED)
                .map(|stolen| match direction {
                    Direction::Outbound => frame(peer, stolen, UDP, 64),
                    // From the outside, a stolen address is the VM's own (a LAND attack).
                    Direction::Inbound => frame(vm, vm, UDP, 64),
                })
                .collect(),
        }
    }

    /// How many frames come before those that are measured, so that each connection is open and
    /// the memory for them was used before.
    pub(super) const fn warm_up(self) -> usize {
        match self {
            Self::Flows(count) => count,
            Self::Flood => FLOODED,
            _ => 0,
        }
    }

    /// The longest frame.
    #[must_use]
    pub fn max_len(self) -> usize {
        match self {
            Self::Flow(len) | Self::Stream(len) => len,
            Self::Imix => 1514,
            Self::Mixed | Self::Flows(_) | Self::Flood | Self::Spoofed => 64,
        }
    }

    /// The mean length of its frames, in bytes.
    #[must_use]
    pub fn mean_len(self) -> f64 {
        match self {
            Self::Imix => f64::from(7 * 64 + 4 * 594 + 1514) / 12.0,
            #[allow(clippy::cast_precision_loss)] // A length is below 2^16.
            _ => self.max_len() as f64,
        }
    }
}

/// Rules for a policy of `count`: lists of prefixes to allow and to block, joined by commas.
/// They share their first bytes with the addresses of [`Traffic::Mixed`] but match none of
/// them, so that each frame takes the whole search and passes.
#[must_use]
pub fn rules(count: usize) -> (String, String) {
    let mut lists = [const { Vec::new() }; 2];
    let mut random = Sequence(2);
    for number in 0..count {
        let address = random.address() | 0x0080_0000;
        let len = 24 + random.next() % 9;
        let prefix = Ipv4Addr::from(address & u32::MAX << (32 - len));
        lists[number % 2].push(format!("{prefix}/{len}"));
    }
    lists.map(|list| list.join(",")).into()
}

/// The four messages that give the VM its lease, in order, and which way each goes.
#[must_use]
pub fn lease_exchange(network: &Network) -> [(Direction, Vec<u8>); 4] {
    [
        MessageType::Discover,
        MessageType::Offer,
        MessageType::Request,
        MessageType::Ack,
    ]
    .map(|kind| match kind {
        MessageType::Discover | MessageType::Request => {
            (Direction::Outbound, from_client(network, kind))
        }
        _ => (Direction::Inbound, from_server(network, kind)),
    })
}

/// Writes a number and a time into a frame from [`Traffic::frames`], where UDP has its data.
pub fn stamp(frame: &mut [u8], number: u32, time: u64) {
    frame[STAMP..STAMP + 4].copy_from_slice(&number.to_be_bytes());
    frame[STAMP + 4..STAMP + 12].copy_from_slice(&time.to_be_bytes());
}

/// Reads what [`stamp`] wrote; `None` if the frame is too short for one.
#[must_use]
pub fn stamped(frame: &[u8]) -> Option<(u32, u64)> {
    let (number, rest) = frame.get(STAMP..)?.split_first_chunk()?;
    let time = rest.first_chunk()?;
    Some((u32::from_be_bytes(*number), u64::from_be_bytes(*time)))
}

/// A frame of `len` bytes between the peer and the VM, which says to have the address `local`.
fn frame(
    direction: Direction,
    between: &Conversation,
    local: Ipv4Addr,
    protocol: u8,
    len: usize,
) -> Vec<u8> {
    let Conversation {
        network,
        peer,
        vm_port,
        peer_port,
    } = *between;
    let payload_len = len - HEADERS;
    let payload = match protocol {
        UDP => {
            let (source, destination) = match direction {
                Direction::Outbound => (vm_port, peer_port),
                Direction::Inbound => (peer_port, vm_port),
            };
            udp(
                source,
                destination,
                &vec![0; payload_len - size_of::<Udp>()],
            )
        }
        TCP => tcp(payload_len),
        _ => {
            let mut echo = vec![0; payload_len];
            echo[0] = ECHO_REQUEST;
            echo
        }
    };
    let (vm_mac, gateway_mac) = (network.vm_mac, network.gateway_mac);
    match direction {
        Direction::Outbound => {
            ethernet(gateway_mac, vm_mac, &ipv4(local, peer, protocol, &payload))
        }
        Direction::Inbound => ethernet(vm_mac, gateway_mac, &ipv4(peer, local, protocol, &payload)),
    }
}

/// A segment with data of a connection between the two, so many after the first, with right checksums.
fn segment(direction: Direction, between: &Conversation, number: u16, len: usize) -> Vec<u8> {
    let mut frame = frame(direction, between, between.network.vm, TCP, len);
    let before = u32::from(number) * u32::from(len16(len - STREAM_HEADERS));
    frame[38..42].copy_from_slice(&before.to_be_bytes());
    frame[18..20].copy_from_slice(&number.to_be_bytes());
    for field in [24, 50] {
        frame[field..field + 2].fill(0);
    }
    let sum = !checksum::sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    // Both addresses are in it, in either order.
    let (peer, vm) = (between.peer, between.network.vm);
    let pseudo_header = checksum::pseudo_header(peer, vm, TCP, len16(len - 34));
    let sum = !checksum::add(pseudo_header, checksum::sum(&frame[34..]));
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The headers of such a segment, in bytes.
pub(super) const STREAM_HEADERS: usize = 54;
/// After so many it begins anew, which ends a run.
const STREAM: u16 = 1024;

/// Whose address to steal: `address`, but one of the same network where the peer is the gateway.
/// A host does not take from there what has an address of the internet.
fn neighbour(between: &Conversation, address: Ipv4Addr) -> Ipv4Addr {
    if between.peer != between.network.gateway {
        return address;
    }
    let [a, b, c, _] = between.peer.octets();
    let [.., host] = address.octets();
    Ipv4Addr::new(a, b, c, 1 + host % 254)
}

pub(super) fn ethernet(destination: Mac, source: Mac, packet: &[u8]) -> Vec<u8> {
    let header = Ethernet {
        destination,
        source,
        ethertype: ethertype::IPV4.into(),
    };
    [header.as_bytes(), packet].concat()
}

pub(super) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let len = len16(size_of::<Header>() + payload.len());
    let header = Header::new(protocol, len, source, destination);
    [header.as_bytes(), payload].concat()
}

/// A datagram without a checksum, which UDP over IPv4 may leave out (RFC 768).
pub(super) fn udp(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let header = Udp {
        source: source.into(),
        destination: destination.into(),
        len: len16(size_of::<Udp>() + data.len()).into(),
        checksum: 0.into(),
    };
    [header.as_bytes(), data].concat()
}

/// A segment of an established connection; its checksum is the end points' concern.
fn tcp(len: usize) -> Vec<u8> {
    let mut segment = vec![0; len];
    segment[..4].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
    segment[12..16].copy_from_slice(&[5 << 4, 0x10, 0xff, 0xff]);
    segment
}

fn from_client(network: &Network, kind: MessageType) -> Vec<u8> {
    let mut options = vec![(dhcp::MESSAGE_TYPE, vec![kind.code()])];
    if kind == MessageType::Request {
        options.push((dhcp::REQUESTED_ADDRESS, network.vm.octets().into()));
        options.push((dhcp::SERVER_IDENTIFIER, network.gateway.octets().into()));
    }
    let message = dhcp(
        network.vm_mac,
        TRANSACTION,
        1,
        Ipv4Addr::UNSPECIFIED,
        &options,
    );
    let datagram = udp(68, 67, &message);
    let packet = ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, UDP, &datagram);
    ethernet(Mac::BROADCAST, network.vm_mac, &packet)
}

fn from_server(network: &Network, kind: MessageType) -> Vec<u8> {
    let mask = u32::MAX << (32 - Network::PREFIX_LEN);
    let options = [
        (dhcp::MESSAGE_TYPE, vec![kind.code()]),
        (dhcp::SERVER_IDENTIFIER, network.gateway.octets().into()),
        (LEASE_TIME, 86_400u32.to_be_bytes().into()),
        (SUBNET_MASK, mask.to_be_bytes().into()),
        (ROUTER, network.gateway.octets().into()),
        (NAME_SERVERS, network.gateway.octets().into()),
    ];
    let datagram = udp(
        67,
        68,
        &dhcp(network.vm_mac, TRANSACTION, 2, network.vm, &options),
    );
    ethernet(
        network.vm_mac,
        network.gateway_mac,
        &ipv4(network.gateway, network.vm, UDP, &datagram),
    )
}

/// A message of RFC 2131, figure 1.
pub(super) fn dhcp(
    client: Mac,
    transaction: u32,
    operation: u8,
    yours: Ipv4Addr,
    options: &[(u8, Vec<u8>)],
) -> Vec<u8> {
    let mut message = vec![operation, 1, 6, 0];
    message.extend(transaction.to_be_bytes());
    message.extend([0; 8]);
    message.extend(yours.octets());
    message.extend([0; 8]);
    message.extend(client.0);
    message.extend([0; 10 + 64 + 128]);
    message.extend([99, 130, 83, 99]);
    for (code, data) in options {
        #[allow(clippy::cast_possible_truncation)] // Data has 4 bytes at most.
        message.extend([*code, data.len() as u8]);
        message.extend(data);
    }
    message.push(255);
    message
}

#[allow(clippy::cast_possible_truncation)] // A packet has less than 64 KiB.
const fn len16(len: usize) -> u16 {
    len as u16
}

/// Addresses on the internet, none of which a rule of [`rules`] matches.
fn addresses() -> impl Iterator<Item = Ipv4Addr> {
    let mut random = Sequence(1);
    std::iter::repeat_with(move || Ipv4Addr::from(random.address() & 0xff7f_ffff))
}

/// More connections than a measurement of one subject opens.
const FLOODED: usize = 49_152;

/// Numbers that look random, the same ones each time (Marsaglia, Xorshift RNGs, 2003).
struct Sequence(u32);

impl Sequence {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// An address in 20.0.0.0 to 35.255.255.255, all of which is public.
    fn address(&mut self) -> u32 {
        let number = self.next();
        (20 + (number >> 24) % 16) << 24 | number & 0x00ff_ffff
    }
}

const IMIX: [usize; 12] = [64, 594, 64, 64, 594, 64, 1514, 64, 594, 64, 594, 64];
/// Many enough that no branch predictor learns them by heart.
const MIXED: usize = 1024;
pub(super) const TRANSACTION: u32 = 0x736f_6674;

/// Where UDP has its data.
const STAMP: usize = HEADERS + size_of::<Udp>();
const HEADERS: usize = Ethernet::LEN + size_of::<Header>();

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const LEASE_TIME: u8 = 51;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_lengths_that_their_kind_says() {
        for direction in Direction::ALL {
            for len in [64, 256, 1514, 9014, 16_384, 65_000] {
                let frames = Traffic::Flow(len).frames(direction, &Conversation::LAB);
                assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [len]);
            }
            let imix = Traffic::Imix.frames(direction, &Conversation::LAB);
            let total: usize = imix.iter().map(Vec::len).sum();
            assert_eq!(total, 7 * 64 + 4 * 594 + 1514);
            assert!(
                Traffic::Mixed
                    .frames(direction, &Conversation::LAB)
                    .iter()
                    .all(|frame| frame.len() == 64)
            );
        }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let mut frame = Traffic::Flow(64)
            .frames(Direction::Inbound, &Conversation::LAB)
            .remove(0);
        stamp(&mut frame, 7, 1 << 60);
        assert_eq!(stamped(&frame), Some((7, 1 << 60)));
        assert_eq!(stamped(&frame[..50]), None);
    }

    #[test]
    fn there_are_as_many_rules_as_asked_for() {
        assert_eq!(rules(0), (String::new(), String::new()));
        let (allow, block) = rules(4096);
        assert_eq!(
            (allow.split(',').count(), block.split(',').count()),
            (2048, 2048)
        );
    }
}
