//! ARP for IPv4 over Ethernet (RFC 826): the only form that a VM needs, 28 bytes.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Mac;
use super::ethernet::ethertype;

/// An ARP message about an IPv4 address and an Ethernet address.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Arp {
    hardware_type: U16,
    protocol_type: U16,
    hardware_len: u8,
    protocol_len: u8,
    /// [`REQUEST`], [`REPLY`], or another operation, which a VM does not need.
    pub operation: U16,
    /// The claimed sender, which receivers believe.
    pub sender_mac: Mac,
    /// The address that the sender claims; 0.0.0.0 in a probe (RFC 5227).
    pub sender: U32,
    /// The receiver of a reply; meaningless in a request.
    pub target_mac: Mac,
    /// The address that is asked for.
    pub target: U32,
}

impl Arp {
    /// Parses the payload of an ARP frame. `None` if it is too short, or if its types and lengths
    /// are not those of Ethernet and IPv4: then the fields would be at other offsets.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<&Self> {
        let (arp, _padding) = Self::ref_from_prefix(bytes).ok()?;
        let ipv4_over_ethernet = arp.hardware_type.get() == ETHERNET
            && arp.protocol_type.get() == ethertype::IPV4
            && arp.hardware_len == 6
            && arp.protocol_len == 4;
        ipv4_over_ethernet.then_some(arp)
    }
}

/// Who has this address?
pub const REQUEST: u16 = 1;
/// I have it.
pub const REPLY: u16 = 2;

const ETHERNET: u16 = 1;

const _: () = assert!(size_of::<Arp>() == 28);

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_FRAME: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 192, 168, 64, 2, 0, 0, 0, 0, 0, 0, 192,
        168, 64, 1,
    ];

    #[test]
    fn a_request_is_read() {
        let arp = Arp::parse(&REQUEST_FRAME).unwrap();
        assert_eq!(arp.operation.get(), REQUEST);
        assert_eq!(arp.sender_mac, Mac([0x52, 0x54, 0, 0, 0, 2]));
        assert_eq!(arp.sender.get(), 0xc0a8_4002);
        assert_eq!(arp.target.get(), 0xc0a8_4001);
    }

    #[test]
    fn other_lengths_and_types_are_refused() {
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (4, 0), (5, 16), (5, 255)] {
            let mut frame = REQUEST_FRAME;
            frame[at] = value;
            assert!(Arp::parse(&frame).is_none(), "byte {at} = {value}");
        }
        assert!(Arp::parse(&REQUEST_FRAME[..27]).is_none());
    }
}
