//! What a kernel makes of large segments: etherparse cuts them by the book.

use etherparse::{Ipv4Header, TcpHeader};

use super::senders::joined;

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
