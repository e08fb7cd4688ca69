//! The TCP header (RFC 9293).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of a segment's header, 20 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// The source port.
    pub source: U16,
    /// The destination port.
    pub destination: U16,
    sequence: U32,
    acknowledgement: U32,
    /// The length of the header, in words of four bytes, in the upper half.
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

impl Tcp {
    /// Parses the start of an IPv4 payload; `None` below 20 bytes.
    #[must_use]
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(payload).ok().map(|(tcp, _)| tcp)
    }

    /// Whether the segment opens a connection.
    #[must_use]
    pub const fn opens_connection(&self) -> bool {
        opens_connection(self.flags)
    }

    /// The header of the segment that resets the connection in answer to this one of `len` bytes,
    /// header included, with a checksum of zero (RFC 9293, 3.5.2). `None` if this resets it too.
    pub(super) fn reset(&self, len: usize) -> Option<Self> {
        if self.flags & RST != 0 {
            return None;
        }
        let data = u32::try_from(len.checked_sub(self.header_len())?).ok()?;
        let syn = u32::from(self.flags & SYN != 0);
        let fin = u32::from(self.flags & FIN != 0);
        let next = [data, syn, fin]
            .into_iter()
            .fold(self.sequence.get(), u32::wrapping_add);
        let (sequence, acknowledgement, flags) = if self.flags & ACK == 0 {
            (U32::ZERO, U32::new(next), RST | ACK)
        } else {
            (self.acknowledgement, U32::ZERO, RST)
        };
        Some(Self {
            source: self.destination,
            destination: self.source,
            sequence,
            acknowledgement,
            data_offset: 5 << 4,
            flags,
            window: U16::ZERO,
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        })
    }

    /// The header of a segment with data, in a connection of nobody.
    pub(super) fn with_data() -> Self {
        Self {
            source: U16::ZERO,
            destination: U16::ZERO,
            sequence: U32::ZERO,
            acknowledgement: U32::ZERO,
            data_offset: 5 << 4,
            flags: ACK,
            window: U16::ZERO,
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        }
    }

    /// The length of the header with its options, in bytes.
    #[inline]
    pub(super) fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4).wrapping_mul(4)
    }

    /// Whether no flag is set but ACK and PSH, and no reserved bit.
    #[inline]
    pub(super) fn is_only_ack(&self) -> bool {
        self.flags & !PSH == ACK && self.data_offset & 0x0f == 0 && self.urgent == U16::ZERO
    }

    #[inline]
    pub(super) const fn is_pushed(&self) -> bool {
        self.flags & PSH != 0
    }

    /// Whether another segment's header is the same but for sequence number, flags and checksum.
    #[inline]
    pub(super) fn is_same_but_for_place(&self, other: &Self) -> bool {
        (self.source, self.destination) == (other.source, other.destination)
            && self.acknowledgement == other.acknowledgement
            && self.data_offset == other.data_offset
            && (self.window, self.urgent) == (other.window, other.urgent)
    }

    /// The sequence number behind so many bytes of data.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sequence numbers wrap around"
    )]
    pub(super) fn sequence_after(&self, len: usize) -> u32 {
        self.sequence.get().wrapping_add(len as u32)
    }

    /// Takes the flags of another segment.
    pub(super) fn take_flags(&mut self, of: &Self) {
        self.flags = of.flags;
    }

    /// Becomes the header of a part that begins `before` bytes into a large segment: FIN and PSH
    /// belong to the last part, and CWR to the first (RFC 3168, 6.1.2). The checksum becomes zero.
    pub(super) fn become_part(&mut self, before: usize, is_first: bool, is_last: bool) {
        self.sequence.set(self.sequence_after(before));
        if !is_last {
            self.flags &= !(FIN | PSH);
        }
        if !is_first {
            self.flags &= !CWR;
        }
        self.set_checksum(0);
    }

    pub(super) fn set_checksum(&mut self, checksum: u16) {
        self.checksum.set(checksum);
    }
}

/// Whether a segment with these flags opens a connection: SYN without ACK, whatever else is set.
#[inline]
pub(super) const fn opens_connection(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

const _: () = assert!(size_of::<Tcp>() == 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_a_whole_header_only() {
        let mut segment = [0; 20];
        segment[..4].copy_from_slice(&[0xc0, 0, 0, 53]);
        let tcp = Tcp::parse(&segment).unwrap();
        assert_eq!((tcp.source.get(), tcp.destination.get()), (0xc000, 53));
        assert!(Tcp::parse(&segment[..19]).is_none());
    }

    #[test]
    fn a_connection_is_opened_by_syn_alone_or_with_what_else_comes_with_it() {
        for (flags, opens) in [
            (0x02, true),
            (0xc2, true), // asks for ECN (RFC 3168)
            (0x0a, true), // with data (RFC 7413)
            (0x03, true), // nonsense that some stacks take
            (0x12, false),
            (0x10, false),
            (0x11, false),
            (0x04, false),
            (0x00, false),
        ] {
            let mut segment = [0; 20];
            segment[13] = flags;
            let tcp = Tcp::parse(&segment).unwrap();
            assert_eq!(tcp.opens_connection(), opens, "{flags:#x}");
        }
    }
}
