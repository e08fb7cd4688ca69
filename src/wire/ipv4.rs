//! The IPv4 header (RFC 791): checks its lengths against the frame, and walks over its options.

use std::net::Ipv4Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;
use super::tcp;

/// The fixed part of the header, 20 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    version_and_len: u8,
    service: u8,
    total_len: U16,
    /// Identifies the datagram that a fragment is part of.
    pub identification: U16,
    flags_and_offset: U16,
    time_to_live: u8,
    /// The payload's protocol: one of [`protocol`].
    pub protocol: u8,
    /// One's complement sum over the header.
    pub checksum: U16,
    /// The claimed sender.
    pub source: U32,
    /// The receiver.
    pub destination: U32,
}

impl Header {
    /// The length of the header according to itself, options included, in bytes; `None` if that is
    /// below 20, or for another version.
    #[must_use]
    #[inline]
    pub fn header_len(&self) -> Option<usize> {
        // The low four bits count words of four bytes.
        matches!(self.version_and_len, VERSION_4_WITHOUT_OPTIONS..=0x4f)
            .then(|| usize::from(self.version_and_len & 0x0f).wrapping_mul(4))
    }

    /// The header of a packet of `total_len` bytes without options, with a correct checksum.
    #[must_use]
    pub(crate) fn new(
        protocol: u8,
        total_len: u16,
        source: Ipv4Addr,
        destination: Ipv4Addr,
    ) -> Self {
        let mut header = Self {
            version_and_len: VERSION_4_WITHOUT_OPTIONS,
            service: 0,
            total_len: total_len.into(),
            identification: U16::ZERO,
            flags_and_offset: U16::ZERO,
            time_to_live: TIME_TO_LIVE,
            protocol,
            checksum: U16::ZERO,
            source: U32::new(source.into()),
            destination: U32::new(destination.into()),
        };
        header.checksum.set(!checksum::sum(header.as_bytes()));
        header
    }

    /// The length of the packet according to itself, header included, in bytes.
    #[inline]
    pub(super) fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Whether it is no fragment, and no reserved flag is set.
    #[inline]
    pub(super) fn is_unfragmented(&self) -> bool {
        self.flags_and_offset.get() & !DONT_FRAGMENT == 0
    }

    #[inline]
    pub(super) fn forbids_fragments(&self) -> bool {
        self.flags_and_offset.get() & DONT_FRAGMENT != 0
    }

    /// Whether another header is the same but for length, identification and checksum.
    #[inline]
    pub(super) fn is_same_but_for_length(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.flags_and_offset == other.flags_and_offset
            && (self.version_and_len, self.service) == (other.version_and_len, other.service)
            && (self.time_to_live, self.protocol) == (other.time_to_live, other.protocol)
    }

    /// The sum of the pseudo header of a UDP or TCP packet with `len` bytes behind this header.
    pub(super) fn pseudo_header(&self, len: u16) -> u16 {
        let (source, destination) = (self.source.get(), self.destination.get());
        checksum::pseudo_header(source.into(), destination.into(), self.protocol, len)
    }

    /// Sets the length of the packet, header included, and with it the checksum. The header must
    /// have no options.
    pub(super) fn set_total_len(&mut self, len: u16) {
        self.total_len.set(len);
        self.checksum.set(0);
        self.checksum.set(!checksum::sum(self.as_bytes()));
    }
}

/// A packet whose lengths agree with the bytes of its frame.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a> {
    /// The fixed part of the header.
    pub header: &'a Header,
    /// The options, 0 to 40 bytes.
    pub options: &'a [u8],
    /// What follows the header, up to the packet's total length.
    pub payload: &'a [u8],
    /// How many bytes of the frame follow the packet, as padding.
    pub trailer_len: usize,
}

impl<'a> Ipv4<'a> {
    /// Parses the payload of an IPv4 frame. `None` for another version, if the header length is
    /// below 20 or beyond the total length, or if the frame is too short.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(bytes).ok()?;
        let total_len = usize::from(header.total_len.get());
        let options_len = header.header_len()?.checked_sub(size_of::<Header>())?;
        let len = total_len.checked_sub(size_of::<Header>())?;
        let (packet, trailer) = rest.split_at_checked(len)?;
        let (options, payload) = packet.split_at_checked(options_len)?;
        Some(Self {
            header,
            options,
            payload,
            trailer_len: trailer.len(),
        })
    }

    /// Whether the options are harmless: none, or router alert (RFC 2113) with IGMP, which needs it
    /// to join a group. RSVP and other protocols use it too, but they are not for hosts here, and
    /// every router on the path processes such a packet (RFC 6398).
    ///
    /// RFC 7126 says to drop source routes, record route and timestamp, and no host needs the
    /// others, so all of them are refused, as is an option with a wrong length.
    #[must_use]
    #[inline]
    pub fn has_only_harmless_options(&self) -> bool {
        self.options.is_empty()
            || are_harmless(self.options, self.header.protocol == protocol::IGMP)
    }

    /// The place of this fragment, or `None` for a whole packet.
    #[must_use]
    #[inline]
    pub fn fragment(&self) -> Option<Fragment> {
        let field = self.header.flags_and_offset.get();
        (field & (MORE_FRAGMENTS | OFFSET) != 0).then_some(Fragment {
            offset: usize::from(field & OFFSET).wrapping_mul(8),
            is_last: field & MORE_FRAGMENTS == 0,
        })
    }
}

/// Both headers of a whole packet without options that ends with its frame: 40 bytes, all at fixed
/// offsets. This is as long as the headers of TCP, so one check of the length is enough. UDP
/// datagrams with less than 12 bytes of data do not match.
#[derive(Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Plain {
    /// The IPv4 header.
    pub header: Header,
    /// The source port.
    pub source_port: U16,
    /// The destination port.
    pub destination_port: U16,
    /// Only for UDP.
    datagram_len: U16,
    _other: [u8; 7],
    /// Only for TCP.
    flags: u8,
    _more: [u8; 6],
}

impl Plain {
    /// For TCP, its flags.
    #[must_use]
    #[inline]
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Recognizes such a packet with a few comparisons; most traffic is of this kind. `None` says
    /// nothing about the packet.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<&Self> {
        let (plain, _) = Self::ref_from_prefix(bytes).ok()?;
        let header = &plain.header;
        let is_plain = header.version_and_len == VERSION_4_WITHOUT_OPTIONS
            && header.flags_and_offset.get() & (MORE_FRAGMENTS | OFFSET) == 0
            && usize::from(header.total_len.get()) == bytes.len();
        let len = bytes.len().wrapping_sub(size_of::<Header>());
        let is_right_len = match header.protocol {
            protocol::TCP => true,
            protocol::UDP => len == usize::from(plain.datagram_len.get()),
            _ => false,
        };
        (is_plain && is_right_len).then_some(plain)
    }

    /// Whether it opens a connection, if it is TCP.
    #[must_use]
    #[inline]
    pub const fn opens_connection(&self) -> bool {
        tcp::opens_connection(self.flags)
    }
}

const _: () = assert!(size_of::<Plain>() == size_of::<Header>() + size_of::<tcp::Tcp>());

/// The place of a fragment in its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// How many bytes of the packet's payload precede it: below 65536, a multiple of 8.
    pub offset: usize,
    /// Whether no more fragments follow.
    pub is_last: bool,
}

/// Values of [`Header::protocol`].
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IGMP (RFC 3376).
    pub const IGMP: u8 = 2;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 within IPv4 (RFC 4213).
    pub const IPV6: u8 = 41;
}

#[cold]
fn are_harmless(mut options: &[u8], may_alert: bool) -> bool {
    loop {
        options = match options {
            [] => return true,
            // What follows the end of the list is padding, which is zero (RFC 791, 3.1). A parser
            // that went on after the end would find other options there.
            [END_OF_OPTIONS, padding @ ..] => return padding.iter().all(|byte| *byte == 0),
            [NO_OPERATION, rest @ ..] => rest,
            [ROUTER_ALERT, 4, _, _, rest @ ..] if may_alert => rest,
            _ => return false,
        }
    }
}

const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
/// The value that hosts use (RFC 1700).
const TIME_TO_LIVE: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const ROUTER_ALERT: u8 = 148;

const _: () = assert!(size_of::<Header>() == 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const PACKET: [u8; 28] = [
        0x45, 0, 0, 28, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 192, 168, 64, 2, 8, 8, 8, 8,
        1, 2, 3, 4, 5, 6, 7, 8,
    ];

    fn with(at: usize, value: u8) -> [u8; 28] {
        let mut packet = PACKET;
        packet[at] = value;
        packet
    }

    #[test]
    fn a_packet_is_read() {
        let packet = Ipv4::parse(&PACKET).unwrap();
        assert_eq!(packet.header.protocol, protocol::UDP);
        assert_eq!(packet.header.source.get(), 0xc0a8_4002);
        assert_eq!(packet.header.destination.get(), 0x0808_0808);
        assert_eq!(packet.payload, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(packet.trailer_len, 0);
        assert_eq!(packet.fragment(), None);
    }

    #[test]
    fn plain_packets_are_told_at_a_glance() {
        let mut segment = [0; 40];
        segment[..20].copy_from_slice(&PACKET[..20]);
        segment[3] = 40;
        segment[9] = protocol::TCP;
        segment[23] = 53;
        let plain = Plain::parse(&segment).unwrap();
        assert_eq!(plain.header.destination.get(), 0x0808_0808);
        assert_eq!(plain.destination_port.get(), 53);
        for (at, value) in [
            (0, 0x46),
            (3, 41),
            (3, 39),
            (6, 0x20),
            (7, 1),
            (9, protocol::UDP),
        ] {
            let mut other = segment;
            other[at] = value;
            assert!(Plain::parse(&other).is_none(), "byte {at} = {value}");
        }
        let mut datagram = segment;
        (datagram[9], datagram[25]) = (protocol::UDP, 20);
        assert!(Plain::parse(&datagram).is_some());
        for len in [8, 19, 21] {
            datagram[25] = len;
            assert!(Plain::parse(&datagram).is_none(), "{len}");
        }
        segment[3] = 39;
        assert!(Plain::parse(&segment[..39]).is_none());
        // Shorter than a header, according to its own length.
        (datagram[3], datagram[25]) = (24, 4);
        assert!(Plain::parse(&datagram[..24]).is_none());
        // Whole, but with less data than the view covers.
        (datagram[3], datagram[25]) = (39, 19);
        assert!(Plain::parse(&datagram[..39]).is_none());
    }

    #[test]
    fn padding_is_not_payload() {
        let packet = with(3, 24);
        let packet = Ipv4::parse(&packet).unwrap();
        assert_eq!((packet.payload, packet.trailer_len), (&[1, 2, 3, 4][..], 4));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        // The version, the header length, the total length.
        for (at, value) in [
            (0, 0x55),
            (0, 0x44),
            (0, 0x40),
            (0, 0x48),
            (3, 29),
            (3, 19),
            (2, 1),
        ] {
            assert!(
                Ipv4::parse(&with(at, value)).is_none(),
                "byte {at} = {value}"
            );
        }
        assert!(Ipv4::parse(&PACKET[..27]).is_none());
        assert!(Ipv4::parse(&PACKET[..19]).is_none());
    }

    #[test]
    fn fragments_are_told_from_whole_packets() {
        let place = |at, value| Ipv4::parse(&with(at, value)).unwrap().fragment();
        assert_eq!(
            place(6, 0x20),
            Some(Fragment {
                offset: 0,
                is_last: false
            })
        );
        assert_eq!(
            place(7, 1),
            Some(Fragment {
                offset: 8,
                is_last: true
            })
        );
        assert_eq!(
            place(6, 0x1f),
            Some(Fragment {
                offset: 0x1f00 * 8,
                is_last: true
            })
        );
        assert_eq!(place(6, 0x80), None);
    }

    #[test]
    fn only_router_alert_and_padding_are_harmless() {
        let allowed = |protocol: u8, options: [u8; 4]| {
            let mut packet = [0; 32];
            packet[..20].copy_from_slice(&PACKET[..20]);
            (packet[0], packet[9]) = (0x46, protocol);
            packet[20..24].copy_from_slice(&options);
            Ipv4::parse(&packet).unwrap().has_only_harmless_options()
        };
        for harmless in [[0, 0, 0, 0], [1, 1, 1, 0], [148, 4, 0, 0]] {
            assert!(allowed(protocol::IGMP, harmless), "{harmless:?}");
            let is_alert = harmless[0] == ROUTER_ALERT;
            assert_eq!(allowed(protocol::UDP, harmless), !is_alert, "{harmless:?}");
        }
        for harmful in [
            [131, 3, 4, 0], // loose source route
            [137, 3, 4, 0], // strict source route
            [7, 3, 4, 0],   // record route
            [68, 4, 5, 0],  // timestamp
            [148, 8, 0, 0], // router alert that claims more than there is
            [148, 0, 0, 0],
            [1, 1, 1, 148],
            [0, 131, 3, 4], // behind the end
            [1, 0, 0, 1],
        ] {
            assert!(!allowed(protocol::IGMP, harmful), "{harmful:?}");
        }
    }
}
