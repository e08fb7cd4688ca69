//! The header that a TAP's frames have before them if it was opened for offloads (virtio 1.3,
//! 5.1.6, and `linux/virtio_net.h`): it says what is left to do about a frame's checksum, and how a
//! large TCP segment is to be cut.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;

/// The header: 10 bytes. All zero, it asks for nothing.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VirtioHeader {
    flags: u8,
    kind: u8,
    header_len: U16,
    segment_len: U16,
    checksum_start: U16,
    checksum_offset: U16,
}

impl VirtioHeader {
    /// The length of the header in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Before a large TCP segment over IPv4 whose headers have this length: it is to be cut into
    /// segments with `segment_len` bytes of data, and the checksum, for which the sum over the
    /// pseudo header stands, is to be completed from byte `tcp` of the frame on.
    #[must_use]
    pub const fn large(header_len: u16, segment_len: u16, tcp: u16) -> Self {
        Self {
            flags: NEEDS_CHECKSUM,
            kind: TCP_OVER_IPV4,
            header_len: U16::new(header_len),
            segment_len: U16::new(segment_len),
            checksum_start: U16::new(tcp),
            checksum_offset: U16::new(TCP_CHECKSUM),
        }
    }

    /// Splits what was read into the header and the frame; `None` below 10 bytes.
    #[must_use]
    #[inline]
    pub fn split(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }

    /// The bytes of data in each part of a large segment; `None` for an ordinary frame.
    #[must_use]
    #[inline]
    pub fn segment_len(&self) -> Option<SegmentLen> {
        match (self.kind, self.segment_len.get()) {
            (0, _) => None,
            (TCP_OVER_IPV4, len @ 1..) => Some(SegmentLen::Tcp(len)),
            _ => Some(SegmentLen::Unknown),
        }
    }

    /// Completes a frame's checksum, if the kernel has left that to whoever reads the frame.
    #[inline]
    pub fn complete_checksum(&self, frame: &mut [u8]) {
        if self.flags & NEEDS_CHECKSUM != 0 {
            let start = usize::from(self.checksum_start.get());
            let offset = usize::from(self.checksum_offset.get());
            // Where the header is wrong, so is the checksum, and the receiver drops the frame.
            let _ = complete(frame, start, offset);
        }
    }
}

/// How a large segment is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentLen {
    /// TCP over IPv4, into parts with this many bytes of data, at least one.
    Tcp(u16),
    /// Something that was not asked for.
    Unknown,
}

fn complete(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = frame.get_mut(start..)?;
    let sum = !checksum::sum(covered);
    let field = covered.get_mut(offset..)?.first_chunk_mut()?;
    // In UDP zero means that there is none (RFC 768); in TCP both are zero.
    *field = if sum == 0 { u16::MAX } else { sum }.to_be_bytes();
    Some(())
}

const NEEDS_CHECKSUM: u8 = 1;
const TCP_OVER_IPV4: u8 = 1;
/// Where the checksum is in TCP's header.
const TCP_CHECKSUM: u16 = 16;

const _: () = assert!(VirtioHeader::LEN == 10);

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram from 192.168.64.1 to 192.168.64.2 whose checksum covers the pseudo header only,
    /// as the kernel hands it to a TAP.
    #[rustfmt::skip]
    const PARTIAL: [u8; 46] = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0,
        0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0xf9, 0x78, 192, 168, 64, 1, 192, 168, 64, 2,
        0, 53, 0xc0, 0, 0, 12, 0x01, 0x72, b'a', b'b', b'c', b'd',
    ];

    #[test]
    fn a_checksum_that_was_left_is_completed() {
        let mut frame = PARTIAL;
        let header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0];
        let (header, _) = VirtioHeader::split(&header).unwrap();
        assert_eq!(header.segment_len(), None);
        header.complete_checksum(&mut frame);
        // 2 * 192.168 + 64.1 + 64.2 + 17 + 12, and the datagram itself: all ones.
        let pseudo =
            checksum::pseudo_header([192, 168, 64, 1].into(), [192, 168, 64, 2].into(), 17, 12);
        assert_eq!(checksum::add(pseudo, checksum::sum(&frame[34..])), u16::MAX);
        assert_eq!(frame[..40], PARTIAL[..40]);
        // Nothing was asked for.
        let mut same = PARTIAL;
        VirtioHeader::default().complete_checksum(&mut same);
        assert_eq!(same, PARTIAL);
    }

    #[test]
    fn a_sum_of_zero_is_told_from_none() {
        let mut frame = [0xff, 0xff, 0, 0];
        let header = VirtioHeader {
            flags: NEEDS_CHECKSUM,
            checksum_offset: U16::new(2),
            ..VirtioHeader::default()
        };
        header.complete_checksum(&mut frame);
        assert_eq!(frame, [0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn a_header_that_points_outside_changes_nothing() {
        for (start, offset) in [(5, 0), (4, 0), (0, 4), (0, 3), (3, 1), (0xffff, 0xffff)] {
            let mut frame = [1, 2, 3, 4];
            let header = VirtioHeader {
                flags: NEEDS_CHECKSUM,
                checksum_start: U16::new(start),
                checksum_offset: U16::new(offset),
                ..VirtioHeader::default()
            };
            header.complete_checksum(&mut frame);
            assert_eq!(frame, [1, 2, 3, 4], "{start} {offset}");
        }
        assert!(VirtioHeader::split(&[0; 9]).is_none());
    }

    #[test]
    fn a_large_segment_is_told_by_its_kind() {
        let header = VirtioHeader::large(66, 1448, 34);
        let expected = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0];
        assert_eq!(header.as_bytes(), expected);
        assert_eq!(header.segment_len(), Some(SegmentLen::Tcp(1448)));
        for (kind, len) in [(1, 0), (0x81, 1448), (3, 1448), (4, 1448), (5, 1448)] {
            let header = VirtioHeader {
                kind,
                segment_len: U16::new(len),
                ..header
            };
            assert_eq!(header.segment_len(), Some(SegmentLen::Unknown), "{kind}");
        }
    }
}
