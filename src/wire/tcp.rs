//! The TCP header (RFC 9293). Only its ports and two flags matter here.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of a segment's header, 20 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// The source port.
    pub source: U16,
    /// The destination port.
    pub destination: U16,
    sequence_and_acknowledgement: [u8; 8],
    data_offset: u8,
    flags: u8,
    rest: [u8; 6],
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
}

/// Whether a segment with these flags opens a connection: SYN without ACK, whatever else is set.
#[inline]
pub(super) const fn opens_connection(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

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
