//! What senders of TCP segments send, well behaved and not: etherparse makes the frames. The fuzz of
//! real TAPs, tests/offload/fuzz.rs, sends the same.

use etherparse::{Ethernet2Header, Ipv4Header, TcpHeader};
use proptest::prelude::*;

/// A segment of one of three connections, as its sender may make it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) flow: usize,
    pub(super) len: usize,
    pub(super) flags: u8,
    /// How far its sequence number is from the one that is next.
    pub(super) skips: u32,
    /// How far its identification is from the one that is next.
    pub(super) skips_id: u16,
    pub(super) stamp: u32,
    pub(super) window: u16,
    pub(super) damage: Damage,
    pub(super) trailer: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    None,
    IpChecksum,
    TcpChecksum,
    Data,
}

pub(super) const ACK: u8 = 0x10;
pub(super) const PSH: u8 = 0x08;

/// A segment of any of them, mostly one that follows the one before.
pub(super) fn segment() -> impl Strategy<Value = Sent> {
    let len = prop_oneof![
        30 => Just(1448_usize),
        2 => Just(300),
        1 => Just(0),
        2 => 1_usize..1449,
    ];
    let flags = prop_oneof![
        30 => Just(ACK),
        4 => Just(ACK | PSH),
        // With FIN, SYN, RST, URG, ECE, CWR.
        1 => 0_u8..=255,
    ];
    let damage = prop_oneof![
        60 => Just(Damage::None),
        1 => Just(Damage::IpChecksum),
        1 => Just(Damage::TcpChecksum),
        1 => Just(Damage::Data),
    ];
    let rarely = |most: u32| prop_oneof![100 => Just(0), 1 => 1..=most];
    let flow = prop_oneof![18 => Just(0_usize), 1 => Just(1), 1 => Just(2)];
    let shape = (flow, len, flags, rarely(3000));
    let details = (rarely(3), rarely(2), rarely(2), damage, rarely(4));
    (shape, details).prop_map(
        |((flow, len, flags, skips), (id, stamp, window, damage, trailer))| Sent {
            flow,
            len,
            flags,
            skips,
            skips_id: u16::try_from(id).unwrap(),
            stamp,
            window: 500 + u16::try_from(window).unwrap(),
            damage,
            trailer: trailer as usize,
        },
    )
}

/// The connections: one forbids fragments, one has timestamps, one begins where numbers wrap around.
#[derive(Debug, Clone)]
pub(super) struct Senders {
    sequence: [u32; 3],
    id: [u16; 3],
    byte: u8,
}

impl Senders {
    pub(super) fn new() -> Self {
        Self {
            sequence: [1000, 2_000_000, u32::MAX - 4000],
            id: [7, 65_534, 100],
            byte: 0,
        }
    }

    pub(super) fn frame(&mut self, sent: &Sent) -> Vec<u8> {
        let flow = sent.flow;
        let sequence = self.sequence[flow].wrapping_add(sent.skips);
        self.sequence[flow] = sequence.wrapping_add(u32::try_from(sent.len).unwrap());
        let id = self.id[flow].wrapping_add(sent.skips_id);
        self.id[flow] = id.wrapping_add(1);
        let data: Vec<u8> = (0..sent.len)
            .map(|_| {
                self.byte = self.byte.wrapping_mul(5).wrapping_add(3);
                self.byte
            })
            .collect();
        let mut tcp = TcpHeader::new(40_000, 443, sequence, sent.window);
        tcp.destination_port += u16::try_from(flow).unwrap();
        tcp.acknowledgment_number = 77;
        set_flags(&mut tcp, sent.flags);
        if flow == 1 {
            let stamp = sent.stamp.to_be_bytes();
            let options = [&[1, 1, 8, 10][..], &stamp, &[0, 0, 0, 9]].concat();
            tcp.set_options_raw(&options).unwrap();
        }
        let len = u16::try_from(tcp.header_len() + data.len()).unwrap();
        let mut ip = Ipv4Header::new(len, 64, 6.into(), [192, 168, 64, 2], [1, 2, 3, 4]).unwrap();
        ip.identification = id;
        ip.dont_fragment = flow != 2;
        let mut frame = joined(ip, tcp, &data);
        let at = match sent.damage {
            Damage::None => None,
            Damage::IpChecksum => Some(24),
            Damage::TcpChecksum => Some(50),
            Damage::Data => (!data.is_empty()).then(|| frame.len() - 1),
        };
        if let Some(at) = at {
            frame[at] ^= 0x40;
        }
        frame.extend(vec![0; sent.trailer]);
        frame
    }
}

fn set_flags(tcp: &mut TcpHeader, flags: u8) {
    let is_set = |bit: u8| flags & bit != 0;
    (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (is_set(1), is_set(2), is_set(4), is_set(8));
    (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (is_set(16), is_set(32), is_set(64), is_set(128));
}

/// A frame with right checksums.
pub(super) fn joined(mut ip: Ipv4Header, mut tcp: TcpHeader, data: &[u8]) -> Vec<u8> {
    tcp.checksum = tcp.calc_checksum_ipv4(&ip, data).unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    let ethernet = Ethernet2Header {
        destination: [2, 0, 0, 0, 0, 1],
        source: [0x52, 0x54, 0, 0, 0, 2],
        ether_type: etherparse::EtherType::IPV4,
    };
    let mut frame = ethernet.to_bytes().to_vec();
    frame.extend(ip.to_bytes());
    frame.extend(tcp.to_bytes());
    frame.extend(data);
    frame
}

/// Without the identification, which has no meaning where fragments are forbidden, and what its
/// checksum depends on.
pub(super) fn comparable(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() > 34 && frame[20] & 0x40 != 0 {
        let damage = Ipv4Header::from_slice(&frame[14..34])
            .map(|(ip, _)| ip.header_checksum ^ ip.calc_header_checksum());
        frame[18..20].fill(0);
        frame[24..26].copy_from_slice(&damage.unwrap_or(0).to_be_bytes());
    }
    frame
}
