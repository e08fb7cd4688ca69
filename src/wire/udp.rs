//! The UDP header (RFC 768, 8 bytes).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header of a datagram.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// The source port.
    pub source: U16,
    /// The destination port.
    pub destination: U16,
    /// Header and data, in bytes. Not checked against the packet here, because a fragment has less.
    pub len: U16,
    /// Zero if the sender computed none.
    pub checksum: U16,
}

impl Udp {
    /// Splits an IPv4 payload into header and data; `None` below 8 bytes.
    #[must_use]
    #[inline]
    pub fn split(payload: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(payload).ok()
    }
}

/// The port of DNS servers.
pub const DNS: u16 = 53;
/// The port of DHCP servers (RFC 2131).
pub const DHCP_SERVER: u16 = 67;
/// The port of PXE boot servers (PXE 2.1, 2.2.3). Their answers go to [`DHCP_CLIENT`].
pub const PXE: u16 = 4011;
/// The port of DHCP clients.
pub const DHCP_CLIENT: u16 = 68;

const _: () = assert!(size_of::<Udp>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split() {
        let (udp, data) = Udp::split(&[0, 68, 0, 67, 0, 9, 0xab, 0xcd, 7]).unwrap();
        assert_eq!(
            (udp.source.get(), udp.destination.get()),
            (DHCP_CLIENT, DHCP_SERVER)
        );
        assert_eq!((udp.len.get(), udp.checksum.get()), (9, 0xabcd));
        assert_eq!(data, [7]);
        assert!(Udp::split(&[0; 7]).is_none());
    }
}
