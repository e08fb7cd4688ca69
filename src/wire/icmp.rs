//! The ICMP header (RFC 792, 8 bytes), and the packet that an error quotes.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;
use super::ipv4::Header;

/// The header of a message. The meaning of its second half depends on the type.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// The type: one of those below, or another.
    pub kind: u8,
    /// The cause of an error.
    pub code: u8,
    checksum: U16,
    /// Only for echo: an identifier that the sender chooses.
    identifier: U16,
    /// Only for [`FRAGMENTATION_NEEDED`]: the largest packet that the next network carries, in
    /// bytes, or zero from a router that does not state it (RFC 1191, 4).
    pub next_hop_mtu: U16,
}

impl Icmp {
    /// Splits an IPv4 payload into header and data; `None` below 8 bytes.
    #[must_use]
    pub fn split(payload: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(payload).ok()
    }

    /// The header of an error that says that a packet was filtered, before a quotation whose words
    /// sum up to `quoted` (RFC 1812, 5.2.7.1: communication administratively prohibited).
    pub(super) fn prohibited(quoted: u16) -> Self {
        let mut header = Self {
            kind: DESTINATION_UNREACHABLE,
            code: ADMINISTRATIVELY_PROHIBITED,
            checksum: U16::ZERO,
            identifier: U16::ZERO,
            next_hop_mtu: U16::ZERO,
        };
        let sum = checksum::add(checksum::sum(header.as_bytes()), quoted);
        header.checksum.set(!sum);
        header
    }

    /// Whether the message reports a packet that did not arrive, and quotes it.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(
            self.kind,
            DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }

    /// For an echo request or reply: whether it is the request, and its identifier.
    #[must_use]
    pub const fn echo(&self) -> Option<(bool, u16)> {
        match self.kind {
            ECHO_REPLY => Some((false, self.identifier.get())),
            ECHO_REQUEST => Some((true, self.identifier.get())),
            _ => None,
        }
    }

    /// Whether the message asks for packets smaller than every network carries (RFC 791, 3.2).
    #[must_use]
    pub const fn has_absurd_mtu(&self) -> bool {
        let mtu = self.next_hop_mtu.get();
        self.kind == DESTINATION_UNREACHABLE
            && self.code == FRAGMENTATION_NEEDED
            && mtu != 0
            && mtu < LEAST_MTU
    }
}

/// The header of the packet that an error quotes. `None` if it is not IPv4 or not there with all
/// its options: then it is unknown whose packet it was.
#[must_use]
pub fn quoted(data: &[u8]) -> Option<&Header> {
    let (header, _) = Header::ref_from_prefix(data).ok()?;
    (data.len() >= header.header_len()?).then_some(header)
}

/// The answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// Asks for an echo reply.
pub const ECHO_REQUEST: u8 = 8;
/// A packet did not reach its destination.
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// The code of [`DESTINATION_UNREACHABLE`] for a packet that a filter has dropped.
const ADMINISTRATIVELY_PROHIBITED: u8 = 13;
/// Send more slowly (withdrawn by RFC 6633).
pub const SOURCE_QUENCH: u8 = 4;
/// There is a better router (RFC 792).
pub const REDIRECT: u8 = 5;
/// Here is a router (RFC 1256).
pub const ROUTER_ADVERTISEMENT: u8 = 9;
/// Where is a router?
pub const ROUTER_SOLICITATION: u8 = 10;
/// A packet was on its way too long.
pub const TIME_EXCEEDED: u8 = 11;
/// A packet's header is wrong.
pub const PARAMETER_PROBLEM: u8 = 12;
/// What time is it?
pub const TIMESTAMP: u8 = 13;
/// The first of four types that RFC 6918 deprecated: queries about a station's network and its
/// mask, and the answers.
pub const INFORMATION_REQUEST: u8 = 15;
/// The last of them.
pub const ADDRESS_MASK_REPLY: u8 = 18;
/// Asks for a host's interfaces, or whether a station is its neighbour (RFC 8335).
pub const EXTENDED_ECHO_REQUEST: u8 = 42;
/// The answer to that.
pub const EXTENDED_ECHO_REPLY: u8 = 43;

/// The code of [`DESTINATION_UNREACHABLE`] for a packet that is too large.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// How far into a message the quoted header may extend: the ICMP header and the longest IPv4
/// header.
pub const QUOTE_END: usize = size_of::<Icmp>() + 60;

/// Every network carries packets of this many bytes (RFC 791, 3.2).
const LEAST_MTU: u16 = 68;

const _: () = assert!(size_of::<Icmp>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// Too large for a network with this MTU.
    fn too_large(mtu: u16) -> [u8; 8] {
        let [high, low] = mtu.to_be_bytes();
        [3, 4, 0, 0, 0, 0, high, low]
    }

    #[test]
    fn an_mtu_below_what_every_network_carries_is_absurd() {
        for (mtu, is_absurd) in [
            (0, false),
            (1, true),
            (67, true),
            (68, false),
            (1400, false),
        ] {
            let message = too_large(mtu);
            let (icmp, _) = Icmp::split(&message).unwrap();
            assert_eq!(icmp.has_absurd_mtu(), is_absurd, "{mtu}");
        }
        // In other messages those bytes mean something else.
        for (at, value) in [(0, 11), (1, 1)] {
            let mut message = too_large(20);
            message[at] = value;
            assert!(!Icmp::split(&message).unwrap().0.has_absurd_mtu());
        }
        assert!(Icmp::split(&too_large(0)[..7]).is_none());
    }

    #[test]
    fn a_quote_is_read_if_its_header_is_whole() {
        let mut packet = [0; 28];
        (packet[0], packet[15], packet[19]) = (0x45, 1, 2);
        let header = quoted(&packet).unwrap();
        assert_eq!((header.source.get(), header.destination.get()), (1, 2));
        assert!(quoted(&packet[..20]).is_some());
        assert!(quoted(&packet[..19]).is_none());
        for (first, is_whole) in [(0x47, true), (0x48, false), (0x44, false), (0x65, false)] {
            packet[0] = first;
            assert_eq!(quoted(&packet).is_some(), is_whole, "{first:#x}");
        }
    }
}
