//! What senders send, and what a kernel makes of large segments: etherparse makes the frames, and
//! cuts the large ones by the book.

use etherparse::{Ethernet2Header, Ipv4Header, TcpHeader};

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
fn joined(mut ip: Ipv4Header, mut tcp: TcpHeader, data: &[u8]) -> Vec<u8> {
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

/// Cuts what was written as large, as a kernel does (tcp_gso_segment of net/ipv4/tcp_offload.c).
pub(super) fn cut(written: &[u8]) -> Vec<Vec<u8>> {
    let (virtio, frame) = written.split_at(10);
    if virtio == [0; 10] {
        return vec![frame.to_vec()];
    }
    let number = |at: usize| usize::from(u16::from_le_bytes([virtio[at], virtio[at + 1]]));
    // NEEDS_CSUM, TCPV4; the checksum is TCP's.
    assert_eq!(virtio[..2], [1, 1]);
    assert_eq!((number(6), number(8)), (34, 16));
    let (ip, rest) = Ipv4Header::from_slice(&frame[14..]).unwrap();
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!(usize::from(ip.total_len), frame.len() - 14);
    let (tcp, data) = TcpHeader::from_slice(rest).unwrap();
    assert_eq!(number(2), frame.len() - data.len());
    let part_len = number(4);
    let parts: Vec<&[u8]> = data.chunks(part_len).collect();
    assert!(parts.len() > 1);
    let cut = parts.iter().enumerate().map(|(index, part)| {
        let (mut ip, mut tcp) = (ip.clone(), tcp.clone());
        let is_last = index == parts.len() - 1;
        ip.identification = ip
            .identification
            .wrapping_add(u16::try_from(index).unwrap());
        ip.total_len = u16::try_from(ip.header_len() + tcp.header_len() + part.len()).unwrap();
        let before = u32::try_from(index * part_len).unwrap();
        tcp.sequence_number = tcp.sequence_number.wrapping_add(before);
        tcp.psh &= is_last;
        tcp.fin &= is_last;
        tcp.cwr &= index == 0;
        joined(ip, tcp, part)
    });
    cut.collect()
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
