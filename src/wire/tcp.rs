//! The TCP header (RFC 9293), of which only the ports matter here.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed part of a segment's header, 20 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// The port that it comes from.
    pub source: U16,
    /// The port that it is for.
    pub destination: U16,
    rest: [u8; 16],
}

impl Tcp {
    /// Reads the start of an IPv4 payload; `None` below 20 bytes.
    #[must_use]
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(payload).ok().map(|(tcp, _)| tcp)
    }
}

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
}
