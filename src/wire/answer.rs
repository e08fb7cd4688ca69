//! What a sender is told about a packet that is not forwarded, as a whole frame: TCP is reset, and
//! for everything else there is an ICMP error, so that nobody waits for a reply that cannot come.
//!
//! ```text
//!   frame that is dropped   VM -> router     VM's address -> peer     TCP, ports a -> b
//!   answer                  router -> VM     peer -> VM's address     TCP, ports b -> a, RST
//!                      or   router -> VM     gateway -> VM's address  ICMP 3/13, which quotes it
//! ```

use std::net::Ipv4Addr;

use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;
use super::ethernet::{Ethernet, ethertype};
use super::icmp::{self, Icmp};
use super::ipv4::{Header, Ipv4, protocol};
use super::tcp::Tcp;

/// The answer to one frame.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    bytes: [u8; LEN_MAX],
    len: usize,
}

impl Answer {
    /// The answer to a frame that is not forwarded; `gateway` is the address that an ICMP error
    /// comes from. `None` for what gets no answer (RFC 1122, 3.2.2; RFC 9293, 3.5.2): a reset, a
    /// fragment, ICMP other than an echo request, and what went to a group or is not IPv4.
    #[must_use]
    pub fn to(frame: &[u8], gateway: Ipv4Addr) -> Option<Self> {
        let (ethernet, carried) = Ethernet::split(frame)?;
        if ethernet.ethertype.get() != ethertype::IPV4 || ethernet.destination.is_multicast() {
            return None;
        }
        let packet = Ipv4::parse(carried)?;
        let destination = Ipv4Addr::from(packet.header.destination.get());
        let is_to_group = destination.is_multicast() || destination.is_broadcast();
        if is_to_group || packet.fragment().is_some() {
            return None;
        }
        let back = Ethernet {
            destination: ethernet.source,
            source: ethernet.destination,
            ethertype: ethernet.ethertype,
        };
        match packet.header.protocol {
            protocol::TCP => Reset::of(back, &packet).map(|reset| Self::new(reset.as_bytes())),
            protocol::ICMP if Icmp::split(packet.payload)?.0.kind != icmp::ECHO_REQUEST => None,
            _ => {
                let packet_len = packet
                    .header
                    .header_len()?
                    .checked_add(packet.payload.len())?;
                let quoted = carried.get(..packet_len)?;
                Some(Prohibited::of(back, packet.header, quoted, gateway))
            }
        }
    }

    /// The frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn new(frame: &[u8]) -> Self {
        let mut bytes = [0; LEN_MAX];
        let len = frame.len().min(LEN_MAX);
        for (to, from) in bytes.iter_mut().zip(frame) {
            *to = *from;
        }
        Self { bytes, len }
    }
}

/// A segment that ends a connection.
#[derive(Debug, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Reset {
    ethernet: Ethernet,
    ip: Header,
    tcp: Tcp,
}

impl Reset {
    fn of(ethernet: Ethernet, packet: &Ipv4<'_>) -> Option<Self> {
        let tcp = Tcp::parse(packet.payload)?.reset(packet.payload.len())?;
        let (source, destination) = (packet.header.destination, packet.header.source);
        let ip = Header::new(
            protocol::TCP,
            IP_LEN,
            source.get().into(),
            destination.get().into(),
        );
        let mut reset = Self { ethernet, ip, tcp };
        let sum = checksum::add(
            ip.pseudo_header(TCP_LEN),
            checksum::sum(reset.tcp.as_bytes()),
        );
        reset.tcp.set_checksum(!sum);
        Some(reset)
    }
}

/// An ICMP error before what it quotes.
#[derive(Debug, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Prohibited {
    ethernet: Ethernet,
    ip: Header,
    icmp: Icmp,
}

impl Prohibited {
    fn of(ethernet: Ethernet, header: &Header, packet: &[u8], gateway: Ipv4Addr) -> Answer {
        let header_len = header.header_len().unwrap_or(size_of::<Header>());
        let quoted = header_len.saturating_add(QUOTED_DATA);
        let quoted = packet.get(..quoted).unwrap_or(packet);
        // At most 60 and 8 bytes.
        let len = u16::try_from(HEADERS_LEN.saturating_add(quoted.len()));
        let len = len.unwrap_or(u16::MAX);
        let sum = checksum::sum(quoted);
        let error = Self {
            ethernet,
            ip: Header::new(protocol::ICMP, len, gateway, header.source.get().into()),
            icmp: Icmp::prohibited(sum),
        };
        let mut answer = Answer::new(error.as_bytes());
        let start = answer.len;
        let end = start.saturating_add(quoted.len());
        if let Some(rest) = answer.bytes.get_mut(start..end) {
            rest.copy_from_slice(quoted);
            answer.len = end;
        }
        answer
    }
}

/// What an error quotes behind the header of a packet: enough for its ports (RFC 792).
const QUOTED_DATA: usize = 8;

const HEADERS_LEN: usize = size_of::<Header>() + size_of::<Icmp>();

const LEN_MAX: usize = size_of::<Prohibited>() + 60 + QUOTED_DATA;

const TCP_LEN: u16 = 20;
const IP_LEN: u16 = 20 + TCP_LEN;

const _: () = assert!(size_of::<Reset>() == 14 + IP_LEN as usize && size_of::<Reset>() <= LEN_MAX);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Mac;

    const VM: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 7);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);

    fn frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let ethernet = Ethernet {
            destination: ROUTER,
            source: VM,
            ethertype: ethertype::IPV4.into(),
        };
        let len = u16::try_from(20 + payload.len()).unwrap();
        let header = Header::new(protocol, len, ADDRESS, PEER);
        [ethernet.as_bytes(), header.as_bytes(), payload].concat()
    }

    fn segment(flags: u8, data: &[u8]) -> Vec<u8> {
        let mut segment = vec![0xc0, 0, 1, 0xbb, 0, 0, 0, 100, 0, 0, 0, 200, 0x50, flags];
        segment.extend([0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(data);
        frame(protocol::TCP, &segment)
    }

    /// The answer's packet, after checks that hold for every answer.
    fn answer_to(frame: &[u8]) -> Option<(Ipv4Addr, Vec<u8>)> {
        let answer = Answer::to(frame, GATEWAY)?;
        let (ethernet, carried) = Ethernet::split(answer.as_bytes()).unwrap();
        assert_eq!((ethernet.destination, ethernet.source), (VM, ROUTER));
        let packet = Ipv4::parse(carried).unwrap();
        assert_eq!(packet.trailer_len, 0);
        assert_eq!(checksum::sum(&carried[..20]), u16::MAX);
        assert_eq!(packet.header.destination.get(), u32::from(ADDRESS));
        Some((packet.header.source.get().into(), packet.payload.to_vec()))
    }

    #[test]
    fn tcp_is_reset_in_the_name_of_its_peer() {
        for (flags, data, sequence, acknowledgement, answered) in [
            (0x02, &b""[..], 0, 101, 0x14),
            (0x02, b"fast", 0, 105, 0x14),
            (0x01, b"", 0, 101, 0x14),
            (0x10, b"data", 200, 0, 0x04),
            (0x12, b"", 200, 0, 0x04),
        ] {
            let (source, reset) = answer_to(&segment(flags, data)).unwrap();
            assert_eq!(source, PEER);
            assert_eq!(reset[..4], [1, 0xbb, 0xc0, 0]);
            assert_eq!(reset[4..8], u32::to_be_bytes(sequence), "{flags:#x}");
            assert_eq!(
                reset[8..12],
                u32::to_be_bytes(acknowledgement),
                "{flags:#x}"
            );
            assert_eq!(reset[12..14], [0x50, answered]);
            let addresses = [PEER.octets(), ADDRESS.octets()].concat();
            let whole = [&addresses[..], &[0, 6, 0, 20], &reset].concat();
            assert_eq!(checksum::sum(&whole), u16::MAX);
        }
    }

    #[test]
    fn other_packets_get_an_error_from_the_gateway_that_quotes_them() {
        let echo = [8, 0, 0, 0, 0, 7, 0, 1, b'x', b'y'];
        for (protocol, payload) in [
            (17, &[0xc0, 0, 0, 123, 0, 8, 0, 0][..]),
            (1, &echo),
            (47, &[]),
        ] {
            let sent = frame(protocol, payload);
            let (source, error) = answer_to(&sent).unwrap();
            assert_eq!((source, &error[..2]), (GATEWAY, &[3, 13][..]));
            assert_eq!(checksum::sum(&error), u16::MAX);
            assert_eq!(error[8..], sent[14..34 + payload.len().min(8)]);
        }
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        assert!(answer_to(&segment(0x04, b"")).is_none(), "a reset");
        assert!(answer_to(&segment(0x14, b"")).is_none(), "a reset");
        for kind in [0, 3, 4, 5, 11, 12, 13] {
            let message = frame(1, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert!(answer_to(&message).is_none(), "ICMP {kind}");
        }
        for part in [[0x20, 0], [0, 1]] {
            let mut fragment = segment(0x02, b"");
            fragment[20..22].copy_from_slice(&part);
            assert!(answer_to(&fragment).is_none(), "a fragment");
        }
        for group in [[224, 0, 0, 251], [255; 4]] {
            let mut datagram = frame(17, &[0; 8]);
            datagram[30..34].copy_from_slice(&group);
            assert!(answer_to(&datagram).is_none(), "to a group");
        }
        let mut broadcast = segment(0x02, b"");
        broadcast[..6].fill(0xff);
        assert!(answer_to(&broadcast).is_none(), "to all");
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_short_answer_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            kind in prop::option::of(any::<u8>()),
        ) {
            let mut frame = bytes;
            if let Some(protocol) = kind && frame.len() >= 34 {
                frame[12..16].copy_from_slice(&[8, 0, 0x46, 0]);
                frame[23] = protocol;
                let len = u16::try_from(frame.len() - 14).unwrap();
                frame[16..18].copy_from_slice(&len.to_be_bytes());
                frame[20..22].fill(0);
            }
            if let Some(answer) = Answer::to(&frame, GATEWAY) {
                prop_assert!((42..=LEN_MAX).contains(&answer.as_bytes().len()));
                prop_assert_eq!(&answer.as_bytes()[..6], &frame[6..12]);
                prop_assert_eq!(&answer.as_bytes()[30..34], &frame[26..30]);
            }
        }
    }
}
